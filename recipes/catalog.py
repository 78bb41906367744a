"""The recipes by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import keras

from keras_practice.data import Registry, Task

Builder = Callable[..., keras.Model]
B = TypeVar("B", bound=Builder)

_RECIPES: Registry[Builder] = Registry("recipe")


def recipe(builder: B) -> B:
    """Decorator that lists a builder `(input_shape, task, ..., name=...)` as a recipe.

    Whatever else a builder checks, `task` must be a `Task` before it starts.
    """

    @functools.wraps(builder)
    def checked(input_shape: Any, task: Any, *args: Any, **kwargs: Any) -> keras.Model:
        if not isinstance(task, Task):
            raise ValueError(f"task must be a data.Task, such as Task.infer(y). Got {task!r}.")
        return builder(input_shape, task, *args, **kwargs)

    _RECIPES.add(builder.__name__, checked)
    return cast(B, checked)


def names() -> tuple[str, ...]:
    """Names of all recipes."""
    return _RECIPES.names()


def get(name: str) -> Builder:
    """The builder called `name`.

    Raises:
        ValueError: If there is none; the message has the nearest name.
    """
    return _RECIPES.get(name)
