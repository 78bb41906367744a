"""Checks of the ways through a model: from inputs to outputs, and from the loss back to the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.flow import Flow
from keras_practice.checks.inspection.gradients import pull_of
from keras_practice.checks.inspection.layers import (
    SCALED,
    STACKED,
    TRIED,
    calls_of,
    flow_of,
    is_fresh,
    is_trained,
    layers_of,
    once,
    rebuilds_input,
)
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.layers import all_layers
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved

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
    "Sign",
    "StopGradient",
}


def frozen(context: CheckContext) -> Iterable[Finding]:
    """Weights that training leaves as they are, though they know nothing yet.

    Source:
        A30.
    """
    model = context.model
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
    if once(context, is_trained):
        return []
    flow = flow_of(context)
    layers = [layer for layer in all_layers(model) if isinstance(layer, STACKED) and layer.built]
    random = [layer for layer in layers if not layer.trainable_weights and is_fresh(layer)]
    if not random:
        return list(_untrained_arrays(context))
    size = sum(math.prod(w.shape) for layer in random for w in layer.weights)
    learns = sum(math.prod(w.shape) for w in model.trainable_variables)
    last = [layer for layer in random if any(flow.ahead[op.name] == 0 for op in flow.products(layer))]
    # One random layer gives random features, which can do; a random trunk of several is a mistake.
    deep = len(random) >= 2 and size > 9 * learns
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


def _untrained_arrays(context: CheckContext) -> Iterator[Finding]:
    """Weights drawn at random that a layer keeps from training, though it is trainable itself."""
    for layer in layers_of(context):
        if isinstance(layer, keras.layers.Normalization) or not layer.trainable:
            continue
        others = {id(w) for inner in all_layers(layer)[1:] for w in inner.weights}
        kept = [
            w
            for w in layer.non_trainable_weights
            # Running statistics and the like are single rows.
            if id(w) not in others and len(w.shape) > 1 and min(w.shape) > 1 and "float" in str(w.dtype)
        ]
        kept = [w for w in kept if float(np.std(np.asarray(w))) > 0]
        if kept:
            size = sum(math.prod(w.shape) for w in kept)
            yield Finding(
                "frozen",
                "warning",  # Random features are a choice.
                str(layer.name),
                f"{size:,} weights of {', '.join(str(w.name) for w in kept[:3])} are random and not trained; "
                "0 such weights are expected.",
                "weights that were added with trainable=False.",
                "leave trainable=False out of add_weight, unless random features are meant.",
                "A30",
            )


def disconnected(context: CheckContext) -> Iterable[Finding]:
    """Trainable arrays that the loss cannot move, for want of a gradient.

    Source:
        A3, A48.
    """
    pull = pull_of(context)
    if pull is None:
        return []
    weights = context.model.trainable_variables
    missing = [w for w in weights if pull.gradients[id(w)] is None]
    silent = [w for w in weights if pull.gradients[id(w)] is not None and not np.any(pull.gradients[id(w)])]
    if not missing and not silent:
        return []
    flow = flow_of(context)
    block = _blocks(flow, {id(w) for w in missing or silent})
    if not missing:
        # Units that are dead or saturated have a gradient of 0 too, which is another matter.
        if block is None:
            return []
        missing = silent
    names = list(dict.fromkeys(_layer_of(context.model, w) for w in missing))
    lost = sum(math.prod(w.shape) for w in missing)
    total = sum(math.prod(w.shape) for w in weights)
    # What stands behind rounding or a choice can never be trained; stop_gradient may be meant.
    severity: Severity = (
        "error" if lost > total / (2 if block is None or block[1] == _STOP else 10) else "warning"
    )
    if len(missing) < len(weights) and any(head.loss is None for head in context.heads):
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


def _blocks(flow: Flow, missing: set[int]) -> tuple[str, str] | None:
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
            return flow.name_of(op), {"StopGradient": _STOP}.get(op.type, op.type.lower())
        if not stops:
            alive |= {tensor.op.name for tensor in op.inputs}
    return None


def _layer_of(model: keras.Model, weight: Any) -> str:
    for layer in all_layers(model)[1:]:
        if any(weight is other for other in layer.trainable_weights) and not isinstance(layer, keras.Model):
            return str(layer.name)
    return str(weight.path.rpartition("/")[0] or weight.path)


_STOP = "stop_gradient"
# More than half of what is given has no bearing on what comes out.
_MAX_UNREAD = 0.5
_CROPS = (
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.CenterCrop,
    keras.layers.RandomCrop,
)


def ignores_input(context: CheckContext) -> Iterable[Finding]:
    """Inputs, or most numbers of one, that have no bearing on the output.

    Source:
        A53; Karpathy 2019, "A recipe for training neural networks".
    """
    pull = pull_of(context)
    if pull is None or len(context.train) < 2 or once(context, is_trained):
        return []
    samples = context.train.spread(TRIED, context.seed)
    if any(isinstance(layer, keras.layers.Embedding) and _all_equal(layer) for layer in layers_of(context)):
        return []  # Then no word differs from another, whatever becomes of it.
    found = []
    for name, values in samples.inputs.items():
        if name in pull.inputs:
            gradient = pull.inputs[name]
            read = np.zeros(values.shape[1:], bool) if gradient is None else np.any(gradient, axis=0)
        elif values.dtype.kind in "iu":
            read = np.full(values.shape[1:], _bears_on_the_output(context, samples, name))
        else:
            continue
        varies = np.any(values != values[:1], axis=0)
        unread = float(np.mean(np.logical_not(read[varies]))) if varies.any() else 0.0
        where = _lost_at(context, name) if unread == 1 else name
        # Through hundreds of steps of a sound recurrent layer the gradient underflows to 0 as well.
        partly = any(isinstance(layer, (*_CROPS, keras.layers.RNN)) for layer in layers_of(context))
        if where is None or unread <= _MAX_UNREAD or (unread < 1 and partly):
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


def _all_equal(embedding: keras.layers.Embedding) -> bool:
    if not embedding.built:
        return False  # It is never used.
    values = np.asarray(keras.ops.convert_to_numpy(embedding.embeddings))
    return values.size > 1 and bool(np.ptp(values) == 0)


def _bears_on_the_output(context: CheckContext, samples: Samples, name: str) -> bool:
    """Whether outputs change when one input is taken from other samples."""
    moved = {key: np.roll(a, 1, axis=0) if key == name else a for key, a in samples.inputs.items()}
    x = moved if isinstance(samples.x, dict) else keras.tree.pack_sequence_as(samples.x, list(moved.values()))
    both = samples.fed, replace(samples, x=x).fed
    with preserved(context.model, samples.fed):
        one, other = (keras.tree.flatten(context.model(inputs, training=False)) for inputs in both)
    return any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))


def _lost_at(context: CheckContext, name: str) -> str | None:
    """The place where all that one input says is lost; `None` where weights or dead units lose it."""
    if len(context.train.inputs) > 1:
        return name
    if any(_differs(out) for out in keras.tree.flatten(context.forward_pass.outputs)):
        return None  # The loss has no use for it; the output does.
    for call in context.forward_pass.calls:
        if isinstance(call.layer, keras.layers.InputLayer) or not call.inputs or not call.outputs:
            continue
        if not any(_differs(a) for a in call.inputs):
            return call.name  # What came to it was the same for all samples.
        if not any(_differs(a) for a in call.outputs):
            return None if call.layer.weights or call.activation else call.name
    return name


def _differs(values: Array) -> bool:
    return bool(np.any(values != values[:1]))


# Weights for each training sample, from which on even regularised nets are seldom meant to be so large.
_MANY_WEIGHTS = 1_000


def capacity(context: CheckContext) -> Iterable[Finding]:
    """A hidden layer too narrow for what the output has to tell.

    Source:
        A11, A54.
    """
    flow = flow_of(context)
    narrow = [] if rebuilds_input(context) else list(_too_narrow(context, flow))
    return gravest_first([*narrow, *_oversized(context)])


def _too_narrow(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    classes = context.task.outputs if context.task and context.task.kind == "multiclass" else 0
    widest = 0
    for call in calls_of(context, (*SCALED, keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)):
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


def _oversized(context: CheckContext) -> Iterator[Finding]:
    weights = sum(math.prod(v.shape) for v in context.model.trainable_variables)
    samples = context.train.total
    if samples and weights > _MANY_WEIGHTS * samples and not once(context, is_trained):
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
