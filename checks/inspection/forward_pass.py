"""How a model is put together: its layers as they are called, its outputs and their losses."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.layers import activation_name, inner_layers
from keras_practice.core.private_api.keras import mask_of
from keras_practice.core.steps import hooked
from keras_practice.core.types import Array

# The operations that TensorFlow runs for an activation, by its name in Keras.
_ACTIVATION_OF = {
    "Elu": "elu",
    "Exp": "exponential",
    "LeakyRelu": "leaky_relu",
    "LogSoftmax": "log_softmax",
    "Relu": "relu",
    "Relu6": "relu6",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
# What an eager call takes beside its sums, in seconds.
_OVERHEAD = 0.1
_PASSES_ON = ("Identity", "Reshape", "Squeeze", "ExpandDims", "Cast", "StopGradient", "Snapshot")


@dataclass(frozen=True)
class Call:
    """One layer at work in the forward pass, in inference.

    Attributes:
        layer: The layer; a layer that is called twice has two calls.
        inputs, outputs: What went in and what came out, `(samples, ...)` each.
        activation: Name of the activation function that the layer ends in, as in
            `"relu"`; `None` for none or `"linear"`.
    """

    layer: keras.layers.Layer
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    activation: str | None

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)


@dataclass(frozen=True)
class Head:
    """One output of a model, with what it is compared to.

    Attributes:
        name: Name of the output layer, or `"output"`.
        outputs: What the model puts out for the samples that were tried, `(samples, ...)`.
        labels: The labels of all samples that were read, `(samples, ...)`.
        loss: The compiled loss: a name, function or `keras.losses.Loss`; `None` for none.
        activations: The activations that the output went through last, from the end
            backwards, with nothing that has weights in between: `("softmax",)`, `()` for
            linear, `("softmax", "softmax")` for one too many.
    """

    name: str
    outputs: Array
    labels: Array
    loss: Any
    activations: tuple[str, ...]

    @property
    def units(self) -> int:
        """Number of output units."""
        return int(self.outputs.shape[-1]) if self.outputs.ndim > 1 else 1


@dataclass(frozen=True)
class ForwardPass:
    """What one forward pass of a few samples showed of a model.

    Attributes:
        calls: Its leaf layers in the order in which they are called.
        operations: The type of each TensorFlow operation in the forward pass, in order,
            those inside functions that it calls included.
        masked: Whether the model masks steps of each output.
        seconds: What it took, beyond what any takes; 0 for a small model.
    """

    calls: tuple[Call, ...]
    operations: tuple[str, ...]
    activations: tuple[tuple[str, ...], ...]
    outputs: Any
    seconds: float = 0.0
    masked: tuple[bool, ...] = ()


class ForwardPassError(Exception):
    """A model that cannot be called on its samples.

    Attributes:
        problem: What was raised.
    """

    def __init__(self, problem: Exception) -> None:
        super().__init__(str(problem))
        self.problem = problem


def fixed_batch(model: keras.Model) -> int | None:
    """The batch size that a model is built for, if it is."""
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    return inputs[0].shape[0] if inputs and inputs[0].shape else None


def built(model: keras.Model, x: Any) -> None:
    """Builds a model that waits for its first batch, as `fit` would.

    Raises:
        ForwardPassError: If it cannot be called.
    """
    if not model.built:
        try:
            model(x, training=False)
        except Exception as problem:  # A layer of the user's own may raise anything.
            raise ForwardPassError(problem) from problem


def forward_pass_of(model: keras.Model, x: Any) -> ForwardPass:
    """Runs the model once on a few samples, in inference; its variables must be lent before.

    Raises:
        ForwardPassError: If it cannot be called.
    """
    try:
        return _forward_pass(model, x)
    except Exception as problem:  # A layer of the user's own may raise anything.
        raise ForwardPassError(problem) from problem


def _forward_pass(model: keras.Model, x: Any) -> ForwardPass:
    calls: list[Call] = []

    def watch(layer: keras.layers.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        if all(not isinstance(part, tf.Tensor) or tf.executing_eagerly() for part in (result,)):
            calls.append(
                Call(layer, _eager(args, kwargs.get("inputs")), _eager(result), activation_name(layer))
            )
        return result

    with ExitStack() as stack:
        for layer in inner_layers(model):
            stack.enter_context(hooked(layer, "call", functools.partial(watch, layer)))
        begin = time.monotonic()
        outputs = model(x, training=False)
        seconds = time.monotonic() - begin
    if seconds > _OVERHEAD:  # The first call may have had to prepare much.
        begin = time.monotonic()
        model(x, training=False)
        seconds = min(seconds, time.monotonic() - begin)
    traced = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    # A trace runs nothing, and so changes nothing.
    graph = traced.get_concrete_function(x).graph
    ends = tf.nest.flatten(graph.structured_outputs)
    return ForwardPass(
        tuple(calls),
        tuple(_operations(graph)),
        tuple(_last_activations(end) for end in ends if tf.is_tensor(end)),
        keras.tree.map_structure(np.asarray, outputs),
        max(0.0, seconds - _OVERHEAD),
        tuple(mask_of(output) is not None for output in keras.tree.flatten(outputs)),
    )


def heads_of(model: keras.Model, forward_pass: ForwardPass, labels: Any) -> tuple[Head, ...]:
    """The model's outputs, each with its labels and its loss.

    Raises:
        ValueError: If there are not as many labels as outputs.
    """
    names = list(getattr(model, "output_names", None) or ())
    outputs = keras.tree.flatten(forward_pass.outputs)
    if isinstance(forward_pass.outputs, dict):
        names = [str(name) for name in sorted(forward_pass.outputs)]
    if len(names) != len(outputs):
        names = [f"output {i}" for i in range(len(outputs))] if len(outputs) > 1 else ["output"]
    losses = model.loss
    if isinstance(losses, dict):
        losses = [losses.get(name) for name in names]
    elif not isinstance(losses, (list, tuple)):
        losses = [losses] * len(outputs)
    ys = labels_by_output(labels, names, losses, [np.shape(output)[:1] for output in outputs])
    activations = forward_pass.activations
    if len(activations) != len(outputs):  # One that is no tensor, but a ragged or sparse one.
        activations = ((),) * len(outputs)
    return tuple(
        Head(name, np.asarray(output), np.asarray(y), loss, last)
        for name, output, y, loss, last in zip(names, outputs, ys, losses, activations, strict=True)
    )


def labels_by_output(labels: Any, names: list[str], losses: list[Any], counts: list[Any]) -> list[Array]:
    """The labels of each output; an array without columns for one that has none, and no loss.

    Raises:
        ValueError: If an output has a loss and no labels, or labels have no output.
    """
    if labels is None:
        return [np.zeros((*count, 0), np.float32) for count in counts]
    if not isinstance(labels, dict):
        given = keras.tree.flatten(labels)
        if len(given) != len(names):
            raise ValueError(f"There must be labels for each of the {len(names)} outputs. Got {len(given)}.")
        return [np.asarray(part) for part in given]
    missing = [
        name for name, loss in zip(names, losses, strict=True) if loss is not None and name not in labels
    ]
    unknown = [name for name in labels if name not in names]
    if missing or unknown:
        raise ValueError(
            f"Labels in a dictionary must have the names of the outputs, {', '.join(names)}. "
            f"Got {', '.join(map(str, labels))}."
        )
    rows = len(next(iter(labels.values())))
    return [np.asarray(labels[name]) if name in labels else np.zeros((rows, 0), np.float32) for name in names]


def _eager(*nests: Any) -> tuple[Array, ...]:
    return tuple(
        np.asarray(part)
        for part in keras.tree.flatten(nests)
        if isinstance(part, tf.Tensor) and hasattr(part, "numpy")
    )


def _operations(graph: Any) -> Iterator[str]:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    for node in nodes:
        yield str(node.op)


def _last_activations(tensor: tf.Tensor) -> tuple[str, ...]:
    found: list[str] = []
    while True:
        operation = tensor.op
        if operation.type in _ACTIVATION_OF:
            found.append(_ACTIVATION_OF[operation.type])
        elif operation.type not in _PASSES_ON:
            return tuple(found)
        tensor = operation.inputs[0]
