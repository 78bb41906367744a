"""Checks of the model's structure and initial weights; nothing is trained.

They read the graph of one forward pass: which arrays meet the data, in which
order, and what stands between them. One gradient on a few samples says which
arrays the loss can move.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np
import tensorflow as tf

from keras_practice.callbacks.steps import flat_gradient, hooked, innermost
from keras_practice.checks.anatomy import Call, Head
from keras_practice.checks.borrowing import borrowed
from keras_practice.checks.report import Finding, Severity
from keras_practice.checks.rows import Rows
from keras_practice.checks.subject import Check, Subject

Array = np.ndarray[Any, Any]
Layer: TypeAlias = keras.layers.Layer
_T = TypeVar("_T")

_TRIED = 32
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
_POINTWISE = {
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
_MIXING = {
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
_UNSCALED = {"Cast", "ExpandDims", "Identity", "Reshape", "Snapshot", "Squeeze", "StopGradient", "Transpose"}
_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
_LOOKUPS = {"Gather", "GatherV2", "OneHot", "ResourceGather"}
_STOPS_GRADIENT = {
    "ArgMax",
    "ArgMin",
    "Bucketize",
    "EagerPyFunc",
    "Ceil",
    "Equal",
    "Floor",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "NotEqual",
    "NumpyFunction",
    "OneHot",
    "PyFunc",
    "PyFuncStateless",
    "Rint",
    "Round",
    "StopGradient",
}
# What comes out of an activation: its lowest and highest value.
_RANGES = {
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
_SPOKEN = {
    "Elu": "ELU",
    "Exp": "exponential",
    "LeakyRelu": "leaky ReLU",
    "LogSoftmax": "log-softmax",
    "Relu": "ReLU",
    "Relu6": "ReLU6",
    "Selu": "SELU",
}
_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)
_SCALED = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_STACKED = (
    *_SCALED,
    *_TRANSPOSED,
    keras.layers.EinsumDense,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)
_SPATIAL = _DROPOUTS[1:4]


def all_layers(layer: Layer) -> list[Layer]:
    """A layer or model and every layer in it, those inside wrappers and custom layers included."""
    found: dict[int, Layer] = {}

    def visit(value: Any) -> None:
        if isinstance(value, keras.layers.Layer):
            if id(value) not in found:
                found[id(value)] = value
                for part in [*getattr(value, "layers", ()), *vars(value).values()]:
                    visit(part)
        elif isinstance(value, (list, tuple)):
            for part in value:
                visit(part)
        elif isinstance(value, dict):
            for part in list(value.values()):
                visit(part)

    visit(layer)
    return list(found.values())


class _Flow:
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
            self.inner.setdefault(id(layer), []).append((_tensors(args, kwargs), _tensors(result)))
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
        elif op.type in _RANGES and len(fed) == 1:
            linear, squashed = False, fine
        elif op.type in _POINTWISE and len(fed) == 1:
            squashed = fine and not linear
        elif not (
            is_product
            or op.type in _MIXING
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
            return reader.name in self.weighted or self._joins(reader)

        return any(
            self._joins(reader) and reader.type in {*_PRODUCTS, "Mul", "RealDiv", "Div"}
            for reader in self.after(op, ends)
        )

    def _joins(self, op: Any) -> bool:
        return len(self.sources[op.name]) > 1

    def joins_others(self, op: Any) -> bool:
        """Whether an output is added to, multiplied by or set beside other data before any weights."""
        return any(self._joins(reader) for reader in self.after(op, lambda o: o.name in self.weighted))

    def is_normalised(self, op: Any) -> bool:
        """Whether a normalisation layer stands between an operation and the next weights."""
        return any(
            _normalises(layer)
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


@dataclass(frozen=True)
class _Pull:
    """What the loss of a few samples pulls at.

    Attributes:
        loss: The loss without the penalties on weights.
        activity_penalty: The part of it that layers add for their activities.
        gradients: That of each trainable array by its id, without the penalties; `None`
            for an array that the loss cannot reach.
        inputs: The same for each input array of floats, by name, `(samples, ...)`.
    """

    loss: float
    activity_penalty: float
    gradients: dict[int, Array | None]
    inputs: dict[str, Array | None]

    @property
    def data_loss(self) -> float:
        """What right outputs could save."""
        return self.loss - self.activity_penalty


_kept: dict[int, dict[Any, Any]] = {}


def _once(subject: Subject, make: Callable[[Subject], _T]) -> _T:
    """Makes a thing for one subject's anatomy once, and forgets it together with that."""
    key = id(subject.anatomy)
    if key not in _kept:
        _kept[key] = {}
        weakref.finalize(subject.anatomy, _kept.pop, key, None)
    if make not in _kept[key]:
        _kept[key][make] = make(subject)
    made: _T = _kept[key][make]
    return made


def _layers(subject: Subject) -> list[Layer]:
    return _once(subject, _list_layers)


def _list_layers(subject: Subject) -> list[Layer]:
    return all_layers(subject.model)


def _flow(subject: Subject) -> _Flow:
    return _once(subject, _trace)


def _trace(subject: Subject) -> _Flow:
    return _Flow(subject.model, subject.train.spread(_TRIED, subject.seed).x)


def _pull(subject: Subject) -> _Pull | None:
    """The gradient in training mode; `None` for a model that trains in a way of its own."""
    return _once(subject, _measure_pull)


def _measure_pull(subject: Subject) -> _Pull | None:
    return _gradients(subject, training=True)


def _gradients(subject: Subject, *, training: bool) -> _Pull | None:
    model = subject.model
    if not model.trainable_variables or _trains_itself(model):
        return None
    rows = subject.train.spread(_TRIED, subject.seed)
    x, y = (keras.tree.map_structure(tf.convert_to_tensor, nest) for nest in (rows.x, rows.y))
    metrics = [(variable, np.array(variable.numpy())) for variable in model.metrics_variables]
    weights = model.trainable_variables
    inputs = {name: a for name, a in Rows(x, y, None, None, False).inputs.items() if a.dtype.is_floating}
    try:
        with borrowed(model, rows.x), tf.GradientTape() as tape:
            tape.watch(list(inputs.values()))
            outputs = model(x, training=training)
            whole = model.compute_loss(x=x, y=y, y_pred=outputs, training=training)
            penalties = sum(_penalties(weights), start=tf.zeros((), whole.dtype))
            activity = sum(model.losses, start=tf.zeros((), whole.dtype)) - penalties
            loss = whole - penalties
            sources = [*(weight.value for weight in weights), *inputs.values()]
            gradients = tape.gradient(loss, sources)
    except Exception:  # The user's own loss may fail in any way; other checks say so.
        return None
    finally:
        for variable, value in metrics:
            variable.assign(value)
    found = {
        id(weight): None if gradient is None else np.asarray(flat_gradient(gradient, math.prod(weight.shape)))
        for weight, gradient in zip(weights, gradients[: len(weights)], strict=True)
    }
    by_name = {
        name: None if gradient is None else np.asarray(tf.convert_to_tensor(gradient))
        for name, gradient in zip(inputs, gradients[len(weights) :], strict=True)
    }
    return _Pull(float(loss), float(activity), found, by_name)


