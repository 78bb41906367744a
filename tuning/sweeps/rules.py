"""Two old rules for the learning rate, for anything that can be tried at a rate and scored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from keras_practice.core.arguments import check_positive, check_positive_integer
from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.tuning.sweeps.rates import log_x, mark


@dataclass(frozen=True)
class RateSearch:
    """The tries of a rule, and what it chose.

    Attributes:
        rates: Learning rates in the order in which they were tried.
        scores: What each gave; NaN or infinite where training exploded.
        choice: The rate that the rule chooses; `None` if training exploded at all of them.
        largest_stable: The largest rate tried that did not explode; `None` if all did.
    """

    rates: tuple[float, ...]
    scores: tuple[float, ...]
    choice: float | None
    largest_stable: float | None

    def figure(self) -> Figure:
        """Score against learning rate, the choice marked; exploded rates have no point.

        Returns:
            A figure that belongs to no window and no global state.
        """
        order = np.argsort(self.rates)
        rates, scores = np.array(self.rates)[order], np.array(self.scores, dtype=float)[order]
        exploded = sum(not math.isfinite(score) for score in self.scores)
        note = f"{exploded} of {len(rates)} tries explode." if exploded else f"{len(rates)} tries."
        whole = figure([Panel("Tries", (Line("score", rates, scores),), "learning rate", "score", note=note)])
        axes = whole.subfigs[1].axes[0]
        for line in axes.get_lines():
            line.set(marker="o", markersize=5, markevery=None)
        log_x(axes, min(rates[0], self.choice or rates[0]) / 2, rates[-1] * 2)
        mark(axes, (("choice", self.choice, "-"),))
        return whole

    def __str__(self) -> str:
        lines = [
            f"{rate:10.4g}  {f'{score:.4g}' if math.isfinite(score) else 'explodes'}"
            for rate, score in zip(self.rates, self.scores, strict=True)
        ]
        end = "every rate explodes" if self.choice is None else f"choice {self.choice:.4g}"
        return "\n".join(["      rate  score", *lines, end])


def halve_or_double(
    evaluate: Callable[[float], float],
    start: float = 1e-3,
    *,
    direction: Literal["min", "max"] = "min",
    most: int = 12,
) -> RateSearch:
    """Starts at 0.001, then doubles or halves as long as that is better.

    A rate at which training explodes is worse than any other.

    Args:
        evaluate: Trains at a learning rate and returns a loss or score; NaN or infinity
            where training exploded.
        start: Where to start. Defaults to `1e-3`.
        direction: Whether `"min"` or `"max"` is better. Defaults to `"min"`, a loss.
        most: Most tries. Defaults to `12`, of which all in one direction are a factor of 2,000.

    Returns:
        The tries; `choice` is the best of them.

    Raises:
        ValueError: If `start` or `most` is not positive, or the direction is unknown.

    Example:
        >>> from keras_practice import tuning
        >>> search = tuning.halve_or_double(lambda rate: abs(rate - 0.004))
        >>> search.choice, search.rates
        (0.004, (0.001, 0.002, 0.004, 0.008))

    Source:
        A23; Mancuso, "Introduction to deep learning".
    """
    check_positive("start", start)
    most = check_positive_integer("most", most)
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max'. Got {direction!r}.")
    tries = _Tries(evaluate, most, direction)
    best, ways = float(start), (2.0, 0.5) if math.isfinite(tries.cost(start)) else (0.5,)
    for factor in ways:
        while not tries.spent and tries.cost(best * factor) <= tries.cost(best):
            if tries.cost(best * factor) == tries.cost(best) < math.inf:
                break
            best *= factor
        if best != start:
            break  # Where it came from is worse already.
    return tries.result(best)


def magnitudes(evaluate: Callable[[float], float], start: float = 1.0, *, most: int = 12) -> RateSearch:
    """Tries 1, 0.1, 10, 0.01, ...: takes the largest rate that does not explode, and halves it.

    A rate below one that did not explode is not tried, nor one above one that did: their
    outcome is known.

    Args:
        evaluate: Trains at a learning rate and returns a loss or score; NaN or infinity
            where training exploded. With Adam or clipping losses stay finite: return
            infinity where training ended no better than it began.
        start: The first rate. Defaults to `1.0`.
        most: Most tries. Defaults to `12`.

    Returns:
        The tries; `choice` is half of `largest_stable`.

    Raises:
        ValueError: If `start` or `most` is not positive.

    Example:
        >>> from keras_practice import tuning
        >>> search = tuning.magnitudes(lambda rate: 0.1 if rate < 0.05 else float("nan"))
        >>> search.choice, search.rates
        (0.005, (1.0, 0.1, 0.01))

    Source:
        A24; Nielsen 2015, "Neural networks and deep learning", chapter 3.
    """
    check_positive("start", start)
    most = check_positive_integer("most", most)
    tries = _Tries(evaluate, most, "min")
    stable, exploded = -math.inf, math.inf  # Powers of ten.
    for power in (0, *(sign * power for power in range(1, most + 1) for sign in (-1, 1))):
        if stable < power < exploded and not tries.spent:
            # A quotient of round numbers is round where a product is not: 0.1, not 0.1000000001.
            rate = start * 10**power if power >= 0 else start / 10**-power
            if math.isfinite(tries.cost(rate)):
                stable = power
            else:
                exploded = power
        if exploded - stable == 1:
            break
    found = tries.result(0.0)
    half = None if found.largest_stable is None else found.largest_stable / 2
    return RateSearch(found.rates, found.scores, half, found.largest_stable)


class _Tries:
    """What was tried, each rate once."""

    def __init__(self, evaluate: Callable[[float], float], most: int, direction: str) -> None:
        self._evaluate, self._most = evaluate, most
        self._sign = -1.0 if direction == "max" else 1.0
        self._scores: dict[float, float] = {}

    @property
    def spent(self) -> bool:
        """Whether there may be no more tries."""
        return len(self._scores) >= self._most

    def cost(self, rate: float) -> float:
        """The score with its sign turned so that low is good; infinite where training exploded."""
        if rate not in self._scores:
            self._scores[rate] = float(self._evaluate(rate))
        score = self._scores[rate]
        return self._sign * score if math.isfinite(score) else math.inf

    def result(self, choice: float) -> RateSearch:
        """Everything so far; a choice that exploded is none."""
        stable = [rate for rate, score in self._scores.items() if math.isfinite(score)]
        return RateSearch(
            tuple(self._scores),
            tuple(self._scores.values()),
            choice if choice in stable else None,
            max(stable, default=None),
        )
