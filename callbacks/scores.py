"""Scores of a whole validation set, in the logs of every epoch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import rankdata
from sklearn import metrics as sklearn_metrics

from keras_practice.callbacks.f1 import AVERAGES, Average
from keras_practice.data import Split, Task

Array = np.ndarray[Any, Any]

_PREDICT_BATCH = 256


def scores(
    y: Any, predictions: Any, task: Task, *, average: Average = "macro", threshold: float = 0.5
) -> dict[str, float]:
    """Scores of predictions on a whole set, by scikit-learn.

    Args:
        y: Labels, `(samples,)`, `(samples, 1)` or `(samples, outputs)`; steps or
            pixels in between count as more samples.
        predictions: The model's outputs, `(samples, ..., outputs)`: probabilities,
            or numbers for regression.
        task: What is predicted.
        average: How classes are averaged, as in `F1Score`, without `None`.
            Defaults to `"macro"`.
        threshold: Probability above which a sigmoid says yes. Defaults to `0.5`.

    Returns:
        For classes: `accuracy` (for several labels, the share of single decisions
        that are right), `f1`, `precision`, `recall` and `auc` (area under the ROC
        curve, one class against the rest, mean over the classes of which `y` has
        both members and others). For regression: `mae`, `rmse` and `r2`. All are
        NaN where a prediction is not finite.

    Source:
        A40.
    """
    predictions = np.asarray(predictions, dtype=np.float64).reshape(-1, task.outputs)
    y = np.asarray(y).reshape(len(predictions), -1)
    if not np.all(np.isfinite(predictions)):
        names = (
            ("accuracy", "f1", "precision", "recall", "auc")
            if task.is_classification
            else ("mae", "rmse", "r2")
        )
        return dict.fromkeys(names, float("nan"))
    if not task.is_classification:
        return {
            "mae": float(np.mean(np.abs(y - predictions))),
            "rmse": float(np.sqrt(np.mean((y - predictions) ** 2))),
            "r2": _r2(y, predictions),
        }
    truth, decided, membership, probabilities = _decide(y, predictions, task, threshold)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        truth, decided, average=average, labels=_labels(task), zero_division=0
    )
    return {
        "accuracy": float(np.mean(truth == decided)),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "auc": _auc(membership, probabilities),
    }


def _r2(y: Array, predictions: Array) -> float:
    if len(y) < 2:
        return float("nan")
    # Weighted, so that a pixel that is always black does not count as one that is learned.
    return float(sklearn_metrics.r2_score(y, predictions, multioutput="variance_weighted"))


def _labels(task: Task) -> list[int] | None:
    return None if task.kind == "multilabel" else list(range(task.num_classes))


def _decide(y: Array, p: Array, task: Task, threshold: float) -> tuple[Array, Array, Array, Array]:
    """Truth and decision as scikit-learn takes them, then class membership and probability by column."""
    if task.kind == "multilabel":
        return y.astype(int), (p > threshold).astype(int), y == 1, p
    truth = task.class_indices(y)
    if task.kind == "binary":
        return truth, (p[:, 0] > threshold).astype(int), truth[:, None] == 1, p
    return truth, p.argmax(axis=1), truth[:, None] == np.arange(task.num_classes), p


def _auc(membership: Array, probabilities: Array) -> float:
    """Mean area under the ROC curve over columns: the share of pairs ranked right (Mann and Whitney)."""
    members = membership.sum(axis=0)
    others = len(membership) - members
    defined = (members > 0) & (others > 0)
    if not np.any(defined):
        return float("nan")
    ranks = rankdata(probabilities[:, defined], axis=0)
    above = np.sum(ranks * membership[:, defined], axis=0) - members[defined] * (members[defined] + 1) / 2
    return float(np.mean(above / (members[defined] * others[defined])))


class ValidationScores(keras.callbacks.Callback):
    """Puts scores of the validation set into the logs after every epoch.

    For classes: `val_f1`, `val_precision`, `val_recall`, `val_auc`; for
    regression: `val_mae`, `val_rmse`, `val_r2`. They are computed on the whole
    set at once, as a metric that averages over batches cannot. They are there
    before any other callback reads the epoch's logs, wherever in the list this
    one stands, so that early stopping and checkpoints can monitor them.

    Args:
        val: The validation set: a `data.Split`, a pair of arrays `(x, y)`, or a
            finite `tf.data.Dataset` or `keras.utils.PyDataset` of `(x, y)` batches.
        task: What is predicted. Defaults to `None`: the split's own task, or
            inferred from the labels.
        average: How classes are averaged: `"macro"`, `"micro"`, `"weighted"`, or
            `"binary"` for the positive class of a yes/no task. Defaults to `"macro"`.
        threshold: Probability above which a sigmoid says yes, in `(0, 1)`.
            Defaults to `0.5`.

    Raises:
        ValueError: If `val` is empty or does not fit the task, or an argument is
            outside its range.

    Source:
        A40.
    """

    def __init__(
        self, val: Any, task: Task | None = None, average: Average = "macro", threshold: float = 0.5
    ) -> None:
        super().__init__()
        if average is None or average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(map(str, AVERAGES[1:]))}. Got {average!r}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1). Got {threshold}.")
        self._val = _as_split(val, task)
        self.task = self._val.task
        self.task.check(self._val.y)
        if average == "binary" and self.task.kind != "binary":
            raise ValueError(f"average='binary' is for a yes/no task. Got {self.task}.")
        self.average = average
        self.threshold = threshold

    def set_model(self, model: keras.Model) -> None:
        """Called by Keras with the model; moves this callback to the head of its list."""
        super().set_model(model)
        _move_to_front(self)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the scores to `logs`."""
        if logs is None:
            return
        predictions = self._predict()
        values = scores(self._val.y, predictions, self.task, average=self.average, threshold=self.threshold)
        values.pop("accuracy", None)  # Keras's own, where it is compiled.
        logs.update({f"val_{name}": value for name, value in values.items()})

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets the model of an earlier `fit`."""
        model = self.model
        # One traced call a model: `predict` makes a data set and an iterator every time.
        any_batch = tf.TensorSpec((None, *self._val.x.shape[1:]), self._val.x.dtype)
        self._outputs = tf.function(
            lambda x: model(x, training=False), input_signature=[any_batch], autograph=False
        )

    def _predict(self) -> Array:
        x = self._val.x
        parts = [
            self._outputs(x[start : start + _PREDICT_BATCH]) for start in range(0, len(x), _PREDICT_BATCH)
        ]
        return np.concatenate([np.asarray(part) for part in parts])


def _as_split(val: Any, task: Task | None) -> Split:
    """A validation set in any of its forms, with the task that is stated or inferred."""
    if isinstance(val, Split):
        inputs, labels, task = val.x, val.y, task or val.task
    elif isinstance(val, (tuple, list)) and len(val) == 2:
        inputs, labels = np.asarray(val[0]), np.asarray(val[1])
    elif isinstance(val, keras.utils.PyDataset):
        inputs, labels = _concatenate(val[i] for i in range(len(val)))
    elif isinstance(val, Iterable) and not isinstance(val, (np.ndarray, str)):
        inputs, labels = _concatenate(val)
    else:
        raise ValueError(
            f"val must be a Split, a pair (x, y) or a dataset of batches. Got {type(val).__name__}."
        )
    if len(inputs) == 0:
        raise ValueError("val must hold at least one sample. Got none.")
    return Split(inputs, labels, task or Task.infer(labels), "val")


def _concatenate(batches: Iterable[Any]) -> tuple[Array, Array]:
    pairs = [(np.asarray(batch[0]), np.asarray(batch[1])) for batch in batches]
    if not pairs:
        raise ValueError("val must hold at least one batch. Got none.")
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


def _move_to_front(callback: keras.callbacks.Callback) -> None:
    """Moves a callback to the head of the `CallbackList` that is being set up.

    Keras hands every callback the same logs in list order and gives none a way
    to come first, or a reference to the list: the list is found as the caller
    of `set_model`. Outside a `CallbackList` nothing is moved.
    """
    frame = inspect.currentframe()
    try:
        caller = frame
        while caller is not None:
            owner = caller.f_locals.get("self")
            if isinstance(owner, keras.callbacks.CallbackList):
                siblings = owner.callbacks
                if callback in siblings:
                    siblings.insert(0, siblings.pop(siblings.index(callback)))
                return
            caller = caller.f_back
    finally:
        del frame  # A frame that refers to itself would keep everything in it alive.
