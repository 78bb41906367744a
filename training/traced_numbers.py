"""Numbers of a model that differ from trial to trial, and how one graph serves them all.

A learning rate lives in a variable, so that a traced training step does not know its
value. Other numbers, such as a dropout rate or a weight decay, are plain Python numbers
that tracing turns into constants. While a step is traced, each of those that is known
to change is replaced by a `TracedNumber` number: to Python it is the number, to the graph it is
an input. As soon as the step is traced the plain numbers are back, so that whoever
looks at the model (a callback, `get_config`, `save`) sees this trial's own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_practice.core.layers import every_layer
from keras_practice.core.private_api.keras import learning_rate_schedule

_OPTIMIZERS = ("Adam", "AdamW", "Adamax", "Nadam", "SGD", "RMSprop", "Adagrad", "Adadelta", "Lion")
_OF_OPTIMIZER = (
    "weight_decay",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "momentum",
    "beta_1",
    "beta_2",
    "rho",
    "epsilon",
)
_OF_SCHEDULE = {
    "ExponentialDecay": ("initial_learning_rate", "decay_rate"),
    "InverseTimeDecay": ("initial_learning_rate", "decay_rate"),
    "PolynomialDecay": ("initial_learning_rate", "end_learning_rate"),
    "CosineDecay": ("initial_learning_rate", "alpha", "warmup_target"),
}
_OF_LAYER = {
    "Dropout": "rate",
    "SpatialDropout1D": "rate",
    "SpatialDropout2D": "rate",
    "SpatialDropout3D": "rate",
}
_REGULARIZERS = ("L2", "L1L2")  # L1 holds a tensor, which is part of the signature.


class TracedNumber(float):
    """A number that a graph takes as an input.

    Arithmetic with other Python numbers is done by the graph in float64, as Python
    would do it, and the result is rounded where it meets a tensor: just where
    TensorFlow rounds a Python number. So a graph gives the same bits as one in which
    the number is a constant.

    Args:
        value: The number while the graph is traced, for comparisons in Python.
        tensor: The same number as a float64 scalar of the graph.
    """

    dtype = float  # Keras promotes it as it promotes a Python number.
    tensor: tf.Tensor

    def __new__(cls, value: float, tensor: tf.Tensor) -> TracedNumber:  # noqa: D102
        held = super().__new__(cls, value)
        held.tensor = tensor
        return held

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        """The number as a tensor, which TensorFlow asks for as it makes constants of other numbers."""
        return tf.cast(self.tensor, dtype or tf.float32, name=name)

    def __neg__(self) -> TracedNumber:
        return TracedNumber(-float(self), -self.tensor)


def _arithmetic(act: Callable[[Any, Any], Any], reflected: bool) -> Callable[[TracedNumber, Any], Any]:
    def method(self: TracedNumber, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented  # A tensor takes the number in as it takes any other.
        tensor = other.tensor if isinstance(other, TracedNumber) else tf.constant(other, tf.float64)
        values, tensors = (float(self), float(other)), (self.tensor, tensor)
        if reflected:
            values, tensors = values[::-1], tensors[::-1]
        return TracedNumber(act(*values), act(*tensors))

    return method


for _name, _act in {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "pow": operator.pow,
}.items():
    setattr(TracedNumber, f"__{_name}__", _arithmetic(_act, reflected=False))
    setattr(TracedNumber, f"__r{_name}__", _arithmetic(_act, reflected=True))


@dataclass(frozen=True)
class NumberSlot:
    """Where a model has a number: an attribute of a layer, a regulariser, a schedule or the optimiser."""

    owner: Any
    attribute: str

    def get(self) -> float:
        """The number there."""
        return float(getattr(self.owner, self.attribute))

    def set(self, value: float) -> None:
        """Puts a number there."""
        # Not by setattr: a layer would track, and a frozen optimiser refuse, what is set.
        vars(self.owner)[self.attribute] = value


def places(model: keras.Model) -> list[NumberSlot]:
    """Every number of a compiled model that a graph can hold, in an order that depends on its structure.

    A zero, such as a rate without effect, changes what is computed and is no such number.
    """
    found: list[NumberSlot] = []

    def look(owner: Any, attributes: Sequence[str]) -> None:
        for attribute in attributes:
            value = vars(owner).get(attribute)
            if type(value) is float and value > 0 and NumberSlot(owner, attribute) not in found:
                found.append(NumberSlot(owner, attribute))

    for layer in every_layer(model):
        if (attribute := _OF_LAYER.get(_keras_name(layer, keras.layers))) is not None:
            look(layer, [attribute])
    for variable in model.trainable_variables:
        if _keras_name(variable.regularizer, keras.regularizers) in _REGULARIZERS:
            look(variable.regularizer, ("l1", "l2"))
    if _keras_name(model.optimizer, keras.optimizers) in _OPTIMIZERS:
        look(model.optimizer, _OF_OPTIMIZER)
    schedule = learning_rate_schedule(model.optimizer)
    if schedule is not None:
        look(schedule, _OF_SCHEDULE.get(_keras_name(schedule, keras.optimizers.schedules), ()))
    return found


@contextmanager
def held(at: Sequence[NumberSlot], tensors: Sequence[tf.Tensor]) -> Iterator[None]:
    """Within the block, in which a step is traced, the numbers are inputs of the graph."""
    values = [place.get() for place in at]
    for place, value, tensor in zip(at, values, tensors, strict=True):
        place.set(TracedNumber(value, tensor))
    try:
        yield
    finally:
        for place, value in zip(at, values, strict=True):
            place.set(value)


@contextmanager
def hidden(at: Sequence[NumberSlot]) -> Iterator[None]:
    """Within the block the numbers are all the same, so that a config does not tell them."""
    values = [place.get() for place in at]
    for place in at:
        place.set(0.5)
    try:
        yield
    finally:
        for place, value in zip(at, values, strict=True):
            place.set(value)


def _keras_name(owner: Any, home: Any) -> str:
    """The name of Keras's own class that this is an instance of, "" for anyone else's."""
    name = type(owner).__name__
    return name if getattr(home, name, None) is type(owner) else ""
