from dataclasses import dataclass, field

import pytest

from keras_practice.checks.catalog import CATALOG
from keras_practice.checks.findings import Finding
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.hypotheses import Answer, Hypothesis, conclude

COST = 10  # Steps, one a second.


# Any four checks; Finding takes no others.
NAMES = dict(zip("abcd", [check.name for check in CATALOG], strict=False))


def cause(name):
    return Finding(NAMES[name], "error", "model", "this was seen.", "a cause.", "a fix.", "A53")


@dataclass
class Patient:
    """A case whose clock moves on with each training."""

    seconds: float = 1_000.0
    now: float = 0.0
    asked: list = field(default_factory=list)

    def __post_init__(self):
        self.budget = Budget(self.seconds, lambda: self.now)
        self.budget.step_seconds = 1.0


def training(name):
    def run(case):
        if not case.budget.time_for(COST):
            return Answer.OUT_OF_TIME
        case.now += COST
        case.asked.append(name)
        return name

    return run


def hypothesis(name, says, runs=1, when=True, **options):
    """Its verdict is one for all trainings, or one for each by name."""
    names = [f"{name} {i}" for i in range(runs)]

    def verdict(case, seen):
        return says.get(seen) if isinstance(says, dict) else says

    return Hypothesis(name, lambda _: when, tuple(map(training, names)), verdict, **options)


def test_the_first_cause_that_is_shown_explains_the_case():
    case = Patient()
    found = conclude(
        case,
        [
            hypothesis("passed by", cause("a"), when=False),
            hypothesis("refuted", Answer.REFUTED, runs=3),
            hypothesis("undecided", None, runs=2),
            hypothesis("shown", {"shown 1": cause("b")}, runs=3, replaces=("c",)),
            hypothesis("not asked", cause("d")),
        ],
    )
    assert case.asked == ["refuted 0", "undecided 0", "undecided 1", "shown 0", "shown 1"]
    assert (found.answer, found.by, found.findings) == (Answer.EXPLAINED, "shown", [cause("b")])
    assert found.replaces == ("c",)


def test_a_training_that_learns_well_enough_clears_the_case():
    case = Patient()
    found = conclude(case, [hypothesis("learns", Answer.CLEARED), hypothesis("not asked", cause("a"))])
    assert (found.answer, found.by, found.findings) == (Answer.CLEARED, "learns", [])
    assert case.asked == ["learns 0"]


def test_a_case_is_cleared_of_what_was_refuted():
    found = conclude(Patient(), [hypothesis("refuted", Answer.REFUTED)])
    assert (found.answer, found.by) == (Answer.CLEARED, "")


@pytest.mark.parametrize(("seconds", "answer"), [(25.0, Answer.OUT_OF_TIME), (35.0, Answer.EXPLAINED)])
def test_where_time_is_out_nothing_more_is_said(seconds, answer):
    case = Patient(seconds)
    hypotheses = [
        hypothesis("undecided", None, runs=2),
        hypothesis("shown", cause("a")),
        hypothesis("without a training", cause("b"), runs=0),
    ]
    found = conclude(case, hypotheses)
    assert found.answer is answer
    assert found.by == "shown"
    assert len(found.findings) == (answer is Answer.EXPLAINED)


@pytest.mark.parametrize(
    ("last", "answer"), [(cause("a"), Answer.EXPLAINED), (Answer.REFUTED, Answer.OUT_OF_TIME)]
)
def test_what_is_not_needed_may_be_missed_but_does_not_count_as_cleared(last, answer):
    case = Patient(seconds=5.0)
    found = conclude(case, [hypothesis("missed", cause("b"), needed=False), hypothesis("last", last, runs=0)])
    assert found.answer is answer
    assert case.asked == []
