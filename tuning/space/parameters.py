"""What a search draws from: ranges, choices and fixed values, by hyperparameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras_tuner
import numpy as np

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
