"""Scores of the validation set in the logs of every epoch, at the price of Keras's own pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_practice.callbacks.confusion import confusion_png, report_markdown
from keras_practice.callbacks.f1 import AVERAGES, Average
from keras_practice.callbacks.scores import REGRESSION_SCORES, best_threshold, confusion_matrix, scores
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.private_api.keras import move_to_front
from keras_practice.core.steps import Step, hooked, tap_step, untap_step
from keras_practice.core.types import Array
from keras_practice.data import Split, Task

_CLASS_DEFAULT = ("f1", "precision", "recall", "auc", "coverage")
_PER_CLASS = ("f1", "precision", "recall", "auc")
_PREDICT_BATCH = 256


class ValidationScores(keras.callbacks.Callback):
    """Puts exact scores of the validation set into the logs after every epoch.

    They are computed on the whole set at once, as a metric that averages over
    batches cannot, and are there before any other callback reads the epoch's
    logs, wherever in the list this one stands: early stopping and checkpoints
    can monitor `val_f1`.

    Where `fit(validation_data=...)` gets the same samples in the same order, the
    predictions of Keras's own validation pass are used and nothing is computed
    twice. Otherwise, without `validation_data` and on several replicas too, it
    makes a pass of its own.

    Args:
        val: The validation set: a `data.Split`, a pair of arrays `(x, y)`, or a
            finite `tf.data.Dataset` or `keras.utils.PyDataset` of `(x, y)` batches.
        task: What is predicted. Defaults to `None`: the split's own task, or
            inferred from the labels.
        scores: Names of `callbacks.scores`; each goes into the logs as
            `val_<name>`, and `"coverage"` brings `val_coverage_accuracy` along.
            Defaults to `None`: `f1`, `precision`, `recall`, `auc` and `coverage`,
            for regression `mae`, `rmse` and `r2`.
        average: How classes are averaged: `"macro"`, `"micro"`, `"weighted"`, or
            `"binary"` for the positive class of a yes/no task. Defaults to `"macro"`.
        threshold: Probability above which a sigmoid says yes, in `(0, 1)`; or
            `"best"`, the one that gives the highest F1 on this set in this epoch,
            for several labels one each. Scores at `"best"` are somewhat
            optimistic. Defaults to `0.5`.
        every: Epochs from one scoring to the next. In the others the logs lack
            the scores, so that a callback which monitors one needs 1. Defaults to `1`.
        confidence: Probability from which a sample counts as covered, in
            `(0, 1]`. Defaults to `0.9`.
        log_dir: Folder for TensorBoard, where `scores/` under it gets each class's
            scores, and at the epochs 1, 2, 4, 8, ... and the last one the confusion
            matrix as a picture and the report by class as text. Defaults to `None`.

    Attributes:
        history: Lists of one number a scored epoch: `epoch`, `val_f1` and so on,
            each class's as `val_f1/<class>`, and with `"best"` the
            `val_threshold`, for several labels `val_threshold/<label>`.

    Raises:
        ValueError: If `val` is empty or does not fit the task, or an argument is
            outside its range; in `fit`, if the model has several outputs.

    Source:
        A40.
    """

    def __init__(
        self,
        val: Any,
        task: Task | None = None,
        scores: Sequence[str] | None = None,
        average: Average = "macro",
        threshold: float | Literal["best"] = 0.5,
        every: int = 1,
        *,
        confidence: float = 0.9,
        log_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        self._val = _as_split(val, task)
        self.task = self._val.task
        self.task.check(self._val.y)
        self.scores = _checked_scores(scores, self.task)
        if average is None or average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(map(str, AVERAGES[1:]))}. Got {average!r}.")
        if average == "binary" and self.task.kind != "binary":
            raise ValueError(f"average='binary' is for a yes/no task. Got {self.task}.")
        if threshold == "best":
            if self.task.kind not in ("binary", "multilabel"):
                raise ValueError(f"threshold='best' is for sigmoids. Got {self.task}.")
        elif not isinstance(threshold, float | int) or not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), or 'best'. Got {threshold!r}.")
        self.every = check_positive_integer("every", every)
        if not 0 < confidence <= 1:
            raise ValueError(f"confidence must be in (0, 1]. Got {confidence!r}.")
        self.average = average
        self.threshold = threshold
        self.confidence = confidence
        self.log_dir = log_dir
        self.history: dict[str, list[float]] = {}
        self._recorder: _Recorder | None = None
        self._writer: Any = None
        self._last_epoch = -1
        self._pictured = -1

    def set_model(self, model: keras.Model) -> None:
        """Called by Keras with the model; moves this callback to the head of its list."""
        super().set_model(model)
        move_to_front(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts a new history and looks into the validation pass of this `fit`."""
        self.history = {}
        self._last_epoch = self._pictured = -1
        self._writer = None
        if self._recorder is None or self._recorder.model is not self.model:
            self._recorder = _Recorder(self.model, self._val)
        if self.model.distribute_strategy.num_replicas_in_sync == 1:
            tap_step(self.model, "test_step", self._recorder.tap)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets the predictions of the pass before."""
        if self._recorder is not None:
            self._recorder.clear()

    def share_function(self, other: ValidationScores) -> bool:
        """Takes predictions by the function that another callback has had traced.

        For one model whose `fit` is called again and again with callbacks of its own.

        Args:
            other: A callback of the same model.

        Returns:
            Whether it does: not if the validation sets differ, or this callback has a function already.
        """
        mine, theirs = self._val, other._val
        same = mine is theirs or (np.array_equal(mine.x, theirs.x) and np.array_equal(mine.y, theirs.y))
        if not same or self._recorder is not None:
            return False
        self._recorder = other._recorder
        return True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the scores to `logs`."""
        if logs is None or (epoch + 1) % self.every or self._recorder is None:
            return
        self._predictions = self._recorder.predictions()
        self._last_epoch = epoch
        values = self._score(self._predictions)
        logs.update({name: value for name, value in values.items() if "/" not in name})
        for name, value in {"epoch": float(epoch), **values}.items():
            self.history.setdefault(name, []).append(value)
        if self.log_dir is not None:
            self._log(epoch, values, picture=epoch + 1 == 1 << epoch.bit_length())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the model's steps as they were."""
        if self._recorder is not None:
            untap_step(self.model, "test_step", self._recorder.tap)
        if self.log_dir is not None and self._last_epoch > self._pictured:
            self._log(self._last_epoch, {}, picture=True)
        if self._writer is not None:
            self._writer.close()

    def _score(self, predictions: Array) -> dict[str, float]:
        """All values of an epoch by their name in the history."""
        y, task = self._val.y, self.task
        values: dict[str, float] = {}
        self._threshold: Any = self.threshold
        if self.threshold == "best":
            self._threshold = _best_thresholds(y, predictions, task, self.average)
            if task.kind == "binary":
                values["val_threshold"] = self._threshold[0]
            else:
                values |= _by_class("val_threshold", self._threshold, task)
        options = {"threshold": self._threshold, "confidence": self.confidence}
        overall = scores(y, predictions, task, average=self.average, **options)
        values |= {f"val_{name}": overall[name] for name in self.scores}
        if task.is_classification:
            each = scores(y, predictions, task, average=None, **options)
            for name in _PER_CLASS:
                if name in self.scores:
                    values |= _by_class(f"val_{name}", each[name], task)
        return values

    def _log(self, epoch: int, values: dict[str, float], picture: bool) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(Path(str(self.log_dir)) / "scores"))
        y, predictions, task, threshold = self._val.y, self._predictions, self.task, self._threshold
        with self._writer.as_default(step=epoch):
            for name, value in values.items():
                tf.summary.scalar(name, value)
            if picture and task.is_classification:
                self._pictured = epoch
                each = scores(y, predictions, task, average=None, threshold=threshold)
                tf.summary.text("report", report_markdown(each, task))
                if task.kind != "multilabel":
                    counts = confusion_matrix(y, predictions, task, threshold)
                    tf.summary.image("confusion", tf.image.decode_png(confusion_png(counts, task))[None])
        self._writer.flush()


