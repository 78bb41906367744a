"""Trainings with several batch sizes, and which of them reaches a score first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from keras_practice.core.types import Array
from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.rendering.tables import aligned
from keras_practice.tuning.sweeps.rates import mark

# Times this close are a tie, since the same training takes a little longer or shorter each time.
_TIE = 1.05


@dataclass(frozen=True, eq=False)
class BatchSizeCurve:
    """One training.

    Attributes:
        size: Samples a batch.
        learning_rate: The rate that it was trained at.
        seconds: Time spent on training until each look, without tracing and validation,
            from 0 on, `(looks,)`.
        scores: Score on the validation data at each look, the untrained model's first, `(looks,)`.
    """

    size: int
    learning_rate: float
    seconds: Array
    scores: Array

    def __post_init__(self) -> None:
        for name in ("seconds", "scores"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.seconds.ndim != 1 or self.seconds.shape != self.scores.shape:
            raise ValueError(
                "seconds and scores must have shape (looks,). "
                f"Got {self.seconds.shape} and {self.scores.shape}."
            )


@dataclass(frozen=True, eq=False)
class BatchSizeResult:
    """How soon each batch size gets how far, and the largest that fits in memory.

    Attributes:
        curves: The trainings, sizes ascending.
        score: Name of the score, such as `"val_accuracy"`.
        direction: Whether `"min"` or `"max"` of it is better.
        target: The score that the sizes race to.
        largest: The largest size that was seen to fit; the size of the whole data set if
            nothing did not fit.
        too_large: The smallest size that did not fit in memory; `None` if all did.
    """

    curves: tuple[BatchSizeCurve, ...]
    score: str
    direction: Literal["min", "max"]
    target: float
    largest: int
    too_large: int | None = None

    @property
    def times(self) -> dict[int, float]:
        """Seconds of training until the target by size; infinite where it was not reached."""
        return {curve.size: self._time(curve) for curve in self.curves}

    @property
    def sweet_spot(self) -> int | None:
        """The size that reaches the target first; `None` if none does.

        Of sizes whose times are within 5 % of the shortest, the smallest: it needs the least memory.
        """
        fastest = min(self.times.values())
        if math.isinf(fastest):
            return None
        return min(size for size, seconds in self.times.items() if seconds <= _TIE * fastest)

    def figure(self) -> Figure:
        """The score over seconds of training for each size, and the time to the target by size.

        Returns:
            A figure that belongs to no window and no global state.
        """
        end = max(float(curve.seconds[-1]) for curve in self.curves)
        lines = tuple(Line(f"batch {c.size}", c.seconds, c.scores) for c in self.curves)
        target = Line("target", np.array([0.0, end]), np.array([self.target] * 2), "dashed")
        better = "Higher" if self.direction == "max" else "Lower"
        sizes, seconds = (np.array(part, dtype=float) for part in zip(*self.times.items(), strict=True))
        panels = [
            Panel(
                f"{self.score} over time",
                (*lines, target),
                "seconds of training",
                self.score,
                note=f"{better} is better.",
            ),
            Panel(
                f"Time to {self.target:.4g}",
                (Line("seconds", sizes, seconds),),
                "batch size",
                "seconds of training",
                note="No size gets there." if self.sweet_spot is None else "",
            ),
        ]
        whole = figure(panels)
        axes = whole.subfigs[3].axes[0]
        axes.set_xscale("log", base=2)
        axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
        axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
        for line in axes.get_lines():
            line.set(marker="o", markersize=5, markevery=None)
        mark(axes, (("sweet spot", self.sweet_spot, "-"),), digits=4)
        axes.set_ylim(bottom=0.0)
        return whole

    def __str__(self) -> str:
        best = max if self.direction == "max" else min
        rows = [["batch size", "learning rate", f"best {self.score}", f"seconds to {self.target:.4g}"]]
        for curve in self.curves:
            reached = self._time(curve)
            finite = curve.scores[np.isfinite(curve.scores)]
            rows.append(
                [
                    str(curve.size),
                    f"{curve.learning_rate:.3g}",
                    f"{best(finite):.4g}" if len(finite) else "none",
                    f"{reached:.3g}" if math.isfinite(reached) else "not reached",
                ]
            )
        return "\n".join([*aligned(rows, right=range(len(rows[0]))), self._conclusion])

    def __repr__(self) -> str:
        sizes = ", ".join(str(curve.size) for curve in self.curves)
        return f"BatchSizeResult({sizes}: sweet_spot={self.sweet_spot}, largest={self.largest})"

    @property
    def _conclusion(self) -> str:
        first = (
            f"No size reaches {self.target:.4g}."
            if self.sweet_spot is None
            else f"Sweet spot: {self.sweet_spot}, the first to reach {self.score} {self.target:.4g}."
        )
        fits = (
            f"A batch of {self.largest:,} fits in memory"
            if self.too_large is None
            else f"The largest batch that fits in memory is {self.largest:,}; {self.too_large:,} does not"
        )
        return f"{first} {fits}."

    def _time(self, curve: BatchSizeCurve) -> float:
        sign = 1 if self.direction == "max" else -1
        reached = np.flatnonzero(sign * curve.scores >= sign * self.target)
        return float(curve.seconds[reached[0]]) if len(reached) else math.inf