def _penalties(weights: Iterable[Any]) -> Iterator[Any]:
    for weight in weights:
        if getattr(weight, "regularizer", None) is not None:
            yield weight.regularizer(weight)


def _trains_itself(model: keras.Model) -> bool:
    return type(model).train_step is not keras.Model.train_step


def _tensors(*nests: Any) -> list[Any]:
    return [part for part in keras.tree.flatten(nests) if tf.is_tensor(part)]


def _normalises(layer: Layer) -> bool:
    # By name too: many write a layer or RMS normalisation of their own.
    return "norm" in type(layer).__name__.lower() and not isinstance(layer, keras.layers.Normalization)


def _kernel(layer: Layer) -> Array | None:
    kernel = getattr(layer, "kernel", None)
    if kernel is None or not hasattr(kernel, "shape") or len(kernel.shape) < 2:
        return None
    values = np.asarray(keras.ops.convert_to_numpy(kernel), dtype=np.float64)
    return values if values.size and np.all(np.isfinite(values)) else None


def _bias(layer: Layer) -> Array | None:
    bias = getattr(layer, "bias", None)
    if bias is None or not hasattr(bias, "shape"):
        return None
    return np.asarray(keras.ops.convert_to_numpy(bias), dtype=np.float64)


def _calls(subject: Subject, kinds: Any) -> Iterator[Call]:
    """The first call of each layer of certain kinds, with arrays of numbers in and out."""
    seen = set()
    for call in subject.anatomy.calls:
        if isinstance(call.layer, kinds) and id(call.layer) not in seen and call.inputs and call.outputs:
            seen.add(id(call.layer))
            yield call


def _rms(values: Array) -> float:
    values = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.mean(values**2))) if values.size and np.all(np.isfinite(values)) else 0.0


def _variation(values: Array) -> float:
    """How much a layer's units differ from sample to sample, as a root mean square."""
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    if not values.size or not np.all(np.isfinite(values)):
        return 0.0
    return float(np.sqrt(np.mean(values.var(axis=0))))


def _spoken(kind: str) -> str:
    return _SPOKEN.get(kind, kind.lower())


def _rebuilds_input(subject: Subject) -> bool:
    """Whether the labels are the inputs, as for an autoencoder, or a noisy or clean copy of them."""
    for head in subject.heads:
        for values in subject.train.inputs.values():
            if values.dtype.kind in "fiu" and values.shape[1:] == head.labels.shape[1:] and values.ndim > 1:
                few = slice(0, 256)
                a, b = (np.ravel(v[few]).astype(np.float64) for v in (values, head.labels))
                # A noisy copy still goes with the clean one.
                if a.size > 1 and a.std() and b.std() and np.corrcoef(a, b)[0, 1] > 0.5:
                    return True
    return False


def _is_trained(subject: Subject) -> bool:
    """Whether the model, or a part of it, has been trained or loaded."""
    optimizer = innermost(subject.model.optimizer)
    if optimizer is not None and int(np.asarray(getattr(optimizer, "iterations", 0))) > 0:
        return True
    for layer in _layers(subject):
        bias = _bias(layer)
        zeros = isinstance(getattr(layer, "bias_initializer", None), keras.initializers.Zeros)
        # A fresh LSTM has ones among its zeros.
        if (
            zeros
            and bias is not None
            and bias.size
            and np.ptp(bias) > 0
            and not hasattr(layer, "unit_forget_bias")
        ):
            return True
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built:
            mean = np.asarray(layer.moving_mean)
            if isinstance(layer.moving_mean_initializer, keras.initializers.Zeros) and np.any(mean):
                return True
    return False


def _is_fresh(layer: Layer) -> bool:
    """Whether a kernel is, number for number, what its initializer gives.

    Keras's initializers give the same numbers each time they are asked, and other
    ones once a model has been saved and loaded.
    """
    initializer, kernel = getattr(layer, "kernel_initializer", None), getattr(layer, "kernel", None)
    if kernel is None or not isinstance(initializer, keras.initializers.Initializer):
        return False
    if isinstance(getattr(initializer, "seed", None), keras.random.SeedGenerator):
        return False  # It goes on with every draw.
    drawn = np.asarray(keras.ops.convert_to_numpy(initializer(kernel.shape, dtype=kernel.dtype)))
    return bool(np.array_equal(drawn, np.asarray(keras.ops.convert_to_numpy(kernel))))


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    """Most severe first."""
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))


def no_nonlinearity(subject: Subject) -> Iterable[Finding]:
    """Layers with weights between which nothing nonlinear stands: together no more than one layer.

    Source:
        A53; Goodfellow, Bengio and Courville 2016, section 6.1.
    """
    flow = _flow(subject)
    findings = list(_linear_nets(subject, flow))
    return findings or list(_linear_pairs(subject, flow))


