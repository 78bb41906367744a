"""What numbers labels are: their range, their scale, their kind, beside what the loss can mean."""

from __future__ import annotations

import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.label_numbers import all_one, distinct, is_binary, is_whole
from keras_practice.checks.inspection.pairs import Pair
from keras_practice.core.types import Array

_FEW = 0.05  # A share of samples that may be mistakes in the data and not in the program.
_CLOSE = 1e-3  # What label smoothing and float32 leave of a sum that should be 1.
_SPACED = 1e-3  # Error in the spacing of labels, as a share of the spacing: float32 of scaled integers.
# Two values a class are the least that show a spacing; of measured numbers hardly two are equal.
_SAMPLES_A_VALUE = 2
_MAX_SCALED = 100  # Classes of a data set such as CIFAR-100; beyond, equal spacing is rounding.
# Draws a unit after which nearly every class has been seen, even a rare one.
_DRAWS_A_UNIT = 20


def values(pair: Pair) -> Finding | None:
    """What numbers the labels are."""
    labels = pair.labels
    if not np.all(np.isfinite(labels)) or labels.size == 0:
        return None  # For the checks of the data.
    rules = {
        "sparse": _sparse,
        "binary": _probabilities,
        "overlap": _probabilities,
        "categorical": _rows,
        "divergence": _rows,
        "hinge": _hinge,
        "poisson": _counts,
        "distance": _numbers,
    }
    rule = rules.get(pair.probe.family)
    return None if rule is None else rule(pair)


def _sparse(pair: Pair) -> Finding | None:
    ignored = pair.probe.config.get("ignore_class")
    labels = pair.labels if ignored is None else pair.labels[pair.labels != ignored]
    if labels.size == 0:
        return None
    present = distinct(labels)
    if not is_whole(labels):
        return _scaled(pair, labels) or _continuous(pair, f"class numbers from 0 to {pair.units - 1}")
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < pair.units:
        return _too_many_units(pair, labels, high + 1)
    outside = present[(present < 0) | (present >= pair.units)]
    marked = len(outside) == 1 and outside[0] != pair.units
    if len(present) > pair.units and not marked:
        return too_few_units(pair, len(present))
    cause = "class numbers with gaps, or of another data set."
    fix = "number the classes from 0 with np.unique(y, return_inverse=True)."
    if (low, high) == (1, pair.units):
        cause, fix = "classes counted from 1.", "subtract 1 from the labels."
    elif marked or low < 0:
        cause = "a mark for missing labels, or labels of -1 and 1."
        fix = "number the classes from 0, and name a mark as ignore_class in the loss."
    return pair.finding(
        "label-range",
        "error",
        f"labels run from {low} to {high}; 0 to {pair.units - 1} is expected for {pair.units} units.",
        cause,
        fix,
    )


def too_few_units(pair: Pair, classes: int) -> Finding:
    """Fewer units than classes."""
    return pair.finding(
        "output-units",
        "error",
        f"{pair.units} output unit(s) for {classes} classes in the labels; {classes} are expected.",
        "an output layer made for another number of classes.",
        f"give the last layer {classes} units and a softmax, with sparse_categorical_crossentropy.",
    )


def _too_many_units(pair: Pair, labels: Array, classes: int) -> Finding | None:
    enough = pair.complete and labels.size >= _DRAWS_A_UNIT * pair.units
    if not enough or pair.units < 2 * max(classes, 2):
        return None
    return pair.finding(
        "output-units",
        "warning",
        f"{pair.units} output units for labels up to {classes - 1}; {classes} are expected.",
        "an output layer made for another number of classes.",
        f"give the last layer {classes} units.",
    )


