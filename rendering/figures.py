"""Pictures of curves: what is drawn is said in `Panel`s, how it looks is decided here."""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.types import Array
from keras_practice.rendering.svg import NAMESPACE, inline
from keras_practice.rendering.words import printable, shortened

# All of these stand out from white and from a dark page alike, and from each other
# for colour-blind eyes (Okabe and Ito 2008; the ramp runs from blue to orange).
_OF_THE_SETS = {"training": "#2878c8", "validation": "#e0650f"}
_DISTINCT = ("#2878c8", "#e0650f", "#0f9d77", "#c45fa0", "#b58900", "#3aa5c9", "#8a6ad1", "#7d8590")
_RAMP = LinearSegmentedColormap.from_list("layers", ["#3a63d8", "#9150c8", "#d04f86", "#e0793a"])
_HEALTHY = "#2da44e"
# Kept under a name of its own, so that a page can give another colour in the dark.
_INK = {"ink": "#1f2430", "soft": "#5b6472", "grid": "#dfe3e8"}

_WIDTH, _HEIGHT = 3.6, 3.0  # inches; so narrow that 10-point text is 11 pixels high on a phone
_MAX_IN_LEGEND = 8
_LARGEST = 1e38  # beyond it float32 is infinite, and matplotlib's own sums overflow


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: Its name in the legend. `"training"` and `"validation"` have the
            same two colours in every picture.
        x: Where its points lie, `(points,)`: epochs or steps.
        y: Their values, `(points,)`; a value that is NaN or infinite is a gap.
        style: `"solid"`, or `"dashed"` for a reference that is not one of the
            curves, drawn in grey; a single point is a ring then. Defaults to `"solid"`.

    Raises:
        ValueError: If `x` and `y` have not one axis of the same length, or the
            style is unknown.
    """

    label: str
    x: Array
    y: Array
    style: Literal["solid", "dashed"] = "solid"

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.x.ndim != 1 or self.x.shape != self.y.shape:
            raise ValueError(f"x and y must have shape (points,). Got {self.x.shape} and {self.y.shape}.")
        if self.style not in ("solid", "dashed"):
            raise ValueError(f"style must be 'solid' or 'dashed'. Got {self.style!r}.")


@dataclass(frozen=True)
class Panel:
    """Curves that share one pair of axes.

    Attributes:
        title: What is shown.
        lines: The curves, first to last.
        x_label: Name of the horizontal axis. Defaults to `"epoch"`.
        y_label: Name and unit of the vertical axis. Defaults to `""`, none.
        log: Whether the vertical axis is logarithmic, where the values span a
            factor of ten; zeros and negative values are gaps then. Defaults to `False`.
        healthy: A range `(low, high)` drawn as a soft band. Defaults to `None`.
        note: One short sentence under the title. Defaults to `""`.
        ordered: Whether the order of the lines means something, as of layers
            from first to last: their colours then run along a ramp, otherwise
            they are distinct. Defaults to `True`.
    """

    title: str
    lines: tuple[Line, ...]
    x_label: str = "epoch"
    y_label: str = ""
    log: bool = False
    healthy: tuple[float, float] | None = None
    note: str = ""
    ordered: bool = True


def figure(panels: Sequence[Panel], title: str = "", columns: int = 2) -> Figure:
    """All panels in one picture, row by row.

    Args:
        panels: What to draw; none gives a picture of the title alone.
        title: Heading of the whole. Defaults to `""`, none.
        columns: Panels a row, at least 1. Defaults to `2`.

    Returns:
        A figure of 600 pixels a column.

    Raises:
        ValueError: If `columns` is not a positive integer.
    """
    columns = check_positive_integer("columns", columns)
    columns = min(columns, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    heading = 0.45 if title or not panels else 0.05
    height = heading + rows * _HEIGHT
    whole = Figure(figsize=(columns * _WIDTH, height), dpi=600 / _WIDTH, facecolor="white")
    _write(whole, 0.12, height - 0.12, shortened(title, 32 * columns), "ink", size=14, weight="bold")
    if panels:
        grid = whole.subfigures(
            rows + 1, columns, squeeze=False, wspace=0, hspace=0, height_ratios=[heading] + rows * [_HEIGHT]
        )
        for panel, part in zip(panels, grid[1:].flat, strict=False):
            _draw(part, panel)
    return whole


def svg(panel: Panel) -> Markup:
    """One panel as an SVG element to be put into a page.

    It is as wide as its place, its text stays text, and it is transparent. A
    page may set the CSS variables `--ink`, `--soft` and `--grid` to colours of
    its own for the title, the labels and the grid.
    """
    whole = Figure(figsize=(_WIDTH, _HEIGHT))
    whole.patch.set_visible(False)
    _draw(whole, panel)
    written = io.StringIO()
    no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    # Only here: matplotlib takes these two from nowhere else.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "keras_practice"}):
        save(whole, written, format="svg", metadata=no_metadata)
    return _embedded(written.getvalue(), panel)


def save(whole: Figure, where: str | Path | io.StringIO, **options: Any) -> None:
    """Writes a figure by its `savefig(where, **options)`, without a word on letters that the font has not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        whole.savefig(where, **options)


