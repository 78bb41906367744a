"""Labels, last activation, loss and metrics of each output, in the order in which one explains another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_practice.checks.findings import SEVERITIES, Finding
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.metrics import CompiledMetric, metrics_of
from keras_practice.checks.inspection.pairs import SOURCES, Pair, pairs_of
from keras_practice.checks.rules.label_encoding import encoding
from keras_practice.checks.rules.label_values import values
from keras_practice.checks.rules.loss import computable, reduction, written_by_hand
from keras_practice.checks.rules.metric import ACCURACIES, misused
from keras_practice.checks.rules.output_loss import at_odds, out_of_reach, undefined

_ROUNDING = 1e-4  # What float32 leaves of a probability.


def check_outputs(context: CheckContext) -> Iterable[Finding]:
    """Labels, last activation, loss and metrics of every output, most severe first.

    Source:
        A15, A16, A27, A40; Goodfellow, Bengio and Courville 2016, section 6.2.
    """
    metrics = metrics_of(context.model, context.heads)
    found = [*_without_loss(context), *_unweighted(context)]
    for pair in pairs_of(context, lambda head: _says_classes(context, metrics, head)):
        if isinstance(pair, Finding):
            found.append(pair)
            continue
        first = _one_unit(pair) or encoding(pair) or _shapes(pair)
        found += [first] if first is not None else _of_matching(context, pair, metrics)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _says_classes(context: CheckContext, metrics: tuple[CompiledMetric, ...], head: Head) -> bool:
    """Whether the user says that the labels are classes, by a task or by an accuracy."""
    counted = any(metric.output == head.name and metric.name in ACCURACIES for metric in metrics)
    task = context.task if head is context.heads[0] else None
    return counted or (task is not None and task.kind == "multiclass")


def _is_error(finding: Finding | None) -> bool:
    return finding is not None and finding.severity == "error"


def _of_matching(context: CheckContext, pair: Pair, metrics: tuple[CompiledMetric, ...]) -> Iterator[Finding]:
    """Faults of an output whose shape suits its labels."""
    labels = values(pair)
    yield from _value_findings(context, pair, labels)
    summed = reduction(pair)
    if summed is not None:
        yield summed
    for metric in metrics if not _is_error(labels) else ():
        fault = misused(metric, pair) if metric.output == pair.head.name else None
        if fault is not None:
            yield pair.finding("metric-task", *fault)


def _value_findings(context: CheckContext, pair: Pair, labels: Finding | None) -> Iterator[Finding]:
    """At most one finding for one fault: what comes first explains what would follow."""
    if labels is not None:
        yield labels
        if labels.severity == "error" and labels.check in ("label-task", "output-units"):
            return
    odds = at_odds(context, pair) or undefined(pair)
    if odds is not None:
        yield odds
    if _is_error(odds) or _is_error(labels):
        return
    rest = out_of_reach(pair) or computable(pair, context)
    if rest is not None:
        yield rest
    else:
        yield from written_by_hand(pair)


def _unweighted(context: CheckContext) -> Iterator[Finding]:
    """Outputs whose loss counts nothing."""
    try:
        weights = (context.model.get_compile_config() or {}).get("loss_weights")
    except Exception:  # A user's metric or optimiser that cannot be written down.
        return
    for i, head in enumerate(context.heads):
        if isinstance(weights, dict):
            weight = weights.get(head.name)
        elif isinstance(weights, (list, tuple)) and i < len(weights):
            weight = weights[i]
        else:
            weight = weights if len(context.heads) == 1 else None
        if weight == 0 and head.loss is not None:
            yield Finding(
                "disconnected",
                "error",
                f"output {head.name!r}",
                "the loss of this output counts 0 times in the sum; about 1 is expected.",
                "a loss weight of 0, with which the output's own layers learn nothing.",
                "give it a weight in loss_weights, or take the output away.",
                "A19",
            )


def _without_loss(context: CheckContext) -> Iterator[Finding]:
    kind = type(context.model)
    own = any(
        getattr(kind, method, None) is not getattr(keras.Model, method, None)
        for method in ("train_step", "compute_loss", "compute_loss_and_updates")
    )
    if own or context.model.losses or any(head.loss is not None for head in context.heads):
        return
    yield Finding(
        "output-loss",
        "error",
        "compile",
        "the model is compiled with loss None; a loss is expected.",
        "a loss that was left out of compile.",
        "name one, as in model.compile(loss='mse').",
        SOURCES["output-loss"],
    )


def _shapes(pair: Pair) -> Finding | None:
    """Outputs whose shape does not go with the labels'."""
    family = pair.probe.family
    if family in ("other", "own") or pair.matched is not None:
        return None
    labels, outputs = pair.sampled.shape, pair.outputs.shape
    if family == "sparse":
        whole = labels[:-1] if len(labels) == len(outputs) and labels[-1] == 1 else labels
        if whole == outputs[:-1]:
            return None
    columns = len(labels) - (labels[-1] == 1) if len(labels) > 1 else 1
    missing = len(outputs) > (columns + 1 if family == "sparse" else max(len(labels), 2))
    given, expected = (_per_sample(shape) for shape in (outputs, labels))
    return pair.finding(
        "output-units",
        "error",
        f"each output has shape {given}, and each label {expected}; {pair.probe.name} expects "
        f"{'one label for each row of outputs' if family == 'sparse' else 'the same'}.",
        "a missing Flatten or pooling, or a recurrent layer that returns every step."
        if missing
        else "an output layer of another width than the labels.",
        "add Flatten or GlobalAveragePooling before the last layer, or leave return_sequences away."
        if missing
        else f"give the last layer {labels[-1] if len(labels) > 1 else 1} unit(s), or check the labels.",
    )


def _per_sample(shape: tuple[int, ...]) -> str:
    return "a single number" if len(shape) == 1 else str(shape[1:])


def _one_unit(pair: Pair) -> Finding | None:
    """Rules that hold whatever the labels: a softmax or a categorical loss over one unit."""
    ones = bool(np.all(np.abs(pair.outputs - 1) < _ROUNDING))
    if pair.units == 1 and pair.last == "softmax" and ones:
        return pair.finding(
            "output-loss",
            "error",
            "the output is a softmax over 1 unit, which is 1 for every input; 2 units or more are expected.",
            "a softmax where a sigmoid is meant.",
            "use a sigmoid with binary_crossentropy for two classes, or one unit for each class.",
        )
    if pair.units == 1 and pair.probe.family == "categorical":
        return pair.finding(
            "output-loss",
            "error",
            f"{pair.probe.name} has 1 unit to choose from and is 0 for every output; 2 or more are expected.",
            "a loss for several classes with one output.",
            "use binary_crossentropy with a sigmoid for two classes.",
        )
    return None
