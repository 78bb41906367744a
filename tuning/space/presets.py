"""What is worth searching in each recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras_tuner
import numpy as np

from keras_practice import recipes
from keras_practice.data import Dataset

# Hyperparameters of the training; all others are arguments of the recipe's builder.
TRAINING = ("learning_rate", "optimizer", "batch_size")
Draw: TypeAlias = Callable[[keras_tuner.HyperParameters], dict[str, Any]]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; integers where both are.

    Attributes:
        low: The lowest.
        high: The highest, above `low`.
        log: Whether the logarithm is drawn evenly. Defaults to `False`.
        step: Distance of the numbers from `low` up. Defaults to `None`, any.

    Raises:
        ValueError: If the two are not finite, in order and, with `log`, positive.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"A range must be finite, low to high. Got {self.low:g} to {self.high:g}.")
        if self.log and self.low <= 0:
            raise ValueError(f"A logarithmic range must be above 0. Got {self.low:g} to {self.high:g}.")

    @property
    def integer(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """A number, registered with KerasTuner."""
        make = hp.Int if self.integer else hp.Float
        step = {} if self.step is None else {"step": self.step}
        return make(name, self.low, self.high, sampling="log" if self.log else "linear", **step)

    def levels(self, count: int) -> tuple[Any, ...]:
        """At most `count` of its numbers, evenly spaced with both ends; the middle if `count` is 1."""
        if count == 1:
            between = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
            points = np.asarray([between])
        else:
            points = (np.geomspace if self.log else np.linspace)(self.low, self.high, count)
        if self.step is not None:
            points = self.low + np.round((points - self.low) / self.step) * self.step
        if self.integer:
            return tuple(dict.fromkeys(round(point) for point in points))
        return tuple(dict.fromkeys(float(f"{point:.12g}") for point in points))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all of it can be built."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several values of one kind.

    Attributes:
        values: Numbers, words, truth values, or widths of a stack such as
            `(128, 64)`; the first is the default.

    Raises:
        ValueError: If there is none, one of them comes twice, or the kinds differ.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"A choice must be among distinct values. Got {self._listed()!r}.")
        if len({type(value) for value in self.values}) > 1:
            raise ValueError(f"A choice must be among values of one kind. Got {self._listed()!r}.")

    def draw(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """A value, registered with KerasTuner; widths as text, since its choices are single values."""
        if isinstance(self.values[0], bool):  # As a choice they would become 0 and 1.
            both = len(self.values) == 2
            return hp.Boolean(name, self.values[0]) if both else hp.Fixed(name, self.values[0])
        if not isinstance(self.values[0], tuple):
            return hp.Choice(name, list(self.values))
        chosen = hp.Choice(name, [spelled(value) for value in self.values])
        return tuple(int(width) for width in chosen.split("-"))

    def levels(self, count: int) -> tuple[Any, ...]:
        """At most `count` of its values, spread over them, the first among them."""
        places = np.linspace(0, len(self.values) - 1, min(count, len(self.values))).round().astype(int)
        return tuple(self.values[place] for place in places)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all of it can be built."""
        return self.values

    def _listed(self) -> str:
        return ", ".join(map(spelled, self.values))

    def __str__(self) -> str:
        return f"one of {self._listed()}"


@dataclass(frozen=True)
class Fixed:
    """A value that is set and not searched.

    Attributes:
        value: The value.
    """

    value: Any

    def draw(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """The value; KerasTuner hears nothing of it."""
        return self.value

    def levels(self, count: int) -> tuple[Any, ...]:
        """The value."""
        return (self.value,)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The value."""
        return (self.value,)

    def __str__(self) -> str:
        return f"fixed at {spelled(self.value)}"


Parameter: TypeAlias = Range | Choice | Fixed


@dataclass(frozen=True)
class Space:
    """What a search draws from: a parameter for each hyperparameter, by name.

    `learning_rate`, `optimizer` and `batch_size` belong to the training; every
    other name is an argument of the recipe's builder.

    Attributes:
        parameters: The parameters; never changed, see `replace`.
    """

    parameters: Mapping[str, Parameter]

    def draw(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Values by name, drawn from KerasTuner's hyperparameters, which learn of them so."""
        return {name: parameter.draw(hp, name) for name, parameter in self.parameters.items()}

    def replace(self, changes: Mapping[str, Parameter]) -> Space:
        """The same space with some parameters put in the others' place, or added."""
        return Space({**self.parameters, **changes})

    def grid(self, points: int) -> Space:
        """Choices that together make a grid of at most `points` points.

        Each hyperparameter in turn gets one level more while the product allows
        it, the learning rate first: 16 points in two dimensions are 4 by 4.

        Source:
            A25.
        """
        names = sorted(self.parameters, key=lambda name: name != "learning_rate")
        levels = {name: self.parameters[name].levels(1) for name in names}
        grown = True
        while grown:
            grown = False
            for name in names:
                more = self.parameters[name].levels(len(levels[name]) + 1)
                others = math.prod(len(values) for other, values in levels.items() if other != name)
                if len(more) > len(levels[name]) and others * len(more) <= points:
                    levels[name], grown = more, True
        return Space(
            {
                name: Choice(levels[name]) if len(levels[name]) > 1 else Fixed(levels[name][0])
                for name in self.parameters
            }
        )

    def __str__(self) -> str:
        return ", ".join(f"{name} {parameter}" for name, parameter in self.parameters.items())


def spelled(value: Any) -> str:
    """A value as text: widths as `64-32`, numbers short."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


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