def _draw(part: Figure | SubFigure, panel: Panel) -> None:
    """Draws a panel on a part of a figure that has the size of one."""
    curves = [_cleaned(line, panel) for line in panel.lines]
    named = _legend_entries(panel)
    legend_columns = _legend_columns([label for _, label in named])
    title, note = _wrapped(panel.title, 32), _wrapped(panel.note, 48)
    top = _HEIGHT - 0.1
    _write(part, 0.12, top, "\n".join(title), "ink", size=12, weight="bold")
    top -= 0.07 + 0.2 * len(title)
    _write(part, 0.12, top, "\n".join(note), "soft", size=9.5)
    top -= 0.06 + 0.16 * len(note)

    axes = part.add_axes((0, 0, 1, 1))
    axes.patch.set_visible(False)
    handles = [
        _plot(axes, x, y, line, colour)
        for (x, y), line, colour in zip(curves, panel.lines, _colours(panel), strict=True)
    ]
    if panel.healthy is not None:
        axes.axhspan(*panel.healthy, color=_HEALTHY, alpha=0.13, linewidth=0)
    _dress(axes, panel, curves)
    _say_if_empty(axes, curves)

    legend_rows = math.ceil(len(named) / legend_columns)
    left, bottom = _room_for_labels(axes), 0.5
    width = _WIDTH - left - 0.14
    height = top - bottom - 0.2 * legend_rows
    axes.set_position((left / _WIDTH, bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT))
    if not named:
        return
    legend = axes.legend(
        [handles[at] for at, _ in named],
        ["-"] * len(named),  # Given below: matplotlib leaves out a name that starts with an underscore.
        loc="lower left",
        bbox_to_anchor=(0.02 - left / width, 1.0),
        ncols=legend_columns,
        frameon=False,
        fontsize=9.5,
        labelcolor=_INK["soft"],
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.2,
        borderpad=0.2,
        labelspacing=0.25,
    )
    for text, (_, label) in zip(legend.get_texts(), named, strict=True):
        text.set_text(label)
        text.set_parse_math(False)


def _room_for_labels(axes: Axes) -> float:
    """Inches to the left of the axes; the same for most panels, so that their axes line up."""
    low, high = axes.get_ylim()
    longest = max((len(_tick(at)) for at in axes.get_yticks() if low <= at <= high), default=0)
    return max(0.62, 0.2 + 0.08 * longest) + (0.2 if axes.get_ylabel() else 0.0)


def _write(part: Figure | SubFigure, x: float, y: float, text: str, colour: str, **font: Any) -> None:
    """Puts text at a place in inches from the part's lower left corner, down from there."""
    width, height = part.bbox.width / part.dpi, part.bbox.height / part.dpi
    part.text(x / width, y / height, text, color=_INK[colour], va="top", parse_math=False, **font)