class _Recorder:
    """The predictions for one validation set, taken from Keras's own pass where it shows that set."""

    def __init__(self, model: keras.Model, val: Split) -> None:
        self.model = model
        self.val = val
        one = model(val.x[:1], training=False)
        if not tf.is_tensor(one):
            raise ValueError(
                f"A model to be scored must have one output. Got a {type(one).__name__} of them."
            )
        any_batch = tf.TensorSpec((None, *val.x.shape[1:]), val.x.dtype)
        # Traced once a model, when needed: `predict` makes a data set and an iterator every time.
        self._outputs = tf.function(
            lambda x: model(x, training=False), input_signature=[any_batch], autograph=False
        )
        self._labels = np.asarray(val.y, dtype=np.float64).reshape(len(val), -1)
        features = np.asarray(val.x, dtype=np.float64).reshape(len(val), -1)
        self._mixing = np.random.default_rng(0).normal(size=(features.shape[1], 1))
        self._marks = features @ self._mixing
        self._mark_scale = np.abs(features) @ np.abs(self._mixing) + 1e-30
        rows = len(val) + 1  # The last one takes what is too much.
        with model.distribute_strategy.scope():
            self._rows = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._kept = tf.Variable(tf.zeros((rows, *one.shape[1:]), one.dtype), trainable=False)
            # Labels and a number that tells one sample's features from another's.
            self._seen = tf.Variable(tf.zeros((rows, self._labels.shape[1] + 1), tf.float64), trainable=False)

    def clear(self) -> None:
        self._rows.assign(0)

    def tap(self, step: Step, data: Any) -> Any:
        def keep(compute: Any, x: Any, y: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            self._keep(x, y, y_pred)
            return compute(x, y, y_pred, *args, **kwargs)

        with hooked(self.model, "compute_metrics", keep):
            return step(data)

    def _keep(self, x: Any, y: Any, y_pred: Any) -> None:
        if not all(tf.is_tensor(part) for part in (x, y, y_pred)):
            return
        x, y = (tf.reshape(part, (tf.shape(part)[0], -1)) for part in (x, y))
        if x.shape[1] not in (None, len(self._mixing)) or y.shape[1] not in (None, self._labels.shape[1]):
            return
        if y_pred.shape[1:] != self._kept.shape[1:]:
            return
        count = tf.shape(x, out_type=tf.int64)[0]
        rows = tf.minimum(self._rows + tf.range(count), len(self.val))[:, None]
        mark = tf.matmul(tf.cast(x, tf.float64), tf.constant(self._mixing))
        self._kept.scatter_nd_update(rows, y_pred)
        self._seen.scatter_nd_update(rows, tf.concat([tf.cast(y, tf.float64), mark], axis=1))
        self._rows.assign_add(count)

    def predictions(self) -> Array:
        """The model's outputs for the validation set, `(samples, ..., outputs)`."""
        if int(self._rows.numpy()) == len(self.val):
            labels, mark = np.split(self._seen.numpy()[:-1], [-1], axis=1)
            if np.array_equal(labels, self._labels) and np.all(
                np.abs(mark - self._marks) <= 1e-6 * self._mark_scale
            ):
                return np.asarray(self._kept.numpy()[:-1])
        x = self.val.x
        batches = [x[start : start + _PREDICT_BATCH] for start in range(0, len(x), _PREDICT_BATCH)]
        return np.concatenate([self._outputs(batch).numpy() for batch in batches])


def _checked_scores(names: Sequence[str] | None, task: Task) -> tuple[str, ...]:
    known = (*_CLASS_DEFAULT, "coverage_accuracy") if task.is_classification else REGRESSION_SCORES
    chosen = (
        (_CLASS_DEFAULT if task.is_classification else REGRESSION_SCORES) if names is None else tuple(names)
    )
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise ValueError(f"scores must be among {', '.join(known)} for {task}. Got {list(chosen)}.")
    if "coverage" in chosen and "coverage_accuracy" not in chosen:
        chosen = (*chosen, "coverage_accuracy")
    return chosen


def _by_class(name: str, values: Iterable[float], task: Task) -> dict[str, float]:
    labels = task.class_names or range(task.num_classes)
    return {f"{name}/{label}": float(value) for label, value in zip(labels, values, strict=True)}


def _best_thresholds(y: Array, predictions: Array, task: Task, average: Average) -> list[float]:
    labels, p = y.reshape(-1, task.outputs), predictions.reshape(-1, task.outputs)
    each = average if task.kind == "binary" else "binary"
    return [best_threshold(labels[:, i], p[:, i], each) for i in range(task.outputs)]


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
