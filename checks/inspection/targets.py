"""What the checks of data have in common: outputs with their tasks, rows and columns of any arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.inspection.context import CheckContext, loss_name, task_of
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.types import Array
from keras_practice.data import Task

# Figures of scale and of duplicates settle long before this many rows.
LOOK = 2_000
# Below this many rows a share or a correlation says little.
FEW_ROWS = 20


@dataclass(frozen=True)
class Target(Head):
    """An output with what it predicts: stated by the user for the first, else as its labels say."""

    task: Task | None


def targets_of(context: CheckContext) -> list[Target]:
    """The outputs, each with its task."""
    first = next((head for head in context.heads if head.labels.size), None)
    return [Target(**vars(h), task=context.task if h is first else task_of(h)) for h in context.heads]


def holds(read: Array, raw: Array) -> bool:
    """Whether what a layer read is the raw data: all of them, or a part in another shape."""
    if len(read) != len(raw):
        return False
    a, b = as_rows(read), as_rows(raw).astype(np.float32)
    if a.shape == b.shape:
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    for one, other in zip(a[:4], b[:4], strict=True):
        nonzero = one[one != 0]
        if len(nonzero) and np.isin(nonzero.astype(np.float32), other).mean() < 0.95:
            return False
    return bool(np.any(a[:4] != 0))


def takes_ids(layer: keras.layers.Layer) -> bool:
    """Whether a layer looks rows up by number."""
    return isinstance(layer, keras.layers.Embedding) or any(v.name == "embeddings" for v in layer.variables)


def named_arrays(nest: Any, letter: str) -> dict[str, Array]:
    """The arrays of a nest by name, such as `y` or `y[0]`."""
    if nest is None:
        return {}
    if isinstance(nest, dict):
        return {f"{letter}[{name!r}]": values for name, values in nest.items()}
    arrays = keras.tree.flatten(nest)
    return {letter: arrays[0]} if len(arrays) == 1 else {f"{letter}[{i}]": a for i, a in enumerate(arrays)}


def tried_samples(context: CheckContext) -> Samples:
    """The samples that the forward pass shows."""
    return context.train.spread(len(context.heads[0].outputs), context.seed)


def enough_samples(width: int) -> int:
    """Rows that settle the figures of each column, fewer where there are many columns."""
    return max(256, min(LOOK, 400_000 // max(width, 1)))


def some_samples(samples: Samples, seed: int) -> Samples:
    """As many samples as settle a figure of scale."""
    width = sum(math.prod(array.shape[1:]) for array in samples.inputs.values())
    return samples.spread(enough_samples(width), seed)


def some_of(array: Array) -> Array:
    """As many rows of an array as settle a figure of scale."""
    count = enough_samples(math.prod(array.shape[1:]))
    if len(array) <= count:
        return array
    return np.asarray(array[np.sort(np.random.default_rng(0).choice(len(array), count, replace=False))])


def as_rows(array: Array) -> Array:
    """`(samples, numbers)`."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def columns_of(array: Array) -> Array:
    """`(samples and positions, columns)`."""
    return array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(-1, 1)


def numbers_in(arrays: Iterable[Array]) -> list[Array]:
    """Those of the arrays that hold numbers."""
    return [a for a in arrays if a.dtype.kind in "biuf" and a.ndim > 0]


def all_finite(*arrays: Array) -> bool:
    """Whether no array holds NaN or infinity."""
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in arrays)


def is_constant(array: Array) -> bool:
    """Whether all rows are the same."""
    return array.size == 0 or bool(np.all(array == array[:1]))


def fed_to_embedding(context: CheckContext, array: Array, name: str) -> bool:
    """Whether an input holds ids that an embedding looks up."""
    raw = tried_samples(context).inputs[name]
    if raw.dtype.kind not in "biuf" or not np.array_equal(raw, np.round(raw)):
        return False
    readers = [c for c in context.forward_pass.calls if any(holds(a, raw) for a in numbers_in(c.inputs))]
    return any(takes_ids(call.layer) for call in readers)


def is_regression(head: Target) -> bool:
    """Whether an output predicts numbers."""
    task = head.task
    if task is not None:
        return task.kind == "regression"
    return not any(word in loss_name(head.loss) for word in ("crossentropy", "hinge", "focal"))


def is_multilabel(head: Target) -> bool:
    """Whether an output predicts several labels a sample."""
    task = head.task
    return task is not None and task.kind == "multilabel"


def is_categorical(head: Target) -> bool:
    """Whether the loss is a categorical one."""
    return "categorical" in loss_name(head.loss)


def class_codes(head: Target, labels: Array) -> Array | None:
    """The class of each label as an integer; `None` where labels are no classes."""
    task, name = head.task, loss_name(head.loss)
    if "sparse_categorical" in name or (task is not None and task.kind == "binary"):
        codes = labels.reshape(-1)
    elif task is not None and task.kind == "multiclass":
        codes = labels.reshape(-1, labels.shape[-1]).argmax(axis=1) if task.one_hot else labels.reshape(-1)
    elif not is_regression(head) and labels.size == len(labels):
        codes = np.unique(labels, return_inverse=True)[1].reshape(-1)  # Such as -1 and 1 for a hinge.
    else:
        return None
    whole = codes.astype(np.int64)
    return whole if np.array_equal(whole, codes) and whole.min() >= 0 else None


def one_label_a_row(head: Target) -> Array | None:
    """Labels as one number a sample; `None` where they are none."""
    labels = head.labels
    if labels.dtype.kind not in "biuf" or labels.ndim > 2 or not all_finite(labels):
        return None
    if labels.ndim == 1 or labels.shape[1] == 1:
        return labels.reshape(-1)
    task = head.task
    return labels.argmax(axis=1) if task is not None and task.one_hot else None


def label_columns(head: Target, labels: Array) -> Array:
    """Labels as columns to predict: one a class, at most 20, or the numbers themselves."""
    columns = as_rows(labels)
    codes = None if columns.shape[1] > 1 else class_codes(head, labels)
    if codes is None or codes.max() < 2:
        return columns[:, :20]
    values, counts = np.unique(codes, return_counts=True)
    values = values[np.argsort(-counts, kind="stable")[:20]]
    return np.asarray(codes[:, None] == values, dtype=np.float32)
