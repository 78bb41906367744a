"""What the curves of a training say, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_practice.callbacks.direction import direction
from keras_practice.checks.after_training.mistakes import Judged, judge
from keras_practice.checks.findings import Finding, Report, Severity, gravest_first
from keras_practice.core.types import Array
from keras_practice.data import Dataset, Task

# A shape needs a beginning, a middle and an end, and each of them more than one point.
_FEWEST = 4
# With fewer points a noise of its own cannot be told from a bend.
_MIN_FOR_NOISE = 8
# A smoothed curve of pure noise stays within about this many deviations of one epoch.
_SIGNIFICANT = 3.0
# Jumps of a quarter of all that was gained mean that the last epoch could as well be an early one.
_JUMPY = 0.25
# An exponential fall whose second half still brings this share of the first has come less than halfway.
_STRAIGHT = 0.75
# As much as this of the first loss gained, and progress is not slow, however straight.
_SLOW = 0.5
# Less than a tenth of the first loss gained is next to nothing.
_NOTHING = 0.1
# A rise of the validation loss by these shares of the fall is worth a word, and costs something.
_RISE, _COSTLY_RISE = 0.1, 0.3
# Half of the errors of chance are still there, or nine in ten.
_POOR, _VERY_POOR = 0.5, 0.9
# A fifth of what was learned does not carry over to new data; the loss, which counts confidence, gets more.
_GAP, _LOSS_GAP = 0.2, 0.3
# More of the same training is worth it where the next quarter brings a twentieth of the fall so far.
_WORTH = 0.05
_MAX_SAMPLES = 4_096


@dataclass(frozen=True, eq=False)
class _Curve:
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
        values = _median_of_three(self.values)
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
        return fell if fell > _SIGNIFICANT * self.noise else 0.0

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


@dataclass(frozen=True)
class _Story:
    """Everything that the rules look at."""

    train: _Curve
    val: _Curve | None
    rates: Array | None
    history: Mapping[str, Sequence[float]]
    learned: tuple[Judged, Judged | None] | None
    target: float | None

    @property
    def epochs(self) -> int:
        return len(self.train.values)

    @property
    def rate_rises(self) -> bool:
        """Whether the learning rate went up after the first epoch: a warm-up, or restarts."""
        return self.rates is not None and bool(np.any(np.diff(self.rates) > 0))

    @property
    def rate_ran_down(self) -> bool:
        return self.rates is not None and float(self.rates[-1]) <= 0.01 * float(self.rates.max())


def diagnose(
    history: Any,
    model: keras.Model | None = None,
    data: Any = None,
    *,
    task: Task | None = None,
    target: float | None = None,
) -> Report:
    """Reads the curves of a training: what went wrong, and what to do next.

    Curves are judged by their shape: falls, rises and jumps are compared with
    each other and with the noise of the curve, so that the scale of the loss does not
    matter. With `model` and `data` the errors on both sets are measured in
    inference, since the training loss in the history was taken with dropout on and
    while the weights were still changing, and compared with chance: the most common
    class, or the mean.

    Findings: `loss-diverges`, `learning-rate-high`, `learning-rate-low`, `plateau`,
    `overfitting`, `noisy-curve`, `still-improving`, `high-bias`, `high-variance`,
    `too-few-epochs`. A healthy training has none, or a hint such as `still-improving`.

    The model is not changed.

    Args:
        history: What `fit` returns, or its `.history`: a list of numbers an epoch by
            name, with `"loss"` among the names. `"val_loss"` and `"learning_rate"` are
            used where they are there.
        model: The trained model. Defaults to `None`: the curves alone.
        data: A `data.Dataset`, or a pair `(train, val)` whose parts are a `data.Split`,
            a pair `(x, y)`, or batches; `val` may be `None`. Given beside a model.
            At most 4,096 samples of each are used.
        task: What is predicted. Defaults to `None`: the data set's, or what labels and loss say.
        target: The error to reach, above 0: a share of wrong decisions, or the mean
            squared error over the variance. Defaults to `None`: judged by chance.

    Returns:
        A report, most severe first. Its figures: `epochs`, `best_epoch` (from 1),
        `first_loss`, `last_loss`, `jump` (usual jump between epochs as a share of
        the fall), `val_rise` (rise of the validation loss since its lowest point as a
        share of the fall), and where they were measured `train_error`, `val_error`
        and `chance_error`.

    Raises:
        ValueError: If the history has no loss, or one of model and data is given without the other.

    Example:
        >>> history = model.fit(digits.train.batches(64), epochs=20)  # doctest: +SKIP
        >>> print(checks.diagnose(history, model, digits))  # doctest: +SKIP

    Source:
        A49, A50, A51, A53, A54; Goodfellow, Bengio and Courville 2016, sections 11.3 to 11.5.
    """
    story = _read(history, model, data, task, target)
    findings: list[Finding] = []
    for rule in (_diverges, _rate_high, _plateau, _rate_low, _fit, _overfitting, _noisy, _improving, _short):
        names = {finding.check for finding in findings}
        findings += rule(story, names)
    return Report(tuple(gravest_first(findings)), MappingProxyType(_figures(story)))


def _read(
    history: Any, model: keras.Model | None, data: Any, task: Task | None, target: float | None
) -> _Story:
    logs = history if isinstance(history, Mapping) else getattr(history, "history", None)
    if not isinstance(logs, Mapping):
        raise ValueError(
            f"history must be what fit returns, or its .history. Got a {type(history).__name__}."
        )
    if "loss" not in logs or len(logs["loss"]) == 0:
        raise ValueError(f"history must hold a loss for each epoch. Got {', '.join(logs) or 'nothing'}.")
    if (model is None) != (data is None):
        raise ValueError("model and data must be given together, to measure the errors. Got one of them.")
    if target is not None and not 0 < target < math.inf:
        raise ValueError(f"target must be a positive number. Got {target}.")
    train = _curve(logs["loss"], len(logs["loss"]))
    val = _curve(logs["val_loss"], len(train.values)) if len(logs.get("val_loss", ())) else None
    rates = np.asarray(logs.get("learning_rate", logs.get("lr", ())), dtype=float)
    learned = None if model is None else _measure(model, data, task)
    return _Story(train, val, rates if len(rates) == len(train.values) else None, logs, learned, target)


def _curve(values: Sequence[float], epochs: int) -> _Curve:
    y = np.asarray(values, dtype=float)
    every = max(1, epochs // len(y))  # Validation may come every second epoch only.
    return _Curve(np.arange(1, len(y) + 1) * every, y)


def _measure(model: keras.Model, data: Any, task: Task | None) -> tuple[Judged, Judged | None]:
    if isinstance(data, Dataset):
        train, val = data.train, data.val
    elif isinstance(data, (tuple, list)) and len(data) == 2:
        train, val = data
        if hasattr(train, "shape") and hasattr(val, "shape"):
            raise ValueError("data must be a data.Dataset or a pair (train, val). Got a pair of arrays.")
    else:
        raise ValueError(f"data must be a data.Dataset or a pair (train, val). Got {type(data).__name__}.")
    first = judge(model, train, task, _MAX_SAMPLES)
    return first, None if val is None else judge(model, val, task or first.task, _MAX_SAMPLES)


def _diverges(story: _Story, _: set[str]) -> Iterator[Finding]:
    for name, curve in (("loss", story.train), ("val_loss", story.val)):
        if curve is None or np.all(np.isfinite(curve.values)):
            continue
        at = int(np.flatnonzero(~np.isfinite(curve.values))[0])
        begin = "from the first epoch on" if at == 0 else f"from epoch {curve.epochs[at]} on"
        yield Finding(
            "loss-diverges",
            "error",
            name,
            f"{name} is {curve.values[at]} {begin}, where a finite number is expected.",
            "NaN or infinity in the data, or a loss that overflows."
            if at == 0
            else "steps that are too large.",
            "look for NaN in x and y, and standardise x."
            if at == 0
            else "divide the learning rate by 10 and clip the gradient (clipnorm=1.0).",
            "A49, A21; Pascanu, Mikolov and Bengio 2013",
        )
        return
    curve = story.train
    if len(curve.values) < _FEWEST or story.rate_rises:
        return
    last = float(np.min(curve.values[-2:]))  # One bad epoch at the end is a jump, not a trend.
    rise = last - float(curve.smooth[curve.best])
    since = curve.epochs[curve.best]
    if rise > max(_POOR * curve.fall, 2 * _SIGNIFICANT * curve.noise) and len(curve.values) - curve.best > 2:
        worse = last >= float(curve.values[0])
        if not worse and curve.fall == 0:
            return
        yield Finding(
            "loss-diverges",
            "error" if worse and not curve.fall else "warning",
            "loss",
            f"the training loss rises from {curve.smooth[curve.best]:.4g} in epoch {since} to "
            f"{last:.4g} at the end, where it should fall or stay.",
            "a learning rate that is too high for this point of the training.",
            "divide the learning rate by 3 to 10, and clip the gradient (clipnorm=1.0).",
            "A49, A21; Goodfellow, Bengio and Courville 2016, section 11.4.1",
        )


def _rate_high(story: _Story, names: set[str]) -> Iterator[Finding]:
    curve = story.train
    if len(curve.values) < _FEWEST or "loss-diverges" in names or story.rate_rises:
        return
    seen = _early_rise(curve) or _spikes(curve) or _bounces(curve) or _worse_than_nothing(story)
    if seen:
        yield Finding(
            "learning-rate-high",
            "warning",
            "loss",
            seen,
            "a learning rate that is too high: steps jump over the valley instead of going down into it.",
            "divide the learning rate by 3 to 10; if jumps stay, clip the gradient or double the batch.",
            "A49; Goodfellow, Bengio and Courville 2016, section 11.4.1",
        )


def _early_rise(curve: _Curve) -> str:
    early = curve.values[1 : max(2, len(curve.values) // 4) + 1]
    rise = float(early.max()) - float(curve.values[0])
    fall = float(max(curve.values[0], early.max()) - curve.smooth[curve.best])
    if rise > max(_JUMPY * fall, 2 * _SIGNIFICANT * curve.noise):
        return (
            f"the training loss rises early, from {curve.values[0]:.4g} to {early.max():.4g}, "
            "where it should fall from the first epoch on."
        )
    return ""


def _spikes(curve: _Curve) -> str:
    """Single epochs far above both of their neighbours."""
    if len(curve.values) < _MIN_FOR_NOISE or curve.fall == 0:
        return ""
    above = np.zeros(len(curve.values))
    above[1:-1] = curve.values[1:-1] - np.maximum(curve.values[:-2], curve.values[2:])
    at = int(above.argmax())
    if above[at] > max(_POOR * curve.fall, 2 * _SIGNIFICANT * curve.noise):
        return (
            f"the training loss jumps by {above[at] / curve.fall:.0%} of its whole fall in epoch "
            f"{curve.epochs[at]}, where jumps should be below {_JUMPY:.0%}."
        )
    return ""


def _bounces(curve: _Curve) -> str:
    if len(curve.values) < _MIN_FOR_NOISE:
        return ""
    # Where nothing fell for sure, the jumps are beside the loss itself.
    scale, words = curve.fall, "of its whole fall"
    if curve.fall == 0:
        scale, words = float(np.median(np.abs(curve.values))), "of itself"
    jump = _jump(curve, scale)
    if jump <= _JUMPY:
        return ""
    return (
        f"the training loss goes up and down by {jump:.0%} {words} from epoch to epoch, "
        f"where less than {_JUMPY:.0%} is usual."
    )


def _worse_than_nothing(story: _Story) -> str:
    """A loss far above that of knowing nothing, in a training that ended with nothing learned."""
    if story.learned is None or story.learned[0].error < _VERY_POOR * story.learned[0].chance:
        return ""
    judged = story.learned[0]
    if judged.task.kind not in ("binary", "multiclass"):
        return ""
    shares = np.bincount(judged.truth) / len(judged.truth)
    chance = float(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
    highest = float(story.train.values.max())
    # Penalties on weights are in the loss of the history and not in chance's, so twice, not once.
    if highest > 2 * chance:
        return (
            f"the training loss was as high as {highest:.4g}, where knowing nothing gives {chance:.4g}, "
            "and the model ended no better than chance."
        )
    return ""


def _plateau(story: _Story, names: set[str]) -> Iterator[Finding]:
    curve = story.train
    if len(curve.values) < _FEWEST or names & {"loss-diverges", "learning-rate-high"}:
        return
    flat_since = _flat_since(curve)
    if flat_since is None:
        return
    tail = len(curve.values) - flat_since
    little = curve.fall == 0 or curve.relative_fall < _NOTHING
    if little and 2 * tail >= len(curve.values):
        good = story.learned is not None and story.learned[0].error < _POOR * story.learned[0].chance
        yield Finding(
            "plateau",
            "info" if good else "warning",
            "loss",
            f"the training loss stays at {curve.smooth[-1]:.4g} after {curve.values[0]:.4g} in the first "
            f"epoch, where it should fall well below that.",
            "a learning rate far too high or too low, no gradient in the weights, or labels that have "
            "nothing to do with the inputs.",
            "run checks.simplify, which tells these apart, and a learning-rate range test.",
            "A49, A53",
        )
    elif not little and tail >= 10 and 2 * tail >= len(curve.values) and curve.relative_fall < _VERY_POOR:
        yield Finding(
            "plateau",
            "info",
            "loss",
            f"the training loss has stayed near {curve.smooth[-1]:.4g} since epoch "
            f"{curve.epochs[flat_since]} of {story.epochs}; more epochs like these change little.",
            "the model has learned what it can at this learning rate.",
            "divide the learning rate by 3 to 10 on plateaus; if that brings nothing, use a larger model.",
            "A49, A54",
        )


def _flat_since(curve: _Curve) -> int | None:
    """The first epoch after which the trend does not change by more than the noise or 2 % of the fall."""
    rest = np.abs(curve.smooth - np.median(curve.smooth[-3:]))
    margin = max(_SIGNIFICANT * curve.noise, 0.02 * float(np.ptp(curve.smooth)))
    moving = np.flatnonzero(rest > margin)
    begin = int(moving[-1]) + 1 if len(moving) else 0
    tail = len(curve.values) - begin
    if tail < _FEWEST:
        return None
    # The first epoch began with weights that had learned nothing, and is often far above the rest.
    change, errors = curve.slope(min(tail, len(curve.values) - 1))
    # A slow fall hidden in the noise is no plateau.
    return None if change < 0 and errors < -4.0 and -change * tail > curve.noise else begin


def _rate_low(story: _Story, names: set[str]) -> Iterator[Finding]:
    curve = story.train
    if len(curve.values) < _FEWEST + 1 or names & {"loss-diverges", "learning-rate-high", "plateau"}:
        return
    middle = len(curve.values) // 2
    first, second = curve.drop(0, middle), curve.drop(len(curve.values) - 1 - middle, -1)
    change, errors = curve.slope(len(curve.values) - 1)
    if change >= 0 or errors > -4.0 or curve.relative_fall > _SLOW or story.rate_rises:
        return
    # A late start, slow and then faster, is a curve that has found its way.
    if not _STRAIGHT <= second / max(first, 1e-300) <= 1 / _STRAIGHT**2:
        return
    yield Finding(
        "learning-rate-low",
        "warning",
        "loss",
        f"the training loss falls almost in a straight line, by {curve.relative_fall:.1%} in {story.epochs} "
        f"epochs, and the second half brings {second / first:.0%} of the first, where a curve bends.",
        "a learning rate that is too low for this number of epochs.",
        "multiply the learning rate by 3 to 10, and see in a range test how high it can go.",
        "A49; Smith 2017, 'Cyclical learning rates'",
    )


def _fit(story: _Story, names: set[str]) -> Iterator[Finding]:
    """Bias and variance: measured where that is possible, else what the losses show."""
    if story.learned is None:
        yield from _gap_of_losses(story, names)
        return
    train, val = story.learned
    yield from _bias(story, train, names)
    if val is None:
        return
    gap, learned = val.error - train.error, train.chance - train.error
    sure = gap > 2 * math.hypot(val.doubt, train.doubt)
    large = gap > _GAP * max(learned, 0.0)
    if story.target is not None:
        large = val.error > story.target and gap > train.error - story.target
    if sure and large and learned > 2 * train.doubt:
        lost = f"{gap / learned:.0%} of what was learned does not carry over, where {_GAP:.0%} is much"
        if story.target is not None:
            lost = f"{story.target:.3g} is asked for"
        yield Finding(
            "high-variance",
            "warning",
            "model",
            f"the error is {train.error:.3g} on training and {val.error:.3g} on validation data "
            f"(chance {val.chance:.3g}): {lost}.",
            "more parameters than the data can pin down, or validation data of another kind.",
            "get more data (see checks.learning_curve) or augment them, then more dropout or weight decay.",
            "A50, A51",
        )


def _bias(story: _Story, train: Judged, names: set[str]) -> Iterator[Finding]:
    left = train.error / train.chance if train.chance else 0.0
    severity: Severity | None = None
    if train.error >= train.chance - 2 * train.doubt and left > _VERY_POOR:
        severity = "error"
    elif left > _VERY_POOR or (story.target is not None and train.error > story.target):
        severity = "warning"
    elif story.target is None and left > _POOR:
        severity = "info"
    if severity is None:
        return
    expected = f"{story.target:.3g} is asked for" if story.target is not None else "well below it is expected"
    cause = "a model that is too small or too strongly regularised, or labels that the inputs do not explain."
    fix = "grow the model without regularisation until it overfits, then add batch norm and dropout."
    source = "A50, A54"
    if names & {"learning-rate-high", "learning-rate-low", "loss-diverges", "plateau"}:
        cause, fix = "the training did not get far; see the curve.", "mend the curve first, then train again."
    elif severity == "error":
        cause = "a model that does not learn, or labels that have nothing to do with the inputs."
        fix, source = "run checks.simplify: it finds the step at which learning ends.", "A50, A53"
    yield Finding(
        "high-bias",
        severity,
        "model",
        f"the error on the training data themselves is {train.error:.3g}, where chance has "
        f"{train.chance:.3g} and {expected}. More data would not help.",
        cause,
        fix,
        source,
    )


def _gap_of_losses(story: _Story, names: set[str]) -> Iterator[Finding]:
    train, val = story.train, story.val
    if val is None or len(val.values) < _FEWEST or "loss-diverges" in names or train.fall == 0:
        return
    at = val.best
    here = int(np.searchsorted(train.epochs, val.epochs[at]))
    gap = float(val.smooth[at] - train.smooth[min(here, len(train.smooth) - 1)])
    if gap > max(_LOSS_GAP * train.fall, _SIGNIFICANT * max(val.noise, train.noise)):
        yield Finding(
            "high-variance",
            "info",
            "val_loss",
            f"at its best, in epoch {val.epochs[at]}, the validation loss is above the training loss by "
            f"{gap / train.fall:.0%} of the fall of the latter, where less than {_LOSS_GAP:.0%} is usual.",
            "more parameters than the data can pin down, or validation data of another kind.",
            "give diagnose the model and the data to be sure, then more data, augmentation or dropout.",
            "A50, A51",
        )


def _overfitting(story: _Story, names: set[str]) -> Iterator[Finding]:
    val, train = story.val, story.train
    if val is None or len(val.values) < _FEWEST or names & {"loss-diverges", "learning-rate-high"}:
        return
    rise = _val_rise(story)
    best = val.best
    here = min(int(np.searchsorted(train.epochs, val.epochs[best])), len(train.smooth) - 1)
    since = len(val.values) - 1 - best
    if rise < _RISE or since < 3 or train.smooth[-1] >= train.smooth[here]:
        return
    lowest = int(val.values.argmin())
    kept = _best_decisions(story.history)
    over_sure = kept is not None and kept[1] > best + since // 2
    severity: Severity = "warning" if rise > _COSTLY_RISE and not over_sure else "info"
    yield Finding(
        "overfitting",
        severity,
        "val_loss",
        f"val_loss is lowest, {val.values[lowest]:.4g}, in epoch {val.epochs[lowest]}, and rises to "
        f"{val.values[-1]:.4g} by epoch {val.epochs[-1]} while the training loss falls on: a rise by "
        f"{rise:.0%} of the fall, where below {_RISE:.0%} is expected.",
        f"probabilities that grow too sure; {kept[0]} itself is best in epoch {val.epochs[kept[1]]}."
        if over_sure and kept is not None
        else "the model learns the training samples by heart.",
        "monitor the score that counts, or use label smoothing or weight decay."
        if over_sure
        else "keep the weights of the best epoch (callbacks.best_weights), then more data or dropout.",
        "A49, A32; Prechelt 1998",
    )


def _val_rise(story: _Story) -> float:
    """Rise of the validation loss since its lowest point as a share of the fall; 0 within the noise."""
    val, train = story.val, story.train
    if val is None or len(val.values) < _FEWEST or not np.all(np.isfinite(val.values)):
        return 0.0
    rise = float(np.median(val.values[-3:]) - val.smooth[val.best])
    trained = float(max(train.values[0], train.smooth[0]) - train.smooth.min())
    # The validation loss of a first epoch may be huge, while batch-norm statistics settle.
    fell = min(float(val.values[0] - val.smooth[val.best]), trained)
    reference = fell if fell > _GAP * trained else trained
    if rise <= _SIGNIFICANT * val.noise or reference <= 0:
        return 0.0
    return rise / reference


def _best_decisions(history: Mapping[str, Sequence[float]]) -> tuple[str, int] | None:
    """The first validation score that goes up, such as accuracy, and the index of its best epoch."""
    for name, values in history.items():
        if not name.startswith("val_") or name == "val_loss":
            continue
        try:
            rising = direction(name) == "max"
        except ValueError:
            continue  # A score of the user's own, whose direction nobody told.
        if rising and np.all(np.isfinite(values)):
            return name, int(_median_of_three(np.asarray(values, dtype=float)).argmax())
    return None


def _noisy(story: _Story, names: set[str]) -> Iterator[Finding]:
    val, train = story.val, story.train
    if val is None or names & {"loss-diverges", "learning-rate-high"}:
        return
    jump = _jump(val, train.fall)
    if len(val.values) < _MIN_FOR_NOISE or jump <= max(_JUMPY, 2 * _jump(train, train.fall)):
        return
    yield Finding(
        "noisy-curve",
        "warning",
        "val_loss",
        f"the validation loss jumps by {jump:.0%} of the training loss's whole fall from epoch to epoch, "
        f"where less than {_JUMPY:.0%} is usual.",
        "too few validation samples, or batches so small that batch-norm statistics jump.",
        "use more validation samples or cross-validation, or a larger batch and a smaller learning rate.",
        "A49",
    )


def _improving(story: _Story, names: set[str]) -> Iterator[Finding]:
    name, curve = ("loss", story.train) if story.val is None else ("val_loss", story.val)
    stop = {"loss-diverges", "learning-rate-high", "learning-rate-low", "overfitting", "plateau"}
    if len(curve.values) < _FEWEST or names & stop or story.rate_ran_down or curve.fall == 0:
        return
    last = max(3, len(curve.values) // 4)
    change, errors = curve.slope(last)
    gained = -change * last
    if errors < -_SIGNIFICANT and gained > _WORTH * curve.fall and len(curve.values) - 1 - curve.best <= 1:
        yield Finding(
            "still-improving",
            "info",
            name,
            f"{name} is lowest at the end and fell by {gained / curve.fall:.0%} of its whole fall in the "
            f"last {last} epochs, where a finished training falls by less than {_WORTH:.0%}.",
            "the training ended before the model had learned what it can.",
            "train on, with early stopping to find the end.",
            "A49, A32",
        )


def _short(story: _Story, names: set[str]) -> Iterator[Finding]:
    if story.epochs < _FEWEST and "loss-diverges" not in names:
        yield Finding(
            "too-few-epochs",
            "info",
            "history",
            f"there are {story.epochs} epoch(s), and the shape of a curve needs at least {_FEWEST}.",
            "a training that was cut short, or a first try.",
            "train for more epochs, or validate more often with steps_per_epoch.",
            "A49",
        )


def _figures(story: _Story) -> dict[str, float]:
    train, val = story.train, story.val
    judged_by = train if val is None else val
    finite = np.where(np.isfinite(judged_by.values), judged_by.values, np.inf)
    figures = {
        "epochs": float(story.epochs),
        "best_epoch": float(judged_by.epochs[int(finite.argmin())]),
        "first_loss": float(train.values[0]),
        "last_loss": float(train.values[-1]),
    }
    if np.all(np.isfinite(train.values)):
        figures["jump"] = _jump(train, train.fall)
        if val is not None:
            figures["val_rise"] = _val_rise(story)
    if story.learned is not None:
        first, second = story.learned
        figures |= {"train_error": first.error, "chance_error": first.chance}
        if second is not None:
            figures["val_error"] = second.error
    return figures


def _jump(curve: _Curve, fall: float) -> float:
    """Usual jump between two epochs, beside the trend, as a share of a fall; 0 where nothing fell."""
    if not np.all(np.isfinite(curve.values)) or fall <= 0:
        return 0.0
    return math.sqrt(2) * curve.noise / fall


def _median_of_three(values: Array) -> Array:
    if len(values) < 3:
        return values
    middle = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    # The ends are drawn towards their neighbours where they stick out.
    return np.concatenate([[np.median([values[0], *values[1:3]])], middle, [np.median(values[-3:])]])
