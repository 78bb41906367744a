"""What is worth searching in each recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras_tuner

from keras_practice import recipes
from keras_practice.data import Dataset

_Draw = Callable[[keras_tuner.HyperParameters], dict[str, Any]]


@dataclass(frozen=True)
class _Space:
    """A recipe's hyperparameters beside the learning rate.

    Attributes:
        draw: Arguments of the builder, drawn from KerasTuner's hyperparameters.
        rebuilds_input: Whether the recipe learns to give its input back.
    """

    draw: _Draw = lambda hp: {}
    rebuilds_input: bool = False


def _widths(hp: keras_tuner.HyperParameters, name: str, choices: tuple[str, ...]) -> tuple[int, ...]:
    """Widths of a stack, chosen as text, since KerasTuner's choices are single values."""
    return tuple(int(width) for width in hp.Choice(name, list(choices), default=choices[0]).split("-"))


def _dropout(hp: keras_tuner.HyperParameters, high: float = 0.5) -> float:
    return float(hp.Float("dropout", 0.0, high, step=high / 5))


def _l2(hp: keras_tuner.HyperParameters) -> float:
    return float(hp.Float("l2", 1e-6, 1e-2, sampling="log"))


_SPACES: dict[str, _Space] = {
    "linear": _Space(lambda hp: {"l2": _l2(hp)}),
    "mlp": _Space(lambda hp: {"dropout": _dropout(hp)}),
    "residual_mlp": _Space(
        lambda hp: {"depth": hp.Choice("depth", [10, 20, 40]), "dropout": _dropout(hp, high=0.25)}
    ),
    "selu_mlp": _Space(lambda hp: {"dropout": hp.Choice("dropout", [0.0, 0.05, 0.1])}),
    "maxout_mlp": _Space(lambda hp: {"pieces": hp.Choice("pieces", [2, 3, 5]), "dropout": _dropout(hp)}),
    "low_rank_mlp": _Space(lambda hp: {"rank": hp.Choice("rank", [4, 8, 16, 32]), "dropout": _dropout(hp)}),
    "lenet5": _Space(lambda hp: {"activation": hp.Choice("activation", ["tanh", "relu"]), "l2": _l2(hp)}),
    "alexnet": _Space(lambda hp: {"batch_norm": hp.Boolean("batch_norm"), "dropout": _dropout(hp)}),
    "googlenet": _Space(lambda hp: {"batch_norm": hp.Boolean("batch_norm"), "dropout": _dropout(hp)}),
    "resnet": _Space(lambda hp: {"depth": hp.Choice("depth", [8, 14, 20]), "l2": _l2(hp)}),
    "convnet": _Space(
        lambda hp: {
            "filters": _widths(hp, "filters", ("16-32-64", "8-16-32", "32-64-128")),
            "dropout": _dropout(hp),
        }
    ),
    "conv1d": _Space(
        lambda hp: {"filters": _widths(hp, "filters", ("64-128", "32-64")), "dropout": _dropout(hp)}
    ),
    "rnn": _Space(
        lambda hp: {
            "cell": hp.Choice("cell", ["lstm", "gru"]),
            "units": _widths(hp, "units", ("64", "32", "64-32")),
            # Not recurrent dropout: the best model must load where there is Keras alone.
            "dropout": _dropout(hp),
        }
    ),
    "autoencoder": _Space(
        lambda hp: {
            "kind": hp.Choice("kind", ["plain", "denoising"]),
            "code": hp.Choice("code", [8, 16, 32]),
        },
        rebuilds_input=True,
    ),
}


def builder_arguments(recipe: str, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Arguments of a recipe's builder, drawn from the space that suits it.

    Args:
        recipe: Name of a recipe; one without a space of its own is searched over
            the learning rate alone.
        hp: KerasTuner's hyperparameters; the recipe's are added to it.

    Source:
        A25, A54.
    """
    recipes.get(recipe)
    return _SPACES.get(recipe, _Space()).draw(hp)


def dataset_for(recipe: str, dataset: Dataset) -> Dataset:
    """The data set as a recipe learns from it: one that rebuilds its input has that as its target."""
    return dataset.rebuilding_input() if _SPACES.get(recipe, _Space()).rebuilds_input else dataset
