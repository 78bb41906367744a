"""Labels, last activation and loss that are at odds with each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import SEVERITIES, Finding
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.loss_probe import goes_back_to_logits
from keras_practice.checks.rules.label import SOURCES, Pair, encoding, pairs_of, values
from keras_practice.checks.rules.loss import computable, reduction, written_by_hand
from keras_practice.core.types import Array

_RANGES = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
}
_POSITIVE = ("relu", "relu6", "softplus", "exponential")
_SQUASHING = ("sigmoid", "softmax")
_NO_PROBABILITY = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "softplus", "softsign", "tanh", "exponential"),
    "log_softmax",
)
_ROUNDING = 1e-4  # What float32 leaves of a probability, or of a sum of them that should be 1.
_FEW = 0.05  # A share of samples that may be mistakes in the data and not in the program.
# Error that is forced on the model, as a share of the targets' variance: under it, noise of the
# measurement lies out of reach, and nothing that could be learned.
_SLIGHT = 0.01
_NEXT_TO_NOTHING = 1e-3
_MATCHES_CLASSES = ("binary", "categorical", "sparse", "hinge", "categorical_hinge", "overlap", "divergence")


@dataclass(frozen=True)
class CompiledMetric:
    """A metric as the user gave it to `compile`.

    Attributes:
        output: The output that it belongs to.
        name: Its class or function, in lower case without underscores, as in `"binaryaccuracy"`;
            a string as the user wrote it.
        config: Its arguments, as far as they are known.
        by_name: Whether the user gave a string.
    """

    output: str
    name: str
    config: Mapping[str, Any]
    by_name: bool


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


def metrics_of(model: keras.Model, heads: tuple[Head, ...]) -> tuple[CompiledMetric, ...]:
    """The metrics that the user compiled; none where the model's own `compile` does not tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's word that a lambda is unsafe to save.
        try:
            config = model.get_compile_config() or {}
        except Exception:  # A user's metric or optimiser that cannot be written down.
            config = {}
    found: list[CompiledMetric] = []
    for group in (config.get("metrics"), config.get("weighted_metrics")):
        found += (_metric(head.name, item) for head, item in _by_output(group, heads))
    return tuple(found)


def _by_output(group: Any, heads: tuple[Head, ...]) -> Iterator[tuple[Head, Any]]:
    if not group:
        return
    for i, head in enumerate(heads):
        if isinstance(group, dict):
            given = group.get(head.name, [*group.values()] if len(heads) == 1 else None)
        elif len(heads) == 1:
            given = group
        else:
            given = group[i] if len(group) == len(heads) else None
        for item in given if isinstance(given, (list, tuple)) else [given]:
            for each in item if isinstance(item, (list, tuple)) else [item]:
                if each is not None:
                    yield head, each


def _metric(output: str, item: Any) -> CompiledMetric:
    if isinstance(item, dict):
        config = item.get("config")
        if isinstance(config, Mapping):
            return CompiledMetric(output, _plain(item.get("class_name")), config, False)
        return CompiledMetric(output, _plain(config), {}, False)
    return CompiledMetric(output, _plain(item), {}, True)


def _plain(name: Any) -> str:
    return str(name).replace("_", "").lower()


def _says_classes(context: CheckContext, metrics: tuple[CompiledMetric, ...], head: Head) -> bool:
    """Whether the user says that the labels are classes, by a task or by an accuracy."""
    counted = any(metric.output == head.name and metric.name in _ACCURACIES for metric in metrics)
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
        misused = _misused(metric, pair) if metric.output == pair.head.name else None
        if misused is not None:
            yield pair.finding("metric-task", *misused)


def _value_findings(context: CheckContext, pair: Pair, labels: Finding | None) -> Iterator[Finding]:
    """At most one finding for one fault: what comes first explains what would follow."""
    if labels is not None:
        yield labels
        if labels.severity == "error" and labels.check in ("label-task", "output-units"):
            return
    at_odds = _at_odds(context, pair) or _undefined(pair)
    if at_odds is not None:
        yield at_odds
    if _is_error(at_odds) or _is_error(labels):
        return
    rest = _range(pair) or computable(pair)
    if rest is not None:
        yield rest
    else:
        yield from written_by_hand(pair)


