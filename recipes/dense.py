"""Dense networks for feature vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from keras_practice.core.arguments import (
    check_input_shape,
    check_positive_integer,
    check_share,
    check_widths,
)
from keras_practice.data import Task
from keras_practice.recipes.activations import resolve_activation
from keras_practice.recipes.blocks import check_pieces, dense_block, maxout_block, residual_dense_block
from keras_practice.recipes.catalog import recipe
from keras_practice.recipes.heads import head
from keras_practice.recipes.regularization import Regularization


@recipe
def linear(
    input_shape: Sequence[int],
    task: Task,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    name: str = "linear",
) -> keras.Model:
    """Linear, logistic or softmax regression, by the task: the baseline for every other model.

    Args:
        input_shape: Shape of one sample, such as `(30,)`. Images are flattened.
        task: What is predicted; decides the output layer.
        l1: Factor of the L1 penalty on weights ("lasso"). Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights ("ridge"). Defaults to `0.0`.
        max_norm: Largest norm of the weights into an output. Defaults to `None`,
            no limit.
        name: The model's name. Defaults to `"linear"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range; before any layer is built.

    Source:
        A4, A15, A55; Hastie, Tibshirani and Friedman 2009, chapters 3 and 4.
    """
    input_shape = check_input_shape(input_shape)
    regularization = Regularization(l1, l2, max_norm)
    inputs, x = _flat_input(input_shape)
    return keras.Model(inputs, head(x, task, regularization=regularization), name=name)


@recipe
def mlp(
    input_shape: Sequence[int],
    task: Task,
    units: Sequence[int] = (128, 64),
    dropout: float = 0.2,
    batch_norm: bool = True,
    activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "mlp",
) -> keras.Model:
    """The standard dense network: dense, batch norm, ReLU, dropout, in tapering widths.

    Args:
        input_shape: Shape of one sample, such as `(30,)`. Images are flattened.
        task: What is predicted; decides the output layer.
        units: Widths of the hidden layers, which should taper from input to
            output. Defaults to `(128, 64)`.
        dropout: Share of units dropped in training after each hidden layer, in
            `[0, 1)`. Defaults to `0.2`, a good first choice beside batch norm.
        batch_norm: Whether to normalise before each activation. Defaults to `True`.
        activation: Hidden activation, by name. Defaults to `"relu"`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights into a hidden unit. Defaults to
            `None`, no limit; the lecture's example has 2.0.
        activity_l1: Factor of the L1 penalty on hidden activations, for sparse
            ones. Defaults to `0.0`.
        name: The model's name. Defaults to `"mlp"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range; before any layer is built.

    Example:
        >>> from keras_practice import recipes
        >>> from keras_practice.data import Task
        >>> model = recipes.mlp((64,), Task.multiclass(10), units=(32,))
        >>> model.output_shape
        (None, 10)

    Source:
        A1, A2, A4, A5, A6, A11; Ioffe and Szegedy 2015, He et al. 2015, Srivastava et al. 2014.
    """
    input_shape = check_input_shape(input_shape)
    units = check_widths("units", units)
    check_share("dropout", dropout)
    resolve_activation(activation)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs, x = _flat_input(input_shape)
    for number, width in enumerate(units, start=1):
        x = dense_block(
            x,
            width,
            activation=activation,
            batch_norm=batch_norm,
            dropout=dropout,
            regularization=regularization,
            name=f"block{number}",
        )
    return keras.Model(inputs, head(x, task), name=name)


@recipe
def residual_mlp(
    input_shape: Sequence[int],
    task: Task,
    depth: int = 40,
    units: int = 64,
    layers_per_block: int = 2,
    dropout: float = 0.0,
    activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "residual_mlp",
) -> keras.Model:
    """A very deep dense network that trains all the same, because its blocks can be skipped.

    A dense layer to the width of the blocks, blocks of two or three dense layers
    with a skip around each, in the pre-activation order of `residual_dense_block`,
    then batch norm, activation and the output layer. The first and the last
    layer count, so that `depth = 2 + blocks * layers_per_block`.

    Args:
        input_shape: Shape of one sample, such as `(30,)`. Images are flattened.
        task: What is predicted; decides the output layer.
        depth: Layers with weights, such as 40, 60 or 110. Defaults to `40`.
        units: Width of every hidden layer. Defaults to `64`.
        layers_per_block: Dense layers that a skip goes around, 2 or 3. Defaults to `2`.
        dropout: Share of units dropped in training inside each block, in `[0, 1)`.
            Defaults to `0.0`; in many blocks, a little is much.
        activation: Hidden activation, by name. Defaults to `"relu"`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights into a hidden unit. Defaults to
            `None`, no limit.
        activity_l1: Factor of the L1 penalty on hidden activations, for sparse
            ones. Defaults to `0.0`.
        name: The model's name. Defaults to `"residual_mlp"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range, or no number of blocks
            gives `depth`; before any layer is built.

    Source:
        A1, A2, A7; He et al. 2016, "Deep residual learning" and "Identity mappings
        in deep residual networks".
    """
    input_shape = check_input_shape(input_shape)
    blocks = _number_of_blocks(depth, layers_per_block)
    units = check_positive_integer("units", units)
    check_share("dropout", dropout)
    activate = resolve_activation(activation)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs, x = _flat_input(input_shape)
    # Nothing but the blocks' batch norm reads this layer, so it has neither bias nor activation.
    x = keras.layers.Dense(
        units,
        use_bias=False,
        kernel_initializer="lecun_normal",
        name="stem_dense",
        **regularization.kernel_options(axis=0),
    )(x)
    for number in range(1, blocks + 1):
        x = residual_dense_block(
            x,
            layers=layers_per_block,
            weight=1 / blocks,
            activation=activation,
            dropout=dropout,
            regularization=regularization,
            name=f"block{number}",
        )
    x = keras.layers.BatchNormalization(name="last_batch_norm")(x)
    x = activate(name=f"last_{activation}", **regularization.activity_options())(x)
    return keras.Model(inputs, head(x, task), name=name)


@recipe
def selu_mlp(
    input_shape: Sequence[int],
    task: Task,
    units: Sequence[int] = (128, 128, 64, 64),
    dropout: float = 0.05,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "selu_mlp",
) -> keras.Model:
    """A self-normalising network: SELU keeps activations at mean 0 and variance 1 without batch norm.

    It holds where inputs are standardised, initial weights are LeCun-normal and
    dropout is alpha dropout. It suits small batches, on which batch norm is noisy.

    Args:
        input_shape: Shape of one sample, such as `(30,)`. Images are flattened.
        task: What is predicted; decides the output layer.
        units: Widths of the hidden layers. Defaults to `(128, 128, 64, 64)`.
        dropout: Share of units dropped in training after each hidden layer, in
            `[0, 1)`. Defaults to `0.05`; the paper has 0.05 or 0.1.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights into a hidden unit, which is 1 at the
            start. Defaults to `None`, no limit.
        activity_l1: Factor of the L1 penalty on hidden activations, for sparse
            ones. Defaults to `0.0`.
        name: The model's name. Defaults to `"selu_mlp"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range; before any layer is built.

    Source:
        A2, A8; Klambauer et al. 2017, "Self-normalizing neural networks".
    """
    return mlp(
        input_shape,
        task,
        units,
        dropout,
        batch_norm=False,
        activation="selu",
        l1=l1,
        l2=l2,
        max_norm=max_norm,
        activity_l1=activity_l1,
        name=name,
    )


@recipe
def maxout_mlp(
    input_shape: Sequence[int],
    task: Task,
    units: Sequence[int] = (128, 64),
    pieces: int = 2,
    dropout: float = 0.5,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "maxout_mlp",
) -> keras.Model:
    """A network whose units learn their own activation: the largest of several linear functions.

    Made for dropout, and without batch norm, as published. It has `pieces` times
    the weights of a dense network of the same widths.

    Args:
        input_shape: Shape of one sample, such as `(30,)`. Images are flattened.
        task: What is predicted; decides the output layer.
        units: Widths of the hidden layers. Defaults to `(128, 64)`.
        pieces: Linear functions a unit, at least 2; the paper has 5 in its dense
            network. Defaults to `2`.
        dropout: Share of units dropped in training after each hidden layer, in
            `[0, 1)`. Defaults to `0.5`, the paper's.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights into one piece of a unit. Defaults
            to `None`, no limit; the paper sets one.
        activity_l1: Factor of the L1 penalty on hidden activations, for sparse
            ones. Defaults to `0.0`.
        name: The model's name. Defaults to `"maxout_mlp"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range; before any layer is built.

    Source:
        A14; Goodfellow et al. 2013, "Maxout networks".
    """
    input_shape = check_input_shape(input_shape)
    units = check_widths("units", units)
    pieces = check_pieces(pieces)
    check_share("dropout", dropout)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs, x = _flat_input(input_shape)
    for number, width in enumerate(units, start=1):
        x = maxout_block(
            x, width, pieces=pieces, dropout=dropout, regularization=regularization, name=f"block{number}"
        )
    return keras.Model(inputs, head(x, task), name=name)


@recipe
def low_rank_mlp(
    input_shape: Sequence[int],
    task: Task,
    units: Sequence[int] = (128, 64),
    rank: int = 16,
    dropout: float = 0.2,
    batch_norm: bool = True,
    activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "low_rank_mlp",
) -> keras.Model:
    """The standard dense network with narrow linear layers between the wide ones, to save weights.

    A layer of m units on n features has n m weights; through a linear layer of r
    units it has r (n + m), and can do what a weight matrix of rank r does. Layers
    where that would save none, with `r >= n m / (n + m)`, are left whole.

    Args:
        input_shape: Shape of one sample, such as `(30,)`. Images are flattened.
        task: What is predicted; decides the output layer.
        units: Widths of the hidden layers. Defaults to `(128, 64)`.
        rank: Width of the narrow layers. Defaults to `16`.
        dropout: Share of units dropped in training after each wide layer, in
            `[0, 1)`. Defaults to `0.2`.
        batch_norm: Whether to normalise before each activation. Defaults to `True`.
        activation: Hidden activation, by name. Defaults to `"relu"`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights into a unit. Defaults to `None`, no
            limit.
        activity_l1: Factor of the L1 penalty on hidden activations, for sparse
            ones. Defaults to `0.0`.
        name: The model's name. Defaults to `"low_rank_mlp"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range, or `rank` saves weights in
            no layer; before any layer is built.

    Source:
        A14; Goodfellow, Bengio and Courville 2016, section 6.3.3.
    """
    input_shape = check_input_shape(input_shape)
    units = check_widths("units", units)
    rank = check_positive_integer("rank", rank)
    check_share("dropout", dropout)
    resolve_activation(activation)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    features = (math.prod(input_shape), *units)
    saving = [rank * (n + m) < n * m for n, m in zip(features, units, strict=False)]
    if not any(saving):
        limit = max(n * m / (n + m) for n, m in zip(features, units, strict=False))
        raise ValueError(f"rank must be below {limit:.4g} to save weights in any layer. Got {rank}.")
    inputs, x = _flat_input(input_shape)
    for number, (width, saves) in enumerate(zip(units, saving, strict=True), start=1):
        if saves:
            x = keras.layers.Dense(
                rank,
                use_bias=False,
                kernel_initializer="lecun_normal",
                name=f"block{number}_narrow",
                **regularization.kernel_options(axis=0),
            )(x)
        x = dense_block(
            x,
            width,
            activation=activation,
            batch_norm=batch_norm,
            dropout=dropout,
            regularization=regularization,
            name=f"block{number}",
        )
    return keras.Model(inputs, head(x, task), name=name)


def _flat_input(input_shape: tuple[int, ...]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """A model's input, and the same with one axis of features."""
    inputs = keras.Input(input_shape, name="input")
    return inputs, keras.layers.Flatten(name="flatten")(inputs) if len(input_shape) > 1 else inputs


def _number_of_blocks(depth: int, layers_per_block: int) -> int:
    depth = check_positive_integer("depth", depth)
    if layers_per_block not in (2, 3):
        raise ValueError(f"layers_per_block must be 2 or 3. Got {layers_per_block!r}.")
    blocks, rest = divmod(depth - 2, layers_per_block)
    if blocks < 1:
        raise ValueError(f"depth must be at least {2 + layers_per_block}, one block. Got {depth}.")
    if rest:
        below = depth - rest
        raise ValueError(
            f"depth must be 2 plus a multiple of layers_per_block, {layers_per_block}; "
            f"the nearest are {below} and {below + layers_per_block}. Got {depth}."
        )
    return int(blocks)
