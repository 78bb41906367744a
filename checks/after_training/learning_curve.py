"""Do I need more data? The errors on growing subsets, and what they say about larger ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keras_practice.checks.after_training.judging import outputs_of, samples_and_task, task_for
from keras_practice.checks.after_training.power_law import law_at, power_law
from keras_practice.checks.after_training.subset_training import (
    SubsetResult,
    SubsetTraining,
    built,
    check_sizes,
    default_sizes,
    stratified_order,
    updates,
)
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.types import Array
from keras_practice.core.variables import all_variables, snapshot
from keras_practice.data import Task
from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.rendering.tables import aligned

# All sizes are judged on the same samples, most of whose luck is the same for all of them: a half of it,
# three quarters of the variance, moves the curve as a whole, and a half bends it.
_OWN, _COMMON = 0.5, 0.87
_DRAWS = 200
_INTERVAL = (5.0, 95.0)
_POOR = 0.5  # Half of chance's errors still made on the training data.
_WORTH = 0.1  # Twice the data should take a tenth off the error to be worth it.


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Errors of models that were trained on growing parts of the training data.

    Attributes:
        sizes: Training samples, ascending, `(sizes,)`.
        train_errors: Error on the samples that were trained on, `(sizes, repeats)`:
            share of wrong decisions, or mean squared error over variance.
        val_errors: Error on the validation data, `(sizes, repeats)`.
        chance: Error of the best constant answer.
        doubts: Standard error of the validation error at each size, from the number
            of validation samples, `(sizes,)`.
        measure: What the error is, in words.
        unfinished: Whether the trainings on all data were still getting better at their end.
        seed: Fixes the bootstrap.
    """

    sizes: Array
    train_errors: Array
    val_errors: Array
    chance: float
    doubts: Array
    measure: str = "share wrong"
    unfinished: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sizes", "train_errors", "val_errors", "doubts"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
        shape = self.val_errors.shape
        if (
            self.val_errors.ndim != 2
            or self.train_errors.shape != shape
            or not (self.sizes.shape == self.doubts.shape == shape[:1])
        ):
            raise ValueError(
                "sizes and doubts must have shape (sizes,) and the errors (sizes, repeats). "
                f"Got {self.sizes.shape}, {self.doubts.shape}, {self.train_errors.shape} and {shape}."
            )

    @property
    def extrapolates(self) -> bool:
        """Whether there is enough to say something about larger sets: four sizes, finite errors."""
        return len(self.sizes) >= 4 and bool(np.all(np.isfinite(self.val_errors)))

    def extrapolate(self, n: float) -> tuple[float, float, float]:
        """The validation error that `n` training samples would give: low, middle and high.

        A power law with an offset, `a + b n^-c`, is fitted to the mean errors, with
        each size as heavy as its scatter allows. The interval holds nine in ten of
        200 fits to errors drawn anew (repeats and validation samples) and to other
        choices of the sizes. It does not know of data of another kind, and ten times
        the data is far for six sizes.

        Args:
            n: Training samples, a positive number.

        Returns:
            `(low, middle, high)`; three NaN where `extrapolates` is false.

        Raises:
            ValueError: If `n` is not positive.

        Source:
            A51; Hestness et al. 2017, "Deep learning scaling is predictable, empirically".
        """
        if not 0 < n < math.inf:
            raise ValueError(f"n must be a positive number. Got {n}.")
        if not self.extrapolates:
            return (math.nan, math.nan, math.nan)
        middle = law_at(self._fit, n)
        luck = np.random.default_rng(self.seed).normal(size=_DRAWS)
        common = np.clip(1 + _COMMON * self.doubts[-1] / max(self._now, 1e-12) * luck, 0, None)
        low, high = np.percentile(common * [law_at(law, n) for law in self._draws], _INTERVAL)
        return (min(float(low), middle), middle, max(float(high), middle))

    @property
    def verdict(self) -> str:
        """Whether more data will help, in a sentence or two."""
        train, val = float(self.train_errors[-1].mean()), float(self.val_errors[-1].mean())
        if not np.all(np.isfinite(self.val_errors)):
            return "It cannot be said whether more data will help: some trainings gave NaN."
        end = " The trainings were still getting better at their end: give more epochs." * self.unfinished
        doubt = float(self.doubts[-1])
        if train > _POOR * self.chance and val - train < train:
            return (
                f"More data will not help yet: the error on the training data themselves is {train:.3g}, "
                f"where chance has {self.chance:.3g}. Get that down first, with a larger model or a "
                f"better training.{end}"
            )
        if val - train <= doubt:
            return (
                f"More data will help little: the validation error, {val:.3g}, has come down to the training "
                f"error, {train:.3g}. A larger model may use the data better.{end}"
            )
        if not self.extrapolates:
            return f"It cannot be said whether more data will help: {len(self.sizes)} sizes are too few.{end}"
        n = 2 * self.sizes[-1]
        low, middle, high = self.extrapolate(n)
        here = f"with twice the data {val:.3g} should become {middle:.3g} ({low:.3g} to {high:.3g})"
        # Each draw beside itself: what moves the whole curve does not matter here.
        ratios = [law_at(law, n) / max(law_at(law, n / 2), 1e-12) for law in self._draws]
        least, most = np.percentile(ratios, _INTERVAL)
        if most < 1 - _WORTH / 2:
            return f"More data will help: {here}.{end}"
        if least > 1 - _WORTH:
            return f"More data will help little, since the error has levelled off: {here}.{end}"
        return (
            f"It cannot be said for sure whether more data will help, for the scatter: {here}. The training "
            f"error is {train:.3g}, so there is room for it: try twice as much.{end}"
        )

    def plot(self) -> Figure:
        """Both errors by the number of samples, and the error to be expected of up to ten times as many.

        Returns:
            A figure that belongs to no window and no global state.
        """
        lines = [
            Line("training", self.sizes, self.train_errors.mean(axis=1)),
            Line("validation", self.sizes, self.val_errors.mean(axis=1)),
        ]
        beyond = np.geomspace(self.sizes[-1], 10 * self.sizes[-1], 25)
        bands = np.array([self.extrapolate(n) for n in beyond])
        if self.extrapolates:
            lines.append(Line("expected", beyond, bands[:, 1], "dashed"))
        panel = Panel(
            "Learning curve",
            tuple(lines),
            x_label="training samples",
            y_label=self.measure,
            note=self.verdict.partition(":")[0] + ".",
        )
        whole = figure([panel])
        axes = whole.subfigs[1].axes[0]
        axes.set_xscale("log")
        axes.set_xlim(
            0.8 * self.sizes[0], 1.7 * max(line.x[-1] for line in lines)
        )  # Room for the last number.
        for line in axes.get_lines()[:2]:
            line.set(marker="o", markersize=4)
        training, validation = (axes.get_lines()[i].get_color() for i in (0, 1))
        for errors, colour in ((self.train_errors, training), (self.val_errors, validation)):
            low, high = errors.min(axis=1), errors.max(axis=1)
            axes.fill_between(self.sizes, low, high, color=colour, alpha=0.18, linewidth=0)
        ticks = list(self.sizes)
        if self.extrapolates:
            axes.fill_between(beyond, bands[:, 0], bands[:, 2], color=validation, alpha=0.1, linewidth=0)
            ticks += [10 * self.sizes[-1]]
        axes.xaxis.set_major_locator(FixedLocator(_spaced(ticks)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: _short(n)))
        return whole

    def __str__(self) -> str:
        rows = [["samples", "training error", "validation error"]]
        for size, train, val in zip(self.sizes, self.train_errors, self.val_errors, strict=True):
            rows.append([f"{size:,.0f}", _mean_and_range(train), _mean_and_range(val)])
        for factor in (2, 10) if self.extrapolates else ():
            low, middle, high = self.extrapolate(factor * self.sizes[-1])
            expected = f"{middle:.3g} ({low:.3g} to {high:.3g}) expected"
            rows.append([f"{factor * self.sizes[-1]:,.0f}", "", expected])
        heading = f"error: {self.measure}, chance {self.chance:.3g}"
        return "\n".join([heading, *aligned(rows, right=[0]), self.verdict])

    @cached_property
    def _deviations(self) -> Array:
        """Standard error of each mean validation error beside the others, which shapes the curve."""
        means, repeats = self.val_errors.mean(axis=1), self.val_errors.shape[1]
        scatter = np.zeros(len(means))
        if repeats > 1:
            # Pooled, relative to the mean: three repeats alone are a poor guess of the spread.
            relative = self.val_errors.std(axis=1, ddof=1) / np.maximum(means, 1e-12)
            scatter = float(np.sqrt(np.mean(relative**2))) * means / math.sqrt(repeats)
        return np.asarray(np.hypot(np.hypot(scatter, _OWN * self.doubts), 1e-6 * self.chance))

    @property
    def _now(self) -> float:
        """The validation error on all data, by the fit."""
        return law_at(self._fit, self.sizes[-1])

    @cached_property
    def _fit(self) -> tuple[float, float, float]:
        floor = max(0.0, min(float(self.train_errors[-1].mean()), float(self.val_errors[-1].mean())))
        return power_law(self.sizes, self.val_errors.mean(axis=1), self._deviations, floor)

    @cached_property
    def _draws(self) -> list[tuple[float, float, float]]:
        """Laws that would be as good a fit."""
        rng = np.random.default_rng(self.seed)
        means = self.val_errors.mean(axis=1)
        residual = means - np.array([law_at(self._fit, n) for n in self.sizes])
        # Where the law does not fit, it is less sure than the scatter says.
        misfit = max(1.0, float(np.sqrt(np.mean((residual / self._deviations) ** 2))))
        draws = []
        for _ in range(_DRAWS):
            chosen = np.unique(rng.integers(len(means), size=len(means)))
            if len(chosen) < 3:
                chosen = np.arange(len(means))
            drawn = np.clip(means + misfit * self._deviations * rng.normal(size=len(means)), 0, None)
            floor = max(0.0, float(rng.choice(self.train_errors[-1])))
            floor = min(floor, float(drawn[chosen].min()))
            draws.append(power_law(self.sizes[chosen], drawn[chosen], self._deviations[chosen], floor))
        return draws


