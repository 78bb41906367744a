"""The recipes by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import keras

from keras_practice.data import Registry

Builder = Callable[..., keras.Model]
B = TypeVar("B", bound=Builder)

_RECIPES: Registry[Builder] = Registry("recipe")


def recipe(builder: B) -> B:
    """Decorator that lists a builder `(input_shape, task, ..., name=...)` as a recipe."""
    _RECIPES.add(builder.__name__, builder)
    return builder


def names() -> tuple[str, ...]:
    """Names of all recipes."""
    return _RECIPES.names()


def get(name: str) -> Builder:
    """The builder called `name`.

    Raises:
        ValueError: If there is none; the message has the nearest name.
    """
    return _RECIPES.get(name)