def _linear_nets(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    severity: Severity = "warning" if _rebuilds_input(subject) else "error"
    for head, end in zip(subject.heads, flow.ends, strict=False):
        depth = flow.depth.get(end.name, 0)
        if depth < 2 or not (flow.linear[end.name] or flow.squashed[end.name]):
            continue
        yield Finding(
            "no-nonlinearity",
            severity,
            _output(subject, head),
            f"{depth} layers with weights follow one another with 0 nonlinear functions in between; "
            "at least 1 is expected.",
            "hidden layers without an activation, which compute no more than a single layer.",
            "give the hidden layers an activation, such as activation='relu'.",
            "A53; Goodfellow, Bengio and Courville 2016, section 6.1",
        )


def _linear_pairs(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    """A layer whose output goes as it is into the next one, and is not a narrow low-rank factor."""
    for op in flow.operations:
        first = flow.owner(op)
        if not _is_stacked(flow, op) or not isinstance(first, _SCALED) or flow.joins_others(op):
            continue
        for reader in _linear_readers(flow, op):
            second = flow.owner(reader)
            if second is first or not isinstance(second, _SCALED) or not _is_stacked(flow, reader):
                continue
            widths = [_channels(first)[0], _channels(first)[1], _channels(second)[1]]
            if widths[1] < min(widths[0], widths[2]):
                continue
            yield Finding(
                "no-nonlinearity",
                "warning",
                f"{flow.name_of(op)}, {flow.name_of(reader)}",
                f"two layers of {widths[1]} and {widths[2]} units with 0 nonlinear functions in between; "
                "1 is expected, or a first layer that is narrower than what it joins.",
                "a forgotten activation: the two layers compute no more than one.",
                f"give {first.name} an activation, or leave it out.",
                "A53, A14",
            )


def _is_stacked(flow: _Flow, op: Any) -> bool:
    owners = flow.owners.get(op.name, ())
    inside = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention, keras.layers.RNN)
    return (
        op.name in flow.weighted
        and bool(owners)
        and isinstance(owners[-1], _STACKED)
        and not any(isinstance(layer, inside) for layer in owners)
    )


def _linear_readers(flow: _Flow, op: Any) -> list[Any]:
    """The next weighted operations, where every way to them is linear and meets no other data."""
    linear = {*_POINTWISE, *_MIXING}

    def stop(reader: Any) -> bool:
        return reader.name in flow.weighted or reader.type not in linear or flow._joins(reader)

    return [reader for reader in flow.after(op, stop) if reader.name in flow.weighted]


def _channels(layer: Layer) -> tuple[int, int]:
    """Channels into a layer and out of it, from its kernel."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        kernel = getattr(layer, "pointwise_kernel", None)
    if kernel is None or len(kernel.shape) < 2:
        return 0, 0
    into, out = int(kernel.shape[-2]), int(kernel.shape[-1])
    if isinstance(layer, _TRANSPOSED):
        return out, into
    # Each filter of a convolution sees a whole window.
    return (math.prod(kernel.shape[:-1]) if isinstance(layer, _SCALED) else into), out


def _output(subject: Subject, head: Head) -> str:
    return "output" if len(subject.heads) == 1 else head.name


def double_activation(subject: Subject) -> Iterable[Finding]:
    """An activation that works on what another one has cut already, or batch norm after the output's.

    Source:
        A15; Goodfellow, Bengio and Courville 2016, section 6.2.2.
    """
    flow = _flow(subject)
    return _sorted([*_double(subject, flow), *_norm_after_activation(flow)])


def _double(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    last = {
        op.name: head
        for head, end in zip(subject.heads, flow.ends, strict=False)
        for op in flow.trail(end)
        if op.type in _RANGES
    }
    for op in flow.operations:
        first = _activation_behind(flow, op)
        if first is None or flow.is_gate(op):
            continue
        same = flow.owner(op) is not None and flow.owner(op) is flow.owner(first)
        where = f"{flow.name_of(first)}, {flow.name_of(op)}"
        if op.name in last:
            finding = _double_at_output(last[op.name], first.type, op.type, where)
        else:
            finding = _double_inside(first.type, op.type, where)
        if finding is not None and not (same and finding.severity != "error"):
            yield finding


def _activation_behind(flow: _Flow, op: Any) -> Any:
    if op.type not in _RANGES:
        return None
    for other in flow.trail(op)[1:]:
        if other.type in _RANGES:
            return other
        if other.type not in _UNSCALED:
            return None
    return None


def _double_at_output(head: Head, first: str, second: str, where: str) -> Finding | None:
    low, high = _RANGES[first]
    if second in ("Softmax", "LogSoftmax"):
        spread, classes = high - low, max(head.units, 2)
        highest = 1.0 if math.isinf(spread) else math.exp(spread) / (math.exp(spread) + classes - 1)
        if first == "LogSoftmax":
            return None  # Softmax undoes the logarithm.
        if first == "Relu" or highest < 0.95:
            evidence = (
                f"{_spoken(second)} works on the output of {_spoken(first)}: "
                + ("no class can get less than 0 as its score" if first == "Relu" else "")
                + (f"no probability can get above {highest:.3g}" if first != "Relu" else "")
                + "; any number is expected as a score."
            )
            return _twice("error", where, evidence, first)
        if first != "LeakyRelu":
            evidence = (
                f"{_spoken(second)} works on the output of {_spoken(first)}, which is {low:.3g} or more; "
            )
            return _twice("warning", where, evidence + "any number is expected as a score.", first)
        return None
    reach = _reach(second, low, high)
    labels = head.labels
    if reach is None or labels.dtype.kind not in "biuf" or not labels.size:
        return _double_inside(first, second, where)
    least, most = float(np.min(labels)), float(np.max(labels))
    # A tenth of the labels' range is a miss that no training can make up for.
    slack = 0.1 * (most - least)
    if least >= reach[0] - slack and most <= reach[1] + slack:
        return _double_inside(first, second, where)
    evidence = (
        f"the output is {_spoken(second)} of {_spoken(first)} and stays between {reach[0]:.3g} and "
        f"{reach[1]:.3g}; the labels go from {least:.3g} to {most:.3g}."
    )
    return _twice("error", where, evidence, first)


def _twice(severity: Severity, where: str, evidence: str, first: str) -> Finding:
    return Finding(
        "double-activation",
        severity,
        where,
        evidence,
        f"an activation ({_spoken(first)}) too many.",
        f"take {_spoken(first)} away, and keep the other one.",
        "A15; Goodfellow, Bengio and Courville 2016, section 6.2.2",
    )


def _reach(kind: str, low: float, high: float) -> tuple[float, float] | None:
    if kind == "Sigmoid":
        return 1 / (1 + math.exp(min(-low, 700))), 1 / (1 + math.exp(-high))
    if kind == "Tanh":
        return math.tanh(low), math.tanh(high)
    return None


def _double_inside(first: str, second: str, where: str) -> Finding | None:
    low, high = _RANGES[first]
    if second in ("Relu", "LeakyRelu", "Elu", "Relu6") and low >= 0 and (high <= 6 or second != "Relu6"):
        evidence = (
            f"{_spoken(second)} of {_spoken(first)} changes nothing; 1 activation after a layer is expected."
        )
        return _twice("info", where, evidence, second)
    if second in ("Sigmoid", "Tanh", "Softsign", "Softmax") and not math.isinf(low):
        evidence = (
            f"{_spoken(second)} works on the output of {_spoken(first)}, which never is below {low:.3g}; "
            "numbers around 0 are expected."
        )
        return _twice("warning", where, evidence, first)
    return None


def _norm_after_activation(flow: _Flow) -> Iterator[Finding]:
    for end in flow.ends:
        trail = flow.trail(end)
        for position, op in enumerate(trail):
            layer = flow.owner(op)
            if not isinstance(layer, keras.layers.BatchNormalization):
                continue
            activations = [
                other.type for other in trail[position:] if other.type in ("Sigmoid", "Softmax", "Tanh")
            ]
            if activations:
                yield Finding(
                    "double-activation",
                    "error",
                    str(layer.name),
                    f"batch normalisation stands after the output's {_spoken(activations[0])} and moves its "
                    "values to a mean of 0; 0 layers are expected there.",
                    "a batch normalisation too many.",
                    f"take {layer.name} away, or put it before the last layer.",
                    "A1, A15; Ioffe and Szegedy 2015",
                )
            break


# Each sigmoid passes on a quarter of a change at most; four let less than a fiftieth through to the last.
_FADED = 1 / 50
# Optimisers that divide by the gradient's size make up for a small one, though not for a lost signal.
_FADED_ADAPTIVE = 1 / 200
# Half of all units at their limits cannot move.
_AT_LIMIT = 0.5
# With a tenth of them that can move, training frees the rest (Nielsen's nets start so).
_MOST_AT_LIMIT = 0.9
_ADAPTIVE = ("adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad", "adadelta", "lion", "lamb")


def saturating_activation(subject: Subject) -> Iterable[Finding]:
    """Hidden sigmoids, tanh or softmax through which no signal gets.

    Source:
        A48, A53; Glorot and Bengio 2010, "Understanding the difficulty of training
        deep feedforward neural networks".
    """
    flow = _flow(subject)
    return _sorted(
        [*_hidden_softmax(subject, flow), *_deep_sigmoids(subject, flow), *_at_limits(subject, flow)]
    )


def _hidden_softmax(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    outputs = {op.name for end in flow.ends for op in flow.trail(end)}
    for op in flow.operations:
        if op.type != "Softmax" or op.name in outputs or flow.is_gate(op) or flow.joins_others(op):
            continue
        if not any(_is_stacked(flow, reader) for reader in _linear_readers(flow, op)):
            continue
        units = int(op.outputs[0].shape[-1] or 0)
        yield Finding(
            "saturating-activation",
            "warning" if _rebuilds_input(subject) else "error",
            flow.name_of(op),
            f"softmax shares a sum of 1 among {units} hidden units; a hidden layer's units are expected to "
            "be independent of each other.",
            "softmax as the activation of a hidden layer.",
            "use 'relu' there, and softmax in the output layer alone.",
            "A15, A53",
        )


def _deep_sigmoids(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    chain = _sigmoid_chain(flow)
    if len(chain) < 3:
        return
    names = {flow.name_of(op) for op in chain}
    calls = [call for call in subject.anatomy.calls if call.name in names and call.outputs]
    if len(calls) < 3:
        return
    first, last = _variation(calls[0].outputs[0]), _variation(calls[-1].outputs[0])
    if first == 0:
        return
    ratio = last / first
    before = [layer for op in chain for other in flow.trail(op) for layer in flow.owners.get(other.name, ())]
    normalised = any(_normalises(layer) for layer in before) or any(map(flow.is_normalised, chain[:-1]))
    skipped = any(not flow.cuts(op) for op in chain)
    if normalised or skipped or ratio > 0.25 or _once(subject, _is_trained):
        return
    kind = type(innermost(subject.model.optimizer)).__name__.lower()
    least = _FADED_ADAPTIVE if kind in _ADAPTIVE else _FADED
    yield Finding(
        "saturating-activation",
        "error" if ratio < least else "warning",
        f"{calls[0].name} to {calls[-1].name}",
        f"of the differences between samples after the first of {len(chain)} sigmoid layers, a share of "
        f"{ratio:.2g} is left after the last; about 1 is expected.",
        "sigmoids in many hidden layers: each passes on a quarter of a change at most, both ways.",
        "use 'relu' with He-normal weights in the hidden layers.",
        "A48, A53; Glorot and Bengio 2010",
    )


def _sigmoid_chain(flow: _Flow) -> list[Any]:
    """The sigmoids on the way with most of them, each between two arrays of weights."""
    best: dict[str, list[Any]] = {}
    for op in flow.operations:
        chain = max((best[source.name] for source in flow.sources[op.name]), key=len, default=[])
        rnn = any(isinstance(layer, keras.layers.RNN) for layer in flow.owners.get(op.name, ()))
        hidden = bool(flow.depth[op.name] and flow.ahead[op.name])
        if op.type == "Sigmoid" and hidden and not rnn and not flow.is_gate(op):
            chain = [*chain, op]
        best[op.name] = chain
    return max((best[end.name] for end in flow.ends if end.name in best), key=len, default=[])


def _at_limits(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    if _once(subject, _is_trained):
        return
    seen = set()
    for op in flow.operations:
        if op.type not in ("Tanh", "Sigmoid") or not flow.ahead[op.name] or flow.is_gate(op):
            continue
        name = flow.name_of(op)
        call = next((c for c in subject.anatomy.calls if c.name == name and c.outputs), None)
        if name in seen or call is None or call.activation not in ("tanh", "sigmoid"):
            continue
        seen.add(name)
        share = _share_at_limit(call)
        if share > _AT_LIMIT:
            yield Finding(
                "saturating-activation",
                "warning",
                name,
                f"{share:.0%} of the {call.activation} units' values are at their limits; "
                "under 50% are expected.",
                "inputs or initial weights on too large a scale: such units hardly change any more.",
                "standardise the inputs, and use Glorot-uniform weights, Keras's default.",
                "A38, A48; Glorot and Bengio 2010",
            )


def _share_at_limit(call: Call) -> float:
    values = np.asarray(call.outputs[0], dtype=np.float64)
    if call.activation == "tanh":
        return float(np.mean(np.abs(values) > 0.99))
    return float(np.mean((values < 0.01) | (values > 0.99)))


# Beyond a factor of 10 a few layers lose or multiply the signal by thousands.
_FAR, _OFF = 10.0, 3.0
# So small that no layer after it can bring the signal back in a usual training.
_LOST = 1 / 100
_LOST_IN_ALL = 1e-3


def initial_weights(subject: Subject) -> Iterable[Finding]:
    """Weights of an untrained model that are all alike, or on the wrong scale for their layer.

    Source:
        A2, A3; Glorot and Bengio 2010; He et al. 2015, "Delving deep into rectifiers".
    """
    if _once(subject, _is_trained):
        return []
    flow = _flow(subject)
    found = []
    for call in _calls(subject, _SCALED):
        kernel = _kernel(call.layer)
        if kernel is None or not call.layer.trainable or isinstance(call.layer, _TRANSPOSED):
            continue
        products = flow.products(call.layer)
        if not products:
            continue
        finding = _alike(subject, flow, call, kernel, products[0]) or _off_scale(
            subject, flow, call, kernel, products[0]
        )
        found += [finding] if finding else []
        found += list(_large_bias(subject, flow, call, kernel, products[0]))
    return _sorted(found)


def _alike(subject: Subject, flow: _Flow, call: Call, kernel: Array, product: Any) -> Finding | None:
    """All units of a hidden layer compute the same, and their gradients keep them the same."""
    columns = kernel.reshape(-1, kernel.shape[-1])
    is_last = flow.ahead[product.name] == 0
    if is_last or columns.shape[1] < 2 or np.ptp(columns, axis=1).max() > 0:
        return None
    bias = _bias(call.layer)
    if bias is not None and np.ptp(bias) > 0:
        return None
    value = float(columns[0, 0])
    same = bool(np.ptp(columns) == 0)
    if value == 0 and same and flow.joins_others(product):
        return None  # A block that starts as nothing beside a skip, or a gate.
    pull = _gradients(subject, training=False)
    stuck = False
    if pull is not None:
        gradient = pull.gradients.get(id(getattr(call.layer, "kernel", None)))
        if gradient is not None:
            change = gradient.reshape(columns.shape)
            stuck = bool(np.ptp(change, axis=1).max() <= 1e-3 * np.abs(change).max())
    return Finding(
        "initial-weights",
        "error" if stuck else "warning",
        call.name,
        f"all {columns.shape[1]} units start with the same weights"
        + (f" ({value:.3g})" if same else "")
        + (" and the same gradient" if stuck else "")
        + "; different ones are expected in each.",
        "an initializer that gives a constant, which leaves the units copies of one another.",
        "use a random initializer, such as 'he_normal' for ReLU.",
        "A2; Goodfellow, Bengio and Courville 2016, section 8.4",
    )


def _off_scale(subject: Subject, flow: _Flow, call: Call, kernel: Array, product: Any) -> Finding | None:
    fan_in, fan_out = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    scale = _rms(kernel)
    if fan_in * fan_out < 8 or scale == 0:
        return None  # Too few numbers to know a scale by.
    initializer = getattr(call.layer, "kernel_initializer", None)
    by_size = isinstance(initializer, keras.initializers.VarianceScaling) and 0.1 < initializer.scale < 10
    if by_size and _is_fresh(call.layer):
        return None  # It goes by the layer's size, in one of the known ways.
    usual = [math.sqrt(1 / fan_in), math.sqrt(2 / fan_in)]
    window = math.prod(kernel.shape[:-2])
    usual.append(math.sqrt(2 / (fan_in + window * fan_out)))
    low, high = min(usual), max(usual)
    ratio = scale / high if scale > high else min(scale / low, 1.0)
    if 1 / _OFF <= ratio <= _OFF or not call.inputs[0].size:
        return None
    gain = _gain(call)
    is_last, is_first = flow.ahead[product.name] == 0, flow.depth[product.name] == 1
    normalised, skips = flow.is_normalised(product), flow.joins_others(product)
    if ratio < 1:
        lost_in_all = _lost_in_all(subject)
        if is_last or normalised or (ratio > 1 / _FAR and not lost_in_all):
            return None
        lost = ratio < _LOST and gain < 1 / _FAR
        severity: Severity = "error" if (lost or lost_in_all) and not skips else "warning"
    else:
        if normalised or gain <= _OFF:
            return None
        severity = "error" if ratio > _FAR and not (is_last and is_first) else "warning"
    expected = math.sqrt(2 / fan_in) if call.activation not in (None, "tanh", "sigmoid", "selu") else low
    return Finding(
        "initial-weights",
        severity,
        call.name,
        f"the weights' root mean square is {scale:.2g}; "
        f"about {expected:.2g} is expected for {fan_in} inputs.",
        "an initializer with a scale of its own, which "
        + ("lets the signal grow" if ratio > 1 else "makes the signal fade")
        + " from layer to layer.",
        "use 'he_normal' for ReLU, 'glorot_uniform' for the rest.",
        "A2, A3; He et al. 2015",
    )


def _gain(call: Call) -> float:
    """How many times larger a layer's signal is than its input's; by its limits where it has some."""
    if call.activation in ("tanh", "sigmoid"):
        return math.inf if _share_at_limit(call) > _MOST_AT_LIMIT else _share_gain(call)
    if call.activation == "softmax":
        return math.inf
    return _share_gain(call)


def _share_gain(call: Call) -> float:
    into = _rms(call.inputs[0]) if call.inputs[0].dtype.kind in "biuf" else 0.0
    return _rms(call.outputs[0]) / into if into else math.inf


def _lost_in_all(subject: Subject) -> bool:
    """Whether next to nothing of the inputs' differences is left at the last hidden layer."""
    calls = list(_calls(subject, _SCALED))
    first, last = calls[0].inputs[0], calls[-1].inputs[0]
    if len(calls) < 2 or first.dtype.kind not in "biuf" or not _variation(first):
        return False
    return _variation(last) / _variation(first) < _LOST_IN_ALL


def _large_bias(subject: Subject, flow: _Flow, call: Call, kernel: Array, product: Any) -> Iterator[Finding]:
    bias = _bias(call.layer)
    if bias is None or not bias.size or flow.is_normalised(product) or flow.ahead[product.name] == 0:
        return
    fan_in = math.prod(kernel.shape[:-1])
    signal = math.sqrt(fan_in) * _rms(kernel) * _rms(call.inputs[0])
    # Kernels that are off have their own finding.
    if signal == 0 or _rms(kernel) * math.sqrt(fan_in) < 0.1:
        return
    size = float(np.median(np.abs(bias)))
    if size <= _FAR * signal:
        return
    yield Finding(
        "initial-weights",
        "error" if size > 3 * _FAR * signal else "warning",
        call.name,
        f"the bias is {size:.3g}, the weighted inputs' root mean square {signal:.2g}; "
        "a bias below that is expected.",
        "a bias initializer on too large a scale, which drowns the inputs.",
        "leave the bias initializer at 'zeros'.",
        "A2, A53",
    )


def frozen(subject: Subject) -> Iterable[Finding]:
    """Weights that training leaves as they are, though they know nothing yet.

    Source:
        A30.
    """
    model = subject.model
    total = sum(math.prod(v.shape) for v in model.weights)
    if not model.trainable_variables:
        return [
            Finding(
                "frozen",
                "error",
                "model",
                f"0 of {total:,} weights are trainable; at least those of the output layer are expected.",
                "trainable = False on the model or on all of its layers."
                if total
                else "a model without any layer that has weights.",
                "set trainable = True on the layers that should learn, and compile again."
                if total
                else "add layers that have weights.",
                "A30",
            )
        ]
    if _once(subject, _is_trained):
        return []
    flow = _flow(subject)
    layers = [layer for layer in all_layers(model) if isinstance(layer, _STACKED) and layer.built]
    random = [layer for layer in layers if not layer.trainable_weights and _is_fresh(layer)]
    if not random:
        return []
    size = sum(math.prod(w.shape) for layer in random for w in layer.weights)
    learns = sum(math.prod(w.shape) for w in model.trainable_variables)
    last = [layer for layer in random if any(flow.ahead[op.name] == 0 for op in flow.products(layer))]
    # One or two random layers are random features, which can do; a random trunk of a deep net is a mistake.
    deep = len(random) >= 3 and size > 9 * learns
    where = ", ".join(str(layer.name) for layer in (last or random)[:3])
    return [
        Finding(
            "frozen",
            "error" if deep else "warning",
            where,
            f"{len(random)} of {len(layers)} layers are frozen at their random initial weights; "
            "0 are expected.",
            "an output layer that is frozen."
            if last
            else "a trunk that was frozen before weights were loaded.",
            "set trainable = True there and compile again, or load trained weights first.",
            "A30",
        )
    ]


def disconnected(subject: Subject) -> Iterable[Finding]:
    """Trainable arrays that the loss cannot move, for want of a gradient.

    Source:
        A3, A48.
    """
    pull = _pull(subject)
    if pull is None:
        return []
    weights = subject.model.trainable_variables
    missing = [w for w in weights if pull.gradients[id(w)] is None]
    if not missing:
        return []
    flow = _flow(subject)
    block = _blocks(flow, {id(w) for w in missing})
    names = list(dict.fromkeys(_layer_of(subject.model, w) for w in missing))
    lost = sum(math.prod(w.shape) for w in missing)
    total = sum(math.prod(w.shape) for w in weights)
    severity: Severity = "error" if lost > total / 2 else "warning"
    if len(missing) < len(weights) and any(head.loss is None for head in subject.heads):
        severity = "info"
    if block:
        cause = f"{block[1]} in {block[0]}, through which no gradient goes."
        fix = f"take {block[1]} out of the way from the weights to the loss."
    else:
        cause = "a layer that is built and never used, or arrays that leave TensorFlow on their way."
        fix = "use the layer in the forward pass, or take it away."
    share = f"{len(missing)} of {len(weights)} trainable arrays ({lost:,} of {total:,} weights)"
    return [
        Finding(
            "disconnected",
            severity,
            ", ".join(names[:4]) + (", ..." if len(names) > 4 else ""),
            f"{share} get no gradient from the loss; 0 are expected.",
            cause,
            fix,
            "A3, A48",
        )
    ]


def _blocks(flow: _Flow, missing: set[int]) -> tuple[str, str] | None:
    """Where the gradient stops that would go to some arrays: a place, and an operation."""
    alive = {end.name for end in flow.ends}
    upstream: dict[str, bool] = {}
    for op in flow.operations:
        mine = bool(flow.variables[op.name] & missing)
        upstream[op.name] = mine or any(upstream.get(t.op.name, False) for t in op.inputs)
    for op in reversed(flow.operations):
        if op.name not in alive:
            continue
        stops = op.type in _STOPS_GRADIENT or (
            op.type == "Cast" and not (op.inputs[0].dtype.is_floating and op.outputs[0].dtype.is_floating)
        )
        if stops and upstream[op.name]:
            return flow.name_of(op), {"StopGradient": "stop_gradient"}.get(op.type, op.type.lower())
        if not stops:
            alive |= {tensor.op.name for tensor in op.inputs}
    return None


def _layer_of(model: keras.Model, weight: Any) -> str:
    for layer in all_layers(model)[1:]:
        if any(weight is other for other in layer.trainable_weights) and not isinstance(layer, keras.Model):
            return str(layer.name)
    return str(weight.path.rpartition("/")[0] or weight.path)


# More than half of what is given has no bearing on what comes out.
_MOST_UNREAD = 0.5
_CROPS = (
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.CenterCrop,
    keras.layers.RandomCrop,
)


def ignores_input(subject: Subject) -> Iterable[Finding]:
    """Inputs, or most numbers of one, that have no bearing on the output.

    Source:
        A53; Karpathy 2019, "A recipe for training neural networks".
    """
    pull = _pull(subject)
    if pull is None or len(subject.train) < 2 or _once(subject, _is_trained):
        return []
    rows = subject.train.spread(_TRIED, subject.seed)
    found = []
    for name, values in rows.inputs.items():
        if name in pull.inputs:
            gradient = pull.inputs[name]
            read = np.zeros(values.shape[1:], bool) if gradient is None else np.any(gradient, axis=0)
        elif values.dtype.kind in "iu":
            read = np.full(values.shape[1:], _bears_on_the_output(subject, rows, name))
        else:
            continue
        varies = np.any(values != values[:1], axis=0)
        unread = float(np.mean(np.logical_not(read[varies]))) if varies.any() else 0.0
        where = _lost_at(subject, name) if unread == 1 else name
        crops = any(isinstance(layer, _CROPS) for layer in _layers(subject))
        if where is None or unread <= _MOST_UNREAD or (unread < 1 and crops):
            continue
        found.append(
            Finding(
                "ignores-input",
                "error",
                where,
                f"{unread:.0%} of the {int(varies.sum()):,} numbers of {name} that differ between samples "
                "have no bearing on the output; 0% are expected.",
                "another tensor passed on in its place, a mask that lets nothing through, or an index "
                "that takes one step of many.",
                f"follow {name} through the layers, and find where it is left out.",
                "A53; Karpathy 2019, 'A recipe for training neural networks'",
            )
        )
    return found


def _bears_on_the_output(subject: Subject, rows: Rows, name: str) -> bool:
    """Whether outputs change when one input is taken from other samples."""
    moved = {key: np.roll(a, 1, axis=0) if key == name else a for key, a in rows.inputs.items()}
    x = moved if isinstance(rows.x, dict) else keras.tree.pack_sequence_as(rows.x, list(moved.values()))
    with borrowed(subject.model, rows.x):
        one, other = (keras.tree.flatten(subject.model(inputs, training=False)) for inputs in (rows.x, x))
    return any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))