def _probabilities(pair: Pair) -> Finding | None:
    labels = pair.labels
    present = distinct(labels)
    inside = labels.min() >= -_CLOSE and labels.max() <= 1 + _CLOSE
    if inside:
        if len(present) == 2 and (present.max() < 0.5 or present.min() > 0.5):
            return _rescaled(pair, present)
        return _exclusive(pair)
    if len(present) == 2 and not is_whole(present):
        return _rescaled(pair, present)
    if len(present) > 2 and pair.units == 1 and not pair.reconstructs and labels[0].size == 1:
        if is_whole(present):
            return (
                too_few_units(pair, len(present))
                if len(present) == present.max() - present.min() + 1
                else _continuous(pair, "labels 0 and 1")
            )
        return _scaled(pair, labels) or _continuous(pair, "labels between 0 and 1")
    if len(present) > 2 and _two_a_column(labels):
        return _rescaled(pair, distinct(labels.reshape(-1, labels.shape[-1])[:, 0]))
    share = float(np.mean((labels < -_CLOSE) | (labels > 1 + _CLOSE)))
    few = len(present) > 2 and share < _FEW
    hint = (
        "labels of -1 and 1." if set(present.tolist()) == {-1, 1} else "labels that were never put to 0 to 1."
    )
    return pair.finding(
        "label-range",
        "warning" if few else "error",
        f"labels run from {labels.min():.4g} to {labels.max():.4g}, {share:.1%} of them out of range; 0 to 1 "
        f"is expected by {pair.probe.name}.",
        hint,
        "bring the labels to 0 and 1, or use a loss that suits them.",
    )


def _exclusive(pair: Pair) -> Finding | None:
    """One-hot rows with independent sigmoids."""
    labels = pair.labels
    one_hot = labels.ndim == 2 and pair.units > 1 and is_binary(labels) and all_one(labels, -1)
    if not one_hot or pair.last != "sigmoid" or pair.probe.family != "binary" or pair.reconstructs:
        return None
    return pair.finding(
        "label-task",
        "info",
        f"every row of labels has exactly one 1 among {pair.units}; a softmax is usual for such labels.",
        "classes that exclude one another, learned as independent yes/no answers.",
        "use a softmax with categorical_crossentropy if one class is right at a time.",
    )


def _rows(pair: Pair) -> Finding | None:
    labels = pair.labels
    sums = labels.sum(axis=-1)
    odd = np.abs(sums - 1) > _CLOSE
    if labels.min() >= 0 and not odd.any():
        return None
    if labels.min() < 0 or not is_whole(labels):
        if _two_a_column(labels):
            return _rescaled(pair, distinct(labels.reshape(-1, labels.shape[-1])[:, 0]))
        if labels.min() < 0:
            return _continuous(pair, "rows of probabilities that add up to 1")
    if pair.reconstructs:
        return None
    several = float(np.mean(sums > 1 + _CLOSE))
    if several == 0 and is_binary(labels):
        if labels.ndim > 2:
            return None  # Rows of zeros pad sequences.
        return pair.finding(
            "label-task",
            "warning",
            f"{float(np.mean(odd)):.1%} of the rows of labels are all 0; one 1 a row is expected.",
            "samples that belong to no class.",
            "give them a class of their own, or use a sigmoid with binary_crossentropy.",
        )
    several_labels = is_binary(labels)
    return pair.finding(
        "label-task",
        "error" if several_labels and several > _FEW else "warning",
        f"rows of labels add up to {sums.min():.4g} to {sums.max():.4g}; 1 is expected by {pair.probe.name}.",
        "several labels a sample, among which one softmax must choose."
        if several_labels
        else "labels that are not probabilities.",
        "use one sigmoid a label with binary_crossentropy."
        if several_labels
        else "divide each row by its sum, or use a loss for numbers.",
    )


def _hinge(pair: Pair) -> Finding | None:
    labels = pair.labels
    present = distinct(labels)
    if set(present.tolist()) <= {-1, 1} or set(present.tolist()) <= {0, 1}:
        return None
    whole = is_whole(labels)
    if whole and len(present) > 2 and pair.units == 1:
        return too_few_units(pair, len(present))
    return pair.finding(
        "label-range",
        "error",
        f"labels are {_listed(present)}; -1 and 1, or 0 and 1, are expected by {pair.probe.name}.",
        "labels that are not two classes." if whole else "labels that are numbers, or were scaled.",
        "bring the labels to -1 and 1, or use a loss that suits them.",
    )


