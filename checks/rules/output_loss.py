"""Last activation, loss and labels that are at odds with each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.loss_probe import goes_back_to_logits
from keras_practice.checks.inspection.pairs import Pair
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


def at_odds(context: CheckContext, pair: Pair) -> Finding | None:
    """The first way in which last activation, loss and labels are at odds."""
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
        if goes_back_to_logits(pair.probe, context.model, pair.position, x, pair.sampled):
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


def out_of_reach(pair: Pair) -> Finding | None:
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
        pair.probe.value(pair.sampled, outputs)
        for outputs in (labels, np.clip(labels, low, high), 2 * labels - np.clip(labels, low, high))
    )
    if exact is None or nearest is None or beyond is None:
        return False
    return exact < nearest and exact < beyond


def undefined(pair: Pair) -> Finding | None:
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