def _lost_at(subject: Subject, name: str) -> str | None:
    """The place where all that one input says is lost; `None` where weights or dead units lose it."""
    if len(subject.train.inputs) > 1:
        return name
    if any(_differs(out) for out in keras.tree.flatten(subject.anatomy.outputs)):
        return None  # The loss has no use for it; the output does.
    for call in subject.anatomy.calls:
        if isinstance(call.layer, keras.layers.InputLayer) or not call.inputs or not call.outputs:
            continue
        if not any(_differs(a) for a in call.inputs):
            return call.name  # What came to it was the same for all samples.
        if not any(_differs(a) for a in call.outputs):
            return None if call.layer.weights or call.activation else call.name
    return name


def _differs(values: Array) -> bool:
    return bool(np.any(values != values[:1]))


# A share of 0.5 is the strongest usual one; from 0.8 on, little of the signal is left.
_STRONG, _EXTREME, _HOPELESS = 0.5, 0.8, 0.95
# Noise from dropout relative to the signal, where all units carry it alike.
_NOISY = 0.25


def dropout_rate(subject: Subject) -> Iterable[Finding]:
    """Dropout that leaves too little of the signal, or none now and then.

    Source:
        A1, A37; Srivastava et al. 2014, "Dropout".
    """
    flow = _flow(subject)
    found, before = [], None
    for call in subject.anatomy.calls:
        layer = call.layer
        rates = [getattr(layer, name, 0.0) for name in ("dropout", "recurrent_dropout")]
        if isinstance(layer, keras.layers.Bidirectional):
            inner = layer.forward_layer
            rates = [getattr(inner, name, 0.0) for name in ("dropout", "recurrent_dropout")]
        if isinstance(layer, _DROPOUTS):
            rate = _number(getattr(layer, "rate", 0.0))
            if rate > 0 and call.outputs:
                found.append(_after_output(subject, flow, call, rate) or _dropped(flow, call, rate, before))
                before = (rate, call.outputs[0])
        elif isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            found += [_dropped_inside(call, _number(rate)) for rate in rates]
    return _sorted(finding for finding in found if finding is not None)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _after_output(subject: Subject, flow: _Flow, call: Call, rate: float) -> Finding | None:
    ends = {end.name for end in flow.ends}
    passes = {*_POINTWISE, *_RANGES}
    for _, outputs in flow.inner.get(id(call.layer), ()):
        op = outputs[0].op if outputs else None
        if op is None or op.name not in flow.reached or not flow.depth[op.name]:
            continue
        later = [op, *flow.after(op, lambda _: False)]
        # In inference dropout does nothing, so that any other reader of its input is among these.
        direct = all(o.type in passes and not flow._joins(o) for o in later[1:]) and not flow.ahead[op.name]
        if direct and any(o.name in ends for o in later):
            return Finding(
                "dropout-rate",
                "error",
                call.name,
                f"a share of {rate:.3g} of the outputs is set to 0 in training; "
                "0 is expected after the last layer.",
                "dropout after the output layer: what the loss sees is not what the model says.",
                f"put {call.name} before the output layer.",
                "A1, A37; Srivastava et al. 2014",
            )
    return None