def _counts(pair: Pair) -> Finding | None:
    share = float(np.mean(pair.labels < 0))
    if share == 0:
        return None
    return pair.finding(
        "label-range",
        "error" if share > _FEW else "warning",
        f"{share:.1%} of the labels are negative, down to {pair.labels.min():.4g}; counts of 0 and more "
        f"are expected by {pair.probe.name}.",
        "targets that were standardised, or are no counts.",
        "give the counts as they are, or use mean_squared_error.",
    )


def _numbers(pair: Pair) -> Finding | None:
    labels = pair.labels
    if pair.last == "softmax" and pair.units > 1 and labels.shape[1:] == pair.outputs.shape[1:]:
        share = float(np.mean((np.abs(labels.sum(axis=-1) - 1) > _CLOSE) | (labels.min(axis=-1) < -_CLOSE)))
        if share > _FEW:
            return pair.finding(
                "label-task",
                "error",
                f"{share:.1%} of the rows of labels do not add up to 1, as the rows of a softmax do.",
                "numbers or several labels as targets, and an output for one of several classes.",
                "leave the softmax away for numbers, or use one sigmoid a label.",
            )
    if pair.units > 1 or pair.labels[0].size != 1 or pair.last in ("sigmoid", "tanh", "softsign", "softmax"):
        return None
    present = distinct(labels)
    classes = is_whole(labels) and len(present) > 2 and np.array_equal(present, np.arange(len(present)))
    classes = classes and len(present) <= _MAX_SCALED
    if not classes or not (pair.stated or labels.dtype.kind in "iu"):
        return None
    return pair.finding(
        "label-task",
        "error" if pair.stated else "info",
        f"labels are the whole numbers 0 to {len(present) - 1}, learned by one unit with {pair.probe.name}; "
        f"{len(present)} units are expected if they are classes.",
        "class numbers learned as if they were amounts.",
        f"use {len(present)} softmax units and sparse_categorical_crossentropy, unless these are amounts.",
    )


def _continuous(pair: Pair, expected: str) -> Finding:
    labels = pair.labels
    return pair.finding(
        "label-task",
        "error",
        f"labels are numbers from {labels.min():.4g} to {labels.max():.4g} with "
        f"{len(distinct(labels))} different values; {expected} are expected by {pair.probe.name}.",
        "targets of a regression with a loss for classes.",
        "use mean_squared_error and a linear output.",
    )


def _scaled(pair: Pair, labels: Array) -> Finding | None:
    """Class numbers that were standardised or divided: few values, equally far from each other."""
    present = distinct(labels)
    few = len(present) <= min(_MAX_SCALED, labels.size / _SAMPLES_A_VALUE)
    if not few or len(present) < 2 or not _equally_spaced(present):
        return None
    return _rescaled(pair, present)


def _rescaled(pair: Pair, present: Array) -> Finding:
    return pair.finding(
        "label-scale",
        "error",
        f"labels take {len(present)} values, {_listed(present)}; "
        "0 and 1, or whole class numbers, are expected.",
        "class labels that were scaled along with the features.",
        "scale the inputs alone, and give the labels as they were.",
    )


def _equally_spaced(present: Array) -> bool:
    gaps = np.diff(present)
    steps = gaps / gaps.min()
    return bool(np.all(np.abs(steps - np.round(steps)) < _SPACED * np.round(steps) * len(present)))


def _two_a_column(labels: Array) -> bool:
    """Whether each column takes two values, as one-hot rows do after they were scaled."""
    if labels.ndim < 2 or labels.shape[-1] < 2 or is_binary(labels):
        return False
    columns = labels.reshape(-1, labels.shape[-1])
    if len(columns) < 3:
        return False
    return all(np.all((c == c.min()) | (c == c.max())) for c in columns.T) and not is_whole(labels)


def _listed(present: Array) -> str:
    shown = ", ".join(f"{value:.4g}" for value in present[:4])
    return shown if len(present) <= 4 else f"{shown}, ... {present[-1]:.4g}"
