"""The batches of one call of a training function: arrays on the device, and where each batch lies."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Larger arrays stay in the host's memory, and batches are sent to the device.
_LARGEST_ON_DEVICE = 2**28
_MAX_COLLECTED_BYTES = 2**26
_MAX_KEPT = 8
# Of one call: Ctrl-C is only heard between two.
MAX_STEPS = 512


@dataclass(frozen=True)
class Batches:
    """Batches that one call trains on.

    Attributes:
        data: Tensors of `(samples, ...)`, in the structure that a training step takes.
        bounds: Batch `i` is the samples from `bounds[i]` up to `bounds[i + 1]`;
            `None` for one batch that is taken as it is.
        order: Samples are counted in this order, `(samples,)`; `None` for their own.
    """

    data: Any
    bounds: tf.Tensor | None
    order: tf.Tensor | None = None

    @property
    def count(self) -> int:
        """Number of batches."""
        return 1 if self.bounds is None else int(self.bounds.shape[0]) - 1


def batches_of(data: Any, size: int, shuffle: bool) -> Batches:
    """Batches as Keras makes them of arrays: in order or shuffled, the last one smaller."""
    count = samples(data)
    bounds = tf.constant([*range(0, count, size), count], tf.int64)
    return Batches(data, bounds, _shuffled(count) if shuffle else None)


def _shuffled(count: int) -> tf.Tensor:
    """The order that Keras's arrays have in each epoch of a `fit`.

    Keras shuffles in a data set, whose random state begins anew with each epoch: from
    the global seed and, as for the first random operation of any new graph, a 0.
    """
    with tf.device("CPU:0"):
        # A new function every time: the state of an old one would go on.
        shuffle = tf.function(lambda: tf.random.shuffle(tf.range(count, dtype=tf.int64)), autograph=False)
        return shuffle()


def collected(iterator: Any, most: int) -> list[Batches]:
    """The next batches of an iterator, joined where they can be.

    Raises:
        StopIteration: If there is none left.
    """
    found: list[Any] = []
    while len(found) < most:
        try:
            found.append(keras.tree.map_structure(_plain, next(iterator)))
        except (StopIteration, tf.errors.OutOfRangeError):
            break
    if not found:
        raise StopIteration
    kinds = {repr(keras.tree.map_structure(_kind, batch)) for batch in found}
    if len(found) == 1 or len(kinds) > 1 or "None" in kinds.pop():
        return [Batches(batch, None) for batch in found]
    counts = [samples(batch) for batch in found]
    data = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *found)
    return [Batches(data, tf.constant(np.cumsum([0, *counts]), tf.int64))]


def _plain(part: Any) -> Any:
    return None if isinstance(part, tf.experimental.Optional) else part


def _kind(part: Any) -> str:
    """What must agree for two batches to be joined; "None" if this part can never be."""
    if not isinstance(part, tf.Tensor) or part.shape.rank in (None, 0):
        return "None"
    return f"{part.dtype.name} {part.shape[1:]}"


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch.

    Attributes:
        calls: Batches that are handed over together, one after the other.
        whole: Whether they are all handed over together.
    """

    calls: Iterable[Batches]
    whole: bool


@dataclass(frozen=True)
class Epochs:
    """One epoch after another.

    Attributes:
        next: Gives the batches of the next epoch.
        count: Batches in an epoch.
    """

    next: Callable[[], Epoch]
    count: int


def epochs_of_arrays(data: Any, size: int, shuffle: bool) -> Epochs:
    """Epochs as Keras makes them of tensors, which shuffles each of them alike."""
    batches = batches_of(data, size, shuffle)
    return Epochs(lambda: Epoch([batches], batches.count <= MAX_STEPS), batches.count)


def epochs_of_dataset(dataset: tf.data.Dataset) -> Epochs | None:
    """Epochs of a data set; `None` where their length is not known."""
    count = int(dataset.cardinality().numpy())
    if count < 1:
        return None
    together, untuned = min(MAX_STEPS, _worth_collecting(dataset, count)), _untuned(dataset)

    def calls() -> Iterator[Batches]:
        iterator = iter(untuned)
        with contextlib.suppress(StopIteration):
            while True:
                yield from collected(iterator, together)
        iter(
            untuned
        )  # Keras makes one after each epoch, too, for which a data set that shuffles draws an order.

    def epoch() -> Epoch:
        if together < count:
            return Epoch(calls(), whole=False)
        found = [*calls()]
        return Epoch(found, len(found) == 1 and found[0].bounds is not None)

    return Epochs(epoch, count)


def _worth_collecting(dataset: tf.data.Dataset, count: int) -> int:
    """How many batches of a data set one call should take: all of them if they are small, else 1."""
    size = 0
    for spec in tf.nest.flatten(dataset.element_spec):
        if not isinstance(spec, tf.TensorSpec) or spec.shape.rank in (None, 0):
            return 1
        if not spec.shape[1:].is_fully_defined():
            return 1
        rows = spec.shape[0] or 256
        size += rows * spec.shape[1:].num_elements() * spec.dtype.size
    return max(1, min(count, _MAX_COLLECTED_BYTES // max(size, 1)))


def packed(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """Arrays as one structure that a training step takes; `None` where they are not plain arrays."""
    parts = [x, y, sample_weight]
    while parts and parts[-1] is None:
        parts.pop()
    if not parts or any(part is None for part in parts) or (len(parts) == 3 and keras.tree.is_nested(y)):
        return None
    data = keras.tree.lists_to_tuples(tuple(parts))
    leaves = keras.tree.flatten(data)
    if not leaves or not all(map(_is_array, leaves)) or len({len(leaf) for leaf in leaves}) > 1:
        return None
    return data if len(leaves[0]) else None


def _is_array(part: Any) -> bool:
    if isinstance(part, tf.Tensor):
        return part.shape.rank not in (None, 0) and (part.dtype.is_floating or part.dtype.is_integer)
    return isinstance(part, np.ndarray) and part.ndim > 0 and part.dtype.kind in "biuf"


def samples(data: Any) -> int:
    """The number of samples of a structure of arrays."""
    return int(keras.tree.flatten(data)[0].shape[0])


class DeviceArrays:
    """Tensors of the arrays that were used last, so that each is copied to the device once.

    An array that was changed in place since is copied again.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, int, tf.Tensor]] = {}

    def get(self, data: Any) -> Any:
        """The tensors of a structure of arrays, with floats in Keras's float type."""
        return keras.tree.map_structure(self._tensor, data)

    def _tensor(self, array: Any) -> tf.Tensor:
        if isinstance(array, tf.Tensor):
            return _as_floatx(array)
        mark = zlib.crc32(np.ascontiguousarray(array).data.cast("B"))
        kept = self._kept.pop(id(array), None)
        if kept is None or kept[0] is not array or kept[1] != mark:
            with tf.device("CPU:0") if array.nbytes > _LARGEST_ON_DEVICE else tf.device(None):
                kept = array, mark, _as_floatx(tf.convert_to_tensor(array))
        self._kept[id(array)] = kept
        while len(self._kept) > _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[2]


def _as_floatx(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same data set without the thread that tunes it, for whose end each epoch would have to wait."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
