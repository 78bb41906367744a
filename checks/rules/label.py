"""Labels that do not suit the loss: how they are written, their range, their scale, their kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from keras_practice.checks.findings import Finding, Severity
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.loss_probe import LossProbe, probe_of, same_rank
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.types import Array

_MANY = 200_000  # Values that are sorted; more would cost seconds and show nothing else.
_FEW = 0.05  # A share of samples that may be mistakes in the data and not in the program.
_CLOSE = 1e-3  # What label smoothing and float32 leave of a sum that should be 1.
_SPACED = 1e-3  # Error in the spacing of labels, as a share of the spacing: float32 of scaled integers.
# Two values a class are the least that show a spacing; of measured numbers hardly two are equal.
_SAMPLES_A_VALUE = 2
_MAX_SCALED = 100  # Classes of a data set such as CIFAR-100; beyond, equal spacing is rounding.
# Draws a unit after which nearly every class has been seen, even a rare one.
_DRAWS_A_UNIT = 20


@dataclass(frozen=True)
class Pair:
    """An output and its labels, as the rules read them.

    Attributes:
        head: The output.
        probe: Its loss.
        seen: The labels of the samples whose outputs are known.
        linear: Whether the output is known to be a layer's bare sum.
        reconstructs: Whether the labels are the model's input.
        complete: Whether all labels are known.
        stated: Whether the user says that these are classes, by a task or by an accuracy.
        position: Number of the output.
    """

    head: Head
    probe: LossProbe
    seen: Array
    linear: bool
    reconstructs: bool
    complete: bool
    stated: bool
    position: int

    @property
    def labels(self) -> Array:
        """All labels."""
        return self.head.labels

    @property
    def outputs(self) -> Array:
        """The outputs seen."""
        return self.head.outputs

    @property
    def units(self) -> int:
        """Width of the output."""
        return self.head.units

    @property
    def last(self) -> str | None:
        """The last activation."""
        return self.head.activations[0] if self.head.activations else None

    def finding(self, check: str, severity: Severity, evidence: str, cause: str, fix: str) -> Finding:
        """A finding about this output."""
        return Finding(check, severity, f"output {self.head.name!r}", evidence, cause, fix, SOURCES[check])

    @property
    def matched(self) -> Array | None:
        """The labels seen in the shape of the outputs; `None` if there is not one label an output."""
        labels, outputs = same_rank(self.seen, self.outputs)
        return labels.reshape(self.outputs.shape) if labels.shape == outputs.shape else None


SOURCES = {
    "label-range": "A16; Goodfellow, Bengio and Courville 2016, section 6.2",
    "label-encoding": "A16",
    "label-scale": "A38, A16",
    "label-task": "A15, A16; Goodfellow, Bengio and Courville 2016, section 6.2",
    "output-loss": "A15, A16; Goodfellow, Bengio and Courville 2016, section 6.2",
    "output-range": "A15; Goodfellow, Bengio and Courville 2016, section 6.2",
    "output-units": "A15",
    "loss-reduction": "A27; Goyal et al. 2017",
    "metric-task": "A40",
}


def pairs_of(context: CheckContext, stated: Callable[[Head], bool]) -> Iterator[Pair | Finding]:
    """The outputs that have a loss; a finding in place of one whose labels or loss cannot be read."""
    for position, head in enumerate(context.heads):
        where = f"output {head.name!r}"
        if head.labels.dtype.kind not in "biuf":
            example = str(head.labels.ravel()[0])
            seen = f"labels are of type {head.labels.dtype}, such as {example!r}; numbers are expected."
            cause, fix = (
                "class names in place of class numbers.",
                "number them with keras.layers.StringLookup.",
            )
            if head.loss is not None:
                yield Finding("label-encoding", "error", where, seen, cause, fix, SOURCES["label-encoding"])
            continue
        try:
            probe = probe_of(head.loss, head.labels[:2], head.outputs)
        except ValueError:
            seen = f"there is no loss {head.loss!r}; the name of a loss in keras.losses is expected."
            cause, fix = "a misspelt name.", "look the name up in keras.losses."
            yield Finding("output-loss", "error", where, seen, cause, fix, SOURCES["output-loss"])
            continue
        if probe is not None:
            yield _pair(context, position, head, probe, stated(head))


def _pair(context: CheckContext, position: int, head: Head, probe: LossProbe, stated: bool) -> Pair:
    rows = Samples(head.labels, head.labels, None, None, True)
    seen = rows.spread(len(head.outputs), context.seed).y  # The draw that the forward pass saw.
    linear = not head.activations and any(
        call.activation is None and hasattr(call.layer, "kernel") and _equal(call.outputs, head.outputs)
        for call in context.forward_pass.calls
    )
    reconstructs = any(_equal((values,), head.labels) for values in context.train.inputs.values())
    return Pair(head, probe, seen, linear, reconstructs, context.train.complete, stated, position)


def _equal(arrays: tuple[Array, ...], other: Array) -> bool:
    return len(arrays) == 1 and arrays[0].shape == other.shape and np.array_equal(arrays[0], other)


def encoding(pair: Pair) -> Finding | None:
    """How the labels are written: integers or one-hot rows, and in which shape."""
    family = pair.probe.family
    broadcast = _broadcast(pair) if pair.probe.own else None
    if broadcast is not None or family in ("other", "own"):
        return broadcast
    labels, outputs = pair.seen, pair.outputs
    if family == "sparse" and labels.shape == outputs.shape and pair.units > 1:
        return pair.finding(
            "label-encoding",
            "error",
            f"labels have the outputs' shape {_shape(labels)}; one integer for each row is expected.",
            "one-hot labels with a loss that takes class numbers.",
            "use categorical_crossentropy, or keep the class numbers.",
        )
    rows = family in ("categorical", "categorical_hinge", "divergence")
    if rows or family in ("binary", "hinge", "overlap", "distance"):
        whole = _is_whole(pair.labels)
        single = labels.shape in (outputs.shape[:-1], (*outputs.shape[:-1], 1)) and pair.units > 1
        scores = pair.last in ("softmax", "sigmoid") or family in ("hinge", "binary")
        count = len(_distinct(pair.labels))
        # Labels of one column for one unit are class numbers for nothing; that is for the units' rule.
        if single and whole and (rows or scores) and count > 2 - (rows or pair.last == "softmax"):
            return pair.finding(
                "label-encoding",
                "error",
                f"labels are whole numbers of shape {_shape(labels)}; one-hot rows of shape "
                f"{_shape(outputs)} are expected.",
                "class numbers with a loss that compares each unit to a label.",
                "use sparse_categorical_crossentropy, or keras.utils.to_categorical on the labels.",
            )
    if family in ("categorical", "categorical_hinge", "distance", "binary"):
        return _other_axis(pair, rows)
    return None


def _broadcast(pair: Pair) -> Finding | None:
    """A hand-written loss that compares every sample with every other one."""
    labels, outputs = pair.seen, pair.outputs
    if labels.shape == outputs.shape or labels.size != outputs.size or len(outputs) < 2:
        return None
    as_given, as_meant = (pair.probe.value(y, outputs) for y in (labels, labels.reshape(outputs.shape)))
    if as_given is None or as_meant is None or np.isclose(as_given, as_meant, rtol=1e-4, equal_nan=True):
        return None
    return pair.finding(
        "label-encoding",
        "error",
        f"labels of shape {_shape(labels)} meet outputs of shape {_shape(outputs)}: the loss is "
        f"{as_given:.4g}, and {as_meant:.4g} with labels in the outputs' shape.",
        "broadcasting: the loss compares each output with the labels of all samples.",
        "give labels in the outputs' shape, as in y[:, None].",
    )


def _other_axis(pair: Pair, rows: bool) -> Finding | None:
    labels, outputs = pair.seen, pair.outputs
    if labels.shape != outputs.shape:
        wrong = labels.ndim > 2 and sorted(labels.shape[1:]) == sorted(outputs.shape[1:])
    else:
        wrong = rows and labels.ndim > 2 and _is_binary(labels) and not _all_one(labels, -1)
        wrong = wrong and any(_all_one(labels, axis) for axis in range(1, labels.ndim - 1))
    if not wrong:
        return None
    return pair.finding(
        "label-encoding",
        "error",
        f"labels have shape {_shape(labels)} and outputs {_shape(outputs)}; the same axes in the same "
        "order are expected, classes last.",
        "labels with the classes on another axis.",
        "move the classes to the last axis with np.moveaxis.",
    )


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
    distinct = _distinct(labels)
    if not _is_whole(labels):
        return _scaled(pair, labels) or _continuous(pair, f"class numbers from 0 to {pair.units - 1}")
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < pair.units:
        return _too_many_units(pair, labels, high + 1)
    outside = distinct[(distinct < 0) | (distinct >= pair.units)]
    marked = len(outside) == 1 and outside[0] != pair.units
    if len(distinct) > pair.units and not marked:
        return too_few_units(pair, len(distinct))
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
    distinct = _distinct(labels)
    inside = labels.min() >= -_CLOSE and labels.max() <= 1 + _CLOSE
    if inside:
        if len(distinct) == 2 and (distinct.max() < 0.5 or distinct.min() > 0.5):
            return _rescaled(pair, distinct)
        return _exclusive(pair)
    if len(distinct) == 2 and not _is_whole(distinct):
        return _rescaled(pair, distinct)
    if len(distinct) > 2 and pair.units == 1 and not pair.reconstructs and labels[0].size == 1:
        if _is_whole(distinct):
            return (
                too_few_units(pair, len(distinct))
                if len(distinct) == distinct.max() - distinct.min() + 1
                else _continuous(pair, "labels 0 and 1")
            )
        return _scaled(pair, labels) or _continuous(pair, "labels between 0 and 1")
    if len(distinct) > 2 and _two_a_column(labels):
        return _rescaled(pair, _distinct(labels.reshape(-1, labels.shape[-1])[:, 0]))
    share = float(np.mean((labels < -_CLOSE) | (labels > 1 + _CLOSE)))
    few = len(distinct) > 2 and share < _FEW
    hint = (
        "labels of -1 and 1."
        if set(distinct.tolist()) == {-1, 1}
        else "labels that were never put to 0 to 1."
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
    one_hot = labels.ndim == 2 and pair.units > 1 and _is_binary(labels) and _all_one(labels, -1)
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
    if labels.min() < 0 or not _is_whole(labels):
        if _two_a_column(labels):
            return _rescaled(pair, _distinct(labels.reshape(-1, labels.shape[-1])[:, 0]))
        if labels.min() < 0:
            return _continuous(pair, "rows of probabilities that add up to 1")
    if pair.reconstructs:
        return None
    several = float(np.mean(sums > 1 + _CLOSE))
    if several == 0 and _is_binary(labels):
        if labels.ndim > 2:
            return None  # Rows of zeros pad sequences.
        return pair.finding(
            "label-task",
            "warning",
            f"{float(np.mean(odd)):.1%} of the rows of labels are all 0; one 1 a row is expected.",
            "samples that belong to no class.",
            "give them a class of their own, or use a sigmoid with binary_crossentropy.",
        )
    several_labels = _is_binary(labels)
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
    distinct = _distinct(labels)
    if set(distinct.tolist()) <= {-1, 1} or set(distinct.tolist()) <= {0, 1}:
        return None
    whole = _is_whole(labels)
    if whole and len(distinct) > 2 and pair.units == 1:
        return too_few_units(pair, len(distinct))
    return pair.finding(
        "label-range",
        "error",
        f"labels are {_listed(distinct)}; -1 and 1, or 0 and 1, are expected by {pair.probe.name}.",
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
    distinct = _distinct(labels)
    classes = _is_whole(labels) and len(distinct) > 2 and np.array_equal(distinct, np.arange(len(distinct)))
    classes = classes and len(distinct) <= _MAX_SCALED
    if not classes or not (pair.stated or labels.dtype.kind in "iu"):
        return None
    return pair.finding(
        "label-task",
        "error" if pair.stated else "info",
        f"labels are the whole numbers 0 to {len(distinct) - 1}, learned by one unit with {pair.probe.name}; "
        f"{len(distinct)} units are expected if they are classes.",
        "class numbers learned as if they were amounts.",
        f"use {len(distinct)} softmax units and sparse_categorical_crossentropy, unless these are amounts.",
    )


def _continuous(pair: Pair, expected: str) -> Finding:
    labels = pair.labels
    return pair.finding(
        "label-task",
        "error",
        f"labels are numbers from {labels.min():.4g} to {labels.max():.4g} with "
        f"{len(_distinct(labels))} different values; {expected} are expected by {pair.probe.name}.",
        "targets of a regression with a loss for classes.",
        "use mean_squared_error and a linear output.",
    )


def _scaled(pair: Pair, labels: Array) -> Finding | None:
    """Class numbers that were standardised or divided: few values, equally far from each other."""
    distinct = _distinct(labels)
    few = len(distinct) <= min(_MAX_SCALED, labels.size / _SAMPLES_A_VALUE)
    if not few or len(distinct) < 2 or not _equally_spaced(distinct):
        return None
    return _rescaled(pair, distinct)


def _rescaled(pair: Pair, distinct: Array) -> Finding:
    return pair.finding(
        "label-scale",
        "error",
        f"labels take {len(distinct)} values, {_listed(distinct)}; "
        "0 and 1, or whole class numbers, are expected.",
        "class labels that were scaled along with the features.",
        "scale the inputs alone, and give the labels as they were.",
    )


def _equally_spaced(distinct: Array) -> bool:
    gaps = np.diff(distinct)
    steps = gaps / gaps.min()
    return bool(np.all(np.abs(steps - np.round(steps)) < _SPACED * np.round(steps) * len(distinct)))


def _two_a_column(labels: Array) -> bool:
    """Whether each column takes two values, as one-hot rows do after they were scaled."""
    if labels.ndim < 2 or labels.shape[-1] < 2 or _is_binary(labels):
        return False
    columns = labels.reshape(-1, labels.shape[-1])
    if len(columns) < 3:
        return False
    return all(np.all((c == c.min()) | (c == c.max())) for c in columns.T) and not _is_whole(labels)


def _distinct(labels: Array) -> Array:
    flat = labels.ravel()
    if flat.size > _MANY:
        flat = np.concatenate([flat[:: flat.size // _MANY], [flat.min(), flat.max()]])
    return np.unique(flat)


def _listed(distinct: Array) -> str:
    shown = ", ".join(f"{value:.4g}" for value in distinct[:4])
    return shown if len(distinct) <= 4 else f"{shown}, ... {distinct[-1]:.4g}"


def _is_whole(labels: Array) -> bool:
    return labels.dtype.kind in "biu" or bool(np.all(labels == np.round(labels)))


def _is_binary(labels: Array) -> bool:
    return bool(np.all((labels == 0) | (labels == 1)))


def _all_one(labels: Array, axis: int) -> bool:
    return bool(np.all(labels.sum(axis=axis) == 1))


def _shape(array: Array) -> str:
    return f"(n{''.join(f', {size}' for size in array.shape[1:])}{',' if array.ndim == 1 else ''})"
