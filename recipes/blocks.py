"""Blocks: functions that add a few layers to a tensor, out of which the models are made."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_practice.core.arguments import check_positive, check_positive_integer, check_share
from keras_practice.recipes.activations import initializer_for, resolve_activation
from keras_practice.recipes.regularization import NONE, Regularization


def dense_block(
    x: keras.KerasTensor,
    units: int,
    *,
    activation: str = "relu",
    batch_norm: bool = True,
    dropout: float = 0.0,
    regularization: Regularization = NONE,
    name: str,
) -> keras.KerasTensor:
    """Dense, batch normalisation, activation, dropout: the standard block.

    The dense layer has no bias under batch normalisation, whose own shift
    would cancel it. Its initial weights suit the activation, as in `initializer_for`.

    Args:
        x: Tensor of shape `(batch, ..., features)`.
        units: Width of the layer.
        activation: Name of an activation, such as `"relu"`. Defaults to `"relu"`.
        batch_norm: Whether to normalise before the activation. Defaults to `True`.
        dropout: Share of units dropped in training, in `[0, 1)`. 0.2 is a good
            first choice beside batch normalisation, 0.5 the strongest. SELU gets
            alpha dropout. Defaults to `0.0`.
        regularization: Penalties and constraints. Defaults to none.
        name: Prefix of the layers' names.

    Returns:
        Tensor of shape `(batch, ..., units)`.

    Raises:
        ValueError: If `units` is not a positive integer, `dropout` is outside
            `[0, 1)` or the activation is unknown.

    Source:
        A1, A2, A4, A5, A6; Ioffe and Szegedy 2015, He et al. 2015.
    """
    units = check_positive_integer("units", units)
    check_share("dropout", dropout)
    activate = resolve_activation(activation)
    x = keras.layers.Dense(
        units,
        use_bias=not batch_norm,
        kernel_initializer=initializer_for(activation),
        name=f"{name}_dense",
        **regularization.kernel_options(axis=0),
    )(x)
    if batch_norm:
        x = keras.layers.BatchNormalization(name=f"{name}_batch_norm")(x)
    x = activate(name=f"{name}_{activation}", **regularization.activity_options())(x)
    return _drop(x, dropout, activation, name=f"{name}_dropout")


def residual_dense_block(
    x: keras.KerasTensor,
    *,
    layers: int = 2,
    weight: float = 1.0,
    activation: str = "relu",
    dropout: float = 0.0,
    regularization: Regularization = NONE,
    name: str,
) -> keras.KerasTensor:
    """Dense layers around which the input skips, to be added to their output.

    Each layer is batch normalisation, activation, dropout, dense, in this order
    ("pre-activation"): nothing then stands in the way of the skip, neither
    forward nor for the gradient, and nets of a hundred layers train like short
    ones. The original order has a ReLU after each addition. What comes out of
    the last block still needs batch normalisation and an activation.

    The dense layers have no bias: every reader of the sum normalises it first.
    Dropout stands before every dense layer but the first, so that none falls on
    the skip or on a whole block.

    Args:
        x: Tensor of shape `(batch, ..., features)`.
        layers: Dense layers that are skipped, at least 1; 2 or 3 are usual.
            Defaults to `2`.
        weight: Variance of what the block adds at the start, relative to that of
            its normalised input, `> 0`. One over the number of blocks keeps the
            sum from growing with the depth, and the first predictions sane even
            where batch norm has no statistics yet. Defaults to `1.0`.
        activation: Name of an activation. Defaults to `"relu"`.
        dropout: Share of units dropped in training, in `[0, 1)`. Defaults to `0.0`.
        regularization: Penalties and constraints. Defaults to none.
        name: Prefix of the layers' names.

    Returns:
        Tensor of the same shape.

    Raises:
        ValueError: If `layers` is not a positive integer, `weight` is not
            positive, `dropout` is outside `[0, 1)` or the activation is unknown.

    Source:
        A7; He et al. 2016, "Deep residual learning" and "Identity mappings in
        deep residual networks"; Zagoruyko and Komodakis 2016 (the place of
        dropout), Radford et al. 2019, section 2.3 (the weight).
    """
    layers = check_positive_integer("layers", layers)
    check_positive("weight", weight)
    check_share("dropout", dropout)
    activate = resolve_activation(activation)
    skip, units = x, x.shape[-1]
    for number in range(1, layers + 1):
        x = keras.layers.BatchNormalization(name=f"{name}_batch_norm{number}")(x)
        x = activate(name=f"{name}_{activation}{number}", **regularization.activity_options())(x)
        if number > 1:
            x = _drop(x, dropout, activation, name=f"{name}_dropout{number}")
        suitable = initializer_for(activation)
        x = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(
                suitable.scale * (weight if number == layers else 1), suitable.mode, suitable.distribution
            ),
            name=f"{name}_dense{number}",
            **regularization.kernel_options(axis=0),
        )(x)
    return keras.layers.Add(name=f"{name}_add")([skip, x])


def maxout_block(
    x: keras.KerasTensor,
    units: int,
    *,
    pieces: int = 2,
    dropout: float = 0.0,
    regularization: Regularization = NONE,
    name: str,
) -> keras.KerasTensor:
    """Maxout, then dropout: each unit is the largest of several linear functions of the input.

    A unit so learns its own convex activation, piece by piece. The initial
    weights are scaled to keep the signal's size through the maximum, which
    grows with the number of pieces; with two they are LeCun-normal.

    Args:
        x: Tensor of shape `(batch, features)`.
        units: Width of the layer.
        pieces: Linear functions a unit, at least 2. Defaults to `2`.
        dropout: Share of units dropped in training, in `[0, 1)`. Defaults to `0.0`.
        regularization: Penalties and constraints; the norm is that of the weights
            into one piece. Defaults to none.
        name: Prefix of the layers' names.

    Returns:
        Tensor of shape `(batch, units)`.

    Raises:
        ValueError: If `units` is not a positive integer, `pieces` is not an
            integer of at least 2 or `dropout` is outside `[0, 1)`.

    Source:
        A14; Goodfellow et al. 2013, "Maxout networks".
    """
    units = check_positive_integer("units", units)
    pieces = check_pieces(pieces)
    check_share("dropout", dropout)
    x = keras.layers.Dense(
        units * pieces,
        kernel_initializer=keras.initializers.VarianceScaling(1 / _mean_square_of_maximum(pieces)),
        name=f"{name}_dense",
        **regularization.kernel_options(axis=0),
    )(x)
    x = keras.layers.Reshape((pieces, units), name=f"{name}_pieces")(x)
    x = keras.layers.GlobalMaxPooling1D(name=f"{name}_max", **regularization.activity_options())(x)
    return _drop(x, dropout, "maxout", name=f"{name}_dropout")


def check_pieces(pieces: int) -> int:
    """`pieces` as an `int`.

    Raises:
        ValueError: Unless it is an integer of at least 2.
    """
    pieces = check_positive_integer("pieces", pieces)
    if pieces < 2:
        raise ValueError(f"pieces must be at least 2; the largest of one is the layer itself. Got {pieces}.")
    return pieces


def _drop(x: keras.KerasTensor, dropout: float, activation: str, *, name: str) -> keras.KerasTensor:
    if not dropout:
        return x
    # SELU's zero is not its resting value; alpha dropout keeps mean and variance.
    layer = keras.layers.AlphaDropout if activation == "selu" else keras.layers.Dropout
    return layer(dropout, name=name)(x)


def _mean_square_of_maximum(count: int) -> float:
    """Mean square of the largest of `count` independent standard normal numbers."""
    z, step = np.linspace(-10, 10, 2001, retstep=True)
    below = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in z])
    density = count * below ** (count - 1) * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.sum(z**2 * density) * step)
