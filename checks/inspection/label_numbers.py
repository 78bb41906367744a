"""What kind of numbers labels are."""

from __future__ import annotations

import numpy as np

from keras_practice.core.types import Array

_MANY = 200_000  # Values that are sorted; more would cost seconds and show nothing else.


def distinct(labels: Array) -> Array:
    """The values that occur, in order; of very many labels those of a part."""
    flat = labels.ravel()
    if flat.size > _MANY:
        flat = np.concatenate([flat[:: flat.size // _MANY], [flat.min(), flat.max()]])
    return np.unique(flat)


def is_whole(labels: Array) -> bool:
    """Whether all are whole numbers."""
    return labels.dtype.kind in "biu" or bool(np.all(labels == np.round(labels)))


def is_binary(labels: Array) -> bool:
    """Whether all are 0 or 1."""
    return bool(np.all((labels == 0) | (labels == 1)))


def all_one(labels: Array, axis: int) -> bool:
    """Whether they add up to 1 along an axis, everywhere."""
    return bool(np.all(labels.sum(axis=axis) == 1))
