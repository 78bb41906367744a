"""The causes that another training tells, as tables in the order in which they are asked."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.trials.by_heart import (
    A_LITTLE,
    FEW,
    HALF,
    MANY,
    by_heart,
    is_small,
    not_by_heart,
    too_small,
)
from keras_practice.checks.trials.case import Case, at_rate, with_adam
from keras_practice.checks.trials.hypotheses import Answer, Hypothesis
from keras_practice.checks.trials.short_training import LONG_FIT, USUAL_FIT, Run
from keras_practice.checks.trials.symptoms import diverges, stuck

_LOWER_RATES = (0.1, 0.01, 0.001)
_HIGHER_RATES = (10.0, 100.0, 1e3, 1e5)
_SMOOTH = 10  # steps
# An epoch of fewer steps says nothing of how many epochs there will be.
_MIN_EPOCH = 10
# Layers that leave the numbers in proportion, or come last.
_PASSES_ON = (
    keras.layers.InputLayer,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Activation,
    keras.layers.Softmax,
)


def _rate_too_high(case: Case, lower: Run) -> Finding | Answer | None:
    """Whether smaller steps learn, or at least do not run away."""
    baseline, run = case.baseline, case.run
    runs_away = baseline.diverged(lower)
    calm = case.diverged and lower.end < 0.5 * run.end and not runs_away
    if not (baseline.learned(lower) or calm):
        # No smaller step makes up for one that is too small to show anything.
        hopeless = not runs_away and not case.moved and not case.diverged
        return Answer.REFUTED if hopeless else None
    end = "is not a finite number" if not math.isfinite(run.end) else f"is {run.end:.3g}"
    better = case.loop.rate(lower.factor)
    return Finding(
        "learning-rate-high",
        "error",
        "optimizer",
        f"after {case.steps} steps the loss {end} with learning rate {case.loop.rate():.2g}, and "
        f"{lower.end:.3g} with {better:.2g}; a constant answer gives {baseline.reference:.3g}.",
        "a learning rate so high that each step overshoots.",
        f"set learning_rate={better:.2g}.",
        "A23, A24, A49",
    )


def _rate_too_low(case: Case, higher: Run) -> Finding | Answer | None:
    """Whether much larger steps learn, and if so, whether the user's own would take too long."""
    if case.baseline.diverged(higher):
        return Answer.REFUTED
    if not case.baseline.learned(higher):
        return None
    training = case.training
    smooth = np.convolve(higher.curve.losses, np.full(_SMOOTH, 1 / _SMOOTH), "valid")
    below = np.flatnonzero(smooth <= case.baseline.goal)
    needed = (int(below[0]) + _SMOOTH if len(below) else case.steps) * higher.factor
    if needed <= training.steps_in(USUAL_FIT) or _rises(case):
        return Answer.CLEARED
    hopeless = needed > training.steps_in(LONG_FIT) and training.epoch >= _MIN_EPOCH
    rate, better = case.loop.rate(), case.loop.rate(higher.factor)
    return Finding(
        "learning-rate-low",
        "error" if hopeless else "warning",
        "optimizer",
        f"after {case.steps} steps the loss is {higher.end:.3g} with learning rate {better:.2g}; "
        f"with {rate:.2g} it would take about {needed:.1g} steps, {needed / training.epoch:.2g} epochs, to "
        f"get 10 % below the {case.baseline.reference:.3g} of a constant answer.",
        "a learning rate that is too low for a training of usual length.",
        f"set learning_rate={better:.2g}.",
        "A23, A24, A49",
    )


def _rises(case: Case) -> bool:
    """Whether the rate follows a schedule that has yet to warm up."""
    schedule, steps = case.loop.schedule, case.steps
    if schedule is None:
        return False
    rates = [float(schedule(step)) for step in (0, steps, 3 * steps, 10 * steps, 100 * steps)]
    return max(rates[2:]) > 2 * max(rates[:2])


def _wrong_optimizer(case: Case, other: Run) -> Finding | Answer | None:
    """Whether a sound optimiser learns where the model's own does not at any rate."""
    if not case.baseline.learned(other):
        return None
    # A rate that is too low by any measure is the simpler explanation.
    if case.moved or any(finding.check == "learning-rate-low" for finding in case.known):
        return Answer.CLEARED
    return Finding(
        "optimizer-config",
        "error",
        "optimizer",
        f"after {case.steps} steps the loss is {case.run.end:.3g} with this optimizer, whatever the learning "
        f"rate, and {other.end:.3g} with Adam({case.adam.rate(other.factor):.2g}, clipnorm=1.0); a constant "
        f"answer gives {case.baseline.reference:.3g}.",
        "an extreme setting of the optimizer: clipping, momentum, epsilon or weight decay.",
        'use keras.optimizers.Adam(1e-3, clipnorm=1.0), as recipes.optimizer("adam") makes it.',
        "A20, A21",
    )


