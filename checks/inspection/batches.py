"""Some thousand samples of a data set, from all over it; its next pass is as if it had not been read."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.forms import Form, Read, is_array, joined, read_array
from keras_practice.core.types import Array

MAX_ROWS = 4_096
_MAX_SECONDS = 3.0
_MIN_WINDOW = 0.1


@dataclass(frozen=True)
class Batches:
    """What was read of a data set; the names are those of `Samples`."""

    x: Any
    y: Any
    weight: Any
    total: int | None
    complete: bool
    shuffled: bool
    batch: int
    by_batch: bool
    bare: bool
    forms: tuple[Form, ...]


def read_batches(batches: Any, steps: int | None, *, alone: bool) -> Batches:
    """Reads a `tf.data.Dataset`, a `PyDataset` or an iterator, never to an end that may not come.

    Args:
        batches: What gives batches.
        steps: How many are an epoch; `None` for all there are.
        alone: Whether inputs may come without labels.

    Raises:
        ValueError: If it gives no batches, or other ones than `fit` takes.
    """
    window, by_batch = 0.0, isinstance(batches, keras.utils.PyDataset)
    if isinstance(batches, tf.data.Dataset):
        batches, window = _copied(batches)
        length = int(batches.cardinality())
    elif by_batch:
        length = batches.num_batches or 0
    else:
        length = 0
    if steps is not None:
        length = min(length, steps) if length > 0 else steps
    until, parts, count = time.monotonic() + _MAX_SECONDS, [], 0
    for batch in _spread_out(batches, length):
        parts.append(_unpacked(batch, alone))
        count += len(parts[-1].rows)
        if count >= MAX_ROWS or time.monotonic() > until:
            break
    if not parts:
        raise ValueError("A data set must give at least one batch. Got none.")
    first = parts[0]
    x, forms, _ = _join([part.x for part in parts])
    y, long = None, None
    if first.y is not None:
        y, _, long = _join([part.y for part in parts])
    weight = None if first.weight is None else _join([part.weight for part in parts])[0]
    if weight is None and y is not None and long is not None and y.ndim > 1:
        # What was filled in is no label, and counts for none.
        weight = (np.arange(y.shape[1]) < long[:, None]).astype(np.float32)
    complete = len(parts) == length
    total = count if complete else length * (count // len(parts)) if length > 0 else None
    # A buffer that holds a small part of the samples leaves their order nearly as it was. Of what a
    # generator does nothing is known but the rows that came.
    shuffled = window >= (total or count) * _MIN_WINDOW and not by_batch
    bare = first.bare
    return Batches(x, y, weight, total, complete, shuffled, len(first.rows), by_batch, bare, forms)


@dataclass(frozen=True)
class _Batch:
    """One batch: nests of `Read`, `None` for what it does not bring."""

    x: Any
    y: Any
    weight: Any
    bare: bool

    @property
    def rows(self) -> Array:
        """The first array of its inputs."""
        first: Read = keras.tree.flatten(self.x)[0]
        return first.array


def _join(nests: list[Any]) -> tuple[Any, tuple[Form, ...], Array | None]:
    """Nests of batches as one nest of arrays; their forms; how long each row was, for a single array."""
    made = [joined(list(reads)) for reads in zip(*(keras.tree.flatten(nest) for nest in nests), strict=True)]
    nest = keras.tree.pack_sequence_as(nests[0], [read.array for read, _ in made])
    return nest, tuple(read.form for read, _ in made), made[0][1] if len(made) == 1 else None


def _unpacked(batch: Any, alone: bool) -> _Batch:
    bare = not isinstance(batch, (tuple, list))
    x, y, weight, *others = (batch, None, None) if bare else (*batch, None, None)[: max(3, len(batch))]
    if others or (y is None and not alone):
        raise ValueError(f"A data set must give (inputs, labels). Got a {type(batch).__name__}.")
    if isinstance(x, tuple) and len(x) == 0:
        raise ValueError("A data set must give (inputs, labels). Got an empty tuple.")
    parts = [x, *(part for part in (y,) if part is not None)]
    for part in keras.tree.flatten(parts):
        if not is_array(part) and np.ndim(part) == 0:
            raise ValueError("A data set must give batches; call .batch(32) on it. Got single samples.")
    read_x, read_y, read_weight = (None if part is None else _read(part) for part in (x, y, weight))
    return _Batch(read_x, read_y, read_weight, bare)


def _read(nest: Any) -> Any:
    return keras.tree.map_structure(read_array, nest)


def _spread_out(batches: Any, length: int) -> Iterator[Any]:
    """Batches from all over a data set, in their order: its beginning may be all of one class."""
    if isinstance(batches, tf.data.Dataset):
        first = next(iter(batches), None)
        if first is None:
            return
        stride = _stride(length, first)
        if length > 0:
            batches = batches.take(length)
        yield from batches.shard(stride, 0) if stride > 1 else batches
    elif isinstance(batches, Iterator):  # What comes from it is gone: no more than is looked at.
        yield from itertools.islice(batches, length)
    elif length > 0:
        stride = _stride(length, batches[0])
        yield from (batches[i] for i in range(0, length, stride))
    else:
        yield from (batches[i] for i in range(MAX_ROWS))


def _stride(length: int, batch: Any) -> int:
    return max(1, length * len(_unpacked(batch, True).rows) // MAX_ROWS)


def _copied(dataset: tf.data.Dataset) -> tuple[tf.data.Dataset, float]:
    """The same data set with shuffles that have a state of their own, and the size of the largest buffer.

    0 where there is none, and infinity where it cannot be told.

    A shuffle draws the next order from a generator that all passes share.
    """
    variant = tf.data.experimental.to_variant(dataset)
    try:
        serialized = tf.raw_ops.DatasetToGraphV2(input_dataset=variant, external_state_policy=1)
        graph = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    except (tf.errors.OpError, ValueError):  # Too large, or of something that cannot be copied.
        return dataset, math.inf
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    shuffles = [node for node in nodes if node.op == "ShuffleDatasetV3"]
    constants = {node.name: node.attr["value"].tensor for node in nodes if node.op == "Const"}
    buffers = [_buffer(constants.get(node.input[1].partition(":")[0])) for node in shuffles]
    for node in shuffles:
        node.op = "ShuffleDataset"
        del node.input[-1]  # The shared generator.
        node.attr["reshuffle_each_iteration"].b = False
    if not shuffles:
        return dataset, math.inf if any("Shuffle" in node.op for node in nodes) else 0
    copied = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    return tf.data.experimental.from_variant(copied, dataset.element_spec), max(buffers)


def _buffer(tensor: Any) -> float:
    size = -1 if tensor is None else int(tf.make_ndarray(tensor))
    return math.inf if size < 0 else size
