"""What is worth searching in each recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras_tuner

from keras_practice import recipes
from keras_practice.data import Dataset
from keras_practice.tuning.space.parameters import Choice, Parameter, Range, Space


def space(
    recipe: str,
    dataset: Dataset,
    *,
    wide: bool = True,
    learning_rate: tuple[float, float] = (1e-5, 1e-1),
) -> Space:
    """The space that suits a recipe and a data set.

    The wide space has widths and depth, dropout, penalties, batch norm where the
    recipe has a choice, the optimizer and the batch size (powers of two, up to an
    eighth of the training samples); networks are as deep as the images or
    sequences allow. The narrow one has the one or two hyperparameters that
    matter most. Both have the learning rate, whose logarithm is drawn evenly.

    Args:
        recipe: Name of a recipe.
        dataset: What it is trained on.
        wide: Whether to take the wide space. Defaults to `True`.
        learning_rate: Lowest and highest learning rate. Defaults to `(1e-5, 1e-1)`.

    Raises:
        ValueError: If the recipe is unknown, or the range is not positive and in order.

    Source:
        A25, A26, A54.
    """
    recipes.get(recipe)
    low, high = learning_rate
    parameters = _wide(recipe, dataset) if wide else _NARROW.get(recipe, {})
    return Space({**parameters, "learning_rate": Range(float(low), float(high), log=True)})


def builder_arguments(recipe: str, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Arguments of a recipe's builder, drawn from its narrow space.

    Args:
        recipe: Name of a recipe; one without a space of its own is searched over
            the learning rate alone.
        hp: KerasTuner's hyperparameters; the recipe's are added to it.

    Source:
        A25, A54.
    """
    recipes.get(recipe)
    return Space(_NARROW.get(recipe, {})).draw(hp)


def dataset_for(recipe: str, dataset: Dataset) -> Dataset:
    """The data set as a recipe learns from it: one that rebuilds its input has that as its target."""
    return dataset.rebuilding_input() if recipe == "autoencoder" else dataset


_DROPOUT = Range(0.0, 0.5, step=0.1)
_L2 = Range(1e-6, 1e-2, log=True)
_BATCH_NORM = Choice((True, False))
_TAPERING = Choice(((128, 64), (64,), (64, 32), (256, 128), (256, 128, 64), (512, 256)))

_NARROW: dict[str, dict[str, Parameter]] = {
    "linear": {"l2": _L2},
    "mlp": {"dropout": _DROPOUT},
    "residual_mlp": {"depth": Choice((10, 20, 40)), "dropout": Range(0.0, 0.25, step=0.05)},
    "selu_mlp": {"dropout": Choice((0.0, 0.05, 0.1))},
    "maxout_mlp": {"pieces": Choice((2, 3, 5)), "dropout": _DROPOUT},
    "low_rank_mlp": {"rank": Choice((4, 8, 16, 32)), "dropout": _DROPOUT},
    "lenet5": {"activation": Choice(("tanh", "relu")), "l2": _L2},
    "alexnet": {"batch_norm": Choice((False, True)), "dropout": _DROPOUT},
    "googlenet": {"batch_norm": Choice((False, True)), "dropout": _DROPOUT},
    "resnet": {"depth": Choice((8, 14, 20)), "l2": _L2},
    "convnet": {"filters": Choice(((16, 32, 64), (8, 16, 32), (32, 64, 128))), "dropout": _DROPOUT},
    "conv1d": {"filters": Choice(((64, 128), (32, 64))), "dropout": _DROPOUT},
    # Not recurrent dropout: the best model must load where there is Keras alone.
    "rnn": {
        "cell": Choice(("lstm", "gru")),
        "units": Choice(((64,), (32,), (64, 32))),
        "dropout": _DROPOUT,
    },
    "autoencoder": {"kind": Choice(("plain", "denoising")), "code": Choice((8, 16, 32))},
}

