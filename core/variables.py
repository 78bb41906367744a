"""A model's variables: all of them, copies of their values, and giving these back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.types import Array


def all_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables of a model and of its optimiser, if it has one; metrics' are not among them.

    A model's own are its weights, statistics such as batch norm's, and the states of its seed
    generators.
    """
    optimizer = getattr(model, "optimizer", None)
    return [*model.variables, *(optimizer.variables if optimizer is not None else ())]


class Snapshot:
    """The values that some variables had at one moment, copied.

    Args:
        variables: Variables of Keras or TensorFlow, each with its value.
    """

    def __init__(self, variables: Iterable[Any]) -> None:
        self._variables = list(variables)
        self._values: list[Array] = [np.array(variable.numpy()) for variable in self._variables]

    def restore(self) -> None:
        """Gives the variables these values again."""
        assign(self._variables, self._values)

    def holds(self) -> bool:
        """Whether the variables have these values still; one that is NaN never does."""
        return all(
            np.array_equal(value, np.array(variable.numpy()))
            for variable, value in zip(self._variables, self._values, strict=True)
        )


def snapshot(variables: Iterable[Any]) -> Snapshot:
    """The values that some variables have now, to be given back by `restore()`."""
    return Snapshot(variables)


@contextmanager
def restored(variables: Iterable[Any]) -> Iterator[None]:
    """Gives variables back, at the end of the block, the values that they have now."""
    before = snapshot(variables)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def preserved(model: keras.Model, inputs: Any = None) -> Iterator[keras.Model]:
    """Lends a model's variables: weights, batch-norm statistics and random seeds are put back.

    So is the random state of Python and NumPy, from which Keras draws the seeds of new layers.

    A model that waits for its first batch is built, as `fit` would build it, where inputs are
    given. The optimiser and the compiled metrics are not lent; a borrower brings its own.
    """
    if not model.built and inputs is not None:
        model(inputs, training=False)
    with restored(model.variables):  # Those of seed generators included; metrics' are not among them.
        python, legacy = random.getstate(), np.random.get_state()
        try:
            yield model
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def assign(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """Gives each variable its value.

    Raises:
        ValueError: If there is not one value a variable, or one does not suit.
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def assign_unchecked(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """The same past Keras's checks, which take longer than the work; for values that surely suit.

    Args:
        variables: Variables of Keras or TensorFlow.
        values: A tensor, array or variable of the same shape and type for each.
    """
    for variable, value in zip(variables, values, strict=True):
        _tensorflows(variable).assign(value, read_value=False)


def read_values(variables: Iterable[Any]) -> list[tf.Tensor]:
    """The values of variables as tensors, on the device where they are, which later training leaves alone."""
    found = map(_tensorflows, variables)
    # Not `read_value`, which takes several times as long.
    return [tf.raw_ops.ReadVariableOp(resource=each.handle, dtype=each.dtype) for each in found]


def _tensorflows(variable: Any) -> tf.Variable:
    """TensorFlow's variable in one of Keras's."""
    return variable.value if isinstance(variable, keras.Variable) else variable
