"""What the curves of a training say, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.after_training.generalization import (
    bias_and_variance,
    noisy,
    overfitting,
    still_improving,
    too_few_epochs,
    val_rise,
)
from keras_practice.checks.after_training.judging import Judged, judge
from keras_practice.checks.after_training.training_loss import diverges, plateau, rate_high, rate_low
from keras_practice.checks.after_training.training_record import TrainingRecord, curve_of
from keras_practice.checks.findings import Finding, Report, gravest_first
from keras_practice.checks.inspection.forms import is_array
from keras_practice.data import Dataset, Split, Task

_MAX_SAMPLES = 4_096
# Each is asked with the names that were found before it, which may explain what it would say.
_RULES: tuple[Callable[[TrainingRecord, set[str]], Iterator[Finding]], ...] = (
    diverges,
    rate_high,
    plateau,
    rate_low,
    bias_and_variance,
    overfitting,
    noisy,
    still_improving,
    too_few_epochs,
)


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
        data: A `data.Dataset`; a pair `(x, y)` of what the model was trained on; batches of it;
            or a pair `(train, val)` whose parts are a `data.Split`, a pair `(x, y)`, or batches;
            `val` may be `None`. Given beside a model. At most 4,096 samples of each are used.
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
    record = _read(history, model, data, task, target)
    findings: list[Finding] = []
    for rule in _RULES:
        names = {finding.check for finding in findings}
        findings += rule(record, names)
    return Report(tuple(gravest_first(findings)), MappingProxyType(_figures(record)))


def _read(
    history: Any, model: keras.Model | None, data: Any, task: Task | None, target: float | None
) -> TrainingRecord:
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
    train = curve_of(logs["loss"], len(logs["loss"]))
    val = curve_of(logs["val_loss"], len(train.values)) if len(logs.get("val_loss", ())) else None
    rates = np.asarray(logs.get("learning_rate", logs.get("lr", ())), dtype=float)
    learned = None if model is None else _measure(model, data, task)
    return TrainingRecord(
        train, val, rates if len(rates) == len(train.values) else None, logs, learned, target
    )


def _measure(model: keras.Model, data: Any, task: Task | None) -> tuple[Judged, Judged | None]:
    train: Any
    val: Any
    if isinstance(data, Dataset):
        train, val = data.train, data.val
    elif isinstance(data, (tuple, list)) and len(data) == 2:
        train, val = data
        if is_array(val) or isinstance(val, dict):  # Labels: an array of them is no set of samples.
            train, val = (train, val), None
    elif isinstance(data, (Split, tf.data.Dataset, keras.utils.PyDataset)):
        train, val = data, None
    else:
        raise ValueError(f"data must be a data.Dataset or a pair (train, val). Got {type(data).__name__}.")
    first = judge(model, train, task, _MAX_SAMPLES)
    return first, None if val is None else judge(model, val, task or first.task, _MAX_SAMPLES)


def _figures(record: TrainingRecord) -> dict[str, float]:
    train, val = record.train, record.val
    judged_by = train if val is None else val
    finite = np.where(np.isfinite(judged_by.values), judged_by.values, np.inf)
    figures = {
        "epochs": float(record.epochs),
        "best_epoch": float(judged_by.epochs[int(finite.argmin())]),
        "first_loss": float(train.values[0]),
        "last_loss": float(train.values[-1]),
    }
    if np.all(np.isfinite(train.values)):
        figures["jump"] = train.jump(train.fall)
        if val is not None:
            figures["val_rise"] = val_rise(record)
    if record.learned is not None:
        first, second = record.learned
        figures |= {"train_error": first.error, "chance_error": first.chance}
        if second is not None:
            figures["val_error"] = second.error
    return figures