def _undefined(pair: Pair) -> Finding | None:
    """Losses that do not say what they seem to for these labels, or this many outputs."""
    name, labels = pair.probe.name.replace("_", "").lower(), pair.labels.astype(np.float64)
    if "percentage" in name and labels.size:
        size = float(np.mean(np.abs(labels)))
        tiny = float(np.mean(np.abs(labels) < _NEXT_TO_NOTHING * size)) if size else 1.0
        if tiny > 0:
            return pair.finding(
                "output-loss",
                "error" if tiny > _SLIGHT else "warning",
                f"{tiny:.1%} of the labels are 0 or under {_NEXT_TO_NOTHING:g} of their mean size, "
                f"{size:.3g}, and {pair.probe.name} divides the error by them; 0% are expected.",
                "a percentage of next to nothing, which outweighs all other samples.",
                "use the mean absolute error, or standardise the targets and use the squared error.",
            )
    if "squaredlogarithmic" in name and labels.size and float(labels.min()) <= -1:
        return pair.finding(
            "label-range",
            "error",
            f"labels go down to {labels.min():.3g}, and {pair.probe.name} takes the logarithm of 1 + y; "
            "labels above -1 are expected.",
            "a loss for counts, on targets that are centred.",
            "use the squared error, or leave the targets uncentred.",
        )
    if "cosine" in name and pair.units == 1:
        return pair.finding(
            "output-loss",
            "error",
            f"{pair.probe.name} compares directions, and of 1 output it sees the sign alone; 2 or more "
            "outputs are expected.",
            "a loss for vectors on a single number.",
            "use the mean squared error.",
        )
    return None


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
    labels, outputs = pair.seen.shape, pair.outputs.shape
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


def _at_odds(context: CheckContext, pair: Pair) -> Finding | None:
    rules: tuple[Callable[[Pair], Finding | None], ...] = (
        _squashed_before,
        _no_probability,
        lambda pair: _squashed_logits(context, pair),
        _other_axis,
        _sigmoid_for_softmax,
        _softmax_for_sigmoid,
        _out_of_place,
    )
    for rule in rules:
        found = rule(pair)
        if found is not None:
            return found
    return None


def _squashed_before(pair: Pair) -> Finding | None:
    """Two activations in a row of which the second sees only part of its range."""
    activations = pair.head.activations
    if len(activations) < 2:
        return None
    last, before = activations[:2]
    if last not in _SQUASHING or before not in (*_SQUASHING, *_POSITIVE):
        return None
    severe = before in _SQUASHING or last == "sigmoid"
    low, high = pair.outputs.min(), pair.outputs.max()
    return pair.finding(
        "output-loss",
        "error" if severe else "warning",
        f"the output goes through {before} and then {last}; {last} alone is expected "
        f"(outputs seen: {low:.3g} to {high:.3g}).",
        f"one activation too many: {last} gets no number {'above 1' if before in _SQUASHING else 'below 0'}.",
        f"leave the {before} away.",
    )


def _no_probability(pair: Pair) -> Finding | None:
    if not pair.probe.takes_probabilities:
        return None
    low, high = float(pair.outputs.min()), float(pair.outputs.max())
    outside = low < -_ROUNDING or high > 1 + _ROUNDING
    free = pair.linear or pair.last in _NO_PROBABILITY or (pair.last is None and outside)
    # Keras divides these by their sum: an exponential then is a softmax.
    divided = pair.probe.family == "categorical" and not pair.probe.own
    if not free or (divided and pair.last in ("softplus", "exponential")):
        return None
    proper = "softmax" if pair.probe.family in ("categorical", "sparse", "divergence") else "sigmoid"
    logits = pair.probe.family in ("binary", "categorical", "sparse") and pair.last is None
    return pair.finding(
        "output-loss",
        "error",
        f"the output is {pair.last or 'linear'} ({low:.3g} to {high:.3g} seen); probabilities are "
        f"expected by {pair.probe.name}.",
        "a loss for probabilities with an output that is none.",
        f"give the last layer a {proper}{', or the loss from_logits=True' if logits else ''}.",
    )


def _squashed_logits(context: CheckContext, pair: Pair) -> Finding | None:
    if not pair.probe.takes_logits or pair.last not in _RANGES:
        return None
    evidence = (
        f"the output is {pair.last}; a linear one is expected by {pair.probe.name}, which takes logits."
    )
    fix = "leave the last activation away, or set from_logits=False."
    if pair.last in _SQUASHING:
        x = context.train.spread(len(pair.outputs), context.seed).x
        if goes_back_to_logits(pair.probe, context.model, pair.position, x, pair.seen):
            cause = (
                "from_logits=True beside an activation: Keras passes over it in training, with a warning, "
            )
            cause += "but the predictions are probabilities and not logits."
            return pair.finding("output-loss", "warning", evidence, cause, fix)
        return pair.finding("output-loss", "error", evidence, "an output that is squashed twice.", fix)
    half = pair.last in _POSITIVE and pair.probe.family == "binary"
    cause = (
        "an activation that keeps the probability at 0.5 and above."
        if half
        else "an activation that keeps the logits from the range that sure answers need."
    )
    return pair.finding("output-loss", "error" if half else "warning", evidence, cause, fix)