def learning_curve(
    build: Callable[[], keras.Model],
    train: Any,
    val: Any,
    sizes: Sequence[int] | None = None,
    *,
    epochs: int | None = None,
    batch_size: int = 32,
    repeats: int = 3,
    seed: int = 0,
    task: Task | None = None,
    verbose: bool = True,
) -> LearningCurve:
    """Trains a model on growing parts of the data, and says whether more data will help.

    A training on few samples takes as many updates of the weights as one on all of
    them, not as many epochs, or it would end before it has learned what its samples
    say and make the curve look steeper than it is. Of each training the weights
    with the lowest validation loss count, and six looks without a lower one end it, since
    a small set is soon learned by heart. Each repeat has initial weights and an order of
    samples of its own; within it every size starts from the same weights, and a larger
    subset holds the smaller ones, so that sizes are compared like with like.

    Sets the global random seed.

    Args:
        build: Makes a compiled model with one output; called once a repeat.
        train: A `data.Split`, a pair `(x, y)`, or batches (4,096 samples of them).
        val: Validation data in one of these forms.
        sizes: Numbers of training samples. Defaults to `None`: up to six, each half of
            the next, up to all, with the share of each class kept.
        epochs: Passes over all training samples; their number of updates is the most
            that any size gets. Defaults to `None`: 20, or more where that is under
            1,000 updates.
        batch_size: Samples a batch; smaller subsets are one batch. Defaults to `32`.
        repeats: Trainings of each size. Defaults to `3`.
        seed: Fixes initial weights, subsets and orders. Defaults to `0`.
        task: What is predicted. Defaults to `None`: the split's, or what labels and loss say.
        verbose: Whether to show a bar on a terminal. Defaults to `True`.

    Returns:
        The errors; `print` it, read its `.verdict`, draw it by `.plot()`.

    Raises:
        ValueError: If a size is not between 1 and the number of samples, an argument is
            not positive, or the model is not compiled.

    Example:
        >>> curve = checks.learning_curve(build, digits.train, digits.val)  # doctest: +SKIP
        >>> curve.extrapolate(10_000)  # doctest: +SKIP
        (0.009, 0.012, 0.019)

    Source:
        A51; Ng 2018, "Machine learning yearning"; Hestness et al. 2017.
    """
    if epochs is not None:
        epochs = check_positive_integer("epochs", epochs)
    batch_size = check_positive_integer("batch_size", batch_size)
    repeats = check_positive_integer("repeats", repeats)
    samples, task = samples_and_task(train, task)
    held, _ = samples_and_task(val, task)
    chosen: list[int] | None = None if sizes is None else check_sizes(sizes, len(samples))
    most = updates(epochs, math.ceil(len(samples) / batch_size))
    results: list[list[SubsetResult]] = []
    with _bar(verbose) as advance:
        for repeat in range(repeats):
            keras.utils.set_random_seed(seed + repeat)
            model = built(build, samples)
            task = task_for(model, outputs_of(model, samples.take(slice(0, 2)).x), samples.y, task)
            task.check(samples.y)
            chosen = chosen or default_sizes(len(samples), task)
            order = stratified_order(samples.y, task, seed + repeat)
            infer = tf.function(model, reduce_retracing=True)
            start = snapshot(all_variables(model))
            results.append([])
            for number, size in enumerate(chosen):
                start.restore()
                part = samples.take(order[:size])
                training = SubsetTraining(part, held, task, most, min(batch_size, size), seed + repeat, infer)
                results[-1].append(training.run(model))
                advance((repeat * len(chosen) + number + 1) / (repeats * len(chosen)), size)
    last = [repeat[-1] for repeat in results]
    return LearningCurve(
        np.array(chosen),
        np.array([[result.train_error for result in repeat] for repeat in results]).T,
        np.array([[result.val_error for result in repeat] for repeat in results]).T,
        last[0].chance,
        np.array([[result.doubt for result in repeat] for repeat in results]).mean(axis=0),
        "share wrong" if last[0].classifies else "error / variance",
        sum(result.unfinished for result in last) > repeats / 2,
        seed,
    )


@contextmanager
def _bar(verbose: bool) -> Iterator[Callable[[float, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(highlight=False)
    if not (verbose and sys.stdout.isatty() and console.is_terminal):
        yield lambda done, size: None
        return
    columns = (
        TextColumn("learning curve"),
        BarColumn(),
        TextColumn("{task.fields[size]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1.0, size="")
        yield lambda done, size: progress.update(bar, completed=done, size=f"{size:,} samples")


def _spaced(ticks: Sequence[float]) -> list[float]:
    """Those of the ticks that leave each other room, from the right."""
    kept: list[float] = []
    for tick in sorted(ticks, reverse=True):
        if not kept or kept[-1] / tick >= 3.0:
            kept.append(tick)
    return kept[::-1]


def _short(n: float) -> str:
    return f"{n:,.0f}"


def _mean_and_range(values: Array) -> str:
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{values.mean():.3g} ({values.min():.3g} to {values.max():.3g})"
