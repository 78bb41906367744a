"""Convolutional blocks and networks for images and sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_practice.core.arguments import (
    check_input_shape,
    check_positive_integer,
    check_share,
    check_widths,
)
from keras_practice.data import Task
from keras_practice.recipes.activations import initializer_for, resolve_activation
from keras_practice.recipes.blocks import dense_block
from keras_practice.recipes.catalog import recipe
from keras_practice.recipes.heads import head
from keras_practice.recipes.regularization import NONE, Regularization

_CONVOLUTION = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
_SPATIAL_DROPOUT = {1: keras.layers.SpatialDropout1D, 2: keras.layers.SpatialDropout2D}


def check_image_shape(input_shape: Any, least: int, why: str) -> tuple[int, int, int]:
    """The shape of one image as `(height, width, channels)`.

    Args:
        input_shape: What the user gave, without the batch axis.
        least: Smallest height and width that the model works on.
        why: What needs that size, for the message, such as `"three poolings"`.

    Raises:
        ValueError: If the shape has no channel axis or is too small.
    """
    height, width, channels = check_input_shape(
        input_shape,
        ranks=(3,),
        what="(height, width, channels); add a channel axis to grey images, x[..., np.newaxis]",
    )
    if min(height, width) < least:
        raise ValueError(f"Images must be at least {least} x {least} for {why}. Got {height} x {width}.")
    return height, width, channels


def conv_block(
    x: keras.KerasTensor,
    filters: int,
    *,
    kernel_size: int = 3,
    strides: int = 1,
    padding: str = "same",
    groups: int = 1,
    activation: str = "relu",
    batch_norm: bool = True,
    dropout: float = 0.0,
    regularization: Regularization = NONE,
    name: str,
) -> keras.KerasTensor:
    """Convolution, batch normalisation, activation, dropout: the standard block for grids.

    The convolution is 1-D for sequences and 2-D for images. It has no bias under
    batch normalisation, whose own shift would cancel it. Its initial weights
    suit the activation, as in `dense_block`. Dropout takes whole feature maps
    (spatial dropout): single values can be guessed from their neighbours.

    Args:
        x: Tensor of shape `(batch, steps, channels)` or `(batch, height, width, channels)`.
        filters: Number of filters.
        kernel_size: Length or side of a filter. Defaults to `3`.
        strides: Step from one application to the next. Defaults to `1`.
        padding: `"same"`, zeros around the input so that stride 1 keeps its size,
            or `"valid"`, none. Defaults to `"same"`.
        groups: Number of groups of channels that do not see each other; divides
            the channels and the filters. Defaults to `1`.
        activation: Name of an activation. `"prelu"` has one slope a feature map.
            Defaults to `"relu"`.
        batch_norm: Whether to normalise before the activation. Defaults to `True`.
        dropout: Share of feature maps dropped in training, in `[0, 1)`. SELU gets
            alpha dropout. Defaults to `0.0`.
        regularization: Penalties and constraints; the norm is that of one filter.
            Defaults to none.
        name: Prefix of the layers' names.

    Returns:
        Tensor of shape `(batch, steps, filters)` or `(batch, height, width, filters)`.

    Raises:
        ValueError: If `x` is neither sequences nor images, a number is outside its
            range, or the activation or padding is unknown.

    Source:
        A1, A2, A4, A5, A6, A9; Ioffe and Szegedy 2015, He et al. 2015, Tompson et al. 2015
        (spatial dropout).
    """
    rank = len(x.shape) - 2
    if rank not in _CONVOLUTION:
        raise ValueError(
            "x must have shape (batch, steps, channels) or (batch, height, width, channels). "
            f"Got {tuple(x.shape)}."
        )
    filters = check_positive_integer("filters", filters)
    kernel_size = check_positive_integer("kernel_size", kernel_size)
    strides = check_positive_integer("strides", strides)
    groups = check_positive_integer("groups", groups)
    if filters % groups or x.shape[-1] % groups:
        raise ValueError(
            f"groups must divide the {x.shape[-1]} channels and the {filters} filters. Got {groups}."
        )
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid'. Got {padding!r}.")
    check_share("dropout", dropout)
    activate = resolve_activation(activation)
    x = _CONVOLUTION[rank](
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        groups=groups,
        use_bias=not batch_norm,
        kernel_initializer=initializer_for(activation),
        name=f"{name}_conv",
        **regularization.kernel_options(axis=tuple(range(rank + 1))),
    )(x)
    if batch_norm:
        x = keras.layers.BatchNormalization(name=f"{name}_batch_norm")(x)
    x = activate(name=f"{name}_{activation}", **regularization.activity_options())(x)
    if dropout:
        if activation == "selu":
            whole_maps = (None,) + (1,) * rank + (None,)
            layer = keras.layers.AlphaDropout(dropout, noise_shape=whole_maps, name=f"{name}_dropout")
        else:
            layer = _SPATIAL_DROPOUT[rank](dropout, name=f"{name}_dropout")
        x = layer(x)
    return x


@recipe
def convnet(
    input_shape: Sequence[int],
    task: Task,
    filters: Sequence[int] = (16, 32, 64),
    units: int = 128,
    dropout: float = 0.3,
    batch_norm: bool = True,
    activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "convnet",
) -> keras.Model:
    """The plain convolutional network for small images: the one to try first.

    For each entry of `filters` a 3x3 convolution with batch norm and 2x2 max
    pooling, which halves the image; then one dense block. For large images add
    stages rather than units, so that the dense block sees a small grid.

    Args:
        input_shape: `(height, width, channels)` of one image, each side at least
            2 to the power of the number of stages: 8 x 8 for three.
        task: What is predicted; decides the output layer.
        filters: Filters of each stage, which should grow from input to output.
            Defaults to `(16, 32, 64)`.
        units: Width of the dense block. Defaults to `128`.
        dropout: Share of units dropped in training before and after the dense
            block, in `[0, 1)`. Defaults to `0.3`.
        batch_norm: Whether to normalise before each activation. Defaults to `True`.
        activation: Hidden activation, by name. Defaults to `"relu"`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights of one filter or hidden unit.
            Defaults to `None`, no limit.
        activity_l1: Factor of the L1 penalty on activations. Defaults to `0.0`.
        name: The model's name. Defaults to `"convnet"`.

    Returns:
        A functional model from `(batch, height, width, channels)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range or the image is too small
            for the poolings; before any layer is built.

    Example:
        >>> from keras_practice import recipes
        >>> from keras_practice.data import Task
        >>> model = recipes.convnet((28, 28, 1), Task.multiclass(10))
        >>> model.output_shape
        (None, 10)

    Source:
        A1, A2, A4, A5, A6, A9, A11; LeCun et al. 1998, Ioffe and Szegedy 2015,
        Srivastava et al. 2014.
    """
    filters = check_widths("filters", filters)
    input_shape = check_image_shape(
        input_shape, least=2 ** len(filters), why=f"{len(filters)} poolings of 2 x 2"
    )
    units = check_positive_integer("units", units)
    check_share("dropout", dropout)
    resolve_activation(activation)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs = x = keras.Input(input_shape, name="input")
    for stage, width in enumerate(filters, start=1):
        x = conv_block(
            x,
            width,
            activation=activation,
            batch_norm=batch_norm,
            regularization=regularization,
            name=f"stage{stage}",
        )
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="flatten_dropout")(x)
    x = dense_block(
        x,
        units,
        activation=activation,
        batch_norm=batch_norm,
        dropout=dropout,
        regularization=regularization,
        name="top",
    )
    return keras.Model(inputs, head(x, task), name=name)


@recipe
def conv1d(
    input_shape: Sequence[int],
    task: Task,
    filters: Sequence[int] = (64, 128),
    kernel_size: int = 3,
    dropout: float = 0.5,
    batch_norm: bool = True,
    activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "conv1d",
) -> keras.Model:
    """1-D convolutions over a sequence, averaged over its steps.

    Two convolutions for each entry of `filters`, with max pooling by 3 between
    the pairs, then global average pooling and dropout. The lecture's example has
    no batch normalisation; here it is on, and `batch_norm=False` gives the
    lecture's.

    Args:
        input_shape: `(steps, channels)` of one sequence, at least
            `3 ** (len(filters) - 1)` steps: 3 for two pairs.
        task: What is predicted; decides the output layer.
        filters: Filters of each pair of convolutions. Defaults to `(64, 128)`:
            64, 64, pooling, 128, 128.
        kernel_size: Length of a filter in steps. Defaults to `3`.
        dropout: Share of the averaged features dropped in training, in `[0, 1)`.
            Defaults to `0.5`, the lecture's figure.
        batch_norm: Whether to normalise before each activation. Defaults to `True`.
        activation: Hidden activation, by name. Defaults to `"relu"`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights of one filter. Defaults to `None`,
            no limit.
        activity_l1: Factor of the L1 penalty on activations. Defaults to `0.0`.
        name: The model's name. Defaults to `"conv1d"`.

    Returns:
        A functional model from `(batch, steps, channels)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If an argument is outside its range or the sequence is too
            short for the pooling; before any layer is built.

    Source:
        A1, A2, A4, A5, A6, A12; Lin et al. 2014 (global average pooling).
    """
    steps, channels = check_input_shape(
        input_shape,
        ranks=(2,),
        what="(steps, channels); add a channel axis to plain sequences, x[..., np.newaxis]",
    )
    filters = check_widths("filters", filters)
    least = 3 ** (len(filters) - 1)
    if steps < least:
        raise ValueError(
            f"Sequences must have at least {least} steps for {len(filters) - 1} pooling(s) by 3. Got {steps}."
        )
    kernel_size = check_positive_integer("kernel_size", kernel_size)
    check_share("dropout", dropout)
    resolve_activation(activation)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs = x = keras.Input((steps, channels), name="input")
    for stage, width in enumerate(filters, start=1):
        if stage > 1:
            x = keras.layers.MaxPooling1D(3, name=f"stage{stage}_pool")(x)
        for number in (1, 2):
            x = conv_block(
                x,
                width,
                kernel_size=kernel_size,
                activation=activation,
                batch_norm=batch_norm,
                regularization=regularization,
                name=f"stage{stage}_block{number}",
            )
    x = keras.layers.GlobalAveragePooling1D(name="average")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="average_dropout")(x)
    return keras.Model(inputs, head(x, task), name=name)