def _units_dropped(call: Call) -> int:
    """How many numbers are dropped independently of each other, for one sample."""
    shape = call.outputs[0].shape[1:]
    if isinstance(call.layer, _SPATIAL):
        return int(shape[-1]) if shape else 1
    return math.prod(shape) or 1


def _dropped(flow: _Flow, call: Call, rate: float, before: Any) -> Finding | None:
    units, name = _units_dropped(call), call.name
    keep = 1 - rate
    if before is not None and np.array_equal(before[1], call.inputs[0]):
        keep *= 1 - before[0]
    if keep <= 0:
        return _too_much("error", name, "all units are dropped in training; at most half are expected.")
    if getattr(call.layer, "noise_shape", None) is not None:
        return None  # Whole branches beside a skip are dropped like this.
    if rate**units > 0.1 and not isinstance(call.layer, keras.layers.GaussianDropout):
        return _too_much(
            "error" if rate**units > 0.4 else "warning",
            name,
            f"with {units} unit(s) all are dropped at once in {rate**units:.0%} of the cases; "
            "under 10% are expected.",
        )
    noise = math.sqrt((1 - keep) / (keep * units))
    seen = f"{1 - keep:.3g} of {units} units are dropped"
    if 1 - keep >= _EXTREME:
        bad = noise > _NOISY or 1 - keep >= _HOPELESS
        return _too_much("error" if bad else "warning", name, f"{seen}; at most 0.5 are expected.")
    if rate > _STRONG:
        return _too_much("warning", name, f"{seen}; at most 0.5 are expected.")
    return None


