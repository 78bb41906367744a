"""Drawings of trials as SVG: parallel coordinates, scores against a hyperparameter, importances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import keras_tuner
from matplotlib.colors import LinearSegmentedColormap, to_hex

from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.reports.importance import Importances
from keras_practice.tuning.space.dimensions import Dimension, label, printable

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
) -> str:
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
        parts.append(_line(x0, y0, x1, y1, "var(--soft)", 1))
        name = axis.name.replace("_", " ")
        if upright:
            parts.append(_text(x0, 26, _cut(name, max(6, int(gap / 7.5))), "middle", bold=True))
        else:
            parts.append(_text(20, y0 - 9, _cut(name, 40), "start", bold=True))
        if upright:
            step = math.ceil(len(axis.ticks()) * 18 / length)
            for place, text in axis.ticks()[::step]:
                x, y = at(number, place)
                parts += [
                    _line(x - 4, y, x + 4, y, "var(--soft)", 1),
                    _text(x - 7, y + 4, _cut(text, _MAX_LETTERS), "end", soft=True),
                ]
            continue
        for place, text, row_below in _laid(axis, length):
            x, y = at(number, place)
            end = "start" if place < 0.08 else "end" if place > 0.92 else "middle"
            parts += [
                _line(x, y - 4, x, y + 4, "var(--soft)", 1),
                _text(x, y + 16 + 13 * row_below, _cut(text, _MAX_LETTERS), end, soft=True),
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
    return _svg(width, height, "Parallel coordinates of all trials", "".join(lines) + "".join(parts))


def _path(
    points: Sequence[tuple[float, float]],
    row: TrialRow,
    rank: int | None,
    count: int,
    objective: keras_tuner.Objective,
) -> str:
    drawn = " ".join(f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))
    if rank is None:
        look = f'stroke="{_FAILED}" stroke-dasharray="3 4" stroke-width="1.2" opacity="0.8"'
    else:
        colour = to_hex(_RAMP(1 - rank / max(1, count - 1)))
        look = (
            f'stroke="{colour}" stroke-width="{3.2 if rank == 0 else 1.6}" '
            f'opacity="{1 if rank == 0 else max(0.35, 0.85 - 0.012 * count)}"'
        )
    return (
        f'<path d="{drawn}" fill="none" stroke-linejoin="round" {look}>{_title(row, objective.name)}</path>'
    )


def scatter(rows: Sequence[TrialRow], axis: Dimension, objective: keras_tuner.Objective) -> str:
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

    parts = [
        _text(left, 18, _cut(f"{objective.name} by {axis.name.replace('_', ' ')}", 40), "start", bold=True)
    ]
    for place, text in ticks:
        y = y_of(place)
        parts += [
            _line(left, y, width - right, y, "var(--grid)", 1),
            _text(left - 5, y + 4, text, "end", soft=True),
        ]
    for place, text, row_below in laid:
        y = height - bottom + 18 + 13 * row_below
        parts.append(_text(x_of(place), y, _cut(text, _MAX_LETTERS), "middle", soft=True))
    parts.append(
        _text(
            (left + width - right) / 2,
            height - 6,
            f"{axis.name.replace('_', ' ')}{' (log scale)' if axis.kind == 'log' else ''}",
            "middle",
            soft=True,
        )
    )
    for number, row in reversed(list(enumerate(rows))):
        value = row.hyperparameters.get(axis.name)
        if value is None or row.status == "RUNNING":
            continue
        x = x_of(axis.place(value)) + (_aside(row.trial) * 5 if axis.kind == "choice" else 0.0)
        parts.append(_mark(row, x, y_of, scored, objective.name, best=number == 0))
    return _svg(width, height, f"{objective.name} against {axis.name}", "".join(parts))


def _mark(row: TrialRow, x: float, y_of: Any, scored: Dimension, name: str, *, best: bool) -> str:
    """A trial's sign in a scatter."""
    told = _title(row, name)
    if row.score is None:
        y = y_of(0.0) + 3
        return (
            f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{_FAILED}" stroke-width="1.8" '
            f'fill="none">{told}</path>'
        )
    y, bar = y_of(scored.place(row.score)), ""
    if deviation := row.deviations.get(name, 0.0):
        ends = [
            y_of(min(1.0, max(0.0, scored.place(end))))
            for end in (max(row.score - deviation, scored.low), row.score + deviation)
        ]
        bar = _line(x, ends[0], x, ends[1], _BEST if best else _DOT, 1.2, opacity=0.55)
    if best:
        star = " ".join(
            f"{x + r * math.sin(turn * math.pi / 5):.1f},{y - r * math.cos(turn * math.pi / 5):.1f}"
            for turn, r in enumerate([9, 3.8] * 5)
        )
        return f'{bar}<polygon points="{star}" fill="{_BEST}">{told}</polygon>'
    fill = "none" if row.status == "PRUNED" else _DOT
    return (
        f'{bar}<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" fill-opacity="0.75" '
        f'stroke="{_DOT}">{told}</circle>'
    )


def bars(found: Importances) -> str:
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
            _text(left - 8, y + 13, _cut(one.name.replace("_", " "), 16), "end"),
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(1.5, end - left):.1f}" height="18" rx="3" '
            f'fill="{_DOT}"><title>{escape(one.name)}: {one.value:.3f} ± {one.deviation:.3f}</title></rect>',
            _line(max(left, end - spread), y + 9, end + spread, y + 9, "var(--ink)", 1.4, opacity=0.7),
            _text(end + spread + 6, y + 13, f"{100 * one.value:.0f} %", "start", soft=True),
        ]
    return _svg(width, height * len(found.of) + 8, "Importance of each hyperparameter", "".join(parts))


def _value(row: TrialRow, axis: Dimension, is_score: bool) -> Any:
    return row.score if is_score else row.hyperparameters.get(axis.name)


def _aside(trial: str) -> float:
    """A step to the side, from -1 to 1, so that trials with the same choice do not hide each other."""
    return ((int(trial) * 0.618034) % 1) * 2 - 1


def _title(row: TrialRow, name: str) -> str:
    """What is shown where the pointer rests."""
    score = row.reason or "failed" if row.score is None else f"{name} {row.score:.4g}"
    values = "".join(
        f"\n{key.replace('_', ' ')}: {printable(label(value))}" for key, value in row.hyperparameters.items()
    )
    return f"<title>{escape(printable(f'Trial {row.trial}: {score}'))}{escape(values)}</title>"


def _laid(axis: Dimension, room: float) -> list[tuple[float, str, int]]:
    """Labels along an axis that lies: place, text and row; of choices, in two rows where one is too short."""
    ticks = axis.ticks()
    each = 10 + 6.4 * max((len(_cut(text, _MAX_LETTERS)) for _, text in ticks), default=0)
    needed = max(1, len(ticks) - 1) * each  # At both ends half a label more, for which there is room.
    rows = 2 if axis.kind == "choice" and needed > room else 1
    shown = ticks[:: math.ceil(needed / (rows * room))]
    return [(place, text, number % rows) for number, (place, text) in enumerate(shown)]


def _svg(width: float, height: float, name: str, inside: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="100%" '
        f'role="img" aria-label="{escape(printable(name))}" '
        f'font-family="system-ui, sans-serif">{inside}</svg>'
    )


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float, opacity: float = 1.0) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False, soft: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{13 if bold else 11.5}"{weight} '
        f'fill="var(--{"soft" if soft else "ink"})">{escape(text)}</text>'
    )


def _cut(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"
