"""Checks of dropout, batch normalisation, penalties and constraints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.flow import POINTWISE, RANGES, Flow, Layer
from keras_practice.checks.inspection.forward_pass import Call
from keras_practice.checks.inspection.gradients import pull_of
from keras_practice.checks.inspection.layers import (
    SCALED,
    STACKED,
    calls_of,
    channels_of,
    flow_of,
    is_trained,
    kernel_of,
    layers_of,
    number_of,
    once,
    output_name,
    rms_of,
)
from keras_practice.checks.rules.activation import ADAPTIVE
from keras_practice.core.steps import innermost

_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)
_SPATIAL = _DROPOUTS[1:4]
# A share of 0.5 is the strongest usual one; from 0.8 on, little of the signal is left.
_STRONG, _EXTREME, _HOPELESS = 0.5, 0.8, 0.95
# Noise from dropout relative to the signal, where all units carry it alike.
_NOISY = 0.25


def dropout_rate(context: CheckContext) -> Iterable[Finding]:
    """Dropout that leaves too little of the signal, or none now and then.

    Source:
        A1, A37; Srivastava et al. 2014, "Dropout".
    """
    flow = flow_of(context)
    found, before = [], None
    for call in context.forward_pass.calls:
        layer = call.layer
        rates = [getattr(layer, name, 0.0) for name in ("dropout", "recurrent_dropout")]
        if isinstance(layer, keras.layers.Bidirectional):
            inner = layer.forward_layer
            rates = [getattr(inner, name, 0.0) for name in ("dropout", "recurrent_dropout")]
        if isinstance(layer, _DROPOUTS):
            rate = number_of(getattr(layer, "rate", 0.0))
            if rate > 0 and call.outputs:
                found.append(_after_output(context, flow, call, rate) or _dropped(flow, call, rate, before))
                before = (rate, call.outputs[0])
        elif isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            found += [_dropped_inside(call, number_of(rate)) for rate in rates]
    return gravest_first(finding for finding in found if finding is not None)


def _after_output(context: CheckContext, flow: Flow, call: Call, rate: float) -> Finding | None:
    ends = {end.name for end in flow.ends}
    passes = {*POINTWISE, *RANGES}
    for _, outputs in flow.inner.get(id(call.layer), ()):
        op = outputs[0].op if outputs else None
        if op is None or op.name not in flow.reached or not flow.depth[op.name]:
            continue
        later = [op, *flow.after(op, lambda _: False)]
        # In inference dropout does nothing, so that any other reader of its input is among these.
        direct = all(o.type in passes and not flow.joins(o) for o in later[1:]) and not flow.ahead[op.name]
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


def _dropped(flow: Flow, call: Call, rate: float, before: Any) -> Finding | None:
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
    dropped = f"{1 - keep:.3g} of {units} units are dropped"
    if 1 - keep >= _EXTREME:
        bad = noise > _NOISY or 1 - keep >= _HOPELESS
        return _too_much("error" if bad else "warning", name, f"{dropped}; at most 0.5 are expected.")
    if rate > _STRONG:
        return _too_much("warning", name, f"{dropped}; at most 0.5 are expected.")
    return None


def _dropped_inside(call: Call, rate: float) -> Finding | None:
    if rate <= _STRONG:
        return None
    evidence = f"{rate:.3g} of the inputs or states are dropped in each step; at most 0.5 are expected."
    return _too_much("error" if rate >= _EXTREME else "warning", call.name, evidence)


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


def batch_norm_batch(context: CheckContext) -> Iterable[Finding]:
    """Batch normalisation over too few values, or of the output itself.

    Source:
        A1, A26; Ioffe and Szegedy 2015; Wu and He 2018, "Group normalization".
    """
    total = context.train.total or len(context.train)
    batch = max(1, min(context.batch_size, total))
    found: dict[tuple[int, int], list[str]] = {}
    flow = flow_of(context)
    findings = []
    for call in calls_of(context, keras.layers.BatchNormalization):
        shape = call.inputs[0].shape
        if not call.layer.trainable or len(shape) < 2:
            continue
        axis = int(np.ravel(getattr(call.layer, "axis", -1))[0])
        places = [s for i, s in enumerate(shape) if i not in (0, axis % len(shape))]
        values = batch * math.prod(places)
        if values < _FEW_VALUES:
            found.setdefault((values, batch), []).append(call.name)
        findings += list(_norm_of_output(context, flow, call))
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
    return gravest_first(findings)


def _norm_of_output(context: CheckContext, flow: Flow, call: Call) -> Iterator[Finding]:
    for head, end in zip(context.heads, flow.ends, strict=False):
        trail = flow.trail(end)
        mine = [i for i, op in enumerate(trail) if flow.owner(op) is call.layer]
        if not mine or any(op.type in RANGES for op in trail[mine[0] :]):
            continue
        if not any(op.name in flow.weighted for op in trail[mine[0] :]):
            continue
        yield Finding(
            "batch-norm-batch",
            "warning",
            call.name,
            f"batch normalisation stands after the last weights of {output_name(context, head)} and makes "
            "each prediction depend on the rest of its batch; 0 such layers are expected there.",
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


def over_regularized(context: CheckContext) -> Iterable[Finding]:
    """Penalties, constraints or decay that outweigh what the data can teach.

    The cheapest useful net passes one signal of unit size through each layer. If the
    penalty on that is more than the whole loss, the best weights are zero.

    Source:
        A4, A5, A6; Goodfellow, Bengio and Courville 2016, section 7.1.
    """
    flow = flow_of(context)
    findings = [*_dear(context, flow), *_pushed_to_zero(context), *_constrained(flow, context)]
    return gravest_first([*findings, *_silenced(context), *_decayed(context)])


def _dear(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    costs: dict[str, float] = {}
    signals = _signals(context)
    for layer in layers_of(context):
        cost = _penalty_cost(flow, layer, signals)
        if cost > 0 and layer.trainable:
            costs[str(layer.name)] = costs.get(str(layer.name), 0.0) + cost
    decay = _plain_decay(context.model.optimizer)
    if decay:
        for op in flow.operations:
            layer = flow.owner(op)
            if op.name in flow.weighted and isinstance(layer, STACKED) and not flow.is_normalised(op):
                costs[str(layer.name)] = costs.get(str(layer.name), 0.0) + decay / 2 * signals
    pull = pull_of(context) if costs else None
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


def _signals(context: CheckContext) -> int:
    """How many independent numbers the output must tell at least."""
    head = context.heads[0]
    if context.task is not None and context.task.kind == "multiclass":
        return max(1, context.task.outputs - 1)
    return 1 if head.units < 2 or context.task is None else min(head.units, 4)


def _penalty_cost(flow: Flow, layer: Layer, signals: int) -> float:
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
    return sum(number_of(getattr(regularizer, name, 0.0)) for name in ("l1", "l2"))


def _plain_decay(optimizer: Any) -> float:
    """The weight decay of an optimiser that does not scale its gradient."""
    optimizer = innermost(optimizer)
    if type(optimizer).__name__.lower() in ADAPTIVE:
        return 0.0
    return number_of(getattr(optimizer, "weight_decay", None) or 0.0)


def _pushed_to_zero(context: CheckContext) -> Iterator[Finding]:
    """L1 penalties stronger than the loss's pull at any weight of their array."""
    layers = [
        layer
        for layer in layers_of(context)
        if number_of(getattr(getattr(layer, "kernel_regularizer", None), "l1", 0.0)) > 0
        and layer.trainable
        and getattr(layer, "kernel", None) is not None
    ]
    pull = pull_of(context) if layers and not once(context, is_trained) else None
    for layer in layers if pull is not None else ():
        gradient = pull.gradients.get(id(layer.kernel)) if pull is not None else None
        push = number_of(layer.kernel_regularizer.l1)
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


