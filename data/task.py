"""What is predicted: the one idea from which head, loss, metrics and objective follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from keras_practice.core.arguments import is_integer

Kind = Literal["regression", "binary", "multiclass", "multilabel"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Task:
    """What a model predicts, stated by a constructor or inferred from labels.

    Labels `y` have shape `(samples,)` or `(samples, 1)`, except one-hot and
    multilabel ones and regression with several outputs, `(samples, outputs)`.
    More axes in between, such as steps or pixels, count as more samples.

    Attributes:
        kind: `"regression"`, `"binary"`, `"multiclass"` or `"multilabel"`.
        outputs: Number of output units: 1 for binary, one a class for
            multiclass, one a label for multilabel.
        class_names: One name a class (two for binary) or label. Empty if unknown.
        class_frequencies: Share of the samples of each class, in the same order,
            adding up to 1; for multilabel the share of samples that carry each
            label. Empty if unknown.
        one_hot: Whether multiclass labels are one-hot rows, not integers.

    Source:
        A15, A16; Goodfellow, Bengio and Courville 2016, section 6.2.
    """

    kind: Kind
    outputs: int
    class_names: tuple[str, ...] = ()
    class_frequencies: tuple[float, ...] = ()
    one_hot: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}. Got {self.kind!r}.")
        least = 2 if self.kind == "multiclass" else 1
        if not is_integer(self.outputs):
            raise ValueError(f"outputs must be an integer. Got {self.outputs!r}.")
        if self.outputs < least:
            raise ValueError(f"A {self.kind} task must have at least {least} outputs. Got {self.outputs}.")
        if self.kind == "binary" and self.outputs != 1:
            raise ValueError(f"A binary task has one output. Got {self.outputs}.")
        if self.one_hot and self.kind != "multiclass":
            raise ValueError(f"Only multiclass labels can be one-hot. Got a {self.kind} task.")
        for field in ("class_names", "class_frequencies"):
            values = getattr(self, field)
            if values and len(values) != self.num_classes:
                raise ValueError(
                    f"{field} must have one entry for each of the {self.num_classes} classes. "
                    f"Got {len(values)}."
                )

    @classmethod
    def regression(cls, outputs: int = 1) -> Task:
        """Numbers: `outputs` of them for each sample."""
        return cls("regression", outputs)

    @classmethod
    def binary(cls, class_names: Sequence[str] = (), class_frequencies: Sequence[float] = ()) -> Task:
        """Yes or no: labels 0 and 1, one sigmoid output."""
        return cls("binary", 1, tuple(class_names), tuple(class_frequencies))

    @classmethod
    def multiclass(
        cls,
        num_classes: int,
        class_names: Sequence[str] = (),
        class_frequencies: Sequence[float] = (),
        one_hot: bool = False,
    ) -> Task:
        """One of `num_classes` classes: integer labels `0 .. num_classes - 1`, or one-hot rows."""
        return cls("multiclass", num_classes, tuple(class_names), tuple(class_frequencies), one_hot)

    @classmethod
    def multilabel(
        cls, num_labels: int, class_names: Sequence[str] = (), class_frequencies: Sequence[float] = ()
    ) -> Task:
        """Any subset of `num_labels` labels: rows of 0 and 1, one sigmoid output a label."""
        return cls("multilabel", num_labels, tuple(class_names), tuple(class_frequencies))

    @classmethod
    def infer(cls, y: Any, kind: Kind | None = None, class_names: Sequence[str] = ()) -> Task:
        """The task that labels `y` state, with their class frequencies.

        Integers or booleans that take every value from 0 to C - 1 are classes
        (C = 2: binary). Rows of 0 and 1 are one-hot classes where every row has
        exactly one 1, and several labels otherwise. Other floating-point numbers
        are regression targets. Integers that leave gaps could be either, and are
        refused unless `kind` says which.

        Args:
            y: Labels, `(samples,)`, `(samples, 1)` or `(samples, outputs)`.
            kind: The kind of task, where the labels alone cannot tell.
                Defaults to `None`, inferred.
            class_names: One name a class. Defaults to `()`, unknown.

        Raises:
            ValueError: If `y` is empty, not finite, not numeric, holds a single
                class, or does not fit `kind`.
        """
        y = _label_array(y)
        if kind is None:
            kind = _infer_kind(y)
        if kind == "regression":
            return cls.regression(1 if y.ndim == 1 else y.shape[1])
        if kind == "multilabel":
            num_classes, one_hot = (y.shape[1] if y.ndim == 2 else 1), False
        elif kind == "binary":
            num_classes, one_hot = 2, False
        elif kind == "multiclass":
            one_hot = y.ndim == 2 and y.shape[1] > 1
            num_classes = y.shape[1] if one_hot else int(y.max()) + 1
            if num_classes < 2:
                raise ValueError(f"Labels must hold at least two classes. Got only {y.flat[0]!s}.")
        else:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}. Got {kind!r}.")
        outputs = 1 if kind == "binary" else num_classes
        bare = cls(kind, outputs, one_hot=one_hot)
        bare.check(y)
        counts = bare.class_counts(y)
        if kind != "multilabel" and np.count_nonzero(counts) < 2:
            only = int(np.argmax(counts))
            raise ValueError(f"Labels must hold at least two classes. Got only class {only}.")
        frequencies = tuple(float(c) for c in counts / len(y))
        return cls(kind, outputs, tuple(class_names), frequencies, one_hot)

    @property
    def num_classes(self) -> int:
        """Number of classes (2 for binary) or labels; for regression, of outputs."""
        return 2 if self.kind == "binary" else self.outputs

    @property
    def is_classification(self) -> bool:
        """Whether classes or labels are predicted, not numbers."""
        return self.kind != "regression"

    def check(self, y: Any) -> None:
        """Raises `ValueError`, in one sentence, where labels `y` do not fit this task.

        Classes may be absent from `y`; values outside the task may not be in it.
        """
        y = _label_array(y)
        width = 1 if y.ndim == 1 else y.shape[1]
        wide = self.kind in ("regression", "multilabel") or self.one_hot
        expected = self.outputs if wide else 1
        if width != expected:
            raise ValueError(f"Labels of {self} must have {expected} column(s). Got shape {y.shape}.")
        if self.kind == "regression":
            return
        highest = 1 if wide else self.num_classes - 1
        if not np.array_equal(y, np.round(y)) or y.min() < 0 or y.max() > highest:
            wrong = next(v for v in y.ravel() if v not in range(highest + 1))
            allowed = "0 or 1" if highest == 1 else f"integers from 0 to {highest}"
            raise ValueError(f"Labels of {self} must be {allowed}. Got {wrong!s}.")
        if self.one_hot and not np.all(y.sum(axis=1) == 1):
            raise ValueError(f"One-hot labels of {self} must have exactly one 1 in each row.")

    def class_counts(self, y: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of samples of each class or label in labels `y`, shape `(num_classes,)`."""
        if not self.is_classification:
            raise ValueError("Class counts need a classification task. Got regression.")
        y = np.asarray(y)
        if self.kind == "multilabel" or self.one_hot:
            return np.asarray(y.reshape(len(y), -1).sum(axis=0), dtype=np.int64)
        return np.asarray(np.bincount(y.astype(np.int64).ravel(), minlength=self.num_classes), dtype=np.int64)

    def class_indices(self, y: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Integer class of each sample, shape `(samples,)`, from integer or one-hot labels `y`."""
        if self.kind not in ("binary", "multiclass"):
            raise ValueError(f"Class indices need a binary or multiclass task. Got {self.kind}.")
        y = np.asarray(y)
        return np.asarray(y.argmax(axis=1) if self.one_hot else y.ravel(), dtype=np.int64)

    def __str__(self) -> str:
        if self.kind == "multiclass":
            return f"multiclass({self.outputs})"
        if self.kind == "binary":
            return "binary()"
        return f"{self.kind}({self.outputs})"


def _label_array(labels: Any) -> np.ndarray[Any, Any]:
    y: np.ndarray[Any, Any] = np.asarray(labels)
    if y.dtype.kind not in "biuf":
        raise ValueError(
            f"Labels must be numbers; sklearn.preprocessing.LabelEncoder turns names into them. "
            f"Got dtype {y.dtype}."
        )
    if y.ndim == 0 or y.size == 0:
        raise ValueError(f"Labels must have shape (samples,) or (samples, ..., outputs). Got {y.shape}.")
    if not np.all(np.isfinite(y)):
        raise ValueError(f"Labels must be finite. Got {int(np.sum(~np.isfinite(y)))} NaN or infinite values.")
    if y.ndim > 2:  # Steps or pixels are as many samples more.
        y = y.reshape(-1, y.shape[-1])
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _infer_kind(y: np.ndarray[Any, Any]) -> Kind:
    if y.ndim == 2:
        if not np.all((y == 0) | (y == 1)):
            return _refuse_gaps(y) if y.dtype.kind != "f" else "regression"
        return "multiclass" if np.all(y.sum(axis=1) == 1) else "multilabel"
    values = np.unique(y)
    if len(values) == 1 and y.dtype.kind != "f":
        raise ValueError(f"Labels must hold at least two classes. Got only {values[0]!s}.")
    if np.array_equal(values, [0, 1]):
        return "binary"
    if y.dtype.kind == "f":
        return "regression"
    if values[0] == 0 and values[-1] == len(values) - 1:
        return "multiclass"
    return _refuse_gaps(y)


def _refuse_gaps(y: np.ndarray[Any, Any]) -> Kind:
    raise ValueError(
        "Integer labels must take every value from 0 to C - 1 to be read as classes; "
        f"state the kind of task to say what they are. Got values from {y.min()} to {y.max()}."
    )
