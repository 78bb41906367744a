"""The picture of the staged protocol."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from keras_practice.tuning.staged import Staged

_SETS = (("training", "#2878c8"), ("validation", "#e0650f"))


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
