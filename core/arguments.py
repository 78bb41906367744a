"""Checks that refuse a wrong argument before any layer is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer, numpy's included, and not a boolean."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_positive_integer(name: str, value: Any) -> int:
    """`value` as an `int`.

    Raises:
        ValueError: Unless it is an integer of at least 1.
    """
    if not is_integer(value) or value < 1:
        raise ValueError(f"{name} must be a positive integer. Got {value!r}.")
    return int(value)


def check_integer(name: str, value: Any, *, least: int) -> int:
    """`value` as an `int`.

    Raises:
        ValueError: Unless it is an integer of at least `least`.
    """
    if not is_integer(value) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}. Got {value!r}.")
    return int(value)


def check_share(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a number in `[0, 1)`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1). Got {value!r}.")


def check_positive(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
        raise ValueError(f"{name} must be a positive number. Got {value!r}.")


def check_widths(name: str, value: Any) -> tuple[int, ...]:
    """The widths of a stack of layers as a tuple.

    Raises:
        ValueError: If `value` is not a sequence of at least one positive integer.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not len(value):
        raise ValueError(f"{name} must be a sequence of at least one width. Got {value!r}.")
    for width in value:
        check_positive_integer(f"Each width in {name}", width)
    return tuple(int(width) for width in value)


def check_input_shape(
    input_shape: Any, *, ranks: Sequence[int] | None = None, what: str = ""
) -> tuple[int, ...]:
    """The shape of one sample as a tuple of positive integers.

    Args:
        input_shape: What the user gave, without the batch axis.
        ranks: Numbers of axes that suit the model. Defaults to `None`, any.
        what: What the axes are, for the message, such as `"(height, width, channels)"`.

    Raises:
        ValueError: If it is not such a shape.
    """
    wanted = what or "a tuple of at least one size, without the batch axis"
    if (
        isinstance(input_shape, str)
        or not isinstance(input_shape, Sequence)
        or not len(input_shape)
        or (ranks is not None and len(input_shape) not in ranks)
    ):
        raise ValueError(f"input_shape must be {wanted}. Got {input_shape!r}.")
    for size in input_shape:
        check_positive_integer("Each size in input_shape", size)
    return tuple(int(size) for size in input_shape)
