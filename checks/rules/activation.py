"""Checks of what stands between the weights: no activation, two of them, or one stuck at its limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.flow import MIXING, POINTWISE, RANGES, Flow, normalises
from keras_practice.checks.inspection.forward_pass import Call, Head
from keras_practice.checks.inspection.layers import (
    SCALED,
    STACKED,
    channels_of,
    flow_of,
    is_trained,
    once,
    output_name,
    rebuilds_input,
    spoken,
    variation_of,
)
from keras_practice.core.steps import innermost

_UNSCALED = {"Cast", "ExpandDims", "Identity", "Reshape", "Snapshot", "Squeeze", "StopGradient", "Transpose"}


def no_nonlinearity(context: CheckContext) -> Iterable[Finding]:
    """Layers with weights between which nothing nonlinear stands: together no more than one layer.

    Source:
        A53; Goodfellow, Bengio and Courville 2016, section 6.1.
    """
    flow = flow_of(context)
    findings = list(_linear_nets(context, flow))
    return findings or list(_linear_pairs(context, flow))


def _linear_nets(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    severity: Severity = "warning" if rebuilds_input(context) else "error"
    for head, end in zip(context.heads, flow.ends, strict=False):
        depth = flow.depth.get(end.name, 0)
        if depth < 2 or not (flow.linear[end.name] or flow.squashed[end.name]):
            continue
        yield Finding(
            "no-nonlinearity",
            severity,
            output_name(context, head),
            f"{depth} layers with weights follow one another with 0 nonlinear functions in between; "
            "at least 1 is expected.",
            "hidden layers without an activation, which compute no more than a single layer.",
            "give the hidden layers an activation, such as activation='relu'.",
            "A53; Goodfellow, Bengio and Courville 2016, section 6.1",
        )


def _linear_pairs(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    """A layer whose output goes as it is into the next one, and is not a narrow low-rank factor."""
    for op in flow.operations:
        first = flow.owner(op)
        if not _is_stacked(flow, op) or not isinstance(first, SCALED) or flow.joins_others(op):
            continue
        for reader in _linear_readers(flow, op):
            second = flow.owner(reader)
            if second is first or not isinstance(second, SCALED) or not _is_stacked(flow, reader):
                continue
            widths = [channels_of(first)[0], channels_of(first)[1], channels_of(second)[1]]
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


def _is_stacked(flow: Flow, op: Any) -> bool:
    owners = flow.owners.get(op.name, ())
    inside = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention, keras.layers.RNN)
    return (
        op.name in flow.weighted
        and bool(owners)
        and isinstance(owners[-1], STACKED)
        and not any(isinstance(layer, inside) for layer in owners)
    )


def _linear_readers(flow: Flow, op: Any) -> list[Any]:
    """The next weighted operations, where every way to them is linear and meets no other data."""
    linear = {*POINTWISE, *MIXING}

    def stop(reader: Any) -> bool:
        return reader.name in flow.weighted or reader.type not in linear or flow.joins(reader)

    return [reader for reader in flow.after(op, stop) if reader.name in flow.weighted]


def double_activation(context: CheckContext) -> Iterable[Finding]:
    """An activation that works on what another one has cut already, or batch norm after the output's.

    Source:
        A15; Goodfellow, Bengio and Courville 2016, section 6.2.2.
    """
    flow = flow_of(context)
    return gravest_first([*_double(context, flow), *_norm_after_activation(flow)])


def _double(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    last = {
        op.name: head
        for head, end in zip(context.heads, flow.ends, strict=False)
        for op in flow.trail(end)
        if op.type in RANGES
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


def _activation_behind(flow: Flow, op: Any) -> Any:
    if op.type not in RANGES:
        return None
    for other in flow.trail(op)[1:]:
        if other.type in RANGES:
            return other
        if other.type not in _UNSCALED:
            return None
    return None


def _double_at_output(head: Head, first: str, second: str, where: str) -> Finding | None:
    low, high = RANGES[first]
    if second in ("Softmax", "LogSoftmax"):
        spread, classes = high - low, max(head.units, 2)
        highest = 1.0 if math.isinf(spread) else math.exp(spread) / (math.exp(spread) + classes - 1)
        if first == "LogSoftmax":
            return None  # Softmax undoes the logarithm.
        if first == "Relu" or highest < 0.95:
            evidence = (
                f"{spoken(second)} works on the output of {spoken(first)}: "
                + ("no class can get less than 0 as its score" if first == "Relu" else "")
                + (f"no probability can get above {highest:.3g}" if first != "Relu" else "")
                + "; any number is expected as a score."
            )
            return _twice("error", where, evidence, first)
        if first != "LeakyRelu":
            evidence = (
                f"{spoken(second)} works on the output of {spoken(first)}, which is {low:.3g} or more; "
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
        f"the output is {spoken(second)} of {spoken(first)} and stays between {reach[0]:.3g} and "
        f"{reach[1]:.3g}; the labels go from {least:.3g} to {most:.3g}."
    )
    return _twice("error", where, evidence, first)


def _twice(severity: Severity, where: str, evidence: str, first: str) -> Finding:
    return Finding(
        "double-activation",
        severity,
        where,
        evidence,
        f"an activation ({spoken(first)}) too many.",
        f"take {spoken(first)} away, and keep the other one.",
        "A15; Goodfellow, Bengio and Courville 2016, section 6.2.2",
    )


def _reach(kind: str, low: float, high: float) -> tuple[float, float] | None:
    if kind == "Sigmoid":
        return 1 / (1 + math.exp(min(-low, 700))), 1 / (1 + math.exp(-high))
    if kind == "Tanh":
        return math.tanh(low), math.tanh(high)
    return None


def _double_inside(first: str, second: str, where: str) -> Finding | None:
    low, high = RANGES[first]
    if second in ("Relu", "LeakyRelu", "Elu", "Relu6") and low >= 0 and (high <= 6 or second != "Relu6"):
        evidence = (
            f"{spoken(second)} of {spoken(first)} changes nothing; 1 activation after a layer is expected."
        )
        return _twice("info", where, evidence, second)
    if second in ("Sigmoid", "Tanh", "Softsign", "Softmax") and not math.isinf(low):
        evidence = (
            f"{spoken(second)} works on the output of {spoken(first)}, which never is below {low:.3g}; "
            "numbers around 0 are expected."
        )
        return _twice("warning", where, evidence, first)
    return None


def _norm_after_activation(flow: Flow) -> Iterator[Finding]:
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
                    f"batch normalisation stands after the output's {spoken(activations[0])} and moves its "
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
ADAPTIVE = ("adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad", "adadelta", "lion", "lamb")


def saturating_activation(context: CheckContext) -> Iterable[Finding]:
    """Hidden sigmoids, tanh or softmax through which no signal gets.

    Source:
        A48, A53; Glorot and Bengio 2010, "Understanding the difficulty of training
        deep feedforward neural networks".
    """
    flow = flow_of(context)
    return gravest_first(
        [*_hidden_softmax(context, flow), *_deep_sigmoids(context, flow), *_at_limits(context, flow)]
    )


def _hidden_softmax(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    outputs = {op.name for end in flow.ends for op in flow.trail(end)}
    for op in flow.operations:
        if op.type != "Softmax" or op.name in outputs or flow.is_gate(op) or flow.joins_others(op):
            continue
        if not any(_is_stacked(flow, reader) for reader in _linear_readers(flow, op)):
            continue
        units = int(op.outputs[0].shape[-1] or 0)
        yield Finding(
            "saturating-activation",
            "warning" if rebuilds_input(context) else "error",
            flow.name_of(op),
            f"softmax shares a sum of 1 among {units} hidden units; a hidden layer's units are expected to "
            "be independent of each other.",
            "softmax as the activation of a hidden layer.",
            "use 'relu' there, and softmax in the output layer alone.",
            "A15, A53",
        )


def _deep_sigmoids(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    chain = _sigmoid_chain(flow)
    if len(chain) < 3:
        return
    names = {flow.name_of(op) for op in chain}
    calls = [call for call in context.forward_pass.calls if call.name in names and call.outputs]
    if len(calls) < 3:
        return
    first, last = variation_of(calls[0].outputs[0]), variation_of(calls[-1].outputs[0])
    if first == 0:
        return
    ratio = last / first
    before = [layer for op in chain for other in flow.trail(op) for layer in flow.owners.get(other.name, ())]
    normalised = any(normalises(layer) for layer in before) or any(map(flow.is_normalised, chain[:-1]))
    skipped = any(not flow.cuts(op) for op in chain)
    if normalised or skipped or ratio > 0.25 or once(context, is_trained):
        return
    kind = type(innermost(context.model.optimizer)).__name__.lower()
    least = _FADED_ADAPTIVE if kind in ADAPTIVE else _FADED
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


def _sigmoid_chain(flow: Flow) -> list[Any]:
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


def _at_limits(context: CheckContext, flow: Flow) -> Iterator[Finding]:
    if once(context, is_trained):
        return
    seen = set()
    for op in flow.operations:
        if op.type not in ("Tanh", "Sigmoid") or not flow.ahead[op.name] or flow.is_gate(op):
            continue
        name = flow.name_of(op)
        call = next((c for c in context.forward_pass.calls if c.name == name and c.outputs), None)
        if name in seen or call is None or call.activation not in ("tanh", "sigmoid"):
            continue
        seen.add(name)
        share = share_at_limit(call)
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


def share_at_limit(call: Call) -> float:
    """Share of the outputs within 1 % of an end of a tanh's or sigmoid's range."""
    values = np.asarray(call.outputs[0], dtype=np.float64)
    if call.activation == "tanh":
        return float(np.mean(np.abs(values) > 0.99))
    return float(np.mean((values < 0.01) | (values > 0.99)))
