"""Metrics that say nothing about an output."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_practice.checks.inspection.metrics import CompiledMetric
from keras_practice.checks.inspection.pairs import Pair

_SQUASHING = ("sigmoid", "softmax")
_MATCHES_CLASSES = ("binary", "categorical", "sparse", "hinge", "categorical_hinge", "overlap", "divergence")
ACCURACIES = (
    "accuracy",
    "acc",
    "binaryaccuracy",
    "categoricalaccuracy",
    "sparsecategoricalaccuracy",
)
_THRESHOLDED = ("binaryaccuracy", "precision", "recall")
_OF_NUMBERS = ("r2score", "meansquarederror", "mse", "meanabsoluteerror", "mae", "rootmeansquarederror")


def misused(metric: CompiledMetric, pair: Pair) -> tuple[Any, str, str, str] | None:
    """Severity, evidence, cause and fix of a metric that says nothing about this output."""
    family, name = pair.probe.family, metric.name
    shown = f"the metric is {name}"
    whole = np.array_equal(pair.labels, np.round(pair.labels))
    amounts = family in ("distance", "poisson") and (not whole or not _are_classes(pair))
    if name in ACCURACIES and amounts and pair.last != "softmax":
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
