"""The curves of a training, as the rules of `diagnose` read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_practice.checks.after_training.judging import Judged
from keras_practice.core.types import Array

# A shape needs a beginning, a middle and an end, and each of them more than one point.
MIN_EPOCHS = 4
# With fewer points a noise of its own cannot be told from a bend.
MIN_FOR_NOISE = 8
# A smoothed curve of pure noise stays within about this many deviations of one epoch.
SIGNIFICANT = 3.0
# Jumps of a quarter of all that was gained mean that the last epoch could as well be an early one.
JUMPY = 0.25
# Half of the errors of chance are still there, or nine in ten.
POOR, VERY_POOR = 0.5, 0.9


@dataclass(frozen=True, eq=False)
class Curve:
    """A loss by epoch, with statistics that do not depend on its scale or its zero."""

    epochs: Array
    values: Array

    @cached_property
    def noise(self) -> float:
        """Deviation of one epoch from the trend, by second differences, which no straight line has."""
        rounding = 1e-6 * float(np.abs(self.values).max(initial=0.0))
        if len(self.values) < 4:
            return rounding
        bends = np.abs(np.diff(self.values, 2))
        return max(float(1.4826 * np.median(bends) / math.sqrt(6)), rounding)

    @cached_property
    def smooth(self) -> Array:
        """Medians of three, then means over a tenth of the curve."""
        values = median_of_three(self.values)
        half = len(values) // 20
        if half == 0:
            return values
        padded = np.pad(values, half, mode="edge")
        return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")

    @property
    def best(self) -> int:
        """Index of the lowest point of the trend."""
        return int(self.smooth.argmin())

    @property
    def fall(self) -> float:
        """How far the trend fell to its lowest point; 0 where that is within the noise."""
        fell = float(max(self.values[0], self.smooth[0]) - self.smooth[self.best])
        return fell if fell > SIGNIFICANT * self.noise else 0.0

    @property
    def relative_fall(self) -> float:
        """The fall to the end as a share of the first value; infinite for losses that go below 0."""
        first = float(self.values[0])
        if self.values.min() < 0 or first <= 0:
            return math.inf
        return (first - float(self.smooth[-1])) / first

    def drop(self, begin: int, end: int) -> float:
        """Fall of the trend between two epochs."""
        return float(self.smooth[begin] - self.smooth[end])

    def slope(self, last: int) -> tuple[float, float]:
        """Change an epoch over the last epochs, and how many standard errors that is."""
        part, steps = self.values[-last:], np.arange(last, dtype=float)
        steps -= steps.mean()
        spread = float(steps @ steps)
        change = float(steps @ part) / spread
        return change, change / (self.noise / math.sqrt(spread) or math.inf)

    def jump(self, fall: float) -> float:
        """Usual jump between two epochs, beside the trend, as a share of a fall; 0 where nothing fell."""
        if not np.all(np.isfinite(self.values)) or fall <= 0:
            return 0.0
        return math.sqrt(2) * self.noise / fall


@dataclass(frozen=True)
class TrainingRecord:
    """Everything that the rules look at.

    Attributes:
        train, val: The losses; `val` is `None` without any.
        rates: The learning rate of each epoch, `(epochs,)`; `None` where it is not known.
        history: All numbers an epoch, by name.
        learned: Errors on training and validation data, measured after the training.
        target: The error to reach.
    """

    train: Curve
    val: Curve | None
    rates: Array | None
    history: Mapping[str, Sequence[float]]
    learned: tuple[Judged, Judged | None] | None
    target: float | None

    @property
    def epochs(self) -> int:
        """How many there are."""
        return len(self.train.values)

    @property
    def rate_rises(self) -> bool:
        """Whether the learning rate went up after the first epoch: a warm-up, or restarts."""
        return self.rates is not None and bool(np.any(np.diff(self.rates) > 0))

    @property
    def rate_ran_down(self) -> bool:
        """Whether a schedule is as good as over."""
        return self.rates is not None and float(self.rates[-1]) <= 0.01 * float(self.rates.max())


def curve_of(values: Sequence[float], epochs: int) -> Curve:
    """A loss whose epochs are counted from 1."""
    y = np.asarray(values, dtype=float)
    every = max(1, epochs // len(y))  # Validation may come every second epoch only.
    return Curve(np.arange(1, len(y) + 1) * every, y)


def median_of_three(values: Array) -> Array:
    """Each value as the middle one of it and its neighbours."""
    if len(values) < 3:
        return values
    middle = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    # The ends are drawn towards their neighbours where they stick out.
    return np.concatenate([[np.median([values[0], *values[1:3]])], middle, [np.median(values[-3:])]])
