"""Which labels count in the loss, and how much: padding does not, by a mask or by weights of 0."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.private_api.keras import mask_of
from keras_practice.core.types import Array

_MASKED_ROWS = 512  # As many samples are run to see what a model masks.


def counted_labels(context: CheckContext, head: Head, one_hot: bool) -> tuple[Array, Array | None]:
    """The labels of an output that count, and the weight of each.

    Args:
        context: What is looked at.
        head: The output.
        one_hot: Whether a row of the last axis is one label.

    Returns:
        Labels, as they are, or with samples and steps in one axis where some of these do not
        count; and a weight for each, `None` where all count alike or the weights are at fault.
    """
    labels, weight = head.labels, _weight_of(context, head)
    mask = _mask_of(context, head)
    if mask is not None and labels.ndim > 1:
        rows = Samples(np.arange(len(labels)), None, None, None, True).spread(_MASKED_ROWS, context.seed).x
        labels, weight = labels[rows], None if weight is None else weight[rows]
    numbers = labels.shape[:-1] if one_hot else labels.shape
    if mask is not None and mask.shape == numbers[: mask.ndim]:
        given = np.ones(mask.shape) if weight is None else weight
        if given.size == len(given):
            given = given.reshape(-1, *[1] * (mask.ndim - 1))
        weight = np.broadcast_to(given, mask.shape) * mask if given.ndim == mask.ndim else mask.astype(float)
    if weight is None or np.any(weight < 0) or not np.any(weight > 0):
        return labels, None
    count = int(np.prod(numbers))
    if weight.size != count:
        if weight.size != len(weight) or count % len(weight):
            return labels, None
        return labels, np.repeat(weight.reshape(-1), count // len(weight)).astype(np.float64)
    flat = np.asarray(weight, np.float64).reshape(-1)
    if weight.ndim == 1 or weight.size == len(weight):
        return labels, flat
    rest = labels.reshape(count, *labels.shape[len(numbers) :])
    return rest[flat > 0], flat[flat > 0]


def _weight_of(context: CheckContext, head: Head) -> Array | None:
    names = [each.name for each in context.heads]
    if isinstance(context.train.weight, dict):
        found: Any = context.train.weight.get(head.name)
        return None if found is None else np.asarray(found)
    parts = context.train.weights
    return parts[names.index(head.name) if len(parts) == len(names) else 0] if parts else None


def _mask_of(context: CheckContext, head: Head) -> Array | None:
    """What the model masks of an output of some hundred samples; `None` for nothing."""
    place = [each.name for each in context.heads].index(head.name)
    if not context.forward_pass.masked or not context.forward_pass.masked[place]:
        return None
    outputs = context.model(context.train.spread(_MASKED_ROWS, context.seed).fed, training=False)
    mask = mask_of(keras.tree.flatten(outputs)[place])
    return None if mask is None else np.asarray(mask)
