"""The best answer that is the same for every sample: what every loss is held against."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.context import loss_name
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.own_loss import computed_loss, computes_loss_itself, penalty_in
from keras_practice.core.types import Array

_KNOWN = (
    "crossentropy",
    "hinge",
    "squared_error",
    "absolute_error",
    "huber",
    "log_cosh",
    "poisson",
    "mse",
    "mae",
)


def penalty_of(model: keras.Model) -> float:
    """What the layers added to the loss in the model's last call, which must have run eagerly."""
    return float(penalty_in(model))


def data_loss(model: keras.Model, x: Any, y: Any, outputs: Any, weight: Any = None) -> float:
    """The compiled loss as `fit` computes it, less the penalties of the model's last call."""
    return float(computed_loss(model, x, y, outputs, weight)) - penalty_of(model)


def constant_loss(
    model: keras.Model,
    heads: Sequence[Head],
    batch: tuple[Any, Any, Any],
    structure: Any,
    few: Any,
    *,
    uninformed: bool = False,
) -> float | None:
    """The lowest loss of a model that says the same for every sample.

    Args:
        model: A compiled model.
        heads: Its outputs, with the labels of these samples.
        batch: Inputs, labels and sample weights, as tensors.
        structure: A nest like that of the outputs.
        few: A few inputs; the model is called on them, so that its penalties are numbers, not
            those of a trace.
        uninformed: Whether it does not know the classes' frequencies or the targets'
            mean either. Defaults to `False`.

    Returns:
        `None` where the loss does not compare outputs to labels in a way that is known.
    """
    compared = [head.loss for head in heads if head.loss is not None]
    if not compared or not all(map(_is_known, compared)) or computes_loss_itself(model):
        return None
    choices = [list(_constants(head, uninformed)) for head in heads]
    if not all(choices):
        return None
    x, y, weight = batch
    model(few, training=False)

    def loss(chosen: list[Array]) -> float:
        outputs = keras.tree.pack_sequence_as(structure, [tf.constant(c) for c in chosen])
        return data_loss(model, x, y, outputs, weight)

    chosen = [options[0] for options in choices]
    lowest = loss(chosen)
    for index, options in enumerate(choices):
        for option in options[1:]:
            tried = [*chosen[:index], option, *chosen[index + 1 :]]
            if (value := loss(tried)) < lowest:
                lowest, chosen = value, tried
    return lowest if math.isfinite(lowest) else None


def _is_known(loss: Any) -> bool:
    return any(word in loss_name(loss) for word in _KNOWN)


def _constants(head: Head, uninformed: bool) -> Iterator[Array]:
    """Outputs that are the same for every sample, one of which has the lowest loss or nearly so."""
    name, shape = loss_name(head.loss), (len(head.labels), *head.outputs.shape[1:])
    if head.loss is None:  # Nothing compares it with anything.
        yield np.zeros(shape, np.float32)
        return
    y = head.labels.astype(np.float64)
    if "crossentropy" not in name:
        if y.ndim == len(shape) - 1 and shape[-1] == 1:
            y = y[..., None]
        if y.shape != shape:
            return
        averages = [np.zeros(shape[1:])] if uninformed else [y.mean(axis=0), np.median(y, axis=0)]
        for average in averages:
            yield np.broadcast_to(average, shape).astype(np.float32)
        return
    units = shape[-1] if len(shape) > 1 else 1
    if "sparse" in name:
        classes = y.astype(np.int64).ravel()
        if classes.min() < 0 or classes.max() >= units:
            return
        share = np.bincount(classes, minlength=units) / len(classes)
    elif y.size % units == 0:
        share = y.reshape(-1, units).mean(axis=0)
    else:
        return
    if uninformed:
        share = np.full(units, 0.5 if "binary" in name else 1 / units)
    share = np.clip(share, 1e-7, 1 - 1e-7)
    logits = np.log(share / (1 - share)) if "binary" in name else np.log(share)
    for value in (share, logits):
        yield np.broadcast_to(value, shape).astype(np.float32)
