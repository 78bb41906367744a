"""Layers that look rows up by number: which numbers the data ask for, and keeping these inside."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.forward_pass import ForwardPass, fixed_batch
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.layers import all_layers
from keras_practice.core.steps import hooked
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved

# Columns whose largest and smallest number are looked for; of wider inputs only those of the whole.
_MAX_COLUMNS = 64


@dataclass(frozen=True)
class Lookup:
    """What was asked of a table in one call.

    Attributes:
        name: Of the layer that holds it.
        kind: Keras's `Embedding` or `CategoryEncoding`, or an operation for itself.
        size: Its rows, numbered from 0.
        asked: The numbers that were looked up, an array of any shape.
        runs_below_zero: Whether numbers below 0 that are not far below raise nothing.
    """

    name: str
    kind: Literal["embedding", "encoding", "gather", "one-hot"]
    size: int
    asked: Array
    runs_below_zero: bool = False

    @property
    def outside(self) -> Array:
        """Those that it does not have."""
        return np.unique(self.asked[(self.asked < 0) | (self.asked >= self.size)])


def extreme_rows(samples: Samples) -> Array:
    """The first row, and those with the largest and smallest number of each column of whole numbers."""
    rows = {0}
    for array in samples.inputs.values():
        flat = array.reshape(len(array), -1)
        if array.dtype.kind not in "iuf" or not flat.size or not _is_whole(flat):
            continue
        rows |= {int(flat.max(axis=1).argmax()), int(flat.min(axis=1).argmin())}
        if flat.shape[1] <= _MAX_COLUMNS:
            rows |= {int(row) for row in (*flat.argmax(axis=0), *flat.argmin(axis=0))}
    return np.array(sorted(rows), np.int64)


@contextmanager
def lookups_kept_inside(model: keras.Model, samples: Samples) -> Iterator[tuple[Lookup, ...]]:
    """Asks the tables of a model for the largest and smallest numbers there are.

    Gives the lookups that ask for rows that are not there. Where there are any, numbers are
    moved to the next row that is there while the block runs, so that the rest can be looked at.
    """
    tables = {id(layer): (layer, size) for layer in all_layers(model) if (size := _rows_of(layer))}
    if not tables or fixed_batch(model) is not None:
        yield ()
        return
    seen: list[Lookup] = []

    def kept(layer: keras.layers.Layer, size: int, call: Any, *args: Any, **kwargs: Any) -> Any:
        asked, *others = args if args else (kwargs.pop("inputs"),)
        values = asked.flat_values if isinstance(asked, tf.RaggedTensor) else asked
        if tf.is_tensor(values) and hasattr(values, "numpy"):
            seen.append(_in_layer(layer, size, np.asarray(values)))
        return call(_inside(asked, size), *others, **kwargs)

    with ExitStack() as hooks:
        for layer, size in tables.values():
            hooks.enter_context(hooked(layer, "call", functools.partial(kept, layer, size)))
        # What a call raises else is told by the forward pass, which comes next.
        with suppress(Exception), preserved(model) if model.built else nullcontext():
            model(samples.take(extreme_rows(samples)).fed, training=False)
        outside = tuple(lookup for lookup in seen if lookup.outside.size)
        if outside:
            yield outside
    if not outside:
        yield ()


def _in_layer(layer: keras.layers.Layer, size: int, asked: Array) -> Lookup:
    if isinstance(layer, keras.layers.Embedding):
        return Lookup(layer.name, "embedding", size, asked, runs_below_zero=True)
    return Lookup(layer.name, "encoding", size, asked, runs_below_zero=layer.output_mode == "one_hot")


def lookups_in_graph(model: keras.Model, samples: Samples) -> tuple[Lookup, ...]:
    """What operations of a model, outside of Keras's layers for it, look up beyond their tables.

    Those of `tf.gather` on a weight, and of one-hot rows.
    """
    names: list[tuple[str, str]] = []

    @tf.function(autograph=False)
    def look(x: Any) -> Any:
        model(x, training=False)
        found = []
        for op in tf.compat.v1.get_default_graph().get_operations():
            if op.type == "OneHot":
                found.append((op.inputs[0], tf.cast(op.inputs[1], tf.int64)))
            elif op.type in ("GatherV2", "ResourceGather") and _is_weight(op.inputs[0]):
                table = op.inputs[0].op.inputs[0] if op.type == "GatherV2" else op.inputs[0]
                found.append((op.inputs[1], tf.cast(_first_size(op, table), tf.int64)))
            else:
                continue
            names.append((op.type, op.name.split("/")[-2] if "/" in op.name else op.name))
        return found

    try:
        with preserved(model):
            answers = look(samples.take(extreme_rows(samples)).fed)
    except Exception:  # It is only another look at what the forward pass tells.
        return ()
    read = [
        Lookup(
            name, "one-hot" if kind == "OneHot" else "gather", int(size), np.asarray(ids), kind == "OneHot"
        )
        for (kind, name), (ids, size) in zip(names, answers, strict=True)
    ]
    return tuple(lookup for lookup in read if lookup.outside.size)


def looks_up_elsewhere(forward_pass: ForwardPass) -> bool:
    """Whether a model may look rows up by operations of its own, beside Keras's layers for it."""
    gathers = sum(kind in ("GatherV2", "ResourceGather") for kind in forward_pass.operations)
    embeddings = sum(isinstance(call.layer, keras.layers.Embedding) for call in forward_pass.calls)
    return "OneHot" in forward_pass.operations or gathers > embeddings


def _is_weight(tensor: Any) -> bool:
    return bool(tensor.op.type == "ReadVariableOp" or tensor.dtype == tf.resource)


def _first_size(op: Any, table: Any) -> Any:
    if op.type == "GatherV2":
        return tf.shape(op.inputs[0])[0]
    return tf.raw_ops.VariableShape(input=table)[0]


def _rows_of(layer: keras.layers.Layer) -> int:
    """How many rows a layer looks up from, 0 for one that looks nothing up."""
    if isinstance(layer, keras.layers.Embedding):
        return int(layer.input_dim)
    if isinstance(layer, keras.layers.CategoryEncoding):
        return int(layer.num_tokens or 0)
    return 0


def _inside(asked: Any, size: int) -> Any:
    if isinstance(asked, tf.RaggedTensor):
        return tf.ragged.map_flat_values(lambda values: _inside(values, size), asked)
    if not tf.is_tensor(asked) or not (asked.dtype.is_integer or asked.dtype.is_floating):
        return asked
    return tf.clip_by_value(asked, tf.cast(0, asked.dtype), tf.cast(size - 1, asked.dtype))


def _is_whole(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.array_equal(values, np.round(values)))
