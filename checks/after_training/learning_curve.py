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

from keras_practice.checks.after_training.mistakes import (
    judge_outputs,
    outputs_of,
    samples_and_task,
    task_for,
)
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.types import Array
from keras_practice.data import Task
from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.rendering.tables import aligned

_SIZES = 6
_PER_CLASS = 2  # Fewer samples a class than this, and some class may not be there at all.
_SMALLEST = 10
_MIN_UPDATES = 1_000  # Adam at its usual rate, 1e-3, moves a weight by up to 1 in so many.
_LOOKS = 20  # Times that a training is looked at, to keep its best weights.
_PATIENCE = 6  # Looks without a better validation loss after which a training ends.
# Exponents of learning curves in practice lie between these (Hestness et al. 2017: 0.07 to 0.35 and up
# to 0.5; sample theory: 0.5 to 1).
_EXPONENTS = np.linspace(0.05, 1.2, 24)
# All sizes are judged on the same samples, most of whose luck is the same for all of them: a half of it,
# three quarters of the variance, moves the curve as a whole, and a half bends it.
_OWN, _COMMON = 0.5, 0.87
_FAR = 1.5  # Deviations from which an error counts as an outlier.
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
        middle = _law(self._fit, n)
        luck = np.random.default_rng(self.seed).normal(size=_DRAWS)
        common = np.clip(1 + _COMMON * self.doubts[-1] / max(self._now, 1e-12) * luck, 0, None)
        low, high = np.percentile(common * [_law(law, n) for law in self._draws], _INTERVAL)
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
        ratios = [_law(law, n) / max(_law(law, n / 2), 1e-12) for law in self._draws]
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
        return _law(self._fit, self.sizes[-1])

    @cached_property
    def _fit(self) -> tuple[float, float, float]:
        floor = max(0.0, min(float(self.train_errors[-1].mean()), float(self.val_errors[-1].mean())))
        return _power_law(self.sizes, self.val_errors.mean(axis=1), self._deviations, floor)

    @cached_property
    def _draws(self) -> list[tuple[float, float, float]]:
        """Laws that would be as good a fit."""
        rng = np.random.default_rng(self.seed)
        means = self.val_errors.mean(axis=1)
        residual = means - np.array([_law(self._fit, n) for n in self.sizes])
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
            draws.append(_power_law(self.sizes[chosen], drawn[chosen], self._deviations[chosen], floor))
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
    for name, value in (
        ("epochs", 1 if epochs is None else epochs),
        ("batch_size", batch_size),
        ("repeats", repeats),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a positive integer. Got {value!r}.")
    rows, task = samples_and_task(train, task)
    held, _ = samples_and_task(val, task)
    chosen: list[int] | None = None if sizes is None else _check_sizes(sizes, len(rows))
    updates = _updates(epochs, math.ceil(len(rows) / batch_size))
    results: list[list[_Result]] = []
    with _bar(verbose) as advance:
        for repeat in range(repeats):
            keras.utils.set_random_seed(seed + repeat)
            model = _built(build, rows)
            task = task_for(model, outputs_of(model, rows.take(slice(0, 2)).x), rows.y, task)
            task.check(rows.y)
            chosen = chosen or _default_sizes(len(rows), task)
            order = _stratified_order(rows.y, task, seed + repeat)
            infer = tf.function(model, reduce_retracing=True)
            variables = [*model.variables, *model.optimizer.variables]
            start = [np.array(variable.numpy()) for variable in variables]
            results.append([])
            for number, size in enumerate(chosen):
                for variable, initial in zip(variables, start, strict=True):
                    variable.assign(initial)
                part = rows.take(order[:size])
                training = _Training(part, held, task, updates, min(batch_size, size), seed + repeat, infer)
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


@dataclass(frozen=True)
class _Result:
    train_error: float
    val_error: float
    doubt: float
    chance: float
    classifies: bool
    unfinished: bool


@dataclass(frozen=True)
class _Training:
    """One training on a part of the data."""

    part: Samples
    held: Samples
    task: Task
    updates: int
    batch_size: int
    seed: int
    infer: Any

    def run(self, model: keras.Model) -> _Result:
        keeper = _Keeper(self.held, self.task, self.infer)
        together = max(1, int(getattr(model, "steps_per_execution", 1) or 1))
        # fit takes whole executions, so a part of one would become one.
        steps = together * max(1, round(self.updates / _LOOKS / together))
        model.stop_training = False
        model.fit(
            self._batches(),
            epochs=max(1, round(self.updates / steps)),
            steps_per_epoch=steps,
            callbacks=[keeper],
            shuffle=False,  # The batches are shuffled already.
            verbose=0,
        )
        keeper.restore()
        train = judge_outputs(model, outputs_of(self.infer, self.part.x), self.part, self.task)
        val = judge_outputs(model, outputs_of(self.infer, self.held.x), self.held, self.task)
        return _Result(
            train.error, val.error, val.doubt, val.chance, self.task.is_classification, keeper.still_improving
        )

    def _batches(self) -> tf.data.Dataset:
        """Batches without end, so that every size has batches of one shape and no small last one."""
        samples: tuple[Any, ...] = (self.part.x, self.part.y)
        if self.part.weight is not None:
            samples = (*samples, self.part.weight)
        count = len(self.part)
        return (
            tf.data.Dataset.range(count)
            .shuffle(count, seed=self.seed, reshuffle_each_iteration=True)
            .repeat()
            .batch(self.batch_size)
            .map(lambda i: keras.tree.map_structure(lambda a: tf.gather(a, i), samples), num_parallel_calls=1)
            .prefetch(2)
        )


class _Keeper(keras.callbacks.Callback):
    """Keeps the weights with the lowest validation loss, and ends a training that finds no better ones."""

    def __init__(self, held: Samples, task: Task, infer: Any) -> None:
        super().__init__()
        self._held, self._task, self._infer = held, task, infer
        self._best, self._since, self._improved = math.inf, 0, 0
        self._weights: list[Array] | None = None

    @property
    def still_improving(self) -> bool:
        """Whether the last looks were clearly better than those before."""
        return self._since == 0 and self._improved >= 3

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        judged = judge_outputs(self.model, outputs_of(self._infer, self._held.x), self._held, self._task)
        loss = float(judged.losses.mean())
        if loss < self._best:
            # A hundredth is less than the last looks should still bring to call them progress.
            self._improved = self._improved + 1 if loss < 0.99 * self._best else 0
            self._best, self._since = loss, 0
            self._weights = [np.array(variable.numpy()) for variable in self.model.variables]
            return
        self._since, self._improved = self._since + 1, 0
        if self._since >= _PATIENCE or not math.isfinite(loss):
            self.model.stop_training = True

    def restore(self) -> None:
        """Sets the best weights."""
        if self._weights is not None:
            for variable, value in zip(self.model.variables, self._weights, strict=True):
                variable.assign(value)


def _built(build: Callable[[], keras.Model], rows: Samples) -> keras.Model:
    model = build()
    if not getattr(model, "compiled", False):
        raise ValueError("build must return a compiled model. Got one that is not compiled.")
    if not model.built:
        model(rows.take(slice(0, 1)).x, training=False)
    model.optimizer.build(model.trainable_variables)
    return model


def _updates(epochs: int | None, steps: int) -> int:
    return max(20 * steps, _MIN_UPDATES) if epochs is None else epochs * steps


def _check_sizes(sizes: Sequence[int], most: int) -> list[int]:
    chosen = sorted({int(size) for size in sizes})
    if not chosen or chosen[0] < 1 or chosen[-1] > most:
        raise ValueError(f"sizes must be between 1 and the {most} training samples. Got {list(sizes)}.")
    return chosen


def _default_sizes(most: int, task: Task) -> list[int]:
    classes = task.num_classes if task.kind in ("binary", "multiclass") else 1
    least = min(most, max(_SMALLEST, _PER_CLASS * classes))
    return sorted({size for i in range(_SIZES) if (size := round(most / 2**i)) >= least})


def _stratified_order(y: Any, task: Task, seed: int) -> Array:
    """An order in which every beginning has the classes' shares of the whole."""
    order = np.random.default_rng(seed).permutation(len(y))
    if task.kind not in ("binary", "multiclass"):
        return order
    classes = task.class_indices(np.asarray(y).reshape(len(y), -1) if task.one_hot else y)
    if len(classes) != len(order):  # Several decisions a sample.
        return order
    place = np.empty(len(order))
    for c in np.unique(classes):
        members = np.flatnonzero(classes[order] == c)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.asarray(order[np.argsort(place, kind="stable")])


def _power_law(sizes: Array, errors: Array, deviations: Array, floor: float) -> tuple[float, float, float]:
    """`(a, b, c)` of `a + b n^-c` with `a >= floor` and `b >= 0`, with little weight on outliers."""
    powers = (sizes / sizes[0]) ** -_EXPONENTS[:, None]  # (exponents, sizes)
    above = errors - floor
    weights = np.broadcast_to(deviations**-2.0, powers.shape)
    for _ in range(4):
        a, b = _two_non_negative(powers, above, weights)
        off = np.abs(a + b * powers - above) / deviations
        # Huber's weights: errors that lie far off count by their distance, not its square.
        weights = np.minimum(1, _FAR / np.maximum(off, 1e-12)) / deviations**2
    costs = np.sum(np.where(off <= _FAR, off**2 / 2, _FAR * off - _FAR**2 / 2), axis=1)
    best = int(costs.argmin())
    c = float(_EXPONENTS[best])
    return floor + float(a[best, 0]), float(b[best, 0]) * float(sizes[0]) ** c, c


def _two_non_negative(powers: Array, errors: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted least squares of `a + b * powers` in each row, with neither below 0."""

    def total(values: Array) -> Array:
        return np.asarray(np.sum(weights * values, axis=1, keepdims=True))

    ones = np.ones_like(powers)
    n, x, xx, y, xy = (total(v) for v in (ones, powers, powers**2, errors * ones, errors * powers))
    determinant = np.maximum(n * xx - x * x, 1e-300)
    a, b = (xx * y - x * xy) / determinant, (n * xy - x * y) / determinant
    # With one of them at its bound, the other has the best value by itself.
    alone = np.maximum(xy / xx, 0)
    b = np.where(a < 0, alone, b)
    a = np.where(b < 0, np.maximum(y / n, 0), np.maximum(a, 0))
    return a, np.maximum(b, 0)


def _law(law: tuple[float, float, float], n: float) -> float:
    a, b, c = law
    return float(a + b * n**-c)


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
