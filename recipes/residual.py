"""Residual networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras

from keras_practice.core.arguments import check_positive_integer
from keras_practice.data import Task
from keras_practice.recipes.activations import initializer_for
from keras_practice.recipes.catalog import recipe
from keras_practice.recipes.convolutional import check_image_shape, conv_block
from keras_practice.recipes.heads import head
from keras_practice.recipes.regularization import NONE, Regularization

# Depth: whether the blocks are bottlenecks of three layers, and blocks in each stage.
_IMAGENET: dict[int, tuple[bool, tuple[int, ...]]] = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


@recipe
def resnet(
    input_shape: Sequence[int],
    task: Task,
    depth: int = 20,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "resnet",
) -> keras.Model:
    """Residual network: blocks of two or three layers, each added to its own input.

    The depth decides the form. 18, 34, 50, 101 and 152 are the paper's networks
    for large images (ImageNet): a 7x7 convolution and pooling, four stages of 64
    to 512 filters, bottlenecks from 50 on, and a projection where the shape
    changes. Any other depth 6n + 2 is the form for small images (CIFAR): 20, 32,
    44, 56 and 110 in the paper, and 8, 14, 26 and so on by its rule; three
    stages of 16, 32 and 64 filters, and a shortcut without weights, padded with
    zeros where the filters double. 50 and 152 are 6n + 2 too, and mean the large
    form, the only one that the paper has of those depths.

    Bottlenecks halve the image in their 3x3 convolution, as is usual today, and
    not in the 1x1 before it, which would skip three quarters of its input.

    Args:
        input_shape: `(height, width, channels)` of one image: at least 4 x 4 for
            the small form and 32 x 32 for the large one, so that the last stage
            has a cell of its own.
        task: What is predicted; decides the output layer.
        depth: Number of layers with weights on the longest path. Defaults to `20`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. The paper's weight decay of 1e-4
            is `5e-5` here. Defaults to `0.0`.
        max_norm: Largest norm of the weights of one filter. Defaults to `None`,
            no limit.
        activity_l1: Factor of the L1 penalty on the output of each block's
            activations. Defaults to `0.0`.
        name: The model's name. Defaults to `"resnet"`.

    Returns:
        A functional model from `(batch, height, width, channels)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If there is no network of that depth (the message has the
            nearest), the image is too small or a number is outside its range;
            before any layer is built.

    Source:
        A7, A10; He et al. 2015, "Deep residual learning for image recognition",
        tables 1 and 6.
    """
    depth = check_positive_integer("depth", depth)
    if not _exists(depth):
        lower = next((d for d in range(depth, 0, -1) if _exists(d)), None)
        higher = next(d for d in itertools.count(depth) if _exists(d))
        nearest = f"{lower} and {higher}" if lower else f"{higher}"
        raise ValueError(
            f"depth must be 18, 34, 50, 101, 152 or 6n + 2; the nearest is {nearest}. Got {depth}."
        )
    large = depth in _IMAGENET
    input_shape = check_image_shape(input_shape, least=32 if large else 4, why=f"a resnet of depth {depth}")
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs = keras.Input(input_shape, name="input")
    if large:
        bottleneck, stages = _IMAGENET[depth]
        filters = 64
        x = conv_block(inputs, 64, kernel_size=7, strides=2, regularization=regularization, name="stem")
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    else:
        bottleneck, stages = False, ((depth - 2) // 6,) * 3
        filters = 16
        x = conv_block(inputs, 16, regularization=regularization, name="stem")
    for stage, blocks in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            x = residual_block(
                x,
                filters * 2 ** (stage - 1),
                strides=2 if stage > 1 and block == 1 else 1,
                bottleneck=bottleneck,
                project=large,
                regularization=regularization,
                name=f"stage{stage}_block{block}",
            )
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, head(x, task), name=name)


def residual_block(
    x: keras.KerasTensor,
    filters: int,
    *,
    strides: int = 1,
    bottleneck: bool = False,
    project: bool = True,
    regularization: Regularization = NONE,
    name: str,
) -> keras.KerasTensor:
    """Two 3x3 convolutions, or a bottleneck of three, added to their own input.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`.
        filters: Filters of the 3x3 convolutions.
        strides: Factor by which the block shrinks the image. Defaults to `1`.
        bottleneck: Whether the block is 1x1, 3x3 and a 1x1 convolution with four
            times the filters. Defaults to `False`, two 3x3.
        project: Whether a 1x1 convolution fits the shortcut where the shape
            changes (the paper's option B), or zeros beside its channels (option
            A, no weights, `channels` at most the block's). Defaults to `True`.
        regularization: Penalties and constraints. Defaults to none.
        name: Prefix of the layers' names.

    Returns:
        Tensor of shape `(batch, height / strides, width / strides, outputs)` with
        `filters` outputs, or four times as many from a bottleneck.

    Source:
        A7; He et al. 2015, figures 2 and 5.
    """
    shortcut, outputs = x, filters * (4 if bottleneck else 1)
    if bottleneck:
        x = conv_block(x, filters, kernel_size=1, regularization=regularization, name=f"{name}_narrow")
        x = conv_block(x, filters, strides=strides, regularization=regularization, name=f"{name}_middle")
        x = _conv_norm(x, outputs, 1, 1, regularization, f"{name}_widen")
    else:
        x = conv_block(x, filters, strides=strides, regularization=regularization, name=f"{name}_first")
        x = _conv_norm(x, outputs, 3, 1, regularization, f"{name}_second")
    if strides > 1 or shortcut.shape[-1] != outputs:
        if project:
            shortcut = _conv_norm(shortcut, outputs, 1, strides, regularization, f"{name}_shortcut")
        else:
            shortcut = _pad_channels(shortcut, outputs, strides, name)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.Activation("relu", name=f"{name}_relu", **regularization.activity_options())(x)


def _conv_norm(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int,
    regularization: Regularization,
    name: str,
) -> keras.KerasTensor:
    """A convolution with batch norm and no activation, which follows the addition."""
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=initializer_for("relu"),
        name=f"{name}_conv",
        **regularization.kernel_options(axis=(0, 1, 2)),
    )(x)
    return keras.layers.BatchNormalization(name=f"{name}_batch_norm")(x)


def _pad_channels(x: keras.KerasTensor, channels: int, strides: int, name: str) -> keras.KerasTensor:
    """Every `strides`-th pixel of `x`, with zeros for the channels that it lacks."""
    if strides > 1:
        x = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_shortcut_subsample")(x)
    # Under channels_first the layer takes the last two axes for height and width, so it pads the channels.
    padding = ((0, 0), (0, channels - x.shape[-1]))
    return keras.layers.ZeroPadding2D(padding, data_format="channels_first", name=f"{name}_shortcut_pad")(x)


def _exists(depth: int) -> bool:
    return depth in _IMAGENET or (depth >= 8 and depth % 6 == 2)
