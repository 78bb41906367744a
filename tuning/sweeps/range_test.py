"""The range of learning rates at which a model learns, from short trainings in which the rate grows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_practice.checks.inspection.context import context_of
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.trials.short_training import ShortTraining
from keras_practice.checks.trials.train_loop import TrainLoop, copied_optimizer
from keras_practice.core.arguments import check_positive, check_positive_integer
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.tuning.sweeps.rates import log_x, mark, samples_in

_SMOOTH = 0.25  # decades of the rate
# The range goes from where a tenth of the fall has come to where a tenth is still to come.
_EDGE = 0.1
# In this share of a ramp, its beginning, rates are too low to change anything.
_PLATEAU = 0.15
# How far below the loss with shuffled labels the loss must get, in standard errors and as a share of it.
_SURE, _WORTH = 4.0, 0.05
_MIN_STEPS = 50
_RANGE = "#2da44e"


@dataclass(frozen=True, eq=False)
class RangeResult:
    """How the loss went while the learning rate grew, and where the model learns.

    Attributes:
        rates: Learning rate of each step, ascending, `(steps,)`.
        losses: Loss of each step before its update, `(seeds, steps)`; NaN from where it overflows.
        control: The same with shuffled labels, `(seeds, steps)`: what is learned there is
            learned by heart, or is the labels' frequency.
    """

    rates: Array
    losses: Array
    control: Array

    def __post_init__(self) -> None:
        for name in ("rates", "losses", "control"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shape = (len(self.losses), *self.rates.shape)
        if self.rates.ndim != 1 or self.losses.shape != shape or self.control.shape != shape:
            raise ValueError(
                "rates must have shape (steps,), losses and control (seeds, steps). "
                f"Got {self.rates.shape}, {self.losses.shape} and {self.control.shape}."
            )

    @property
    def usable(self) -> bool:
        """Whether there is a range of rates at which the model learns."""
        return not self.reason

    @property
    def low(self) -> float | None:
        """The lowest rate at which learning is under way for every seed; `None` without a usable range."""
        return self._edges[0] if self.usable else None

    @property
    def high(self) -> float | None:
        """The highest rate at which learning has not ended for any seed; `None` without a usable range."""
        return self._edges[1] if self.usable else None

    @property
    def suggestion(self) -> float | None:
        """Where the loss falls most for a change of the rate's logarithm; `None` without a usable range."""
        if not self.usable:
            return None
        slope = np.where((self.rates >= self._edges[0]) & (self.rates <= self._edges[1]), self.slope, np.inf)
        return float(self.rates[np.argmin(slope)])

    @cached_property
    def smoothed(self) -> Array:
        """Each seed's loss, averaged over a quarter of a decade to either side, `(seeds, steps)`."""
        return _smoothed(self.rates, self.losses)

    @cached_property
    def slope(self) -> Array:
        """Change of the seeds' mean smoothed loss for a decade of the rate, `(steps,)`."""
        return np.asarray(np.gradient(self.smoothed.mean(axis=0), np.log10(self.rates)))

    @cached_property
    def reason(self) -> str:
        """Why there is no usable range; `""` if there is one."""
        if not np.isfinite(self.losses[:, 0]).all():
            return "the loss is not a number at the lowest rate already"
        if not np.isfinite(self.smoothed[:, : self._plateau]).all():
            return "the loss overflows at rates that should not move it"
        reached = np.nanmin(self.smoothed, axis=1)
        by_heart = np.nanmin(_smoothed(self.rates, self.control), axis=1)
        spread = np.sqrt((reached.var(ddof=1) + by_heart.var(ddof=1)) / len(reached))
        gain = float(by_heart.mean() - reached.mean())
        if not gain > max(_SURE * spread, _WORTH * abs(by_heart.mean())):
            return (
                f"the loss gets no lower with the right labels ({reached.mean():.3g}) than with "
                f"shuffled ones ({by_heart.mean():.3g})"
            )
        if not (self._starts - reached > _WORTH * np.abs(self._starts)).all():
            return "the loss falls at no rate"
        low, high = self._edges
        if not low < high:
            return "the seeds agree on no rate"
        return ""

    def figure(self) -> Figure:
        """The loss against the learning rate, with the range and the suggestion, and the slope.

        Returns:
            A figure that belongs to no window and no global state.
        """
        control = _smoothed(self.rates, self.control)
        starts = [loss[0] for loss in (_mean(self.smoothed), _mean(control)) if loss[0] > 0]
        top = 1.3 * max(starts) if starts else np.inf  # What runs away leaves the picture.
        mean, shuffled = (np.where(m <= top, m, np.nan) for m in (_mean(self.smoothed), _mean(control)))
        lines = (Line("training", self.rates, mean), Line("shuffled labels", self.rates, shuffled, "dashed"))
        words = f"Learns from {self.low:.2g} to {self.high:.2g}." if self.usable else "No usable range."
        steepest = np.abs(self.slope[np.isfinite(self.slope) & (self.slope < 0)]).max(initial=0.0)
        slope = np.where(np.isfinite(mean) & (self.slope <= steepest), self.slope, np.nan)
        panels = [
            Panel("Loss while the rate grows", lines, "learning rate", "loss", note=words),
            Panel(
                "Slope",
                (Line("slope", self.rates, slope),),
                "learning rate",
                "loss per decade",
                note="Change of the loss for ten times the rate.",
            ),
        ]
        whole = figure(panels)
        for part in whole.subfigs[2:]:
            axes = part.axes[0]
            log_x(axes, self.rates[0], self.rates[-1])
            if self.usable:
                axes.axvspan(*self._edges, color=_RANGE, alpha=0.13, linewidth=0)
        axes = whole.subfigs[2].axes[0]
        for seed in self.smoothed:
            axes.plot(
                self.rates,
                np.where(seed <= top, seed, np.nan),
                color=axes.get_lines()[0].get_color(),
                linewidth=0.8,
                alpha=0.4,
            )
        mark(axes, (("suggestion", self.suggestion, "-"),))
        return whole

    def __str__(self) -> str:
        if not self.usable:
            return f"No usable range: {self.reason}."
        return (
            f"Learning rates from {self.low:.3g} to {self.high:.3g} train this model; "
            f"start with {self.suggestion:.3g} ({len(self.losses)} seeds, {len(self.rates)} steps each)."
        )

    def __repr__(self) -> str:
        if not self.usable:
            return f"RangeResult(usable=False: {self.reason})"
        return f"RangeResult(low={self.low:.3g}, high={self.high:.3g}, suggestion={self.suggestion:.3g})"

    @property
    def _plateau(self) -> int:
        return max(1, round(_PLATEAU * len(self.rates)))

    @property
    def _starts(self) -> Array:
        return np.asarray(self.losses[:, : self._plateau].mean(axis=1))

    @cached_property
    def _edges(self) -> tuple[float, float]:
        """The highest of the seeds' lower edges, and the lowest of their upper ones."""
        lows, highs = [], []
        for start, loss in zip(self._starts, self.smoothed, strict=True):
            end = int(np.nanargmin(loss))
            fallen = (start - loss[: end + 1]) / (start - loss[end])
            # From here on it stays below, which noise in the beginning does not.
            lows.append(self.rates[_last(fallen < _EDGE) + 1])
            highs.append(self.rates[_last(fallen < 1 - _EDGE) + 1])
        return float(max(lows)), float(min(highs))


