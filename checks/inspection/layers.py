"""What the checks of a model's structure have in common: its layers, their weights, and one trace."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np

from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.flow import Flow, Layer
from keras_practice.checks.inspection.forward_pass import Call, Head
from keras_practice.core.layers import all_layers
from keras_practice.core.steps import innermost
from keras_practice.core.types import Array

_T = TypeVar("_T")
TRIED = 32
_SPOKEN = {
    "Elu": "ELU",
    "Exp": "exponential",
    "LeakyRelu": "leaky ReLU",
    "LogSoftmax": "log-softmax",
    "Relu": "ReLU",
    "Relu6": "ReLU6",
    "Selu": "SELU",
}
SCALED = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
STACKED = (
    *SCALED,
    *TRANSPOSED,
    keras.layers.EinsumDense,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_kept: dict[int, dict[Any, Any]] = {}


def once(context: CheckContext, make: Callable[[CheckContext], _T]) -> _T:
    """Makes a thing for one model's forward pass once, and forgets it together with that."""
    key = id(context.forward_pass)
    if key not in _kept:
        _kept[key] = {}
        weakref.finalize(context.forward_pass, _kept.pop, key, None)
    if make not in _kept[key]:
        _kept[key][make] = make(context)
    made: _T = _kept[key][make]
    return made


def layers_of(context: CheckContext) -> list[Layer]:
    """All layers of the model, listed once."""
    return once(context, _list_layers)


def _list_layers(context: CheckContext) -> list[Layer]:
    return all_layers(context.model)


def flow_of(context: CheckContext) -> Flow:
    """The graph of the forward pass, traced once."""
    return once(context, _trace)


def _trace(context: CheckContext) -> Flow:
    return Flow(context.model, context.train.spread(len(context.heads[0].outputs), context.seed).fed)


def kernel_of(layer: Layer) -> Array | None:
    """A layer's kernel as float64; `None` for none, or one that is not finite."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or not hasattr(kernel, "shape") or len(kernel.shape) < 2:
        return None
    values = np.asarray(keras.ops.convert_to_numpy(kernel), dtype=np.float64)
    return values if values.size and np.all(np.isfinite(values)) else None


def bias_of(layer: Layer) -> Array | None:
    """A layer's bias as float64; `None` for none."""
    bias = getattr(layer, "bias", None)
    if bias is None or not hasattr(bias, "shape"):
        return None
    return np.asarray(keras.ops.convert_to_numpy(bias), dtype=np.float64)


def calls_of(context: CheckContext, kinds: Any) -> Iterator[Call]:
    """The first call of each layer of certain kinds, with arrays of numbers in and out."""
    seen = set()
    for call in context.forward_pass.calls:
        if isinstance(call.layer, kinds) and id(call.layer) not in seen and call.inputs and call.outputs:
            seen.add(id(call.layer))
            yield call


def rms_of(values: Array) -> float:
    """Root mean square; 0 for none or what is not finite."""
    values = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.mean(values**2))) if values.size and np.all(np.isfinite(values)) else 0.0


def variation_of(values: Array) -> float:
    """How much a layer's units differ from sample to sample, as a root mean square."""
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    if not values.size or not np.all(np.isfinite(values)):
        return 0.0
    return float(np.sqrt(np.mean(values.var(axis=0))))


def spoken(kind: str) -> str:
    """An activation's name in a sentence."""
    return _SPOKEN.get(kind, kind.lower())


def rebuilds_input(context: CheckContext) -> bool:
    """Whether the labels are the inputs, as for an autoencoder, or a noisy or clean copy of them."""
    for head in context.heads:
        for values in context.train.inputs.values():
            if context.train.y is None and values.shape[1:] == head.outputs.shape[1:] and values.ndim > 1:
                return True  # Nothing else is there for an output of the same shape to be held against.
            if values.dtype.kind in "fiu" and values.shape[1:] == head.labels.shape[1:] and values.ndim > 1:
                few = slice(0, 256)
                a, b = (np.ravel(v[few]).astype(np.float64) for v in (values, head.labels))
                # A noisy copy still goes with the clean one.
                if a.size > 1 and a.std() and b.std() and np.corrcoef(a, b)[0, 1] > 0.5:
                    return True
    return False


def is_trained(context: CheckContext) -> bool:
    """Whether the model, or a part of it, has been trained or loaded."""
    optimizer = innermost(context.model.optimizer)
    if optimizer is not None and int(np.asarray(getattr(optimizer, "iterations", 0))) > 0:
        return True
    for layer in layers_of(context):
        bias = bias_of(layer)
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


def is_fresh(layer: Layer) -> bool:
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


def channels_of(layer: Layer) -> tuple[int, int]:
    """Channels into a layer and out of it, from its kernel."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        kernel = getattr(layer, "pointwise_kernel", None)
    if kernel is None or len(kernel.shape) < 2:
        return 0, 0
    into, out = int(kernel.shape[-2]), int(kernel.shape[-1])
    if isinstance(layer, TRANSPOSED):
        return out, into
    # Each filter of a convolution sees a whole window.
    return (math.prod(kernel.shape[:-1]) if isinstance(layer, SCALED) else into), out


def output_name(context: CheckContext, head: Head) -> str:
    """An output as it is named to a person."""
    return "output" if len(context.heads) == 1 else head.name


def number_of(value: Any) -> float:
    """A number; 0 for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