def _dropped_inside(call: Call, rate: float) -> Finding | None:
    if rate <= _STRONG:
        return None
    seen = f"{rate:.3g} of the inputs or states are dropped in each step; at most 0.5 are expected."
    return _too_much("error" if rate >= _EXTREME else "warning", call.name, seen)


def _too_much(severity: Severity, name: str, evidence: str) -> Finding:
    return Finding(
        "dropout-rate",
        severity,
        name,
        evidence,
        "a dropout rate that leaves too little to learn from (in Keras the rate is the share dropped).",
        f"set the rate of {name} to 0.2, or to 0.5 at most.",
        "A1, A37; Srivastava et al. 2014",
    )


# Statistics of fewer values say little of the whole set (Wu and He 2018, figure 1).
_FEW_VALUES = 8


def batch_norm_batch(subject: Subject) -> Iterable[Finding]:
    """Batch normalisation over too few values, or of the output itself.

    Source:
        A1, A26; Ioffe and Szegedy 2015; Wu and He 2018, "Group normalization".
    """
    total = subject.train.total or len(subject.train)
    batch = max(1, min(subject.batch_size, total))
    found: dict[tuple[int, int], list[str]] = {}
    flow = _flow(subject)
    findings = []
    for call in _calls(subject, keras.layers.BatchNormalization):
        shape = call.inputs[0].shape
        if not call.layer.trainable or len(shape) < 2:
            continue
        axis = int(np.ravel(getattr(call.layer, "axis", -1))[0])
        places = [s for i, s in enumerate(shape) if i not in (0, axis % len(shape))]
        values = batch * math.prod(places)
        if values < _FEW_VALUES:
            found.setdefault((values, batch), []).append(call.name)
        findings += list(_norm_of_output(subject, flow, call))
    for (values, batch), names in sorted(found.items()):
        findings.append(
            Finding(
                "batch-norm-batch",
                "error" if values == 1 else "warning",
                ", ".join(names[:4]) + (", ..." if len(names) > 4 else ""),
                f"mean and variance are taken over {values} value(s) a feature; "
                f"at least {_FEW_VALUES} are expected.",
                f"batches of {batch}"
                + (", in which every feature normalises to 0 in training." if values == 1 else "."),
                "use a batch_size of 32, or LayerNormalization.",
                "A1, A26; Wu and He 2018",
            )
        )
    return _sorted(findings)


