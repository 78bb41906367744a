"""Hyperparameters as axes: where a value lies between the ends of what was searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras_tuner
import numpy as np

_NUMBERS = (keras_tuner.engine.hyperparameters.Float, keras_tuner.engine.hyperparameters.Int)


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter that was searched.

    Attributes:
        name: Its name.
        kind: `"linear"` or `"log"` for numbers of a range, `"choice"` for single values.
        low: The range's lowest number; 0 for a choice.
        high: The range's highest number; 0 for a choice.
        values: The values of a choice, numbers in order; empty for a range.
    """

    name: str
    kind: Literal["linear", "log", "choice"]
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers, so that it has two ends."""
        return self.kind != "choice" or not any(isinstance(value, (str, bool)) for value in self.values)

    def place(self, value: Any) -> float:
        """Where a value lies, from 0 at one end to 1 at the other."""
        if self.kind == "choice":
            return self.values.index(value) / (len(self.values) - 1) if len(self.values) > 1 else 0.5
        if self.kind == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float(value - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Places and labels of the values that the axis names."""
        if self.kind == "choice":
            return tuple((self.place(value), label(value)) for value in self.values)
        if self.kind == "log":
            first, last = math.log10(self.low) - 1e-9, math.log10(self.high) + 1e-9
            shown = [10.0**power for power in range(math.ceil(first), math.floor(last) + 1)]
            if len(shown) < 2:
                shown = [self.low, self.high]
            step = math.ceil(len(shown) / 6)
            return tuple((self.place(value), label(value)) for value in shown[::step])
        span = self.high - self.low
        step_size = 10.0 ** math.floor(math.log10(span / 4))
        step_size *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (factor * step_size) <= 5)
        lowest = math.ceil(self.low / step_size - 1e-9) * step_size
        shown = list(np.arange(lowest, self.high + step_size * 1e-6, step_size))
        return tuple((self.place(value), label(float(value))) for value in shown)


def dimensions_of(space: Sequence[Any]) -> tuple[Dimension, ...]:
    """An axis for each of KerasTuner's hyperparameters that has more than one value.

    Args:
        space: KerasTuner's hyperparameters, as in `oracle.get_space().space`. Of
            those with the same name, as under different conditions, the axis
            holds all values; none is made where one is a range and another a choice.
    """
    entries: dict[str, list[Any]] = {}
    for hp in space:
        entries.setdefault(hp.name, []).append(hp)
    axes = [_axis(name, same) for name, same in entries.items()]
    return tuple(axis for axis in axes if axis is not None)


def _axis(name: str, same: Sequence[Any]) -> Dimension | None:
    ranges = [hp for hp in same if isinstance(hp, _NUMBERS)]
    if ranges:
        low, high = min(hp.min_value for hp in ranges), max(hp.max_value for hp in ranges)
        if len(ranges) < len(same) or not low < high:
            return None
        log = all(hp.sampling not in (None, "linear") for hp in ranges)
        return Dimension(name, "log" if log else "linear", float(low), float(high))
    values = list(dict.fromkeys(value for hp in same for value in hp.values))
    if len(values) < 2 or len({isinstance(value, str) for value in values}) > 1:
        return None
    # Words keep the order in which they were named.
    return Dimension(name, "choice", values=tuple(values if isinstance(values[0], str) else sorted(values)))


def label(value: Any) -> str:
    """A value in few letters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e")