# Beside what follows from the data, in `_wide`.
_WIDE: dict[str, dict[str, Parameter]] = {
    "linear": {"l1": Range(1e-7, 1e-2, log=True)},
    "mlp": {"units": _TAPERING, "dropout": Range(0.0, 0.6), "batch_norm": _BATCH_NORM},
    "residual_mlp": {
        "depth": Choice((20, 10, 40, 60)),
        "units": Choice((64, 32, 128)),
        "dropout": Range(0.0, 0.3),
    },
    "selu_mlp": {
        "units": Choice(((128, 128, 64, 64), (64, 32), (64, 64, 32, 32), (128,) * 8)),
        "dropout": Range(0.0, 0.15),
    },
    "maxout_mlp": {
        "units": Choice(((128, 64), (64, 32), (256, 128))),
        "pieces": Choice((2, 3, 5)),
        "dropout": Range(0.0, 0.6),
    },
    "low_rank_mlp": {
        "units": Choice(((128, 64), (256, 128), (512, 256))),
        "rank": Choice((16, 4, 8, 32)),
        "dropout": Range(0.0, 0.6),
        "batch_norm": _BATCH_NORM,
    },
    "lenet5": {"activation": Choice(("tanh", "relu"))},
    "alexnet": {"batch_norm": _BATCH_NORM, "dropout": Range(0.0, 0.6)},
    "googlenet": {"batch_norm": _BATCH_NORM, "dropout": Range(0.0, 0.6)},
    "resnet": {"depth": Choice((20, 8, 14, 26))},
    "convnet": {
        "units": Choice((128, 64, 256)),
        "dropout": Range(0.0, 0.6),
        "batch_norm": _BATCH_NORM,
    },
    "conv1d": {
        "kernel_size": Choice((3, 5, 7)),
        "dropout": Range(0.0, 0.6),
        "batch_norm": _BATCH_NORM,
    },
    "rnn": {
        "cell": Choice(("lstm", "gru")),
        "units": Choice(((64,), (32,), (64, 32), (128,))),
        "bidirectional": Choice((False, True)),
        "dropout": Range(0.0, 0.5),
    },
    "autoencoder": {"kind": Choice(("plain", "denoising"))},
}


def _wide(recipe: str, dataset: Dataset) -> dict[str, Parameter]:
    shape, samples = dataset.input_shape, len(dataset.train)
    batches = [size for size in (64, 16, 32, 128, 256, 512) if size <= max(32, samples // 8)]
    parameters: dict[str, Parameter] = {}
    if recipe == "convnet":
        stacks = ((16, 32, 64), (8, 16, 32), (32, 64, 128), (16, 32), (32, 64), (16,), (32, 64, 128, 256))
        parameters["filters"] = _fitting(stacks, int(math.log2(min(shape[:2]))))
    elif recipe == "conv1d":
        pairs = ((64, 128), (32, 64), (32, 64, 128), (64,), (128,))
        parameters["filters"] = _fitting(pairs, 1 + int(math.log(shape[0]) / math.log(3) + 1e-9))
    elif recipe == "autoencoder":
        size = math.prod(shape)
        parameters["code"] = Choice(tuple(code for code in (8, 2, 4, 16, 32, 64) if code <= max(2, size)))
    parameters |= _WIDE.get(recipe, {})
    if recipe != "autoencoder":
        parameters["l2"] = _L2
    return {
        **parameters,
        "optimizer": Choice(("adam", "sgd", "rmsprop", "nadam")),
        "batch_size": Choice(tuple(batches)),
    }


def _fitting(stacks: Iterable[tuple[int, ...]], most_stages: int) -> Choice:
    """The stacks that an input of this size can go through; at least the one of a single stage."""
    stacks = tuple(stacks)
    kept = tuple(stack for stack in stacks if len(stack) <= most_stages)
    return Choice(kept or tuple(stack for stack in stacks if len(stack) == 1))