def _is_single_layer(case: Case) -> bool:
    calls = case.training.context.forward_pass.calls
    others = [call.layer for call in calls if not call.layer.trainable_weights]
    return len(calls) == len(others) + 1 and all(isinstance(one, _PASSES_ON) for one in others)


def _straight_line(case: Case, _: None) -> Finding:
    return Finding(
        "capacity",
        "error",
        "model",
        f"after {case.steps} steps the loss of this single layer is {case.run.end:.3g}, where a constant "
        f"answer gives {case.baseline.reference:.3g}, at each learning rate and with Adam too; samples with "
        "like inputs have like labels, so that a loss well below is expected.",
        "labels that no weighted sum of the inputs tells apart.",
        "give it a hidden layer, as recipes.mlp does.",
        "A54, A55; Goodfellow, Bengio and Courville 2016, section 6.1",
    )


def _hampered(case: Case, lower: Run) -> Finding | None:
    """Whether smaller steps get twice as far."""
    if not case.baseline.learned(lower) or lower.end >= 0.5 * case.run.end:
        return None
    better = case.loop.rate(lower.factor)
    return Finding(
        "learning-rate-high",
        "warning",
        "optimizer",
        f"after {case.steps} steps the loss is {case.run.end:.3g} with learning rate "
        f"{case.loop.rate():.2g}, and {lower.end:.3g} with {better:.2g}.",
        "steps so large that they pass by the minimum.",
        f"try learning_rate={better:.2g}.",
        "A23, A24, A49",
    )


def _always(_: Case) -> bool:
    return True


NOT_LEARNED: tuple[Hypothesis[Case], ...] = (
    Hypothesis(
        "rate too high",
        when=lambda case: case.diverged or (case.enough and not case.moved),
        runs=tuple(map(at_rate, _LOWER_RATES)),
        verdict=_rate_too_high,
        replaces=("initial-loss",),
    ),
    Hypothesis(
        "diverges at every rate",
        when=lambda case: case.diverged,
        runs=(),
        verdict=lambda case, _: diverges(case.baseline, case.run, case.loop.rate(_LOWER_RATES[-1])),
    ),
    Hypothesis(
        "too few steps to tell",
        when=lambda case: not case.enough,
        runs=(),
        verdict=lambda *_: Answer.OUT_OF_TIME,
    ),
    Hypothesis(
        "rate too low",
        when=_always,
        runs=tuple(map(at_rate, _HIGHER_RATES)),
        verdict=_rate_too_low,
    ),
    Hypothesis(
        "wrong optimizer",
        when=_always,
        runs=(with_adam(1.0), with_adam(10.0)),
        verdict=_wrong_optimizer,
    ),
    Hypothesis(
        "learns, if slowly",
        when=lambda case: case.moved,
        runs=(),
        verdict=lambda *_: Answer.CLEARED,
    ),
    Hypothesis(
        "not told by a straight line",
        when=lambda case: _is_single_layer(case) and case.informative,
        runs=(),
        verdict=_straight_line,
    ),
    Hypothesis(
        "not even by heart",
        when=_always,
        runs=(by_heart(FEW, A_LITTLE),),
        verdict=not_by_heart,
        needed=False,
    ),
    Hypothesis(
        "nothing to be learned from the inputs",
        when=lambda case: not case.informative,
        runs=(),
        verdict=lambda *_: Answer.CLEARED,
    ),
    Hypothesis(
        "too small",
        when=is_small,
        runs=(by_heart(MANY, HALF),),
        verdict=too_small,
        needed=False,
    ),
    Hypothesis(
        "stuck",
        when=_always,
        runs=(),
        verdict=lambda case, _: stuck(case.baseline, case.run, case.steps),
    ),
)
"""Of a model that has not learned in a short training."""

POOR: tuple[Hypothesis[Case], ...] = (
    Hypothesis("hampered by its rate", when=_always, runs=(at_rate(0.1),), verdict=_hampered),
    Hypothesis("too small", when=is_small, runs=(by_heart(MANY, HALF),), verdict=too_small, needed=False),
)
"""Of a model that has learned, but not well."""
