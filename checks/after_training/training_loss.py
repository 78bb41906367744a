"""What the training loss says by itself: whether it falls, and how."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_practice.checks.after_training.training_record import (
    JUMPY,
    MIN_EPOCHS,
    MIN_FOR_NOISE,
    POOR,
    SIGNIFICANT,
    VERY_POOR,
    Curve,
    TrainingRecord,
)
from keras_practice.checks.findings import Finding

# An exponential fall whose second half still brings this share of the first has come less than halfway.
_STRAIGHT = 0.75
# As much as this of the first loss gained, and progress is not slow, however straight.
_SLOW = 0.5
# Less than a tenth of the first loss gained is next to nothing.
_NOTHING = 0.1


def diverges(record: TrainingRecord, _: set[str]) -> Iterator[Finding]:
    """A loss that is not finite, or rises."""
    for name, curve in (("loss", record.train), ("val_loss", record.val)):
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
    curve = record.train
    if len(curve.values) < MIN_EPOCHS or record.rate_rises:
        return
    last = float(np.min(curve.values[-2:]))  # One bad epoch at the end is a jump, not a trend.
    rise = last - float(curve.smooth[curve.best])
    since = curve.epochs[curve.best]
    if rise > max(POOR * curve.fall, 2 * SIGNIFICANT * curve.noise) and len(curve.values) - curve.best > 2:
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


def rate_high(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """Steps that jump over the valley."""
    curve = record.train
    if len(curve.values) < MIN_EPOCHS or "loss-diverges" in names or record.rate_rises:
        return
    evidence = _early_rise(curve) or _spikes(curve) or _bounces(curve) or _worse_than_nothing(record)
    if evidence:
        yield Finding(
            "learning-rate-high",
            "warning",
            "loss",
            evidence,
            "a learning rate that is too high: steps jump over the valley instead of going down into it.",
            "divide the learning rate by 3 to 10; if jumps stay, clip the gradient or double the batch.",
            "A49; Goodfellow, Bengio and Courville 2016, section 11.4.1",
        )


def _early_rise(curve: Curve) -> str:
    early = curve.values[1 : max(2, len(curve.values) // 4) + 1]
    rise = float(early.max()) - float(curve.values[0])
    fall = float(max(curve.values[0], early.max()) - curve.smooth[curve.best])
    if rise > max(JUMPY * fall, 2 * SIGNIFICANT * curve.noise):
        return (
            f"the training loss rises early, from {curve.values[0]:.4g} to {early.max():.4g}, "
            "where it should fall from the first epoch on."
        )
    return ""


def _spikes(curve: Curve) -> str:
    """Single epochs far above both of their neighbours."""
    if len(curve.values) < MIN_FOR_NOISE or curve.fall == 0:
        return ""
    above = np.zeros(len(curve.values))
    above[1:-1] = curve.values[1:-1] - np.maximum(curve.values[:-2], curve.values[2:])
    at = int(above.argmax())
    if above[at] > max(POOR * curve.fall, 2 * SIGNIFICANT * curve.noise):
        return (
            f"the training loss jumps by {above[at] / curve.fall:.0%} of its whole fall in epoch "
            f"{curve.epochs[at]}, where jumps should be below {JUMPY:.0%}."
        )
    return ""


def _bounces(curve: Curve) -> str:
    if len(curve.values) < MIN_FOR_NOISE:
        return ""
    # Where nothing fell for sure, the jumps are beside the loss itself.
    scale, words = curve.fall, "of its whole fall"
    if curve.fall == 0:
        scale, words = float(np.median(np.abs(curve.values))), "of itself"
    jump = curve.jump(scale)
    if jump <= JUMPY:
        return ""
    return (
        f"the training loss goes up and down by {jump:.0%} {words} from epoch to epoch, "
        f"where less than {JUMPY:.0%} is usual."
    )


def _worse_than_nothing(record: TrainingRecord) -> str:
    """A loss far above that of knowing nothing, in a training that ended with nothing learned."""
    if record.learned is None or record.learned[0].error < VERY_POOR * record.learned[0].chance:
        return ""
    judged = record.learned[0]
    if judged.task.kind not in ("binary", "multiclass"):
        return ""
    shares = np.bincount(judged.truth) / len(judged.truth)
    chance = float(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
    highest = float(record.train.values.max())
    # Penalties on weights are in the loss of the history and not in chance's, so twice, not once.
    if highest > 2 * chance:
        return (
            f"the training loss was as high as {highest:.4g}, where knowing nothing gives {chance:.4g}, "
            "and the model ended no better than chance."
        )
    return ""


def plateau(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """A loss that does not move, or no longer does."""
    curve = record.train
    if len(curve.values) < MIN_EPOCHS or names & {"loss-diverges", "learning-rate-high"}:
        return
    flat_since = _flat_since(curve)
    if flat_since is None:
        return
    tail = len(curve.values) - flat_since
    little = curve.fall == 0 or curve.relative_fall < _NOTHING
    if little and 2 * tail >= len(curve.values):
        good = record.learned is not None and record.learned[0].error < POOR * record.learned[0].chance
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
    elif not little and tail >= 10 and 2 * tail >= len(curve.values) and curve.relative_fall < VERY_POOR:
        yield Finding(
            "plateau",
            "info",
            "loss",
            f"the training loss has stayed near {curve.smooth[-1]:.4g} since epoch "
            f"{curve.epochs[flat_since]} of {record.epochs}; more epochs like these change little.",
            "the model has learned what it can at this learning rate.",
            "divide the learning rate by 3 to 10 on plateaus; if that brings nothing, use a larger model.",
            "A49, A54",
        )


def _flat_since(curve: Curve) -> int | None:
    """The first epoch after which the trend does not change by more than the noise or 2 % of the fall."""
    rest = np.abs(curve.smooth - np.median(curve.smooth[-3:]))
    margin = max(SIGNIFICANT * curve.noise, 0.02 * float(np.ptp(curve.smooth)))
    moving = np.flatnonzero(rest > margin)
    begin = int(moving[-1]) + 1 if len(moving) else 0
    tail = len(curve.values) - begin
    if tail < MIN_EPOCHS:
        return None
    # The first epoch began with weights that had learned nothing, and is often far above the rest.
    change, errors = curve.slope(min(tail, len(curve.values) - 1))
    # A slow fall hidden in the noise is no plateau.
    return None if change < 0 and errors < -4.0 and -change * tail > curve.noise else begin


def rate_low(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """A fall in an almost straight line."""
    curve = record.train
    if len(curve.values) < MIN_EPOCHS + 1 or names & {"loss-diverges", "learning-rate-high", "plateau"}:
        return
    middle = len(curve.values) // 2
    first, second = curve.drop(0, middle), curve.drop(len(curve.values) - 1 - middle, -1)
    change, errors = curve.slope(len(curve.values) - 1)
    if change >= 0 or errors > -4.0 or curve.relative_fall > _SLOW or record.rate_rises:
        return
    # A late start, slow and then faster, is a curve that has found its way.
    if not _STRAIGHT <= second / max(first, 1e-300) <= 1 / _STRAIGHT**2:
        return
    yield Finding(
        "learning-rate-low",
        "warning",
        "loss",
        f"the training loss falls almost in a straight line, by {curve.relative_fall:.1%} in {record.epochs} "
        f"epochs, and the second half brings {second / first:.0%} of the first, where a curve bends.",
        "a learning rate that is too low for this number of epochs.",
        "multiply the learning rate by 3 to 10, and see in a range test how high it can go.",
        "A49; Smith 2017, 'Cyclical learning rates'",
    )
