"""How the worst mistakes look: a grid of pictures, or a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_practice.core.types import Array

_INK, _SOFT, _GRID, _WRONG = "#1f2430", "#5b6472", "#dfe3e8", "#b23a48"
_PALE = "#9aa2ad"
_MAX_COLUMNS = 8
_SEQUENCE_CHANNELS = 3  # Up to as many channels are drawn as curves; more side by side make a picture.


@dataclass(frozen=True)
class Caption:
    """What stands around one picture.

    Attributes:
        truth: Above it, on the left.
        row: Number of the sample in its split, above it on the right.
        predicted: Below it.
        confidence: The probability of what is predicted, in words; `""` without one.
        wrong: Whether the prediction is not the truth.
    """

    truth: str
    row: int
    predicted: str
    confidence: str
    wrong: bool


def drawable(x: Array) -> bool:
    """Whether samples `(samples, ...)` are images or sequences."""
    return x.dtype.kind in "biuf" and (x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3, 4)))


def grid_figure(heading: str, inputs: Array, captions: Sequence[Caption]) -> Figure:
    """Each cell has a picture, the truth above it and the prediction below, all placed in inches."""
    below = "the truth above, the prediction below" + (
        " with its confidence" if any(caption.confidence for caption in captions) else ""
    )
    columns = min(_MAX_COLUMNS, max(2, math.ceil(math.sqrt(len(captions)))))
    rows = math.ceil(len(captions) / columns)
    side, gap, line, top, edge = 1.4, 0.2, 0.25, 0.62, 0.2
    width = max(2 * edge + columns * (side + gap) - gap, 0.1 * len(heading) + 2 * edge)
    height = top + rows * (side + 2 * line + gap) + 0.02
    whole = Figure(figsize=(width, height), dpi=150, facecolor="white")
    _title(whole, heading)
    _title(whole, below, top=0.34, fontsize=9, fontweight="normal", color=_SOFT)
    pictures = _pictures(inputs)
    for i, caption in enumerate(captions):
        row, column = divmod(i, columns)
        left = edge + column * (side + gap)
        bottom = height - top - row * (side + 2 * line + gap) - line - side
        axes = whole.add_axes((left / width, bottom / height, side / width, side / height))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        _draw_sample(axes, pictures[i])
        _write(axes, caption)
    return whole


def _pictures(x: Array) -> Array:
    """Images on a common scale from 0 to 1; sequences as they are."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 3 and x.shape[-1] <= _SEQUENCE_CHANNELS:
        return x
    finite = x[np.isfinite(x)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return np.asarray(np.nan_to_num((x - low) / ((high - low) or 1.0)))


def _draw_sample(axes: Axes, picture: Array) -> None:
    if picture.ndim == 2 and picture.shape[-1] <= _SEQUENCE_CHANNELS:
        axes.plot(picture, linewidth=1.2)
        axes.axhline(0, color=_GRID, linewidth=0.8, zorder=0)
        return
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _write(axes: Axes, caption: Caption) -> None:
    sure = f" {caption.confidence}" if caption.confidence else ""
    place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "parse_math": False}
    axes.text(0, 1.04, _cut(caption.truth, 12), color=_INK, ha="left", va="bottom", **place)
    axes.text(1, 1.04, f"row {caption.row}", color=_PALE, ha="right", va="bottom", **place)
    axes.text(
        0,
        -0.04,
        f"\N{RIGHTWARDS ARROW} {_cut(caption.predicted, 14)}{sure}",
        color=_WRONG if caption.wrong else _SOFT,
        ha="left",
        va="top",
        **place,
    )


def table_figure(heading: str, rows: Sequence[Sequence[str]]) -> Figure:
    """A table whose first row names the columns."""
    widths = [0.074 * max(len(row[c]) for row in rows) + 0.28 for c in range(len(rows[0]))]
    width, line = sum(widths) + 0.3, 0.27
    height = 0.62 + line * len(rows)
    whole = Figure(figsize=(max(width, 0.105 * len(heading) + 0.4), height), dpi=150, facecolor="white")
    width = float(whole.get_figwidth())
    _title(whole, heading)
    axes = whole.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    numeric = {"row", "confidence", "loss"}
    for at, row in enumerate(rows):
        y = height - 0.62 - line * at
        left = 0.2
        for c, (word, column) in enumerate(zip(row, widths, strict=True)):
            right = rows[0][c] in numeric
            axes.text(
                left + (column - 0.28 if right else 0),
                y,
                word,
                ha="right" if right else "left",
                va="center",
                fontsize=9,
                color=_SOFT if at == 0 else _INK,
                parse_math=False,
            )
            left += column
        axes.plot([0.2, width - 0.2], [y - line / 2] * 2, color=_GRID, linewidth=1.2 if at == 0 else 0.6)
    return whole


def _title(whole: Figure, text: str, top: float = 0.12, **font: Any) -> None:
    width, height = whole.get_size_inches()
    font = {"fontsize": 11, "fontweight": "bold", "color": _INK, **font}
    whole.text(0.2 / width, 1 - top / height, text, va="top", parse_math=False, **font)


def _cut(word: str, most: int) -> str:
    return word if len(word) <= most else word[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
