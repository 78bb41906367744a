"""Whether a few samples can be learned by heart, which any sound model can."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.trials.case import STEPS, Case
from keras_practice.checks.trials.hypotheses import Answer
from keras_practice.checks.trials.short_training import ShortTraining, fresh_weights
from keras_practice.core.variables import assign

FEW, MANY = 16, 64
# Where so few samples cannot even be told apart by a fifth of the loss, nothing is learned.
A_LITTLE = 0.2
HALF = 0.5
# With so few weights a correct net can start where it cannot learn.
TINY_NET = 1_000
RESTARTS = 4


@dataclass(frozen=True)
class ByHeart:
    """Whether some samples could be learned by heart, and how near it came.

    Attributes:
        samples: How many.
        learned: Whether they could.
        best: The lowest loss of all tries.
        goal: The loss that a share must be taken off.
        of_first: Whether the goal is the first loss, for want of a constant answer's.
        failed_starts: From how many initial weights it failed before, or in all but the last.
    """

    samples: int
    learned: bool
    best: float
    goal: float
    of_first: bool
    failed_starts: int


def by_heart(count: int, share: float) -> Callable[[Case], ByHeart | Answer | None]:
    """A training on a few samples alone, by sound optimisers and from other starts too.

    Args:
        count: How many samples.
        share: What must be taken off the loss of a constant answer.

    Returns:
        A training for a hypothesis; it gives `None` where there is nothing to learn.
    """

    def run(case: Case) -> ByHeart | Answer | None:
        training = case.training
        rows = training.few(count)
        too_few = len(rows) < 2 or (training.samples.batch or 0) > len(rows)
        if too_few or len(np.unique(training.first_labels(rows))) < 2:
            return None
        reference, best = training.constant_loss(rows), math.inf
        for failed in range(1 + (RESTARTS if case.weights <= TINY_NET else 0)):
            for loop, factor in ((case.adam, 1.0), (case.adam, 10.0), (case.loop, 1.0)):
                if not case.budget.time_for(STEPS):
                    return Answer.OUT_OF_TIME
                with training.preserved():
                    if failed:
                        _restart(training)
                    first = training.evaluate(rows).loss
                    curve = loop.run(training.order(STEPS, rows), factor)
                    end = min(curve.end, training.evaluate(rows).loss) if curve.finite else math.inf
                goal = first if reference is None else reference
                best = min(best, end)
                if end <= goal - share * abs(goal):
                    return ByHeart(len(rows), True, best, goal, reference is None, failed)
        return ByHeart(len(rows), False, best, goal, reference is None, failed)

    return run


def not_by_heart(case: Case, tried: ByHeart | None) -> Finding | None:
    """A few samples that cannot be learned, or only from some starts."""
    if tried is None:
        return None
    if tried.learned:
        return _unlucky(tried.failed_starts) if tried.failed_starts else None
    against = "the first loss" if tried.of_first else "a constant answer"
    return Finding(
        "tiny-overfit",
        "error",
        "model",
        f"{tried.samples} samples alone cannot be learned by heart: after {STEPS} steps the loss "
        f"is {tried.best:.3g}, where {against} gives {tried.goal:.3g} and near 0 is expected, with Adam "
        "too.",
        "a loss or labels that do not suit the output, weights that are all the same, a penalty that is "
        "far too strong, or a gradient that does not reach the weights.",
        "look at the loss and the output layer first, then at penalties and initial weights.",
        "A47, A53; Goodfellow, Bengio and Courville 2016, section 11.5",
    )


def is_small(case: Case) -> bool:
    """Whether a net for classes has so few units, in several layers, that they may be too few."""
    weights = case.weights
    hidden = [call for call in case.training.context.forward_pass.calls if call.layer.trainable_weights]
    # A single layer is a choice of its own, and numbers have noise.
    few = weights <= len(case.training.rows) and weights <= TINY_NET
    return few and len(hidden) >= 2 and case.baseline.classes


def too_small(case: Case, tried: ByHeart | None) -> Finding | None:
    """A net of few units that cannot even learn some samples by heart, so that it must stay poor."""
    if tried is None or tried.learned:
        return None
    train = case.training.context.train
    return Finding(
        "capacity",
        "error",
        "model",
        f"{case.weights} weights learn from {train.total or len(train):,} samples; "
        f"{tried.samples} of them alone cannot be learned by heart from any of {1 + RESTARTS} starts: "
        f"the loss stays at {tried.best:.3g} of {tried.goal:.3g}, where near 0 is expected.",
        "too few units for what has to be told apart.",
        "begin with about as many weights as there are samples.",
        "A54",
    )


def _unlucky(failed: int) -> Finding:
    return Finding(
        "tiny-overfit",
        "warning",
        "model",
        f"a few samples cannot be learned by heart from this start, but from another after {failed} "
        "that failed.",
        "so few units that bad initial weights leave no way out.",
        "use more units, a leaky activation, or another seed.",
        "A47; Goodfellow, Bengio and Courville 2016, section 6.1",
    )


def _restart(training: ShortTraining) -> None:
    values = fresh_weights(training.model)
    if values is not None:
        assign(training.model.trainable_variables, values)