def _constrained(flow: Flow, context: CheckContext) -> Iterator[Finding]:
    for layer in layers_of(context):
        constraint: Any = getattr(layer, "kernel_constraint", None)
        kernel = kernel_of(layer) if constraint is not None and isinstance(layer, STACKED) else None
        products = flow.products(layer) if kernel is not None else []
        if kernel is None or not products or flow.is_normalised(products[0]) or not rms_of(kernel):
            continue
        limited = keras.ops.convert_to_numpy(constraint(keras.ops.convert_to_tensor(kernel, "float32")))
        # Where the initial weights are large, the usual scale is what counts.
        usual = math.sqrt(1 / max(1, channels_of(layer)[0])) if isinstance(layer, SCALED) else rms_of(kernel)
        ratio = rms_of(limited) / min(rms_of(kernel), usual)
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


def _silenced(context: CheckContext) -> Iterator[Finding]:
    """Penalties on activities that cost more than all that can be learned."""
    layers = [
        layer for layer in layers_of(context) if getattr(layer, "activity_regularizer", None) is not None
    ]
    pull = pull_of(context) if layers else None
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


def _decayed(context: CheckContext) -> Iterator[Finding]:
    optimizer = innermost(context.model.optimizer)
    decay = number_of(getattr(optimizer, "weight_decay", None) or 0.0)
    if type(optimizer).__name__.lower() not in ADAPTIVE or decay < _STRONG_DECAY:
        return
    sizes = [rms_of(k) for call in calls_of(context, SCALED) if (k := kernel_of(call.layer)) is not None]
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
