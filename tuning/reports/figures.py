"""The pictures of a search and of the staged protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras_tuner
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.space.dimensions import Dimension
from keras_practice.tuning.staged import Staged

_SETS = (("training", "#2878c8"), ("validation", "#e0650f"))
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


def staged_figure(found: Staged) -> Figure:
    """Every step of the staged protocol, from above to below: size, losses and scores of both sets.

    Args:
        found: What `staged` has found.

    Returns:
        A figure that belongs to no window and no global state.

    Source:
        A54.
    """
    steps = found.steps
    figure = Figure(figsize=(10, 1.6 + 0.3 * len(steps)), layout="constrained")
    size, loss, score = figure.subplots(1, 3, sharey=True, width_ratios=(2, 3, 3))
    rows = np.arange(len(steps))
    kept = np.array([step.kept for step in steps])
    size.scatter([step.parameters for step in steps], rows, c=np.where(kept, "#1f2430", "#a5adba"), s=30)
    size.set_xlabel("trainable weights")
    counts = [found.samples, *(step.parameters for step in steps)]
    if max(counts) > 10 * min(counts):
        size.set_xscale("log")
        _plain_decades(size)
    else:
        size.xaxis.set_major_locator(MaxNLocator(3))
        size.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    size.axvline(found.samples, color="#2da44e", linestyle=(0, (4, 2)), linewidth=1.2)
    size.text(
        found.samples, -0.9, "samples", color="#2da44e", ha="center", va="bottom", fontsize=9, clip_on=False
    )
    for axes, name in ((loss, "loss"), (score, "score")):
        ends = np.array(
            [[getattr(step, f"{part}_{name}") for part in ("train", "val")] for step in steps], dtype=float
        )
        ends[~np.isfinite(ends)] = np.nan
        axes.hlines(rows, ends.min(axis=1), ends.max(axis=1), color="#c4cad3", linewidth=2, zorder=1)
        for column, (_, colour) in enumerate(_SETS):
            shades = [colour if step.kept else f"{colour}77" for step in steps]
            axes.scatter(ends[:, column], rows, c=shades, s=36, zorder=2)
    positive = [value for step in steps for value in (step.train_loss, step.val_loss) if 0 < value < np.inf]
    if positive and max(positive) > 10 * min(positive):
        loss.set_xscale("log")
        _plain_decades(loss)
    loss.set_xlabel("loss")
    score.set_xlabel(f"{found.score} (higher is better)")
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="none", label=label) for label, colour in _SETS
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    size.set_yticks(rows, [step.label for step in steps], parse_math=False)
    for text, step in zip(size.get_yticklabels(), steps, strict=True):
        text.set_fontweight("bold" if step.kept else "normal")
        text.set_color("#1f2430" if step.kept else "#5b6472")
    size.set_ylim(len(steps) - 0.5, -0.7)
    for axes in (size, loss, score):
        axes.grid(True, axis="x", color="#e3e6ea", zorder=0)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    best = next(number for number, step in enumerate(steps) if step is found.best)
    score.annotate(
        f"best: {found.best.val_score:.4f}",
        (found.best.val_score, best),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=9,
        color="#b23a48",
        fontweight="bold",
    )
    figure.suptitle(
        f"Staged protocol: {found.recipe} on {found.dataset}",
        x=0.01,
        ha="left",
        fontsize=12,
        parse_math=False,
    )
    return figure


def _plain_decades(axes: Axes) -> None:
    """Ticks of a logarithmic axis in plain figures, few enough to stand apart."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _place(row: TrialRow, axis: Dimension | None) -> float:
    if axis is None:
        return float(int(row.trial))
    value = row.hyperparameters.get(axis.name, float("nan"))
    if axis.kind == "choice":
        return float(axis.values.index(value)) if value in axis.values else float("nan")
    return float(value)


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
