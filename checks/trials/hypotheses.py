"""Causes that another training tells, asked one after another until one answer is final."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from keras_practice.checks.findings import Finding

_Case = TypeVar("_Case")


class Answer(Enum):
    """What became of a question; the first three end the search, the last leads on to the next."""

    EXPLAINED = "a cause is shown"
    CLEARED = "no cause is left to be shown: the model would learn, or there is nothing to learn"
    OUT_OF_TIME = "a training that might have told could not be had"
    REFUTED = "it is not this"


@dataclass(frozen=True)
class Hypothesis(Generic[_Case]):
    """A cause, and the trainings that would tell it.

    Attributes:
        name: The cause, or what else ends the search here.
        when: Whether the case so far lets it be asked.
        runs: Trainings, each called with the case; `Answer.OUT_OF_TIME` is for one that cannot be
            had. Without any, the verdict is given on what is known, `None`.
        verdict: What a training says: a finding, which explains the case; an answer; or `None`,
            so that the next training of the same hypothesis is asked.
        needed: Whether what stands below cannot be said without it: where time does not
            suffice, the search ends. Otherwise it goes on.
        replaces: Symptoms that are not worth telling beside this cause.
    """

    name: str
    when: Callable[[_Case], bool]
    runs: tuple[Callable[[_Case], Any], ...]
    verdict: Callable[[_Case, Any], Finding | Answer | None]
    needed: bool = True
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conclusion:
    """How a search ended.

    Attributes:
        answer: `EXPLAINED`, `CLEARED` or `OUT_OF_TIME`.
        by: Name of the hypothesis that ended it; `""` where the last was passed by.
        finding: The cause, where it is explained.
        replaces: Symptoms that are not worth telling beside it.
    """

    answer: Answer
    by: str = ""
    finding: Finding | None = None
    replaces: tuple[str, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """The cause, if there is one."""
        return [] if self.finding is None else [self.finding]


def conclude(case: _Case, hypotheses: Sequence[Hypothesis[_Case]]) -> Conclusion:
    """Asks one hypothesis after another until the case is explained, cleared, or time is out.

    Where every hypothesis is refuted or passed by, the case is cleared of them all, unless
    one of them was only passed by for want of time.
    """
    missed = False
    for hypothesis in hypotheses:
        if not hypothesis.when(case):
            continue
        found = _asked(case, hypothesis)
        if isinstance(found, Finding):
            return Conclusion(Answer.EXPLAINED, hypothesis.name, found, hypothesis.replaces)
        if found is Answer.CLEARED or (found is Answer.OUT_OF_TIME and hypothesis.needed):
            return Conclusion(found, hypothesis.name)
        missed = missed or found is Answer.OUT_OF_TIME
    return Conclusion(Answer.OUT_OF_TIME if missed else Answer.CLEARED)


def _asked(case: _Case, hypothesis: Hypothesis[_Case]) -> Finding | Answer:
    for run in hypothesis.runs or (_nothing,):
        seen = run(case)
        if seen is Answer.OUT_OF_TIME:
            return Answer.OUT_OF_TIME
        found = hypothesis.verdict(case, seen)
        if found is not None:
            return found
    return Answer.REFUTED


def _nothing(case: Any) -> None:
    """No training."""
