"""The operations of one forward pass that the data go through, and what they do to them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_practice.core.layers import all_layers
from keras_practice.core.steps import hooked

Layer: TypeAlias = keras.layers.Layer
# Products of the data with a kernel.
_PRODUCTS = {
    "BatchMatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Conv2D",
    "Conv2DBackpropInput",
    "Conv3D",
    "Conv3DBackpropInputV2",
    "DepthwiseConv2dNative",
    "Einsum",
    "MatMul",
}
# What is done to each number for itself and keeps differences in proportion.
POINTWISE = {
    "Add",
    "AddV2",
    "BiasAdd",
    "Cast",
    "CheckNumerics",
    "Div",
    "DivNoNan",
    "ExpandDims",
    "FusedBatchNorm",
    "FusedBatchNormV2",
    "FusedBatchNormV3",
    "Identity",
    "IdentityN",
    "Mul",
    "Neg",
    "PreventGradient",
    "RealDiv",
    "Reshape",
    "Snapshot",
    "Squeeze",
    "StopGradient",
    "Sub",
    "Transpose",
}
# What mixes numbers, and is linear in them.
MIXING = {
    "AddN",
    "AvgPool",
    "AvgPool3D",
    "BatchToSpaceND",
    "Concat",
    "ConcatV2",
    "Cumsum",
    "DepthToSpace",
    "Gather",
    "GatherNd",
    "GatherV2",
    "Mean",
    "MirrorPad",
    "Pack",
    "Pad",
    "PadV2",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "ReverseV2",
    "Roll",
    "Slice",
    "SpaceToBatchND",
    "SpaceToDepth",
    "Split",
    "SplitV",
    "StridedSlice",
    "Sum",
    "Tile",
    "Unpack",
}
_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
_LOOKUPS = {"Gather", "GatherV2", "OneHot", "ResourceGather"}
# What comes out of an activation: its lowest and highest value.
RANGES = {
    "Elu": (-1.0, math.inf),
    "Exp": (0.0, math.inf),
    "LeakyRelu": (-math.inf, math.inf),
    "LogSoftmax": (-math.inf, 0.0),
    "Relu": (0.0, math.inf),
    "Relu6": (0.0, 6.0),
    "Selu": (-1.7581, math.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Softplus": (0.0, math.inf),
    "Softsign": (-1.0, 1.0),
    "Tanh": (-1.0, 1.0),
}


class Flow:
    """The operations of one forward pass that the data go through, and what they do to them.

    Attributes:
        operations: Those that depend on the input, in order.
        owners: The layers in whose call an operation was made, outermost first.
        weighted: Operations that multiply the data by an array of weights.
        linear: Whether only linear functions stand between the input and an operation's output.
        squashed: The same, but for activations after the last weights.
        depth, ahead: The most weighted operations on a way to it, itself included, and after it.
        ends: The operations that make the outputs.
    """

    def __init__(self, model: keras.Model, x: Any) -> None:
        spans: list[tuple[int, int, Layer]] = []
        root: list[Any] = []
        self.inner: dict[int, list[tuple[Any, Any]]] = {}

        def count() -> int:
            return len(root[0].get_operations())

        def watch(layer: Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
            if not root or tf.compat.v1.get_default_graph() is not root[0]:
                return call(*args, **kwargs)
            start = count()
            result = call(*args, **kwargs)
            spans.append((start, count(), layer))
            self.inner.setdefault(id(layer), []).append((tensors_in(args, kwargs), tensors_in(result)))
            return result

        def forward(inputs: Any) -> Any:
            root.append(tf.compat.v1.get_default_graph())
            return model(inputs, training=False)

        with ExitStack() as stack:
            for layer in all_layers(model):
                if not isinstance(layer, keras.Model):
                    stack.enter_context(hooked(layer, "call", functools.partial(watch, layer)))
            # A trace runs nothing, and so changes nothing.
            traced = tf.function(forward, autograph=False).get_concrete_function(x)
        self.graph = traced.graph
        operations = self.graph.get_operations()
        self.owners: dict[str, tuple[Layer, ...]] = {}
        for start, end, layer in sorted(spans, key=lambda span: (span[0], -span[1])):
            for operation in operations[start:end]:
                self.owners[operation.name] = (*self.owners.get(operation.name, ()), layer)
        captured = traced.inputs[len(traced.inputs) - len(traced.captured_inputs) :]
        handles = {id(getattr(v.value, "handle", None)): v for v in model.variables}
        self.variables: dict[str, frozenset[int]] = {}
        self.by_id = {id(v): v for v in model.variables}
        placeholders = {
            inner.op.name: frozenset([id(handles[id(outer)])])
            for inner, outer in zip(captured, traced.captured_inputs, strict=True)
            if id(outer) in handles
        }
        data = {tensor.op.name for tensor in traced.inputs} - {tensor.op.name for tensor in captured}
        self._follow(operations, data, placeholders)
        ends = tf.nest.flatten(self.graph.structured_outputs)
        self.ends = [tensor.op for tensor in ends if tf.is_tensor(tensor)]

    def _follow(self, operations: list[Any], data: set[str], placeholders: Any) -> None:
        self.operations: list[Any] = []
        self.reached: set[str] = set()
        self.weighted: dict[str, frozenset[int]] = {}
        self.readers: dict[str, list[Any]] = {}
        self.sources: dict[str, list[Any]] = {}
        self.linear: dict[str, bool] = {}
        self.squashed: dict[str, bool] = {}
        self.depth: dict[str, int] = {}
        for op in operations:
            before = [tensor.op for tensor in op.inputs]
            read = placeholders.get(op.name, frozenset())
            for other in before:
                if other.name not in self.reached:
                    read = read | self.variables.get(other.name, frozenset())
            self.variables[op.name] = read
            fed = list({o.name: o for o in before if o.name in self.reached}.values())
            if op.name not in data and (not fed or op.type in _SHAPES):
                continue
            self.reached.add(op.name)
            self.operations.append(op)
            self.sources[op.name] = fed
            for other in fed:
                self.readers.setdefault(other.name, []).append(op)
            opaque = op.type.endswith("Call") or op.type in ("While", "StatelessWhile")
            is_weighted = bool(read) and (opaque or (op.type in _PRODUCTS and len(fed) == 1))
            if is_weighted:
                self.weighted[op.name] = read
            self.depth[op.name] = max((self.depth[o.name] for o in fed), default=0) + is_weighted
            self._judge(op, fed, is_weighted and not opaque, op.name in data)
        self.ahead: dict[str, int] = {}
        for op in reversed(self.operations):
            after = self.readers.get(op.name, ())
            self.ahead[op.name] = max(
                (self.ahead[o.name] + (o.name in self.weighted) for o in after), default=0
            )

    def _judge(self, op: Any, fed: list[Any], is_product: bool, is_data: bool) -> None:
        linear = all(self.linear[o.name] for o in fed)
        fine = linear or all(self.linear[o.name] or self.squashed[o.name] for o in fed)
        name, squashed = op.name, False
        # A look-up by what the input says, not by what weights made of it, starts anew.
        if is_data or (op.type in _LOOKUPS and len(fed) == 1 and self.depth[fed[0].name] == 0):
            linear = True
        elif any(isinstance(layer, keras.layers.RNN) for layer in self.owners.get(name, ())):
            linear = False
        elif op.type in RANGES and len(fed) == 1:
            linear, squashed = False, fine
        elif op.type in POINTWISE and len(fed) == 1:
            squashed = fine and not linear
        elif not (
            is_product
            or op.type in MIXING
            or (op.type in ("Add", "AddV2", "Sub", "IdentityN") and len(fed) > 1)
        ):
            linear = False
        self.linear[name], self.squashed[name] = linear, squashed and not linear

    def owner(self, op: Any) -> Layer | None:
        """The innermost layer in whose call an operation was made."""
        owners = self.owners.get(op.name, ())
        return owners[-1] if owners else None

    def name_of(self, op: Any) -> str:
        """Where an operation stands, in words that the model's author knows."""
        owners = self.owners.get(op.name, ())
        return str(owners[0].name) if owners else "model"

    def after(self, op: Any, stop: Callable[[Any], bool]) -> Iterator[Any]:
        """The operations that an output flows into, up to those at which to stop, these included."""
        seen, waiting = set(), list(self.readers.get(op.name, ()))
        while waiting:
            reader = waiting.pop(0)
            if reader.name not in seen:
                seen.add(reader.name)
                yield reader
                if not stop(reader):
                    waiting += self.readers.get(reader.name, ())

    def is_gate(self, op: Any) -> bool:
        """Whether an output goes on to be multiplied by other data, as a gate or attention does."""

        def ends(reader: Any) -> bool:
            return reader.name in self.weighted or self.joins(reader)

        return any(
            self.joins(reader) and reader.type in {*_PRODUCTS, "Mul", "RealDiv", "Div"}
            for reader in self.after(op, ends)
        )

    def joins(self, op: Any) -> bool:
        """Whether more than one tensor made of the data goes into an operation."""
        return len(self.sources[op.name]) > 1

    def joins_others(self, op: Any) -> bool:
        """Whether an output is added to, multiplied by or set beside other data before any weights."""
        return any(self.joins(reader) for reader in self.after(op, lambda o: o.name in self.weighted))

    def is_normalised(self, op: Any) -> bool:
        """Whether a normalisation layer stands between an operation and the next weights."""
        return any(
            normalises(layer)
            for reader in self.after(op, lambda o: o.name in self.weighted)
            for layer in self.owners.get(reader.name, ())
        )

    def trail(self, op: Any) -> list[Any]:
        """The operations behind an output, from the end backwards, up to weights or a junction."""
        found = []
        while op.name in self.reached:
            found.append(op)
            fed = self.sources[op.name]
            if len(fed) != 1 or op.name in self.weighted:
                break
            op = fed[0]
        return found

    def products(self, layer: Layer) -> list[Any]:
        """A layer's own products of data and weights."""
        return [op for op in self.operations if op.name in self.weighted and self.owner(op) is layer]

    def cuts(self, op: Any) -> bool:
        """Whether all that reaches the outputs goes through one operation."""
        reached = set()
        for other in self.operations:
            fed = self.sources[other.name]
            if other.name != op.name and (not fed or any(source.name in reached for source in fed)):
                reached.add(other.name)
        return not any(end.name in reached for end in self.ends)


def tensors_in(*nests: Any) -> list[Any]:
    """All tensors in any nests."""
    return [part for part in keras.tree.flatten(nests) if tf.is_tensor(part)]


def normalises(layer: Layer) -> bool:
    """Whether a layer normalises what goes through it."""
    # By name too: many write a layer or RMS normalisation of their own.
    return "norm" in type(layer).__name__.lower() and not isinstance(layer, keras.layers.Normalization)