def learning_rate_range(
    model: keras.Model,
    train: Any,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 200,
    batch_size: int = 32,
    seeds: int = 3,
    seed: int = 0,
) -> RangeResult:
    """Trains a model while the learning rate grows, and says between which rates it learns.

    The rate grows by the same factor in every step. The range goes from where a tenth of
    the loss's fall has come to where a tenth is still to come, in every seed's training;
    the suggestion is where the smoothed loss falls most for a change of the rate's
    *logarithm*. (By the rate itself, the slope is steepest at low rates by nothing but
    scale, and errs by orders of magnitude.) The same trainings with shuffled labels show
    what is only learned by heart: where the right labels get no further, there is no
    usable range.

    It takes a few seconds. The rates that come out suit the beginning of a training; ones
    above the suggestion want a warm-up or a fall later on. The model trains from its own
    weights, with its own loss and a fresh copy of its optimizer. Afterwards weights,
    statistics, seeds and optimizer are as they were, and so is the random state of Python
    and NumPy.

    Args:
        model: A compiled model.
        train: A `data.Split`, or a pair `(x, y)` of arrays; at most 2,048 samples are used.
        lowest: Learning rate of the first step, too low to change anything. Defaults to `1e-7`.
        highest: Learning rate of the last step. Defaults to `10.0`.
        steps: Steps of each training, at least 50. Defaults to `200`.
        batch_size: Samples a batch, up to 128. Defaults to `32`.
        seeds: Trainings, each in an order of its own, at least 2. Defaults to `3`.
        seed: Fixes the orders. Defaults to `0`.

    Returns:
        The range; `print` it, ask whether it is `.usable`, read `.low`, `.high` and
        `.suggestion`, draw its `.figure()`.

    Raises:
        ValueError: If the model is not compiled or brings a `train_step` of its own, its
            optimizer cannot be copied, or an argument is outside its range.

    Example:
        >>> print(tuning.learning_rate_range(model, digits.train))  # doctest: +SKIP
        Learning rates from 0.000418 to 0.0101 train this model; start with 0.00221 (3 seeds, 200 steps each).

    Source:
        A24, A49; Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
    """
    for name, value in (("lowest", lowest), ("highest", highest)):
        check_positive(name, value)
    if not lowest < highest:
        raise ValueError(f"lowest must be below highest. Got {lowest} and {highest}.")
    for name, number, least in (
        ("steps", steps, _MIN_STEPS),
        ("seeds", seeds, 2),
        ("batch_size", batch_size, 1),
    ):
        check_positive_integer(name, number)
        if number < least:
            raise ValueError(f"{name} must be at least {least}. Got {number}.")
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise ValueError("The model must be compiled, since its loss is used. Got an uncompiled model.")
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError("The model must train by Keras's own train_step. Got one of its own.")
    rows = samples_in("train", train)
    rates = np.geomspace(lowest, highest, steps)
    with preserved(model, rows.take(slice(0, 1)).x):
        losses, control = _ramps(model, rows, rates, batch_size, seeds, seed)
    return RangeResult(rates, losses, control)


