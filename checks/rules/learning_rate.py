"""A learning rate far from what suits the optimiser; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_practice.checks.findings import Finding, Severity
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.optimizer_settings import (
    EPOCHS,
    lengthens,
    number_of,
    rates_of,
    schedule_of,
    steps_of,
    weight_size,
)
from keras_practice.core.steps import innermost

# Points of a schedule for the sum of its steps, more closely at the start.
_FINE = 400
_FEW_STEPS = 100
_FEW_FULL_STEPS = 20
# From here on an average is slower than usual.
SLOW_MOMENTUM = 0.995


@dataclass(frozen=True)
class _Usual:
    """Learning rates that suit an optimiser.

    Attributes:
        rate: The one to begin with.
        high, extreme: Above these a warning and an error are due.
        scale_free: Whether a step is as long as the rate, whatever the gradient's size.
    """

    rate: float
    high: float
    extreme: float
    scale_free: bool


# A step of 0.1 in each weight is as long as the weights themselves (0.04 to 0.2 at 50 to 1,000 inputs).
_ADAM = _Usual(1e-3, 0.03, 0.1, True)
USUAL = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "nadam": _ADAM,
    "rmsprop": _ADAM,
    "lamb": _Usual(1e-3, 0.1, 1.0, True),
    "adamax": _Usual(1e-3, 0.05, 0.3, True),
    "lion": _Usual(1e-4, 0.003, 0.01, True),  # A third to a tenth of Adam's (Chen et al. 2023).
    # Its steps shrink with all gradients so far, and so begin larger.
    "adagrad": _Usual(1e-2, 0.5, 3.0, True),
    # It finds the length of its steps itself, and the rate is a factor of that.
    "adadelta": _Usual(1.0, 10.0, 100.0, False),
    "sgd": _Usual(1e-2, 1.0, 10.0, False),
}


def learning_rate_high(context: CheckContext) -> Iterable[Finding]:
    """A learning rate far above what suits the optimiser.

    Source:
        A23, A24; Kingma and Ba 2015.
    """
    name, usual = _usual(context)
    rates = rates_of(context)
    if usual is None or not rates:
        return []
    highest = max(rates)
    if not all(math.isfinite(rate) for rate in rates):
        return [_rate_finding("learning-rate-high", "error", name, math.nan, usual.rate)]
    effective = highest
    if name == "sgd" and (momentum := _setting(context, "momentum")) < SLOW_MOMENTUM:
        effective *= max(1.0, lengthens(momentum) / 10)  # More than that is the momentum's own fault.
    # Where weights are large, as in nets of a few inputs, so may the steps be.
    whole = weight_size(context) if usual.scale_free else 0.0
    if effective >= usual.extreme and effective >= whole:
        # With clipping the step is bounded, and a large rate can be meant.
        severity: Severity = "warning" if _longest_step(context, highest) < 1 and name == "sgd" else "error"
    elif effective > usual.high:
        severity = "warning"
    else:
        return []
    return [_rate_finding("learning-rate-high", severity, name, highest, usual.rate)]


def learning_rate_low(context: CheckContext) -> Iterable[Finding]:
    """A learning rate that is zero, negative, moves nothing in a hundred epochs, or runs out at once.

    Source:
        A23, A42.
    """
    name, usual = _usual(context)
    rates = rates_of(context)
    if not rates or not all(math.isfinite(rate) for rate in rates):
        return []
    steps = steps_of(context)
    if min(rates) < 0:
        return [_rate_finding("learning-rate-low", "error", name, min(rates), usual.rate if usual else 1e-3)]
    total = float(np.mean(rates)) * steps
    if max(rates) == 0:
        return [_rate_finding("learning-rate-low", "error", name, 0.0, usual.rate if usual else 1e-3)]
    if (short := _runs_out(context, name)) is not None:
        return [short]
    if usual is None:
        return []
    size = weight_size(context)
    severity: Severity | None = None
    if usual.scale_free:
        # All steps together, each in the same direction, against the weights' own size.
        reach = total / size
        severity = "error" if reach < 0.01 else "warning" if reach < 0.1 and max(rates) <= 1e-5 else None
        moved = (
            f"{EPOCHS} epochs can move a weight by {total:.1g} at most, where weights are about {size:.1g}"
        )
    else:
        # Gradients are of any size; a rate that is small by orders is what can be said.
        ratio = max(rates) / usual.rate
        # Adadelta's steps are in the weights' own units, as many times smaller as the rate is below 1.
        hopeless = total < _FEW_FULL_STEPS * usual.rate if name == "adadelta" else total < 0.01
        severity = "error" if ratio <= (1e-2 if name == "adadelta" else 1e-4) and hopeless else None
        if severity is None and ratio <= (1e-2 if name == "adadelta" else 1e-3):
            severity = "warning"
        moved = f"{steps:,} steps ({EPOCHS} epochs) of it add up to {total:.1g}"
    if severity is None:
        return []
    return [_rate_finding("learning-rate-low", severity, name, max(rates), usual.rate, moved)]


def _runs_out(context: CheckContext, name: str) -> Finding | None:
    """A schedule that is over before the data have been seen once: steps were taken for epochs."""
    schedule = schedule_of(context)
    if schedule is None:
        return None
    steps = np.unique(np.geomspace(1, steps_of(context), _FINE).astype(np.int64)) - 1
    rates = np.array([float(np.asarray(schedule(int(step)))) for step in steps])
    highest = float(np.abs(rates).max())
    if not np.all(np.isfinite(rates)) or highest == 0:
        return None
    # All steps together, in steps at the highest rate.
    full = float(np.sum(rates[:-1] * np.diff(steps))) / highest
    epoch = steps_of(context) // EPOCHS
    if full >= min(epoch, _FEW_STEPS):
        return None
    return Finding(
        "learning-rate-low",
        "error",
        "optimizer",
        f"the learning rate of {name} starts at {rates[0]:.3g} and is {rates[-1]:.2g} in the end; all steps "
        f"of {EPOCHS} epochs add up to {full:.3g} at its highest, where an epoch has {epoch:,} and "
        "several epochs are expected.",
        "a schedule that counts steps, and was given a number of epochs.",
        f"multiply the schedule's decay_steps by the {epoch:,} steps of an epoch.",
        "A22, A23",
    )


def _rate_finding(
    check: str, severity: Severity, name: str, rate: float, usual: float, note: str = ""
) -> Finding:
    high = check.endswith("high")
    if high:
        cause = "steps longer than the way to the minimum, which lose what is learned."
    elif rate < 0:
        cause = "a wrong sign: the loss is made larger."
    else:
        cause = "steps too small to get anywhere in a usual training."
    return Finding(
        check,
        severity,
        "optimizer",
        f"the learning rate of {name} is {rate:.3g}"
        + (f", and {note}" if note else "")
        + f"; about {usual:.3g} is expected to begin with.",
        cause,
        f"start at learning_rate={usual:g}, then try others, each 3 times {'smaller' if high else 'larger'}.",
        "A23, A24" if high else "A23, A42",
    )


def _usual(context: CheckContext) -> tuple[str, _Usual | None]:
    name = type(innermost(context.model.optimizer)).__name__
    return name.lower() if name.lower() in USUAL else name, USUAL.get(name.lower())


def _setting(context: CheckContext, name: str) -> float:
    return number_of(innermost(context.model.optimizer), name) or 0.0


def _longest_step(context: CheckContext, rate: float) -> float:
    """The most that clipping lets a step move an array, relative to the array's norm."""
    optimizer = innermost(context.model.optimizer)
    norms = [number_of(optimizer, name) for name in ("clipnorm", "global_clipnorm")]
    norms = [norm for norm in norms if norm]
    arrays = [np.asarray(w, dtype=np.float64) for w in context.model.trainable_variables if len(w.shape) > 1]
    if not norms or not arrays:
        return math.inf
    typical = float(np.median([np.linalg.norm(array) for array in arrays]))
    return rate * min(n for n in norms if n) / typical if typical else math.inf
