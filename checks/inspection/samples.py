"""The samples that `fit` would see, drawn from whatever it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.types import Array

MAX_ROWS = 4_096
_MAX_SECONDS = 3.0
_MIN_WINDOW = 0.1


@dataclass(frozen=True)
class Samples:
    """Samples in the order in which they come.

    Attributes:
        x: Inputs: an array `(samples, ...)`, or a list, tuple or dict of such.
        y: Labels in the same way.
        weight: Sample weights, `(samples,)`, or `None`.
        total: How many samples there are in all; `None` where that is not known.
        complete: Whether these are all of them.
        shuffled: Whether they come in a new order each time; `None` where that is
            not known, or is up to `fit`.
        batch: Samples a batch, where they come in batches; `None` where that is up to `fit`.
    """

    x: Any
    y: Any
    weight: Array | None
    total: int | None
    complete: bool
    shuffled: bool | None = None
    batch: int | None = None

    def __len__(self) -> int:
        return len(keras.tree.flatten(self.x)[0])

    @property
    def inputs(self) -> dict[str, Array]:
        """The arrays of `x` by name: the key in a dict, `x` alone, else `x[0]`, `x[1]`, ..."""
        if isinstance(self.x, dict):
            return {str(name): values for name, values in self.x.items()}
        arrays = keras.tree.flatten(self.x)
        return {"x": arrays[0]} if len(arrays) == 1 else {f"x[{i}]": a for i, a in enumerate(arrays)}

    def take(self, rows: Any) -> Samples:
        """Some of them: a slice, or an array of positions."""

        def choose(nest: Any) -> Any:
            return keras.tree.map_structure(lambda a: a[rows], nest)

        weight = None if self.weight is None else self.weight[rows]
        x, y = choose(self.x), choose(self.y)
        return Samples(x, y, weight, self.total, False, self.shuffled, self.batch)

    def spread(self, count: int, seed: int = 0) -> Samples:
        """About `count` of them, drawn at random without a repeat, in their order."""
        if len(self) <= count:
            return self
        rng = np.random.default_rng(seed)
        return self.take(np.sort(rng.choice(len(self), count, replace=False)))


def samples_of(x: Any, y: Any, weight: Any = None) -> Samples:
    """Reads arrays as they are, and about 4,096 samples of a `tf.data.Dataset` or `PyDataset`.

    The next pass over a data set is the same as if it had not been read: a
    `tf.data.Dataset` is copied first, with shuffles of the copy's own. (Where it is too
    large to copy, beyond 2 GB in memory, or draws from a `tf.random.Generator`, what is
    random in it goes on from where the reading left it.) A generator is refused: what
    is read from it is gone. Rows are taken as they are.

    Raises:
        ValueError: If x and y do not have the same number of samples, there is none,
            or `y` is given beside a data set that brings its own.
    """
    if isinstance(x, Samples):
        return x
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        if y is not None:
            raise ValueError(f"A data set brings its labels itself; leave y out. Got y beside a {_name(x)}.")
        return _samples_of_batches(x)
    if isinstance(x, Iterator):
        raise ValueError(
            f"x must be arrays, a tf.data.Dataset or a PyDataset, which can be read twice. Got a {_name(x)}."
        )
    if y is None:
        raise ValueError(f"y must be given beside {_name(x)} inputs. Got none.")
    # `fit` takes a list of numbers for one array, and a list of arrays for several inputs.
    x, y = _arrays(x), _arrays(y)
    lengths = {len(part) for part in keras.tree.flatten((x, y))}
    if len(lengths) != 1 or 0 in lengths:
        counts = " and ".join(str(len(part)) for part in keras.tree.flatten((x, y)))
        raise ValueError(f"x and y must have one row a sample each, and at least one. Got {counts}.")
    weight = None if weight is None else np.asarray(weight)
    return Samples(x, y, weight, lengths.pop(), True)


def in_turn(classes: Array) -> Array:
    """Positions of samples such that the classes take turns, each in the order in which it comes."""
    turn = np.empty(len(classes), np.int64)
    for c in np.unique(classes):
        turn[classes == c] = np.arange(np.sum(classes == c))
    return np.argsort(turn, kind="stable")


def _samples_of_batches(batches: Any) -> Samples:
    window = math.inf  # A PyDataset's batches are shuffled by `fit`.
    if isinstance(batches, tf.data.Dataset):
        batches, window = _copied(batches)
        length = int(batches.cardinality())
    else:
        length = batches.num_batches or 0
    until, parts, count = time.monotonic() + _MAX_SECONDS, [], 0
    for batch in _spread_out(batches, length):
        parts.append(_unpacked(batch))
        count += len(keras.tree.flatten(parts[-1])[0])
        if count >= MAX_ROWS or time.monotonic() > until:
            break
    if not parts:
        raise ValueError("A data set must give at least one batch. Got none.")

    def join(*arrays: Any) -> Any:
        return np.concatenate(arrays)

    x, y = (keras.tree.map_structure(join, *[part[i] for part in parts]) for i in (0, 1))
    weight = None if parts[0][2] is None else join(*[part[2] for part in parts])
    complete = len(parts) == length
    total = count if complete else length * (count // len(parts)) if length > 0 else None
    # A buffer that holds a small part of the samples leaves their order nearly as it was.
    shuffled = window >= (total or count) * _MIN_WINDOW
    first = len(keras.tree.flatten(parts[0])[0])
    return Samples(x, y, weight, total, complete, shuffled, first)


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)) or not 2 <= len(batch) <= 3:
        raise ValueError(f"A data set must give (inputs, labels). Got a {_name(batch)}.")
    x, y = keras.tree.map_structure(np.asarray, tuple(batch[:2]))
    weight = np.asarray(batch[2]) if len(batch) == 3 and hasattr(batch[2], "shape") else None
    if any(part.ndim == 0 for part in keras.tree.flatten((x, y))):
        raise ValueError("A data set must give batches; call .batch(32) on it. Got single samples.")
    return x, y, weight


def _spread_out(batches: Any, length: int) -> Iterator[Any]:
    """Batches from all over a data set, in their order: its beginning may be all of one class."""
    if isinstance(batches, tf.data.Dataset):
        first = next(iter(batches), None)
        if first is None:
            return
        stride = _stride(length, _unpacked(first)[0])
        yield from batches.shard(stride, 0) if stride > 1 else batches
    elif length > 0:
        stride = _stride(length, _unpacked(batches[0])[0])
        yield from (batches[i] for i in range(0, length, stride))
    else:
        yield from (batches[i] for i in range(MAX_ROWS))


def _stride(length: int, inputs: Any) -> int:
    return max(1, length * len(keras.tree.flatten(inputs)[0]) // MAX_ROWS)


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


def _arrays(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {name: np.asarray(part) for name, part in nest.items()}
    if isinstance(nest, (list, tuple)) and nest and hasattr(nest[0], "shape") and np.ndim(nest[0]) > 0:
        return type(nest)(np.asarray(part) for part in nest)
    return np.asarray(nest)


def _name(value: Any) -> str:
    return type(value).__name__
