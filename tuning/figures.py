"""The picture of a search."""

from __future__ import annotations

from collections.abc import Sequence

import keras_tuner
import numpy as np
from matplotlib.figure import Figure

from keras_practice.tuning.results import TrialRow


def search_figure(rows: Sequence[TrialRow], objective: keras_tuner.Objective, title: str) -> Figure:
    """Score against learning rate on a logarithmic axis, the best trial marked.

    Args:
        rows: The trials, best first.
        objective: The score, with its direction.
        title: What was searched.

    Returns:
        A figure that belongs to no window and no global state.

    Source:
        A25.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    good = [row for row in rows if row.score is not None]
    rates = np.array([row.hyperparameters["learning_rate"] for row in good])
    scores = np.array([row.score for row in good], dtype=float)
    axes.scatter(rates, scores, s=36, color="#4c78a8", alpha=0.85, edgecolor="white", zorder=3)
    best, score = good[0], float(scores[0])
    rate = best.hyperparameters["learning_rate"]
    axes.scatter([rate], [score], s=190, marker="*", color="#e45756", edgecolor="white", zorder=4)
    to_left = np.log10(rate) > np.mean(np.log10([rates.min(), rates.max()]))
    axes.annotate(
        f"best: {score:.4f} at {rate:.2g}",
        (rate, score),
        xytext=(-12 if to_left else 12, 10 if objective.direction == "max" else -16),
        textcoords="offset points",
        ha="right" if to_left else "left",
        color="#b23a48",
        fontweight="bold",
    )
    failed = [row.hyperparameters["learning_rate"] for row in rows if row.score is None]
    if failed:
        axes.plot(failed, [0.02] * len(failed), "x", color="#555555", transform=axes.get_xaxis_transform())
        axes.text(0.99, 0.04, "x: failed", transform=axes.transAxes, ha="right", color="#555555")
    axes.set_xscale("log")
    axes.margins(y=0.12)
    better = "higher" if objective.direction == "max" else "lower"
    axes.set(xlabel="learning rate (log scale)", ylabel=f"{objective.name} ({better} is better)")
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(True, which="major", color="#dddddd", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
