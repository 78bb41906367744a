"""What was only suspected before, and a short training bears out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from keras_practice.checks.catalog import CATALOG
from keras_practice.checks.findings import Finding
from keras_practice.checks.trials.case import Case
from keras_practice.checks.trials.short_training import Evaluation
from keras_practice.checks.trials.symptoms import AFTERWARDS, dead_units

_SUSPECTS = tuple(check.name for check in CATALOG if check.suspect)
_SHOWN_BY_TRAINING = tuple(check.name for check in CATALOG if check.shown_by_training)
# Standard errors; less is what chance gives.
_NOTHING_KNOWN = 2.0
_MIN_OF_A_CLASS = 8


def confirmed(case: Case, found: Iterable[Finding]) -> Iterator[Finding]:
    """The suspicions that remain, where no training of another kind has shown the cause."""
    if any(finding.check in _SHOWN_BY_TRAINING and finding.severity == "error" for finding in found):
        return
    end = f"is {case.run.end:.3g}" if math.isfinite(case.run.end) else "is not a finite number"
    seen = (
        f" A short training bears it out: after {case.steps} steps the loss {end}, "
        f"where a constant answer gives {case.baseline.reference:.3g}."
    )
    for finding in _warnings(case, *_SUSPECTS):
        yield replace(finding, severity="error", evidence=finding.evidence + seen)


def learned_by_heart_alone(case: Case, others: Evaluation | None) -> Iterator[Finding]:
    """Labels that the inputs do not seem to tell, where training bears that out on other samples.

    Args:
        case: The training.
        others: The model afterwards, on samples that it was not trained on; `None` without any.
    """
    if others is None or not others.finite:
        return
    held = case.training.held
    knows, error = others.knowledge
    labels = np.unique(case.training.first_labels(held), return_counts=True)[1]
    rare = case.baseline.classes and labels.min() < _MIN_OF_A_CLASS  # Of these chance alone decides.
    if knows > _NOTHING_KNOWN * error or rare:
        return
    for finding in _warnings(case, "uninformative-input"):
        yield replace(
            finding,
            severity="error",
            evidence=f"{finding.evidence} A short training bears it out: after {case.steps} steps the "
            f"loss of its own samples is {case.run.end:.3g}, and that of {len(held)} others, "
            f"{others.loss:.3g}, is no lower than with shuffled labels "
            f"({float(others.shuffled.mean()):.3g}).",
        )


def pushed_to_death(case: Case) -> Iterator[Finding]:
    """A high rate that has killed units which were alive at the start."""
    before, after = case.baseline.start, case.run.evaluation
    killed = any(dead_units(case.training, after, "warning", AFTERWARDS))
    if not killed or any(dead_units(case.training, before, "warning")):
        return
    (name, (share, _)) = max(after.dead.items(), key=lambda item: item[1][0])
    seen = f" After a short training {share:.0%} of the units of {name} are dead; before, few were."
    for finding in _warnings(case, "learning-rate-high"):
        yield replace(finding, severity="error", evidence=finding.evidence + seen)


def _warnings(case: Case, *checks: str) -> Iterator[Finding]:
    return (f for f in case.known if f.severity == "warning" and f.check in checks)
