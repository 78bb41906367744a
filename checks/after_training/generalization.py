"""What was learned, how much of it carries over to other samples, and whether to train on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from keras_practice.callbacks.direction import direction
from keras_practice.checks.after_training.judging import Judged
from keras_practice.checks.after_training.training_record import (
    JUMPY,
    MIN_EPOCHS,
    MIN_FOR_NOISE,
    POOR,
    SIGNIFICANT,
    VERY_POOR,
    TrainingRecord,
    median_of_three,
)
from keras_practice.checks.findings import Finding, Severity

# A rise of the validation loss by these shares of the fall is worth a word, and costs something.
_RISE, _COSTLY_RISE = 0.1, 0.3
# A fifth of what was learned does not carry over to new data; the loss, which counts confidence, gets more.
_GAP, _LOSS_GAP = 0.2, 0.3
# More of the same training is worth it where the next quarter brings a twentieth of the fall so far.
_WORTH = 0.05


def bias_and_variance(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """Bias and variance: measured where that is possible, else what the losses show."""
    if record.learned is None:
        yield from _gap_of_losses(record, names)
        return
    train, val = record.learned
    yield from _bias(record, train, names)
    if val is None:
        return
    gap, learned = val.error - train.error, train.chance - train.error
    sure = gap > 2 * math.hypot(val.doubt, train.doubt)
    large = gap > _GAP * max(learned, 0.0)
    if record.target is not None:
        large = val.error > record.target and gap > train.error - record.target
    if sure and large and learned > 2 * train.doubt:
        lost = f"{gap / learned:.0%} of what was learned does not carry over, where {_GAP:.0%} is much"
        if record.target is not None:
            lost = f"{record.target:.3g} is asked for"
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


def _bias(record: TrainingRecord, train: Judged, names: set[str]) -> Iterator[Finding]:
    left = train.error / train.chance if train.chance else 0.0
    severity: Severity | None = None
    if train.error >= train.chance - 2 * train.doubt and left > VERY_POOR:
        severity = "error"
    elif left > VERY_POOR or (record.target is not None and train.error > record.target):
        severity = "warning"
    elif record.target is None and left > POOR:
        severity = "info"
    if severity is None:
        return
    expected = (
        f"{record.target:.3g} is asked for" if record.target is not None else "well below it is expected"
    )
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


def _gap_of_losses(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    train, val = record.train, record.val
    if val is None or len(val.values) < MIN_EPOCHS or "loss-diverges" in names or train.fall == 0:
        return
    at = val.best
    here = int(np.searchsorted(train.epochs, val.epochs[at]))
    gap = float(val.smooth[at] - train.smooth[min(here, len(train.smooth) - 1)])
    if gap > max(_LOSS_GAP * train.fall, SIGNIFICANT * max(val.noise, train.noise)):
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


def overfitting(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """A validation loss that rises while the training loss falls."""
    val, train = record.val, record.train
    if val is None or len(val.values) < MIN_EPOCHS or names & {"loss-diverges", "learning-rate-high"}:
        return
    rise = val_rise(record)
    best = val.best
    here = min(int(np.searchsorted(train.epochs, val.epochs[best])), len(train.smooth) - 1)
    since = len(val.values) - 1 - best
    if rise < _RISE or since < 3 or train.smooth[-1] >= train.smooth[here]:
        return
    lowest = int(val.values.argmin())
    kept = _best_decisions(record.history)
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


def val_rise(record: TrainingRecord) -> float:
    """Rise of the validation loss since its lowest point as a share of the fall; 0 within the noise."""
    val, train = record.val, record.train
    if val is None or len(val.values) < MIN_EPOCHS or not np.all(np.isfinite(val.values)):
        return 0.0
    rise = float(np.median(val.values[-3:]) - val.smooth[val.best])
    trained = float(max(train.values[0], train.smooth[0]) - train.smooth.min())
    # The validation loss of a first epoch may be huge, while batch-norm statistics settle.
    fell = min(float(val.values[0] - val.smooth[val.best]), trained)
    reference = fell if fell > _GAP * trained else trained
    if rise <= SIGNIFICANT * val.noise or reference <= 0:
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
            return name, int(median_of_three(np.asarray(values, dtype=float)).argmax())
    return None


def noisy(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """A validation loss that jumps."""
    val, train = record.val, record.train
    if val is None or names & {"loss-diverges", "learning-rate-high"}:
        return
    jump = val.jump(train.fall)
    if len(val.values) < MIN_FOR_NOISE or jump <= max(JUMPY, 2 * train.jump(train.fall)):
        return
    yield Finding(
        "noisy-curve",
        "warning",
        "val_loss",
        f"the validation loss jumps by {jump:.0%} of the training loss's whole fall from epoch to epoch, "
        f"where less than {JUMPY:.0%} is usual.",
        "too few validation samples, or batches so small that batch-norm statistics jump.",
        "use more validation samples or cross-validation, or a larger batch and a smaller learning rate.",
        "A49",
    )


def still_improving(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """A training that ended too early."""
    name, curve = ("loss", record.train) if record.val is None else ("val_loss", record.val)
    stop = {"loss-diverges", "learning-rate-high", "learning-rate-low", "overfitting", "plateau"}
    if len(curve.values) < MIN_EPOCHS or names & stop or record.rate_ran_down or curve.fall == 0:
        return
    last = max(3, len(curve.values) // 4)
    change, errors = curve.slope(last)
    gained = -change * last
    if errors < -SIGNIFICANT and gained > _WORTH * curve.fall and len(curve.values) - 1 - curve.best <= 1:
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


def too_few_epochs(record: TrainingRecord, names: set[str]) -> Iterator[Finding]:
    """A training too short to be read."""
    if record.epochs < MIN_EPOCHS and "loss-diverges" not in names:
        yield Finding(
            "too-few-epochs",
            "info",
            "history",
            f"there are {record.epochs} epoch(s), and the shape of a curve needs at least {MIN_EPOCHS}.",
            "a training that was cut short, or a first try.",
            "train for more epochs, or validate more often with steps_per_epoch.",
            "A49",
        )
