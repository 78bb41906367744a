"""Drawings of trials as SVG: parallel coordinates, scores against a hyperparameter, importances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

import keras_tuner
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap, to_hex

from keras_practice.rendering import svg
from keras_practice.rendering.words import shortened
from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.reports.importance import Importances
from keras_practice.tuning.space.dimensions import Dimension, label

# From the worst trial to the best; all stand out from a white and from a dark page.
_RAMP = LinearSegmentedColormap.from_list("trials", ["#5b7fd6", "#9150c8", "#d04f86", "#e0650f"])
_BEST = "#e0650f"
_DOT = "#2878c8"
_FAILED = "#8a919c"
_MAX_LETTERS = 12


def score_axis(rows: Sequence[TrialRow], objective: keras_tuner.Objective) -> Dimension:
    """The axis of the score, from the lowest to the highest; logarithmic where a loss has exploded.

    Args:
        rows: The trials, of which at least one has a score.
        objective: The score.
    """
    scores = [row.score for row in rows if row.score is not None]
    low, high = min(scores), max(scores)
    if low > 0 and high > 50 * low:
        return Dimension(objective.name, "log", low, high)
    room = 0.04 * (high - low) or 0.01 * abs(high) or 0.01
    return Dimension(objective.name, "linear", low - room, high + room)


def parallel(
    rows: Sequence[TrialRow], axes: Sequence[Dimension], objective: keras_tuner.Objective, upright: bool
) -> Markup:
    """Parallel coordinates: a line a trial through its hyperparameters to its score.

    Args:
        rows: The trials, best first, of which at least one has a score.
        axes: The hyperparameters.
        objective: The score.
        upright: Whether the axes stand side by side, for a wide page; otherwise
            they lie one under the other, for a narrow one.
    """
    axes = [*axes, score_axis(rows, objective)]
    gap, length = (1000 / max(1, len(axes) - 1) * 0.84, 300.0) if upright else (66.0, 300.0)
    width, height = (1000.0, length + 80) if upright else (340.0, gap * (len(axes) - 1) + 66)

    def at(number: int, place: float) -> tuple[float, float]:
        if upright:
            return 80 + number * gap, 48 + (1 - place) * length
        return 20 + place * length, 30 + number * gap

    parts = []
    for number, axis in enumerate(axes):
        (x0, y0), (x1, y1) = at(number, 0.0), at(number, 1.0)
        parts.append(svg.line(x0, y0, x1, y1, "var(--soft)", 1))
        name = axis.name.replace("_", " ")
        if upright:
            parts.append(svg.text(x0, 26, shortened(name, max(6, int(gap / 7.5))), "middle", bold=True))
        else:
            parts.append(svg.text(20, y0 - 9, shortened(name, 40), "start", bold=True))
        if upright:
            step = math.ceil(len(axis.ticks()) * 18 / length)
            for place, text in axis.ticks()[::step]:
                x, y = at(number, place)
                parts += [
                    svg.line(x - 4, y, x + 4, y, "var(--soft)", 1),
                    svg.text(x - 7, y + 4, shortened(text, _MAX_LETTERS), "end", soft=True),
                ]
            continue
        for place, text, row_below in _laid(axis, length):
            x, y = at(number, place)
            end = "start" if place < 0.08 else "end" if place > 0.92 else "middle"
            parts += [
                svg.line(x, y - 4, x, y + 4, "var(--soft)", 1),
                svg.text(x, y + 16 + 13 * row_below, shortened(text, _MAX_LETTERS), end, soft=True),
            ]
    scored = [row for row in rows if row.score is not None]
    lines = []
    for row in reversed(rows):
        if row.status == "RUNNING":
            continue
        points = [
            at(number, axis.place(_value(row, axis, number == len(axes) - 1)))
            for number, axis in enumerate(axes)
            if _value(row, axis, number == len(axes) - 1) is not None
        ]
        rank = scored.index(row) if row in scored else None
        lines.append(_path(points, row, rank, len(scored), objective))
    return svg.drawing(width, height, "Parallel coordinates of all trials", lines + parts)


def _path(
    points: Sequence[tuple[float, float]],
    row: TrialRow,
    rank: int | None,
    count: int,
    objective: keras_tuner.Objective,
) -> Element:
    name = _title(row, objective.name)
    if rank is None:
        return svg.path(points, name, stroke=_FAILED, stroke_dasharray="3 4", stroke_width=1.2, opacity=0.8)
    return svg.path(
        points,
        name,
        stroke=to_hex(_RAMP(1 - rank / max(1, count - 1))),
        stroke_width=3.2 if rank == 0 else 1.6,
        opacity=1 if rank == 0 else max(0.35, 0.85 - 0.012 * count),
    )


def scatter(rows: Sequence[TrialRow], axis: Dimension, objective: keras_tuner.Objective) -> Markup:
    """Score against one hyperparameter: a dot a trial, a ring where it was pruned, a cross where it failed.

    Args:
        rows: The trials, best first, of which at least one has a score.
        axis: The hyperparameter.
        objective: The score.
    """
    scored, width, height = score_axis(rows, objective), 340.0, 250.0
    ticks = scored.ticks()
    left = 18 + 7.0 * max(len(text) for _, text in ticks)
    top, right = 34.0, 12.0
    # Choices stand in columns, with room for the outermost.
    inner = 0.0 if axis.kind != "choice" else min(0.18, 0.5 / len(axis.values))
    laid = _laid(axis, (width - left - right) * (1 - 2 * inner))
    bottom = 46.0 + 13 * max((row_below for _, _, row_below in laid), default=0)

    def x_of(place: float) -> float:
        return left + 8 + (inner + place * (1 - 2 * inner)) * (width - left - right - 16)

    def y_of(place: float) -> float:
        return top + (1 - place) * (height - top - bottom)

    name = axis.name.replace("_", " ")
    parts = [svg.text(left, 18, shortened(f"{objective.name} by {name}", 40), "start", bold=True)]
    for place, text in ticks:
        y = y_of(place)
        parts += [
            svg.line(left, y, width - right, y, "var(--grid)", 1),
            svg.text(left - 5, y + 4, text, "end", soft=True),
        ]
    for place, text, row_below in laid:
        y = height - bottom + 18 + 13 * row_below
        parts.append(svg.text(x_of(place), y, shortened(text, _MAX_LETTERS), "middle", soft=True))
    parts.append(
        svg.text(
            (left + width - right) / 2,
            height - 6,
            f"{name}{' (log scale)' if axis.kind == 'log' else ''}",
            "middle",
            soft=True,
        )
    )
    for number, row in reversed(list(enumerate(rows))):
        value = row.hyperparameters.get(axis.name)
        if value is None or row.status == "RUNNING":
            continue
        x = x_of(axis.place(value)) + (_aside(row.trial) * 5 if axis.kind == "choice" else 0.0)
        parts += _mark(row, x, y_of, scored, objective.name, best=number == 0)
    return svg.drawing(width, height, f"{objective.name} against {axis.name}", parts)


def _mark(row: TrialRow, x: float, y_of: Any, scored: Dimension, name: str, *, best: bool) -> list[Element]:
    """A trial's sign in a scatter, on a bar where its trainings differ."""
    told = _title(row, name)
    if row.score is None:
        cross = f"M{x - 4:.1f} {y_of(0.0) - 1:.1f}l8 8m0 -8l-8 8"
        return [svg.element("path", told, d=cross, stroke=_FAILED, stroke_width=1.8, fill="none")]
    y, bar = y_of(scored.place(row.score)), []
    if deviation := row.deviations.get(name, 0.0):
        ends = [
            y_of(min(1.0, max(0.0, scored.place(end))))
            for end in (max(row.score - deviation, scored.low), row.score + deviation)
        ]
        bar = [svg.line(x, ends[0], x, ends[1], _BEST if best else _DOT, 1.2, opacity=0.55)]
    if best:
        star = " ".join(
            f"{x + r * math.sin(turn * math.pi / 5):.1f},{y - r * math.cos(turn * math.pi / 5):.1f}"
            for turn, r in enumerate([9, 3.8] * 5)
        )
        return [*bar, svg.element("polygon", told, points=star, fill=_BEST)]
    look: dict[str, Any] = {
        "fill": "none" if row.status == "PRUNED" else _DOT,
        "fill_opacity": 0.75,
        "stroke": _DOT,
    }
    return [*bar, svg.element("circle", told, cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, **look)]


