"""Activations by name, and the initial weights that suit each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras

from keras_practice.data import Registry

Activate = Callable[[keras.KerasTensor], keras.KerasTensor]

_HE = ("relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "relu6")
_LECUN = ("selu", "abs")
_GLOROT = ("tanh", "sigmoid", "softplus", "softsign", "hard_sigmoid", "linear")


def _absolute(name: str, **options: Any) -> Activate:
    # Activation(keras.ops.absolute) saves and does not load; a registered function would load
    # only where this package is imported. Of Keras's own layers, max(x, -x) is the absolute value.
    def activate(x: keras.KerasTensor) -> keras.KerasTensor:
        negative = keras.layers.Rescaling(-1.0, name=f"{name}_negative")(x)
        return keras.layers.Maximum(name=name, **options)([x, negative])

    return activate


def _prelu(name: str, shared_axes: Sequence[int] | None = None, **options: Any) -> Activate:
    # One slope a channel, as in the paper. Keras would learn one for every position, and so
    # could not take images or sequences of more than one size.
    def activate(x: keras.KerasTensor) -> keras.KerasTensor:
        positions = range(1, len(x.shape) - 1) if shared_axes is None else shared_axes
        return keras.layers.PReLU(
            alpha_initializer=keras.initializers.Constant(0.25),
            shared_axes=list(positions) or None,
            name=name,
            **options,
        )(x)

    return activate


_ACTIVATIONS: Registry[Callable[..., Activate]] = Registry("activation")
for _name in _HE + _LECUN + _GLOROT:
    if _name == "prelu":
        _ACTIVATIONS.add(_name, _prelu)
    elif _name == "abs":
        _ACTIVATIONS.add(_name, _absolute)
    else:
        _ACTIVATIONS.add(_name, partial(keras.layers.Activation, _name))


def names() -> tuple[str, ...]:
    """Names of the activations that the blocks take."""
    return _ACTIVATIONS.names()


def resolve_activation(name: str) -> Callable[..., Activate]:
    """The activation called `name`: a function of `name=...` that gives a function of a tensor.

    `"leaky_relu"` has Keras's slope of 0.2 for negative values; `"prelu"` learns
    one slope a channel and starts at 0.25, as in the paper.

    Raises:
        ValueError: If there is no such activation.

    Source:
        A14; Maas et al. 2013 (leaky ReLU), He et al. 2015 (PReLU), Jarrett et
        al. 2009 (absolute value).
    """
    return _ACTIVATIONS.get(name)


def initializer_for(activation: str) -> keras.initializers.Initializer:
    """Initial weights that keep the signal's size through this activation.

    He-normal for ReLU and its relatives, which lose half of the signal;
    LeCun-normal for SELU and the absolute value, which lose none; Glorot-uniform
    for the others.

    Raises:
        ValueError: If there is no such activation.

    Source:
        A2; He et al. 2015, Klambauer et al. 2017, Glorot and Bengio 2010.
    """
    resolve_activation(activation)
    if activation in _HE:
        return keras.initializers.HeNormal()
    if activation in _LECUN:
        return keras.initializers.LecunNormal()
    return keras.initializers.GlorotUniform()
