"""Copies of a model's optimisers, in their place while the model's own step is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_practice.checks.trials.train_loop import ScaledRate, copied
from keras_practice.core.layers import all_layers
from keras_practice.core.steps import innermost
from keras_practice.core.variables import assign, restored


class CannotLendError(Exception):
    """An optimiser that cannot be copied; its message says which."""


class LentOptimizers:
    """Copies of all optimisers that a model or a part of it holds, in attributes, lists and dictionaries.

    Args:
        model: The model, compiled.

    Raises:
        CannotLendError: If one of them cannot be copied.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.factor = tf.Variable(1.0, trainable=False)
        self._copies: dict[int, Any] = {}
        self._built: list[tuple[Any, Any, list[Any]]] = []
        self._places: list[tuple[dict[str, Any], str, Any, Any]] = []
        for holder in all_layers(model):
            attributes = vars(holder)
            for name, value in list(attributes.items()):
                if _holds_optimizer(value):
                    self._places.append((attributes, name, value, self._in_place_of(value)))

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within the block the copies stand in; numbers, lists and variables of the model are put back."""
        attributes = vars(self.model)
        plain = {
            name: value
            for name, value in attributes.items()
            if name != "built" and not name.startswith("_") and isinstance(value, (bool, int, float, str))
        }
        loose = [value for value in attributes.values() if isinstance(value, tf.Variable)]
        lists = [(value, list(value)) for value in attributes.values() if isinstance(value, list)]
        for holder, name, _, copy in self._places:
            holder[name] = copy
        try:
            with restored([*loose, *self.model.metrics_variables]):
                yield
        finally:
            for holder, name, value, _ in self._places:
                holder[name] = value
            attributes.update(plain)
            for value, before in lists:  # A step that runs eagerly may write down what it sees.
                if len(value) > len(before):
                    del value[len(before) :]

    def restart(self) -> None:
        """Lets the copies that have taken a step begin anew."""
        for optimizer, copy, variables in self._built:
            fresh, rate = copied(optimizer) or (copy, None)
            innermost(fresh).learning_rate = ScaledRate(rate, self.factor)
            fresh.build(variables)
            assign(copy.variables, [variable.numpy() for variable in fresh.variables])

    def _in_place_of(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._in_place_of(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._in_place_of(part) for part in value]
        return self._copy(value) if isinstance(value, keras.optimizers.Optimizer) else value

    def _copy(self, optimizer: Any) -> Any:
        if id(optimizer) not in self._copies:
            found = copied(optimizer)
            if found is None:
                kind = type(optimizer).__name__
                raise CannotLendError(f"{kind} cannot be made anew from its get_config().")
            copy, rate = found
            innermost(copy).learning_rate = ScaledRate(rate, self.factor)
            build = copy.build

            def build_and_remember(variables: Any) -> None:
                build(variables)
                self._built.append((optimizer, copy, list(variables)))

            vars(copy)["build"] = build_and_remember
            self._copies[id(optimizer)] = copy
        return self._copies[id(optimizer)]


def _holds_optimizer(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_optimizer, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_optimizer, value))
    return isinstance(value, keras.optimizers.Optimizer)
