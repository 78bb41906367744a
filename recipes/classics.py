"""The milestones of image classification: LeNet-5, AlexNet and GoogLeNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_practice.core.arguments import check_share
from keras_practice.data import Task
from keras_practice.recipes.activations import resolve_activation
from keras_practice.recipes.blocks import dense_block
from keras_practice.recipes.catalog import recipe
from keras_practice.recipes.convolutional import check_image_shape, conv_block
from keras_practice.recipes.heads import head
from keras_practice.recipes.regularization import Regularization


@recipe
def lenet5(
    input_shape: Sequence[int],
    task: Task,
    activation: str = "tanh",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "lenet5",
) -> keras.Model:
    """LeNet-5, which read the digits on cheques: two convolutions and three dense layers.

    61,706 parameters on 32 x 32 x 1 with ten classes. It differs from the paper
    in four places: the second convolution sees all six maps, not a chosen few;
    pooling is a plain average, without a weight and a bias a map; tanh is not
    stretched to 1.7159 tanh(2x/3); and the output layer suits the task, in place
    of distances to drawn digits.

    Args:
        input_shape: `(height, width, channels)` of one image, at least 28 x 28.
            The paper pads MNIST's 28 x 28 to 32 x 32; here the first convolution
            pads images with a side below 32.
        task: What is predicted; decides the output layer.
        activation: Hidden activation, by name. Defaults to `"tanh"`, the paper's.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights of one filter or hidden unit.
            Defaults to `None`, no limit.
        activity_l1: Factor of the L1 penalty on activations. Defaults to `0.0`.
        name: The model's name. Defaults to `"lenet5"`.

    Returns:
        A functional model from `(batch, height, width, channels)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If the image is too small or an argument is outside its range;
            before any layer is built.

    Source:
        A10; LeCun et al. 1998, "Gradient-based learning applied to document recognition".
    """
    input_shape = check_image_shape(input_shape, least=28, why="lenet5")
    resolve_activation(activation)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs = x = keras.Input(input_shape, name="input")
    for number, filters in enumerate((6, 16), start=1):
        x = conv_block(
            x,
            filters,
            kernel_size=5,
            padding="same" if number == 1 and min(input_shape[:2]) < 32 else "valid",
            activation=activation,
            batch_norm=False,
            regularization=regularization,
            name=f"stage{number}",
        )
        x = keras.layers.AveragePooling2D(2, name=f"stage{number}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate((120, 84), start=1):
        x = dense_block(
            x,
            units,
            activation=activation,
            batch_norm=False,
            regularization=regularization,
            name=f"top{number}",
        )
    return keras.Model(inputs, head(x, task), name=name)


class _AlexNet(NamedTuple):
    kernel_size: int
    strides: int
    padding: str
    filters: tuple[int, int, int, int, int]
    units: int
    least: int


_ALEXNET = {
    "full": _AlexNet(11, 4, "valid", (96, 256, 384, 384, 256), 4096, least=67),
    "small": _AlexNet(5, 1, "same", (48, 128, 192, 192, 128), 512, least=15),
}


@recipe
def alexnet(
    input_shape: Sequence[int],
    task: Task,
    variant: str = "full",
    groups: bool = False,
    dropout: float = 0.5,
    batch_norm: bool = False,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "alexnet",
) -> keras.Model:
    """AlexNet, which won ImageNet 2012: five convolutions and three dense layers.

    62,378,344 parameters on 227 x 227 x 3 with 1,000 classes, 60,965,224 with
    `groups`. The paper says 224 x 224, which its own 55 x 55 first layer
    contradicts. Local response normalisation is left out, as later work found no
    use in it; initial weights are He-normal, not of one size for all layers.

    Args:
        input_shape: `(height, width, channels)` of one image: at least 67 x 67
            for the full variant and 15 x 15 for the small one.
        task: What is predicted; decides the output layer.
        variant: `"full"`, or `"small"` for small images such as 32 x 32, which is
            not in the paper: a first convolution of 5x5 and stride 1, half the
            filters and dense layers of 512 units. Defaults to `"full"`.
        groups: Whether the second, fourth and fifth convolution see only half of
            the channels each, as the paper split them over two GPUs. Defaults to
            `False`.
        dropout: Share of units dropped in training after each hidden dense layer, in
            `[0, 1)`. Defaults to `0.5`, the paper's.
        batch_norm: Whether to normalise before each activation, which the paper
            predates. Defaults to `False`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights of one filter or hidden unit.
            Defaults to `None`, no limit.
        activity_l1: Factor of the L1 penalty on activations. Defaults to `0.0`.
        name: The model's name. Defaults to `"alexnet"`.

    Returns:
        A functional model from `(batch, height, width, channels)` to `(batch, task.outputs)`.

    Raises:
        ValueError: If the variant is unknown, the image is too small for it or a
            number is outside its range; before any layer is built.

    Source:
        A10; Krizhevsky et al. 2012, "ImageNet classification with deep convolutional
        neural networks"; Simonyan and Zisserman 2015 (no use in response normalisation).
    """
    if variant not in _ALEXNET:
        raise ValueError(f"variant must be one of {', '.join(_ALEXNET)}. Got {variant!r}.")
    sizes = _ALEXNET[variant]
    hint = "; variant='small' takes 15 x 15" if variant == "full" else ""
    input_shape = check_image_shape(input_shape, least=sizes.least, why=f"the {variant} alexnet{hint}")
    check_share("dropout", dropout)
    regularization = Regularization(l1, l2, max_norm, activity_l1)
    inputs = x = keras.Input(input_shape, name="input")
    for number, (filters, kernel_size) in enumerate(
        zip(sizes.filters, (sizes.kernel_size, 5, 3, 3, 3), strict=True), start=1
    ):
        x = conv_block(
            x,
            filters,
            kernel_size=kernel_size,
            strides=sizes.strides if number == 1 else 1,
            padding=sizes.padding if number == 1 else "same",
            groups=2 if groups and number in (2, 4, 5) else 1,
            batch_norm=batch_norm,
            regularization=regularization,
            name=f"stage{number}",
        )
        if number in (1, 2, 5):
            x = keras.layers.MaxPooling2D(3, strides=2, name=f"stage{number}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = dense_block(
            x,
            sizes.units,
            batch_norm=batch_norm,
            dropout=dropout,
            regularization=regularization,
            name=f"top{number}",
        )
    return keras.Model(inputs, head(x, task), name=name)


class _Inception(NamedTuple):
    """Filters of the four branches; `reduce` is the 1x1 convolution before a large one."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int


# Table 1 of the paper; max pooling between the stages.
_GOOGLENET = {
    "stage3": {
        "a": _Inception(64, 96, 128, 16, 32, 32),
        "b": _Inception(128, 128, 192, 32, 96, 64),
    },
    "stage4": {
        "a": _Inception(192, 96, 208, 16, 48, 64),
        "b": _Inception(160, 112, 224, 24, 64, 64),
        "c": _Inception(128, 128, 256, 24, 64, 64),
        "d": _Inception(112, 144, 288, 32, 64, 64),
        "e": _Inception(256, 160, 320, 32, 128, 128),
    },
    "stage5": {
        "a": _Inception(256, 160, 320, 32, 128, 128),
        "b": _Inception(384, 192, 384, 48, 128, 128),
    },
}
_AUXILIARY = {"stage4a": "auxiliary1", "stage4d": "auxiliary2"}


@recipe
def googlenet(
    input_shape: Sequence[int],
    task: Task,
    dropout: float = 0.4,
    batch_norm: bool = False,
    auxiliary: bool = False,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    activity_l1: float = 0.0,
    name: str = "googlenet",
) -> keras.Model:
    """GoogLeNet, which won ImageNet 2014: nine inception blocks, and few parameters.

    6,998,552 parameters on 224 x 224 x 3 with 1,000 classes. Local response
    normalisation is left out, as later work found no use in it.

    Args:
        input_shape: `(height, width, channels)` of one image: at least 32 x 32, so
            that the last stage has a cell of its own, and 65 x 65 with auxiliary
            outputs, whose 5x5 pooling needs as many cells.
        task: What is predicted; decides the output layers.
        dropout: Share of features dropped in training before the output, in
            `[0, 1)`. Defaults to `0.4`, the paper's.
        batch_norm: Whether to normalise before each activation, which came a year
            after the paper and makes the network far easier to train. Defaults to
            `False`.
        auxiliary: Whether to add the paper's two outputs half way, which strengthen
            the gradient in training. The model then returns a dictionary with
            the keys `"output"`, `"auxiliary1"` and `"auxiliary2"`. Defaults to
            `False`.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights of one filter or hidden unit.
            Defaults to `None`, no limit.
        activity_l1: Factor of the L1 penalty on activations. Defaults to `0.0`.
        name: The model's name. Defaults to `"googlenet"`.

    Returns:
        A functional model from `(batch, height, width, channels)` to `(batch, task.outputs)`,
        or to a dictionary of three such tensors.

    Raises:
        ValueError: If the image is too small or a number is outside its range;
            before any layer is built.

    Example:
        With auxiliary outputs, whose losses count 0.3 each in the paper:

        >>> import keras
        >>> from keras_practice import recipes
        >>> from keras_practice.data import Task
        >>> task = Task.multiclass(10)
        >>> model = recipes.googlenet((96, 96, 3), task, auxiliary=True)
        >>> weights = {"output": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}
        >>> model = recipes.compile_for(
        ...     model,
        ...     task,
        ...     loss={output: recipes.loss_for(task) for output in weights},
        ...     loss_weights=weights,
        ...     metrics={"output": recipes.metrics_for(task)},
        ... )
        >>> # model.fit(x, {output: y for output in weights}), and then, to predict:
        >>> trained = keras.Model(model.input, model.output["output"])

    Source:
        A10; Szegedy et al. 2014, "Going deeper with convolutions", table 1;
        Ioffe and Szegedy 2015 (batch norm).
    """
    input_shape = check_image_shape(
        input_shape,
        least=65 if auxiliary else 32,
        why=f"googlenet{' with auxiliary outputs' if auxiliary else ''}",
    )
    check_share("dropout", dropout)
    regularization = Regularization(l1, l2, max_norm, activity_l1)

    def conv(
        x: keras.KerasTensor, filters: int, kernel_size: int, name: str, strides: int = 1
    ) -> keras.KerasTensor:
        return conv_block(
            x,
            filters,
            kernel_size=kernel_size,
            strides=strides,
            batch_norm=batch_norm,
            regularization=regularization,
            name=name,
        )

    def pool(x: keras.KerasTensor, name: str, strides: int = 2) -> keras.KerasTensor:
        return keras.layers.MaxPooling2D(3, strides=strides, padding="same", name=f"{name}_pool")(x)

    def inception(x: keras.KerasTensor, sizes: _Inception, name: str) -> keras.KerasTensor:
        one = conv(x, sizes.one, 1, f"{name}_one")
        three = conv(conv(x, sizes.reduce_three, 1, f"{name}_reduce_three"), sizes.three, 3, f"{name}_three")
        five = conv(conv(x, sizes.reduce_five, 1, f"{name}_reduce_five"), sizes.five, 5, f"{name}_five")
        pooled = conv(pool(x, name, strides=1), sizes.pool, 1, f"{name}_pooled")
        return keras.layers.Concatenate(name=f"{name}_concatenate")([one, three, five, pooled])

    def side_output(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = keras.layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
        x = keras.layers.Flatten(name=f"{name}_flatten")(conv(x, 128, 1, name))
        x = dense_block(
            x, 1024, batch_norm=batch_norm, dropout=0.7, regularization=regularization, name=f"{name}_top"
        )
        return head(x, task, name=name)

    inputs = keras.Input(input_shape, name="input")
    x = pool(conv(inputs, 64, 7, "stage1", strides=2), "stage1")
    x = conv(x, 64, 1, "stage2_reduce")
    x = pool(conv(x, 192, 3, "stage2"), "stage2")
    outputs = {}
    for stage, blocks in _GOOGLENET.items():
        if stage != "stage3":
            x = pool(x, f"before_{stage}")
        for letter, sizes in blocks.items():
            block = f"{stage}{letter}"
            x = inception(x, sizes, block)
            if auxiliary and block in _AUXILIARY:
                outputs[_AUXILIARY[block]] = side_output(x, _AUXILIARY[block])
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="average_dropout")(x)
    outputs["output"] = head(x, task)
    return keras.Model(inputs, outputs if auxiliary else outputs["output"], name=name)