def bars(found: Importances) -> Markup:
    """Importances as bars, with a whisker for how far they differ between repetitions.

    Args:
        found: The importances, of which there is at least one.
    """
    height, most = 30.0, max(one.value + one.deviation for one in found.of) or 1.0
    width, left = 340.0, 12 + 6.6 * min(16, max(len(one.name) for one in found.of))
    room, parts = width - left - 52, []
    for number, one in enumerate(found.of):
        y = number * height + 8
        end = left + one.value / most * room
        spread = one.deviation / most * room
        parts += [
            svg.text(left - 8, y + 13, shortened(one.name.replace("_", " "), 16), "end"),
            svg.element(
                "rect",
                svg.title(f"{one.name}: {one.value:.3f} ± {one.deviation:.3f}"),
                x=f"{left:.1f}",
                y=f"{y:.1f}",
                width=f"{max(1.5, end - left):.1f}",
                height=18,
                rx=3,
                fill=_DOT,
            ),
            svg.line(max(left, end - spread), y + 9, end + spread, y + 9, "var(--ink)", 1.4, opacity=0.7),
            svg.text(end + spread + 6, y + 13, f"{100 * one.value:.0f} %", "start", soft=True),
        ]
    return svg.drawing(width, height * len(found.of) + 8, "Importance of each hyperparameter", parts)


def _value(row: TrialRow, axis: Dimension, is_score: bool) -> Any:
    return row.score if is_score else row.hyperparameters.get(axis.name)


def _aside(trial: str) -> float:
    """A step to the side, from -1 to 1, so that trials with the same choice do not hide each other."""
    return ((int(trial) * 0.618034) % 1) * 2 - 1


def _title(row: TrialRow, name: str) -> Element:
    score = row.reason or "failed" if row.score is None else f"{name} {row.score:.4g}"
    values = (f"{key.replace('_', ' ')}: {label(value)}" for key, value in row.hyperparameters.items())
    return svg.title(f"Trial {row.trial}: {score}", *values)


def _laid(axis: Dimension, room: float) -> list[tuple[float, str, int]]:
    """Labels along an axis that lies: place, text and row; of choices, in two rows where one is too short."""
    ticks = axis.ticks()
    each = 10 + 6.4 * max((len(shortened(text, _MAX_LETTERS)) for _, text in ticks), default=0)
    needed = max(1, len(ticks) - 1) * each  # At both ends half a label more, for which there is room.
    rows = 2 if axis.kind == "choice" and needed > room else 1
    shown = ticks[:: math.ceil(needed / (rows * room))]
    return [(place, text, number % rows) for number, (place, text) in enumerate(shown)]