def _other_axis(pair: Pair) -> Finding | None:
    """A softmax over another axis than the classes'."""
    if pair.probe.family not in ("categorical", "sparse") or pair.probe.takes_logits or pair.units < 2:
        return None
    outputs = pair.outputs
    if outputs.min() < 0 or len(outputs) < 2 or _adds_up(outputs, -1):
        return None
    axes = [axis for axis in range(outputs.ndim - 1) if outputs.shape[axis] > 1 and _adds_up(outputs, axis)]
    if not axes:
        return None
    sums = outputs.sum(axis=-1)
    return pair.finding(
        "output-loss",
        "error",
        f"the outputs sum to 1 along axis {axes[0]}, to {sums.min():.3g} to {sums.max():.3g} along the "
        "last; 1 along the last axis is expected.",
        "a softmax over the batch or the steps in place of the classes.",
        "use softmax with axis=-1.",
    )


def _adds_up(outputs: Array, axis: int) -> bool:
    return bool(np.all(np.abs(outputs.sum(axis=axis) - 1) < _ROUNDING * outputs.shape[axis]))


def _sigmoid_for_softmax(pair: Pair) -> Finding | None:
    if pair.last != "sigmoid" or pair.probe.family not in ("categorical", "sparse") or pair.units < 2:
        return None
    sums = pair.outputs.sum(axis=-1)
    return pair.finding(
        "output-loss",
        "error",
        f"the output is {pair.units} sigmoids that add up to {sums.min():.3g} to {sums.max():.3g}; a "
        f"softmax, which adds up to 1, is expected by {pair.probe.name}.",
        "independent yes/no outputs with a loss for one of several classes.",
        "use a softmax, or binary_crossentropy if several labels can be right.",
    )


def _softmax_for_sigmoid(pair: Pair) -> Finding | None:
    if pair.last != "softmax" or pair.probe.family != "binary" or pair.units < 2:
        return None
    sums = pair.labels.sum(axis=-1)
    several = float(np.mean(np.abs(sums - 1) > _ROUNDING * pair.units))
    return pair.finding(
        "output-loss",
        "error" if several > _FEW else "warning",
        f"the output is a softmax with {pair.probe.name}, and {several:.1%} of the rows of labels do not "
        "add up to 1; a sigmoid is expected.",
        "one of several classes in the output, independent yes/no answers in the loss.",
        "use a sigmoid." if several > _FEW else "use categorical_crossentropy.",
    )


def _out_of_place(pair: Pair) -> Finding | None:
    """Pairs that train, more or less."""
    family, last = pair.probe.family, pair.last
    if family == "poisson" and (pair.linear or last in ("tanh", "softsign", "leaky_relu", "elu", "selu")):
        return pair.finding(
            "output-loss",
            "error",
            f"the output is {last or 'linear'} ({pair.outputs.min():.3g} and more seen); numbers above 0 are "
            f"expected by {pair.probe.name}, which takes their logarithm.",
            "a rate that can become negative.",
            "give the last layer softplus or exponential.",
        )
    if family == "hinge" and last in ("sigmoid", *_POSITIVE):
        return pair.finding(
            "output-loss",
            "warning" if last == "sigmoid" else "error",
            f"the output is {last}, never below 0; numbers of both signs are expected by {pair.probe.name}.",
            "an activation that keeps the output from the label -1.",
            "use tanh or no activation.",
        )
    if family == "distance" and last == "softmax":
        return pair.finding(
            "output-loss",
            "info",
            f"the output is a softmax and the loss {pair.probe.name}; a cross-entropy is usual.",
            "a loss for numbers, whose gradient vanishes where the model is sure and wrong.",
            "use categorical_crossentropy.",
        )
    return None


def _range(pair: Pair) -> Finding | None:
    """Targets that the last activation cannot reach."""
    labels = pair.labels
    if pair.last not in _RANGES or pair.matched is None or pair.probe.family not in ("distance", "own"):
        return None
    if not np.all(np.isfinite(labels)):
        return None
    low, high = _RANGES[pair.last]
    reached = np.clip(labels, low, high)
    gap = np.abs(labels - reached)
    share = float(np.mean(gap > _ROUNDING))
    if share == 0 or (pair.probe.family == "own" and not _wants_labels(pair, low, high)):
        return None
    variance = float(np.var(labels))
    lost = float(np.mean(gap.astype(float) ** 2)) / variance if variance else np.inf
    width = "and more" if np.isinf(high) else f"to {high:.4g}"
    return pair.finding(
        "output-range",
        "error" if share > _FEW and lost > _SLIGHT else "warning",
        f"{share:.1%} of the targets ({labels.min():.4g} to {labels.max():.4g}) are out of reach "
        f"of {pair.last}, which gives {low:.4g} {width}; none are expected.",
        "a last activation for another range of targets.",
        "leave the last activation away, or scale the targets to its range.",
    )


