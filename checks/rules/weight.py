"""Checks of the first weights: all alike, or on the wrong scale for their layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.flow import Flow
from keras_practice.checks.inspection.forward_pass import Call
from keras_practice.checks.inspection.gradients import gradients_of, pull_of
from keras_practice.checks.inspection.layers import (
    SCALED,
    TRANSPOSED,
    bias_of,
    calls_of,
    flow_of,
    is_fresh,
    is_trained,
    kernel_of,
    layers_of,
    once,
    rms_of,
    variation_of,
)
from keras_practice.checks.rules.activation import share_at_limit
from keras_practice.core.layers import activation_name
from keras_practice.core.types import Array

# With a tenth of them that can move, training frees the rest (Nielsen's nets start so).
_MAX_AT_LIMIT = 0.9
# Beyond a factor of 10 a few layers lose or multiply the signal by thousands.
_FAR, _OFF = 10.0, 3.0
# So small that no layer after it can bring the signal back in a usual training.
_LOST = 1 / 100
_LOST_IN_ALL = 1e-3
# In natural logarithms: a factor of a million over all steps.
_HUGE = math.log(1e6)
_UNBOUNDED = (None, "relu", "leaky_relu", "elu", "gelu", "silu", "softplus")


def initial_weights(context: CheckContext) -> Iterable[Finding]:
    """Weights of an untrained model that are all alike, or on the wrong scale for their layer.

    Source:
        A2, A3; Glorot and Bengio 2010; He et al. 2015, "Delving deep into rectifiers".
    """
    if once(context, is_trained):
        return []
    flow = flow_of(context)
    found = []
    for call in calls_of(context, SCALED):
        kernel = kernel_of(call.layer)
        if kernel is None or not call.layer.trainable or isinstance(call.layer, TRANSPOSED):
            continue
        products = flow.products(call.layer)
        if not products:
            continue
        finding = _alike(context, flow, call, kernel, products[0]) or _off_scale(
            context, flow, call, kernel, products[0]
        )
        found += [finding] if finding else []
        found += list(_large_bias(context, flow, call, kernel, products[0]))
    return gravest_first([*found, *_recurrent(context), *_embeddings(context)])


def _embeddings(context: CheckContext) -> Iterator[Finding]:
    """Embeddings in which every word starts as the same vector, so that their products pull at none."""
    pull = pull_of(context)
    for layer in layers_of(context):
        if not isinstance(layer, keras.layers.Embedding) or not layer.trainable or not layer.built:
            continue
        values = np.asarray(keras.ops.convert_to_numpy(layer.embeddings))
        if values.size < 2 or np.ptp(values) > 0:
            continue
        gradient = pull.gradients.get(id(layer.embeddings)) if pull is not None else None
        stuck = gradient is not None and not np.any(gradient)
        yield Finding(
            "initial-weights",
            "error" if stuck else "warning",
            str(layer.name),
            f"all {values.shape[0]:,} vectors start as {float(values.flat[0]):.3g}"
            + (", with a gradient of 0" if stuck else "")
            + "; different ones are expected.",
            "an initializer that gives a constant.",
            "leave embeddings_initializer at 'uniform'.",
            "A2; Goodfellow, Bengio and Courville 2016, section 8.4",
        )


def _recurrent(context: CheckContext) -> Iterator[Finding]:
    """Simple recurrent layers whose state fades or grows from step to step, by the first weights."""
    for call in calls_of(context, (keras.layers.SimpleRNN, keras.layers.Bidirectional)):
        layer = getattr(call.layer, "forward_layer", call.layer)
        cell = getattr(layer, "cell", None)
        if not isinstance(cell, keras.layers.SimpleRNNCell) or call.inputs[0].ndim < 3:
            continue
        kernel = np.asarray(keras.ops.convert_to_numpy(cell.recurrent_kernel), dtype=np.float64)
        if not np.all(np.isfinite(kernel)):
            continue
        steps, radius = call.inputs[0].shape[1], float(np.abs(np.linalg.eigvals(kernel)).max())
        # Tanh and the like hold the state within bounds.
        grows = radius > 1 and activation_name(cell) in _UNBOUNDED and steps * math.log(radius) > _HUGE
        fades = radius < 1 / 2 and steps * math.log(max(radius, 1e-300)) < -_HUGE
        if not (grows or fades):
            continue
        yield Finding(
            "initial-weights",
            "error" if grows else "warning",  # Not every task needs the first steps.
            call.name,
            f"the recurrent weights multiply the state by up to {radius:.3g} at each of {steps} steps; "
            "about 1 is expected.",
            "a recurrent initializer on a scale of its own, which lets the state "
            + ("grow without bound." if grows else "fade before the end."),
            "use recurrent_initializer='orthogonal', Keras's default, or an LSTM or GRU.",
            "A2, A13; Pascanu, Mikolov and Bengio 2013",
        )


def _alike(context: CheckContext, flow: Flow, call: Call, kernel: Array, product: Any) -> Finding | None:
    """All units of a hidden layer compute the same, and their gradients keep them the same."""
    columns = kernel.reshape(-1, kernel.shape[-1])
    is_last = flow.ahead[product.name] == 0
    if is_last or columns.shape[1] < 2 or np.ptp(columns, axis=1).max() > 0:
        return None
    bias = bias_of(call.layer)
    if bias is not None and np.ptp(bias) > 0:
        return None
    value = float(columns[0, 0])
    same = bool(np.ptp(columns) == 0)
    if value == 0 and same and flow.joins_others(product):
        return None  # A block that starts as nothing beside a skip, or a gate.
    pull = gradients_of(context, training=False)
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


def _off_scale(context: CheckContext, flow: Flow, call: Call, kernel: Array, product: Any) -> Finding | None:
    fan_in, fan_out = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    scale = rms_of(kernel)
    if fan_in * fan_out < 8 or scale == 0:
        return None  # Too few numbers to know a scale by.
    initializer = getattr(call.layer, "kernel_initializer", None)
    by_size = isinstance(initializer, keras.initializers.VarianceScaling) and 0.1 < initializer.scale < 10
    if by_size and is_fresh(call.layer):
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
        lost_in_all = _lost_in_all(context)
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
        return math.inf if share_at_limit(call) > _MAX_AT_LIMIT else _share_gain(call)
    if call.activation == "softmax":
        return math.inf
    return _share_gain(call)


def _share_gain(call: Call) -> float:
    into = rms_of(call.inputs[0]) if call.inputs[0].dtype.kind in "biuf" else 0.0
    return rms_of(call.outputs[0]) / into if into else math.inf


def _lost_in_all(context: CheckContext) -> bool:
    """Whether next to nothing of the inputs' differences is left at the last hidden layer."""
    calls = list(calls_of(context, SCALED))
    first, last = calls[0].inputs[0], calls[-1].inputs[0]
    if len(calls) < 2 or first.dtype.kind not in "biuf" or not variation_of(first):
        return False
    return variation_of(last) / variation_of(first) < _LOST_IN_ALL


def _large_bias(
    context: CheckContext, flow: Flow, call: Call, kernel: Array, product: Any
) -> Iterator[Finding]:
    bias = bias_of(call.layer)
    if bias is None or not bias.size or flow.is_normalised(product) or flow.ahead[product.name] == 0:
        return
    fan_in = math.prod(kernel.shape[:-1])
    signal = math.sqrt(fan_in) * rms_of(kernel) * rms_of(call.inputs[0])
    # Kernels that are off have their own finding.
    if signal == 0 or rms_of(kernel) * math.sqrt(fan_in) < 0.1:
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
