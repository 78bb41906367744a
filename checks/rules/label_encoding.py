"""How labels are written: integers or one-hot rows, and in which shape."""

from __future__ import annotations

import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.label_numbers import all_one, distinct, is_binary, is_whole
from keras_practice.checks.inspection.pairs import Pair
from keras_practice.core.types import Array


def encoding(pair: Pair) -> Finding | None:
    """How the labels are written: integers or one-hot rows, and in which shape."""
    family = pair.probe.family
    broadcast = _broadcast(pair) if pair.probe.own else None
    if broadcast is not None or family in ("other", "own"):
        return broadcast
    labels, outputs = pair.sampled, pair.outputs
    if family == "sparse" and labels.shape == outputs.shape and pair.units > 1:
        return pair.finding(
            "label-encoding",
            "error",
            f"labels have the outputs' shape {_shape(labels)}; one integer for each row is expected.",
            "one-hot labels with a loss that takes class numbers.",
            "use categorical_crossentropy, or keep the class numbers.",
        )
    one_hot = family in ("categorical", "categorical_hinge", "divergence")
    if one_hot or family in ("binary", "hinge", "overlap", "distance"):
        whole = is_whole(pair.labels)
        single = labels.shape in (outputs.shape[:-1], (*outputs.shape[:-1], 1)) and pair.units > 1
        scores = pair.last in ("softmax", "sigmoid") or family in ("hinge", "binary")
        count = len(distinct(pair.labels))
        # Labels of one column for one unit are class numbers for nothing; that is for the units' rule.
        if single and whole and (one_hot or scores) and count > 2 - (one_hot or pair.last == "softmax"):
            return pair.finding(
                "label-encoding",
                "error",
                f"labels are whole numbers of shape {_shape(labels)}; one-hot rows of shape "
                f"{_shape(outputs)} are expected.",
                "class numbers with a loss that compares each unit to a label.",
                "use sparse_categorical_crossentropy, or keras.utils.to_categorical on the labels.",
            )
    if family in ("categorical", "categorical_hinge", "distance", "binary"):
        return _other_axis(pair, one_hot)
    return None


def _broadcast(pair: Pair) -> Finding | None:
    """A hand-written loss that compares every sample with every other one."""
    labels, outputs = pair.sampled, pair.outputs
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


def _other_axis(pair: Pair, one_hot: bool) -> Finding | None:
    labels, outputs = pair.sampled, pair.outputs
    if labels.shape != outputs.shape:
        wrong = labels.ndim > 2 and sorted(labels.shape[1:]) == sorted(outputs.shape[1:])
    else:
        wrong = one_hot and labels.ndim > 2 and is_binary(labels) and not all_one(labels, -1)
        wrong = wrong and any(all_one(labels, axis) for axis in range(1, labels.ndim - 1))
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


def _shape(array: Array) -> str:
    return f"(n{''.join(f', {size}' for size in array.shape[1:])}{',' if array.ndim == 1 else ''})"
