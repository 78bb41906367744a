"""Arrays that a model gets in another form than the checks read them in: ragged and sparse tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from keras_practice.core.types import Array


@dataclass(frozen=True)
class Form:
    """How a model gets an array.

    Attributes:
        kind: As it is, or as a ragged or sparse tensor, or one of strings, which `fit` takes of
            no array.
        lengths: Of a ragged tensor's rows, `(samples,)`; `None` for others.
    """

    kind: Literal["dense", "ragged", "sparse", "strings"] = "dense"
    lengths: Array | None = None

    def take(self, rows: Any) -> Form:
        """That of some rows: a slice, or an array of positions."""
        return self if self.lengths is None else replace(self, lengths=self.lengths[rows])

    def given(self, dense: Any, rows: Any = None) -> Any:
        """A dense tensor as the model gets it.

        Args:
            dense: Some rows, `(samples, ...)`.
            rows: Which rows these are, a tensor. Defaults to `None`, all in order.
        """
        if self.kind == "sparse":
            return tf.sparse.from_dense(dense)
        if self.lengths is None:
            return dense
        lengths = tf.constant(self.lengths, tf.int64)
        return tf.RaggedTensor.from_tensor(dense, lengths if rows is None else tf.gather(lengths, rows))


@dataclass(frozen=True)
class Read:
    """An array as the checks read it, and how the model gets it."""

    array: Array
    form: Form = Form()


def read_array(value: Any) -> Read:
    """Any array as NumPy's: a ragged tensor is filled with zeros, a sparse one is written out."""
    if isinstance(value, tf.RaggedTensor):
        form = Form("ragged", value.row_lengths().numpy()) if value.ragged_rank == 1 else Form()
        return Read(np.asarray(value.to_tensor()), form)
    if isinstance(value, tf.SparseTensor):
        return Read(np.asarray(tf.sparse.to_dense(tf.sparse.reorder(value))), Form("sparse"))
    if type(value).__module__.partition(".")[0] == "scipy" and hasattr(value, "toarray"):
        return Read(np.asarray(value.toarray()), Form("sparse"))
    if isinstance(value, tf.Tensor) and value.dtype == tf.string:
        return Read(np.asarray(value), Form("strings"))
    return Read(np.asarray(value))


def is_array(value: Any) -> bool:
    """Whether a value holds one row a sample: an array or tensor of any kind."""
    return isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) or (
        hasattr(value, "shape") and len(value.shape) > 0
    )


def joined(reads: list[Read]) -> tuple[Read, Array | None]:
    """The rows of several batches one after another.

    Batches of other lengths are filled with zeros at the end, as `padded_batch` does within one.

    Returns:
        All rows, and how long each was along the first axis after the samples; `None` where all
        are as long as the longest.

    Raises:
        ValueError: If their arrays do not have the same number of axes.
    """
    arrays = [read.array for read in reads]
    ranks = {array.ndim: array.shape for array in arrays}
    if len(ranks) != 1:
        found = " and ".join(map(str, ranks.values()))
        raise ValueError(f"The batches of a data set must have the same number of axes. Got {found}.")
    first = reads[0].form
    lengths = None if first.lengths is None else np.concatenate([r.form.lengths for r in reads])
    form = replace(first, lengths=lengths)
    largest = np.max([array.shape[1:] for array in arrays], axis=0) if 1 not in ranks else np.zeros(0, int)
    if all(array.shape[1:] == tuple(largest) for array in arrays):
        return Read(np.concatenate(arrays), form), None
    filled = []
    for array in arrays:
        room = [(0, 0), *((0, int(size) - had) for size, had in zip(largest, array.shape[1:], strict=True))]
        filled.append(np.pad(array, room) if array.dtype.kind in "biufc" else _filled_text(array, room))
    long = np.concatenate([np.full(len(array), array.shape[1]) for array in arrays])
    return Read(np.concatenate(filled), form), long


def _filled_text(array: Array, room: list[tuple[int, int]]) -> Array:
    return np.pad(array.astype(object), room, constant_values=b"" if array.dtype.kind == "O" else "")
