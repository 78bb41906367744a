"""The picture of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras_tuner
import numpy as np
from matplotlib.figure import Figure

from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.space.dimensions import Dimension

_RATE = Dimension("learning_rate", "log", 1e-5, 1e-1)


def search_figure(
    rows: Sequence[TrialRow], objective: keras_tuner.Objective, title: str, axis: Dimension | None = _RATE
) -> Figure:
    """Score against one hyperparameter, the best trial marked.

    Args:
        rows: The trials, best first.
        objective: The score, with its direction.
        title: What was searched.
        axis: The hyperparameter. Defaults to the learning rate; `None`, the
            trial's number.

    Returns:
        A figure that belongs to no window and no global state.

    Source:
        A25.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    good = [row for row in rows if row.score is not None]
    places = np.array([_place(row, axis) for row in good])
    scores = np.array([row.score for row in good], dtype=float)
    spread = [row.deviations.get(objective.name, 0.0) for row in good]
    if any(spread):
        axes.errorbar(places, scores, spread, fmt="none", ecolor="#4c78a8", elinewidth=1, alpha=0.5)
    axes.scatter(places, scores, s=36, color="#4c78a8", alpha=0.85, edgecolor="white", zorder=3)
    best, score, place = good[0], float(scores[0]), float(places[0])
    axes.scatter([place], [score], s=190, marker="*", color="#e45756", edgecolor="white", zorder=4)
    log = axis is not None and axis.kind == "log"
    middle = np.sqrt(places.min() * places.max()) if log else (places.min() + places.max()) / 2
    to_left = place > middle
    value = f"trial {best.trial}" if axis is None else _short(best.hyperparameters[axis.name])
    axes.annotate(
        f"best: {score:.4f} at {value}",
        (place, score),
        xytext=(-12 if to_left else 12, 10 if objective.direction == "max" else -16),
        textcoords="offset points",
        ha="right" if to_left else "left",
        color="#b23a48",
        fontweight="bold",
        parse_math=False,
    )
    failed = [_place(row, axis) for row in rows if row.status == "FAILED"]
    if failed:
        axes.plot(failed, [0.02] * len(failed), "x", color="#555555", transform=axes.get_xaxis_transform())
        axes.text(0.99, 0.04, "x: failed", transform=axes.transAxes, ha="right", color="#555555")
    if log:
        axes.set_xscale("log")
    elif axis is not None and axis.kind == "choice":
        axes.set_xticks(range(len(axis.values)), [str(value) for value in axis.values], parse_math=False)
        axes.margins(x=0.1)
    axes.margins(y=0.12)
    better = "higher" if objective.direction == "max" else "lower"
    name = "trial" if axis is None else axis.name.replace("_", " ")
    axes.set_xlabel(f"{name}{' (log scale)' if log else ''}", parse_math=False)
    axes.set_ylabel(f"{objective.name} ({better} is better)", parse_math=False)
    axes.set_title(title, fontsize=11, loc="left", parse_math=False)
    axes.grid(True, which="major", color="#dddddd", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _place(row: TrialRow, axis: Dimension | None) -> float:
    if axis is None:
        return float(int(row.trial))
    value = row.hyperparameters.get(axis.name, float("nan"))
    if axis.kind == "choice":
        return float(axis.values.index(value)) if value in axis.values else float("nan")
    return float(value)


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