def _norm_of_output(subject: Subject, flow: _Flow, call: Call) -> Iterator[Finding]:
    for head, end in zip(subject.heads, flow.ends, strict=False):
        trail = flow.trail(end)
        mine = [i for i, op in enumerate(trail) if flow.owner(op) is call.layer]
        if not mine or any(op.type in _RANGES for op in trail[mine[0] :]):
            continue
        if not any(op.name in flow.weighted for op in trail[mine[0] :]):
            continue
        yield Finding(
            "batch-norm-batch",
            "warning",
            call.name,
            f"batch normalisation stands after the last weights of {_output(subject, head)} and makes each "
            "prediction depend on the rest of its batch; 0 such layers are expected there.",
            "a batch normalisation after the output layer.",
            f"take {call.name} away, or put it before the last layer.",
            "A1; Ioffe and Szegedy 2015",
        )


# Above 1 even the cheapest useful weights cost more than the loss they could save.
_COSTS_ALL, _COSTS_MUCH = 1.0, 0.3
# A layer whose weights may keep less than a tenth of their initial norm lets no signal through.
_SHRUNK, _SMALLER = 0.1, 0.3
# Adam moves a weight by its learning rate a step, which this decay uses up for a weight of 1 / decay.
_STRONG_DECAY = 0.5


def over_regularized(subject: Subject) -> Iterable[Finding]:
    """Penalties, constraints or decay that outweigh what the data can teach.

    The cheapest useful net passes one signal of unit size through each layer. If the
    penalty on that is more than the whole loss, the best weights are zero.

    Source:
        A4, A5, A6; Goodfellow, Bengio and Courville 2016, section 7.1.
    """
    flow = _flow(subject)
    findings = [*_dear(subject, flow), *_pushed_to_zero(subject), *_constrained(flow, subject)]
    return _sorted([*findings, *_silenced(subject), *_decayed(subject)])


