"""A short training that went badly, and all that it takes to ask why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.trials.baseline import SURE, Baseline
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.hypotheses import Answer
from keras_practice.checks.trials.short_training import Run, ShortTraining
from keras_practice.checks.trials.train_loop import TrainLoop
from keras_practice.core.types import Array

# A short training is as long as a few epochs of a small data set, if time allows;
# after fewer steps nothing is said of a model that has not learned yet.
STEPS = 300
MIN_STEPS = 100
_ADAM_RATE = 1e-3
_NEIGHBOURS = 5
_MAX_NUMBERS_COMPARED = 2_000


@dataclass(frozen=True, eq=False)
class Case:
    """A short training with the model's own optimiser, and what another can be held against.

    Attributes:
        training: The model and its samples.
        baseline: What was seen before.
        budget: The time that is left.
        loop: The model's own optimiser.
        order: Rows of each step of the training, `(steps, batch)`.
        run: How it went.
        known: What was found without running.
    """

    training: ShortTraining
    baseline: Baseline
    budget: Budget
    loop: TrainLoop
    order: Array
    run: Run
    known: Sequence[Finding]

    @property
    def steps(self) -> int:
        """How many steps the training took, unless it overflowed before."""
        return len(self.order)

    @property
    def enough(self) -> bool:
        """Whether these are enough to say something of a model that has not learned."""
        return self.steps >= MIN_STEPS

    @cached_property
    def learned(self) -> bool:
        """Whether the training shows knowledge of the inputs."""
        return self.baseline.learned(self.run)

    @cached_property
    def moved(self) -> bool:
        """Whether it shows some, if not enough."""
        return self.baseline.moved(self.run)

    @cached_property
    def diverged(self) -> bool:
        """Whether the loss has run away."""
        return self.baseline.diverged(self.run)

    @cached_property
    def adam(self) -> TrainLoop:
        """A sound optimiser in place of the model's own."""
        optimizer = keras.optimizers.Adam(_ADAM_RATE, clipnorm=1.0)
        if hasattr(self.training.model.optimizer, "inner_optimizer"):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return TrainLoop(self.training.samples, optimizer, _ADAM_RATE)

    @property
    def weights(self) -> int:
        """Numbers that the model may learn."""
        return sum(math.prod(v.shape) for v in self.training.model.trainable_variables)

    @cached_property
    def informative(self) -> bool:
        """Whether samples with like inputs have like labels, beyond chance."""
        training = self.training
        rows = training.seen
        inputs = [np.asarray(a)[rows].reshape(len(rows), -1) for a in training.rows.inputs.values()]
        if any(a.dtype.kind not in "biuf" for a in inputs):
            return False
        x = np.concatenate([a.astype(np.float64) for a in inputs], axis=1)
        labels = next((part for part in training.labels() if part.size), np.zeros((len(rows), 0)))
        if not labels.size:
            return False
        labels = labels[rows].reshape(len(rows), -1)
        if (
            x.shape[1] > _MAX_NUMBERS_COMPARED
            or len(rows) < 8 * _NEIGHBOURS
            or labels.dtype.kind not in "biuf"
        ):
            return False
        if self.baseline.classes and labels.shape[1] == 1:
            labels = (labels == np.unique(labels)).astype(np.float64)
        centred = labels - labels.mean(axis=0)
        agreement = np.mean(centred[_nearest(x)].mean(axis=1) * centred, axis=1)
        error = float(agreement.std()) / math.sqrt(len(rows))
        mean, variance = float(agreement.mean()), float(np.mean(centred**2))
        return mean > SURE * error and mean > 0.1 * variance


def at_rate(factor: float) -> Callable[[Case], Run | Answer]:
    """The same training with the learning rate times a factor."""
    return lambda case: _another(case, lambda: case.loop, factor)


def with_adam(factor: float) -> Callable[[Case], Run | Answer]:
    """The same training with a sound optimiser, its learning rate times a factor."""
    return lambda case: _another(case, lambda: case.adam, factor)


def _another(case: Case, loop: Callable[[], TrainLoop], factor: float) -> Run | Answer:
    if not case.budget.time_for(case.steps):
        return Answer.OUT_OF_TIME
    return case.training.preserved_run(loop(), case.order, factor)


def _nearest(x: Any) -> Any:
    """The rows whose standardised inputs are most like each row's, `(rows, neighbours)`."""
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-12)
    squares = (x**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    return np.argpartition(distance, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