def _plot(axes: Axes, x: Array, y: Array, line: Line, colour: str) -> Any:
    """Draws a curve, with a dot for each point that no line leads to; returns what the legend shows."""
    there = np.concatenate([[False], np.isfinite(y), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    joined = not alone.any() or alone.sum() < there.sum()
    (handle,) = axes.plot(
        x,
        y,
        color=colour,
        linestyle=("none" if not joined else (0, (4, 2)) if line.style == "dashed" else "solid"),
        linewidth=1.8
        if len(y) < 100
        else 1.0,  # Many points are noise, in which lines would hide each other.
        solid_joinstyle="round",
        marker="o" if alone.any() else "none",
        markevery=list(np.flatnonzero(alone)),
        markersize=8 if line.style == "dashed" else 5,
        markerfacecolor="none" if line.style == "dashed" else colour,  # A ring hides no dot.
    )
    return handle


def _dress(axes: Axes, panel: Panel, curves: Sequence[tuple[Array, Array]]) -> None:
    """Scales, ticks, grid and labels."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_INK["grid"])
    axes.tick_params(length=0, labelsize=10, labelcolor=_INK["soft"])
    axes.tick_params(left=False, bottom=False)
    axes.grid(axis="y", color=_INK["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.03, y=0.08)
    whole_numbers = all(np.all(x == np.round(x)) for x, _ in curves)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole_numbers, min_n_ticks=1))
    decades = _decades(panel, curves)
    if decades is None:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        low, high = axes.get_ylim()
        if not any(np.any(y < 0) for _, y in curves):
            axes.set_ylim(bottom=max(low, -0.03 * high))  # No room for what cannot be.
    else:
        axes.set_yscale("log")
        between = (1.0, 2.0, 5.0) if decades < 1.4 else (1.0, 3.0) if decades < 2.2 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=between, numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlabel(printable(panel.x_label), color=_INK["soft"], fontsize=10, parse_math=False)
    axes.set_ylabel(printable(panel.y_label), color=_INK["soft"], fontsize=10, parse_math=False)


def _say_if_empty(axes: Axes, curves: Sequence[tuple[Array, Array]]) -> None:
    if not any(np.isfinite(y).any() for _, y in curves):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", color=_INK["soft"])


def _decades(panel: Panel, curves: Sequence[tuple[Array, Array]]) -> float | None:
    """Powers of ten on a logarithmic axis; `None` for a linear one, also where the other would lack ticks."""
    values = np.concatenate([y for _, y in curves] + [np.asarray(panel.healthy or (), dtype=float)])
    values = values[np.isfinite(values) & (values > 0)]
    if not panel.log or not values.size:
        return None
    span = float(np.log10(values.max() / values.min()))
    return span if span >= 1 else None


def _tick(value: float, _: int | None = None) -> str:
    return re.sub(r"e([+-])0?", lambda found: "e" + found[1].strip("+"), f"{value:.8g}")


def _cleaned(line: Line, panel: Panel) -> tuple[Array, Array]:
    """The points that can be drawn, with NaN for the others, and not more than there is room for."""
    placed = np.isfinite(line.x)
    x, y = line.x[placed], line.y[placed].copy()
    y[~(np.abs(y) < _LARGEST)] = np.nan
    if panel.log:
        y[y < 1 / _LARGEST] = np.nan
    return _thinned(x, y, buckets=max(25, min(150, 2000 // len(panel.lines))))


def _thinned(x: Array, y: Array, buckets: int) -> tuple[Array, Array]:
    """The lowest and the highest point of each of so many equal stretches, and both ends."""
    if len(y) <= 2 * buckets:
        return x, y
    kept = [0, len(y) - 1]
    for stretch in np.array_split(np.arange(len(y)), buckets):
        there = stretch[np.isfinite(y[stretch])]
        kept += [there[np.argmin(y[there])], there[np.argmax(y[there])]] if there.size else [stretch[0]]
    chosen = np.unique(kept)
    return x[chosen], y[chosen]


def _colours(panel: Panel) -> list[str]:
    """One colour a line."""
    others = [line for line in panel.lines if line.label not in _OF_THE_SETS and line.style == "solid"]
    free = (
        [matplotlib.colors.to_hex(_RAMP(share)) for share in np.linspace(0, 1, len(others))]
        if panel.ordered
        else [_DISTINCT[at % len(_DISTINCT)] for at in range(len(others))]
    )
    return [
        _OF_THE_SETS.get(line.label) or (free.pop(0) if line.style == "solid" else _INK["soft"])
        for line in panel.lines
    ]


def _legend_entries(panel: Panel) -> list[tuple[int, str]]:
    """Places and names of the lines that the legend shows: of many in order, the first and the last."""
    names = [(at, shortened(line.label, 22)) for at, line in enumerate(panel.lines)]
    if len(names) == 1 and panel.lines[0].label not in _OF_THE_SETS:
        return []  # The title says it.
    references = [name for name in names if panel.lines[name[0]].style == "dashed"]
    curves = [name for name in names if name not in references]
    if len(curves) <= _MAX_IN_LEGEND or not panel.ordered:
        return names[:_MAX_IN_LEGEND]
    (first, first_name), (last, last_name) = curves[0], curves[-1]
    ends = [(first, f"{shortened(first_name, 15)} (first)"), (last, f"{shortened(last_name, 15)} (last)")]
    return ends + references[:2]


def _legend_columns(labels: Sequence[str]) -> int:
    widths = [len(label) + 5 for label in labels] or [1]
    return len(widths) if sum(widths) <= 45 else max(1, 45 // max(widths))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(printable(text), width, max_lines=2, placeholder="…")


def _embedded(document: str, panel: Panel) -> Markup:
    """Matplotlib's SVG file as an element of an HTML page that clashes with nothing else on it."""
    root = ElementTree.fromstring(document)
    pointed_at = set(re.findall(r'(?:url\(|href=")#([\w-]+)', document))
    own = "p" + hashlib.sha256(document.encode()).hexdigest()[:10] + "-"
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(name): _own_value(_local(name), value, own)
            for name, value in element.attrib.items()
            if name != "id" or value in pointed_at
        }
    for child in root.findall("metadata"):
        root.remove(child)
    for defs in root.findall("defs"):
        for style in defs.findall("style"):
            defs.remove(style)  # It would hold for the whole page.
    name = printable(panel.title)
    viewed = root.attrib["viewBox"]
    root.attrib = {"xmlns": NAMESPACE, "viewBox": viewed, "width": "100%", "role": "img", "aria-label": name}
    root.set("stroke-linejoin", "round")
    title = ElementTree.Element("title")
    title.text = name
    root.insert(0, title)
    return inline(root)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _own_value(name: str, value: str, own: str) -> str:
    """An attribute with its own ids, the page's fonts and the page's colours."""
    if name == "id":
        return own + value
    if name in ("href", "clip-path"):
        return value.replace("#", f"#{own}")
    for role, colour in _INK.items():
        value = value.replace(colour, f"var(--{role}, {colour})")
    return re.sub(r"'DejaVu Sans'.*?sans-serif", "system-ui, sans-serif", value)