def _wants_labels(pair: Pair, low: float, high: float) -> bool:
    """Whether a hand-written loss is lowest where outputs equal labels, reachable or not."""
    labels = pair.matched
    if labels is None or not np.all(np.isfinite(labels)):
        return False
    exact, nearest, beyond = (
        pair.probe.value(pair.seen, outputs)
        for outputs in (labels, np.clip(labels, low, high), 2 * labels - np.clip(labels, low, high))
    )
    if exact is None or nearest is None or beyond is None:
        return False
    return exact < nearest and exact < beyond


_ACCURACIES = (
    "accuracy",
    "acc",
    "binaryaccuracy",
    "categoricalaccuracy",
    "sparsecategoricalaccuracy",
)
_THRESHOLDED = ("binaryaccuracy", "precision", "recall")
_OF_NUMBERS = ("r2score", "meansquarederror", "mse", "meanabsoluteerror", "mae", "rootmeansquarederror")


def _misused(metric: CompiledMetric, pair: Pair) -> tuple[Any, str, str, str] | None:
    """Severity, evidence, cause and fix of a metric that says nothing about this output."""
    family, name = pair.probe.family, metric.name
    shown = f"the metric is {name}"
    whole = np.array_equal(pair.labels, np.round(pair.labels))
    amounts = family in ("distance", "poisson") and (not whole or not _are_classes(pair))
    if name in _ACCURACIES and amounts and pair.last != "softmax":
        evidence = (
            f"{shown} and the targets are numbers from {pair.labels.min():.4g} to {pair.labels.max():.4g}; "
        )
        return (
            "warning",
            evidence + "an error such as mae is expected.",
            "a metric for classes in a regression.",
            "use mae or r2_score.",
        )
    if name == "accuracy" and not metric.by_name and family in _MATCHES_CLASSES:
        evidence = (
            f"{shown}, which counts outputs that equal the label exactly; an accuracy by class is expected."
        )
        fix = "use the string 'accuracy', which Keras suits to the output."
        return "warning", evidence, "keras.metrics.Accuracy on probabilities.", fix
    one_hot = pair.labels.ndim == pair.outputs.ndim and pair.labels.shape[-1] == pair.units > 1
    if (
        name == "binaryaccuracy"
        and family in ("categorical", "sparse", "categorical_hinge")
        and pair.units > 2
    ):
        evidence = (
            f"{shown} and there are {pair.units} classes; it starts at {1 - 1 / pair.units:.0%} for nothing, "
        )
        evidence += "where chance should be expected."
        return "warning", evidence, "a metric for yes/no answers.", "use the string 'accuracy'."
    if name == "sparsecategoricalaccuracy" and one_hot and family in ("categorical", "categorical_hinge"):
        evidence = f"{shown} and the labels are one-hot rows of {pair.units}; class numbers are expected."
        return "warning", evidence, "a metric for class numbers.", "use categorical_accuracy."
    if name == "categoricalaccuracy" and family == "sparse":
        evidence = f"{shown} and the labels are class numbers; one-hot rows are expected."
        return "warning", evidence, "a metric for one-hot labels.", "use sparse_categorical_accuracy."
    if name in _OF_NUMBERS and family == "sparse":
        evidence = f"{shown} and the labels are class numbers; a metric for classes is expected."
        return "warning", evidence, "a metric for numbers beside classes.", "use the string 'accuracy'."
    return _threshold(metric, pair, shown)


def _threshold(metric: CompiledMetric, pair: Pair, shown: str) -> tuple[Any, str, str, str] | None:
    """A threshold for probabilities on logits."""
    if not pair.probe.takes_logits or pair.probe.family != "binary" or pair.last in _SQUASHING:
        return None
    named = metric.by_name and metric.name in ("accuracy", "acc") and pair.units == 1
    thresholds = metric.config.get("threshold", metric.config.get("thresholds"))
    threshold = 0.5 if thresholds is None else thresholds
    if not (named or metric.name in _THRESHOLDED) or threshold != 0.5:
        return None
    return (
        "info" if named else "warning",
        f"{shown} with a threshold of 0.5 and the outputs are logits; 0 is expected.",
        "a threshold for probabilities.",
        "use keras.metrics.BinaryAccuracy(threshold=0).",
    )


def _are_classes(pair: Pair) -> bool:
    """Whether whole-number labels of a loss for numbers are yes/no, -1/+1 or one-hot."""
    return set(np.unique(pair.labels).tolist()) <= {-1, 0, 1}