def _ramps(
    model: keras.Model, rows: Samples, rates: Array, batch_size: int, seeds: int, seed: int
) -> tuple[Array, Array]:
    """Losses with the right labels and with shuffled ones, `(seeds, steps)` each."""
    training = ShortTraining(context_of(model, rows.x, rows.y, batch_size=batch_size, seed=seed))
    optimizer, _ = copied_optimizer(model)
    loop = TrainLoop(training.samples, optimizer, 1.0, gradient_ends=False)
    rng = np.random.default_rng(seed)
    found: list[list[Array]] = [[], []]
    for _ in range(seeds):
        order, shuffled = training.order(len(rates)), rng.permutation(len(training.rows))
        for kept, labels in zip(found, (order, shuffled[order]), strict=True):
            with training.preserved():
                losses = loop.run(order, rates, labels=labels).penalized
            whole = np.full(len(rates), np.nan)
            whole[: len(losses)] = np.where(np.isfinite(losses), losses, np.nan)
            kept.append(whole)
    return np.array(found[0]), np.array(found[1])


def _smoothed(rates: Array, losses: Array) -> Array:
    """Means of each row weighted by a bell over the logarithm of the rate; NaN where a loss is."""
    decades = np.log10(rates)
    bell = np.exp(-0.5 * ((decades[:, None] - decades) / _SMOOTH) ** 2)
    there = np.isfinite(losses)
    weights = np.maximum(there @ bell, np.finfo(float).tiny)
    return np.where(there, (np.where(there, losses, 0.0) @ bell) / weights, np.nan)


def _mean(losses: Array) -> Array:
    """Mean over the seeds; NaN from where one of them has overflowed."""
    return np.asarray(losses.mean(axis=0))


def _last(holds: Array) -> int:
    """The last place at which something holds; -1 for none."""
    places = np.flatnonzero(holds)
    return int(places[-1]) if len(places) else -1
