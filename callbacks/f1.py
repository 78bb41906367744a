"""F1 as a Keras metric, equal to scikit-learn's."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import keras
from keras import ops

from keras_practice.data import Task

Average = Literal["binary", "micro", "macro", "weighted"] | None
AVERAGES = (None, "binary", "micro", "macro", "weighted")


@keras.saving.register_keras_serializable(package="keras_practice")
class F1Score(keras.metrics.Metric):
    """F1, the harmonic mean of precision and recall, over all batches together.

    Equals `sklearn.metrics.f1_score(labels=range(num_classes), zero_division=0)`
    with the same `average`: a class that neither occurs nor is predicted counts
    as 0. For one sigmoid the two classes are "no" and "yes", as in scikit-learn;
    `average="binary"` is the F1 of "yes" alone.

    It takes labels as they come: `(batch,)` or `(batch, 1)` integers, one-hot
    rows or several labels a row, with predictions of one sigmoid `(batch, 1)`,
    a softmax or several sigmoids `(batch, classes)`. More axes in between, such
    as time steps, count as more samples.

    A model that was compiled with it loads after `import keras_practice.callbacks`,
    or with `compile=False`.

    Args:
        task: What is predicted. Defaults to `None`: read off the shapes, and
            where every label row so far had exactly one 1, off the argmax of the
            predictions, otherwise off `threshold`.
        average: `"macro"` (mean over classes), `"micro"` (all decisions
            together), `"weighted"` (mean by true samples), `"binary"` (the
            positive class of a yes/no task), or `None` (one value a class,
            shape `(classes,)`). Defaults to `"macro"`.
        threshold: Probability above which a sigmoid says yes, in `(0, 1)`.
            Defaults to `0.5`.
        name: Name in the logs. Defaults to `"f1"`.
        dtype: Type of the result. Defaults to `None`, Keras's float type.

    Raises:
        ValueError: If an argument is outside its range, the task is regression,
            or labels and predictions do not fit it.

    Source:
        A40; van Rijsbergen 1979.
    """

    def __init__(
        self,
        task: Task | None = None,
        average: Average = "macro",
        threshold: float = 0.5,
        name: str = "f1",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(map(str, AVERAGES))}. Got {average!r}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1). Got {threshold}.")
        if task is not None and not task.is_classification:
            raise ValueError(f"F1 needs a classification task. Got {task}.")
        if average == "binary" and task is not None and task.kind != "binary":
            raise ValueError(f"average='binary' is for a yes/no task. Got {task}.")
        self.task = task
        self.average = average
        self.threshold = threshold
        self._direction = "up"  # Read by Keras's own monitors in mode="auto".
        self._counts: dict[str, keras.Variable] = {}
        self._several: keras.Variable | None = None
        if task is not None:
            self._make_counts((task.kind,), task.num_classes)

    def _make_counts(self, kinds: tuple[str, ...], num_classes: int) -> None:
        # float32 stops counting at 2**24 samples.
        for kind in kinds:
            self._counts[kind] = self.add_variable(
                (3, num_classes), initializer="zeros", dtype="float64", name=f"{kind}_counts"
            )
        if len(kinds) > 1:
            self._several = self.add_variable((), initializer="zeros", dtype="float64", name="several_labels")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts one batch.

        Args:
            y_true: Labels, `(batch,)`, `(batch, 1)` or `(batch, classes)`.
            y_pred: Probabilities, `(batch,)`, `(batch, 1)` or `(batch, classes)`.
            sample_weight: Weights, `(batch,)` or `(batch, 1)`. Defaults to `None`, all 1.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_pred.shape) == 1 or (len(y_pred.shape) == len(y_true.shape) and y_pred.shape[-1] is None):
            y_pred = ops.expand_dims(y_pred, -1)
        outputs = y_pred.shape[-1]
        wide = len(y_true.shape) == len(y_pred.shape) and (y_true.shape[-1] == outputs)
        if not self._counts:
            self._read_shapes(outputs, wide)
        self._check_shapes(outputs, wide, y_true.shape)
        y_pred = ops.reshape(y_pred, (-1, outputs))
        y_true = ops.reshape(y_true, (-1, outputs) if wide and outputs > 1 else (-1,))
        if sample_weight is not None:
            sample_weight = ops.reshape(ops.cast(sample_weight, "float64"), (-1, 1))
        for kind, counts in self._counts.items():
            truth, predicted = self._decisions(kind, y_true, y_pred)
            parts = ops.stack([truth * predicted, predicted, truth])
            if sample_weight is not None:
                parts = parts * sample_weight
            counts.assign_add(ops.sum(parts, axis=1))
        if self._several is not None:
            rows = ops.sum(ops.cast(y_true, "float64"), axis=-1)
            self._several.assign_add(ops.sum(ops.cast(ops.not_equal(rows, 1.0), "float64")))

    def _read_shapes(self, outputs: int, wide: bool) -> None:
        if outputs == 1:
            self._make_counts(("binary",), 2)
        elif self.average == "binary":
            raise ValueError(f"average='binary' is for one sigmoid. Got predictions of {outputs} columns.")
        elif wide:  # One-hot or several labels: only all of the labels can tell.
            self._make_counts(("multiclass", "multilabel"), outputs)
        else:
            self._make_counts(("multiclass",), outputs)

    def _check_shapes(self, outputs: int, wide: bool, labels: tuple[int | None, ...]) -> None:
        kind, counts = next(iter(self._counts.items()))
        expected = 1 if kind == "binary" else counts.shape[1]
        if outputs != expected:
            raise ValueError(f"Predictions of a {kind} task must have {expected} column(s). Got {outputs}.")
        if kind == "multilabel" and not wide:
            raise ValueError(f"Labels of a multilabel task must have {expected} columns. Got shape {labels}.")

    def _decisions(self, kind: str, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Truth and prediction as 0 and 1, `(samples, classes)` float64."""
        if kind == "multiclass":
            classes = y_pred.shape[-1]
            if len(y_true.shape) == 1:
                y_true = ops.one_hot(ops.cast(y_true, "int32"), classes)
            predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), classes)
        else:
            # Compared in the predictions' own type: 0.5 is exact in all of them.
            predicted = ops.cast(y_pred > ops.cast(self.threshold, y_pred.dtype), "float64")
            if kind == "binary":
                y_true = ops.reshape(ops.cast(y_true, "float64"), (-1, 1))
                y_true = ops.concatenate([1.0 - y_true, y_true], axis=-1)
                predicted = ops.concatenate([1.0 - predicted, predicted], axis=-1)
        return ops.cast(y_true, "float64"), ops.cast(predicted, "float64")

    def result(self) -> Any:
        """F1 of all batches since the last reset: a scalar, or `(classes,)` for `average=None`."""
        if not self._counts:
            return ops.cast(0.0, self.dtype)
        scores = [self._average_counts(counts) for counts in self._counts.values()]
        if self._several is None:
            return ops.cast(scores[0], self.dtype)
        return ops.cast(ops.where(self._several > 0, scores[1], scores[0]), self.dtype)

    def _average_counts(self, counts: Any) -> Any:
        hits, predicted, actual = ops.unstack(ops.convert_to_tensor(counts), num=3)
        if self.average == "micro":
            hits, predicted, actual = ops.sum(hits), ops.sum(predicted), ops.sum(actual)
        f1 = ops.divide_no_nan(2.0 * hits, predicted + actual)
        if self.average == "binary":
            return f1[1]
        if self.average == "macro":
            return ops.mean(f1)
        if self.average == "weighted":
            return ops.divide_no_nan(ops.sum(f1 * actual), ops.sum(actual))
        return f1

    def reset_state(self) -> None:
        """Forgets all batches."""
        for variable in self.variables:
            variable.assign(ops.zeros_like(variable))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialisable."""
        task = None if self.task is None else dataclasses.asdict(self.task)
        return {**super().get_config(), "task": task, "average": self.average, "threshold": self.threshold}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> F1Score:
        """The metric that `get_config` describes."""
        task = config.get("task")
        if task is not None:
            lists = {key: tuple(task[key]) for key in ("class_names", "class_frequencies")}
            config = {**config, "task": Task(**{**task, **lists})}
        return cls(**config)