def _dear(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    costs: dict[str, float] = {}
    signals = _signals(subject)
    for layer in _layers(subject):
        cost = _penalty_cost(flow, layer, signals)
        if cost > 0 and layer.trainable:
            costs[str(layer.name)] = costs.get(str(layer.name), 0.0) + cost
    decay = _plain_decay(subject.model.optimizer)
    if decay:
        for op in flow.operations:
            layer = flow.owner(op)
            if op.name in flow.weighted and isinstance(layer, _STACKED) and not flow.is_normalised(op):
                costs[str(layer.name)] = costs.get(str(layer.name), 0.0) + decay / 2 * signals
    pull = _pull(subject) if costs else None
    if pull is None or not math.isfinite(pull.loss) or pull.loss <= 0:
        return
    share = sum(costs.values()) / pull.loss
    if share < _COSTS_MUCH:
        return
    names = sorted(costs, key=lambda name: -costs[name])
    yield Finding(
        "over-regularized",
        "error" if share > _COSTS_ALL else "warning",
        ", ".join(names[:4]) + (", ..." if len(names) > 4 else ""),
        f"weights of unit size cost a penalty of at least {sum(costs.values()):.3g}, and the loss to be "
        f"saved is {pull.loss:.3g}; under {_COSTS_MUCH:.0%} of it are expected.",
        "L1 or L2 factors so large that weights of zero are the best answer.",
        "use factors of 1e-4 to 1e-3.",
        "A4, A6; Goodfellow, Bengio and Courville 2016, section 7.1",
    )


def _signals(subject: Subject) -> int:
    """How many independent numbers the output must tell at least."""
    head = subject.heads[0]
    if subject.task is not None and subject.task.kind == "multiclass":
        return max(1, subject.task.outputs - 1)
    return 1 if head.units < 2 or subject.task is None else min(head.units, 4)


def _penalty_cost(flow: _Flow, layer: Layer, signals: int) -> float:
    cost = 0.0
    products = flow.products(layer)
    kernel = getattr(layer, "kernel_regularizer", None)
    # Batch norm makes up for any size of the weights before it.
    if products and kernel is not None and not flow.is_normalised(products[0]):
        cost += _factor(kernel) * signals
    activity = getattr(layer, "activity_regularizer", None)
    if activity is not None and id(layer) in flow.inner:
        cost += _factor(activity) * signals
    return cost


def _factor(regularizer: Any) -> float:
    """What an L1 or L2 penalty takes for one weight of size 1."""
    return sum(_number(getattr(regularizer, name, 0.0)) for name in ("l1", "l2"))


def _plain_decay(optimizer: Any) -> float:
    """The weight decay of an optimiser that does not scale its gradient."""
    optimizer = innermost(optimizer)
    if type(optimizer).__name__.lower() in _ADAPTIVE:
        return 0.0
    return _number(getattr(optimizer, "weight_decay", None) or 0.0)


def _pushed_to_zero(subject: Subject) -> Iterator[Finding]:
    """L1 penalties stronger than the loss's pull at any weight of their array."""
    layers = [
        layer
        for layer in _layers(subject)
        if _number(getattr(getattr(layer, "kernel_regularizer", None), "l1", 0.0)) > 0
        and layer.trainable
        and getattr(layer, "kernel", None) is not None
    ]
    pull = _pull(subject) if layers and not _once(subject, _is_trained) else None
    for layer in layers if pull is not None else ():
        gradient = pull.gradients.get(id(layer.kernel)) if pull is not None else None
        push = _number(layer.kernel_regularizer.l1)
        if gradient is None or not np.any(gradient) or not np.all(np.isfinite(gradient)):
            continue
        # Nearly all at zero is over the top as well, though the few left may do.
        all_but_few, strongest = (float(np.quantile(np.abs(gradient), share)) for share in (0.95, 1.0))
        if all_but_few >= push:
            continue
        yield Finding(
            "over-regularized",
            "error" if strongest < push else "warning",
            str(layer.name),
            f"the L1 penalty pushes each weight to 0 with {push:.2g}; the loss pulls at 95% of them with "
            f"{all_but_few:.2g} at most, at any with {strongest:.2g}, and a factor well below is expected.",
            "an L1 factor that is too large, which ends with weights at 0.",
            "use a factor of 1e-5 to 1e-4.",
            "A4; Goodfellow, Bengio and Courville 2016, section 7.1.2",
        )


def _constrained(flow: _Flow, subject: Subject) -> Iterator[Finding]:
    for layer in _layers(subject):
        constraint: Any = getattr(layer, "kernel_constraint", None)
        kernel = _kernel(layer) if constraint is not None and isinstance(layer, _STACKED) else None
        products = flow.products(layer) if kernel is not None else []
        if kernel is None or not products or flow.is_normalised(products[0]) or not _rms(kernel):
            continue
        limited = keras.ops.convert_to_numpy(constraint(keras.ops.convert_to_tensor(kernel, "float32")))
        # Where the initial weights are large, the usual scale is what counts.
        usual = math.sqrt(1 / max(1, _channels(layer)[0])) if isinstance(layer, _SCALED) else _rms(kernel)
        ratio = _rms(limited) / min(_rms(kernel), usual)
        if ratio < _SMALLER:
            yield Finding(
                "over-regularized",
                "error" if ratio < _SHRUNK else "warning",
                str(layer.name),
                f"the constraint leaves {ratio:.2g} of the initial weights' size; about 1 is expected.",
                "a limit on the weights' norm below what passes a signal on.",
                "use max_norm(2.0) to max_norm(4.0).",
                "A5; Srivastava et al. 2014",
            )


def _silenced(subject: Subject) -> Iterator[Finding]:
    """Penalties on activities that cost more than all that can be learned."""
    layers = [layer for layer in _layers(subject) if getattr(layer, "activity_regularizer", None) is not None]
    pull = _pull(subject) if layers else None
    if pull is None or not 0 < pull.data_loss < pull.activity_penalty:
        return
    yield Finding(
        "over-regularized",
        "warning",
        ", ".join(str(layer.name) for layer in layers[:4]) + (", ..." if len(layers) > 4 else ""),
        f"the penalty on activities is {pull.activity_penalty:.3g} at the start, and the loss to be saved is "
        f"{pull.data_loss:.3g}; a tenth of it is expected at most.",
        "a penalty on activities so large that silence is the best answer.",
        "use a factor of 1e-4 or less for each unit's activity.",
        "A6; Goodfellow, Bengio and Courville 2016, section 7.10",
    )


def _decayed(subject: Subject) -> Iterator[Finding]:
    optimizer = innermost(subject.model.optimizer)
    decay = _number(getattr(optimizer, "weight_decay", None) or 0.0)
    if type(optimizer).__name__.lower() not in _ADAPTIVE or decay < _STRONG_DECAY:
        return
    sizes = [_rms(k) for call in _calls(subject, _SCALED) if (k := _kernel(call.layer)) is not None]
    size = float(np.median(sizes)) if sizes else 0.0
    yield Finding(
        "over-regularized",
        "error" if decay * size >= 1 else "warning",
        "optimizer",
        f"weight_decay is {decay:.3g} and holds each weight below {1 / decay:.2g}; at most 0.1 is expected.",
        "a weight decay that wears weights away faster than the optimiser builds them up.",
        "use weight_decay=0.004, Keras's default for AdamW, up to 0.1.",
        "A4; Loshchilov and Hutter 2019",
    )


# Weights for each training sample, from which on even regularised nets are seldom meant to be so large.
_MANY_WEIGHTS = 1_000


def capacity(subject: Subject) -> Iterable[Finding]:
    """A hidden layer too narrow for what the output has to tell.

    Source:
        A11, A54.
    """
    flow = _flow(subject)
    narrow = [] if _rebuilds_input(subject) else list(_too_narrow(subject, flow))
    return _sorted([*narrow, *_oversized(subject)])


def _too_narrow(subject: Subject, flow: _Flow) -> Iterator[Finding]:
    classes = subject.task.outputs if subject.task and subject.task.kind == "multiclass" else 0
    widest = 0
    for call in _calls(subject, (*_SCALED, keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)):
        width = math.prod(call.outputs[0].shape[1:])
        op = next((o for _, outs in flow.inner.get(id(call.layer), ()) for o in outs[:1]), None)
        wider_before, widest = widest > width, max(widest, width)
        if width > 2 or op is None or op.op.name not in flow.reached:
            continue
        if not flow.ahead[op.op.name] or not flow.cuts(op.op):
            continue
        if width == 1 and (classes > 2 or wider_before):
            severity: Severity = "error" if classes > 2 else "warning"
        elif width == 2 and classes > 4:
            severity = "warning"
        else:
            continue
        expected = f"at least {classes - 1} for {classes} classes" if classes > 2 else "more"
        yield Finding(
            "capacity",
            severity,
            call.name,
            f"all that the output knows goes through {width} hidden unit(s); {expected} are expected.",
            "a hidden layer that is too narrow.",
            f"give {call.name} 32 units or more.",
            "A11, A54",
        )


def _oversized(subject: Subject) -> Iterator[Finding]:
    weights = sum(math.prod(v.shape) for v in subject.model.trainable_variables)
    samples = subject.train.total
    if samples and weights > _MANY_WEIGHTS * samples and not _once(subject, _is_trained):
        yield Finding(
            "capacity",
            "info",
            "model",
            f"{weights:,} weights learn from {samples:,} samples; "
            f"under {_MANY_WEIGHTS:,} for each are expected.",
            "a net that is large for the data, and may learn them by heart.",
            "start smaller, and watch the validation loss.",
            "A54",
        )


CHECKS: tuple[Check, ...] = (
    frozen,
    disconnected,
    ignores_input,
    no_nonlinearity,
    double_activation,
    saturating_activation,
    initial_weights,
    dropout_rate,
    batch_norm_batch,
    over_regularized,
    capacity,
)
