"""The page about a search: what was tried, what came out, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np

from keras_practice.core.files import replacing
from keras_practice.rendering.figures import Line, Panel, svg
from keras_practice.rendering.pages import render
from keras_practice.rendering.words import sentence_case
from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.reports import charts
from keras_practice.tuning.reports.importance import edges, importances, noise
from keras_practice.tuning.space.dimensions import Dimension, label

_MAX_CURVES, _MAX_ROWS = 5, 20


@dataclass(frozen=True)
class Report:
    """What a report is about.

    Attributes:
        title: What was searched, in a few words.
        how: How it was searched, in a sentence.
        rows: The trials, best first.
        axes: The hyperparameters that were searched.
        objective: The score that chooses the best trial.
        best: What `best.json` holds; `None` where every trial failed.
        settings: The search's settings by name.
        facts: Versions and devices by name.
    """

    title: str
    how: str
    rows: Sequence[TrialRow]
    axes: Sequence[Dimension]
    objective: keras_tuner.Objective
    best: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]


def write_report(report: Report, path: Path) -> None:
    """Writes the page: one file with nothing loaded from anywhere, and no script in it.

    Args:
        report: What it is about.
        path: Where to.

    Source:
        A25, A45, A55.
    """
    scored = [row for row in report.rows if row.score is not None]
    text = render(
        "search_report.html",
        title=report.title,
        how=report.how,
        counts=_counts(report),
        objective=report.objective,
        found=_found(report, scored) if scored else None,
        reasons=Counter(row.reason for row in report.rows).most_common(5),
        table=_table(report),
        settings={
            "Settings": _stated(report.settings),
            "Software and machine": _stated(report.facts),
        },
    )
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _counts(report: Report) -> str:
    counts = Counter(row.status for row in report.rows)
    told = [f"{len(report.rows)} trials"]
    told += [f"{counts[key]} {key.lower()}" for key in ("PRUNED", "FAILED") if counts[key]]
    return ", ".join(told)


def _found(report: Report, scored: Sequence[TrialRow]) -> dict[str, Any]:
    """What is shown of a search in which a trial succeeded."""
    rows, axes, objective = report.rows, report.axes, report.objective
    importance = importances(rows, axes, objective) if len(axes) > 1 else None
    ways = ("upright", "lying") if axes else ()
    return {
        "best": _best(report),
        "hints": _told(report, scored[0]),
        "parallel": {way: charts.parallel(rows, axes, objective, way == "upright") for way in ways},
        "sureness": importance.sureness if importance else None,
        "bars": charts.bars(importance) if importance and importance.of else None,
        "scatters": [charts.scatter(rows, axis, objective) for axis in axes],
        "deviations": any(row.deviations for row in rows),
        "curves": [svg(panel) for panel in _curves(report, scored)],
        "first_of_several": any(len(row.trainings) > 1 for row in _drawn(scored)),
    }


def _best(report: Report) -> list[tuple[str, Mapping[str, str], str]]:
    """Cards about the best trial: heading, facts and a remark."""
    best = report.best or {}
    better = "higher" if report.objective.direction == "max" else "lower"
    values = {**best.get("hyperparameters", {}), **best.get("fixed", {})}
    several = "validation_std" in best
    validation = {
        name: _number(value) + (f" ± {_number(best['validation_std'][name])}" if several else "")
        for name, value in best.get("validation", {}).items()
    }
    if several:
        validation |= {
            f"{name}, final model": _number(value) for name, value in best["final_validation"].items()
        }
    test = {name: _number(value) for name, value in best.get("test", {}).items()}
    row = report.rows[0]
    epoch = f", epoch {row.best_epoch}" if row.best_epoch is not None else ""
    return [
        (f"Best: trial {row.trial}{epoch}", {name: label(value) for name, value in values.items()}, ""),
        ("Validation", validation, f"{report.objective.name} decides; {better} is better."),
        ("Test", test, "Looked at once, at the end: the figures to report."),
    ]


def _told(report: Report, best: TrialRow) -> list[str]:
    """What the reader should know before using the result."""
    hints = edges(best, report.axes)
    hints.append(noise(report.rows, report.objective))
    if failed := [row for row in report.rows if row.status == "FAILED"]:
        hints.append(f"{len(failed)} of {len(report.rows)} trials failed; most often: {_commonest(failed)}.")
    if best.most_epochs is not None:
        hints.append("Trials were given different numbers of epochs: a low score may mean no more than few.")
    if best.most_epochs is None and best.best_epoch is not None and len(best.trainings) == 1:
        given = report.settings.get("epochs")
        if best.best_epoch == given:
            hints.append(
                f"The best trial was best in its last epoch, {given}: it had not finished learning, so "
                f"more epochs may give a better model and another order."
            )
    return hints


def _drawn(scored: Sequence[TrialRow]) -> list[TrialRow]:
    """The trials of which curves are drawn."""
    return [row for row in scored if row.trainings][:_MAX_CURVES]


def _curves(report: Report, scored: Sequence[TrialRow]) -> list[Panel]:
    """The objective and the losses of the best trials, epoch by epoch."""
    panels = []
    for name in dict.fromkeys((report.objective.name, "val_loss", "loss")):
        lines = tuple(
            Line(f"trial {row.trial}", np.arange(1, len(values) + 1), np.asarray(values))
            for row in _drawn(scored)
            if (values := row.trainings[0].history.get(name))
        )
        if lines:
            words = name.replace("val_", "validation ").replace("_", " ")
            panels.append(Panel(sentence_case(words), lines, log="loss" in name, ordered=False))
    return panels


def _table(report: Report) -> dict[str, Any]:
    """The table of all trials: the heads of its columns, its first rows and the others."""
    rows = report.rows
    parameters = list(dict.fromkeys(name for row in rows for name in row.hyperparameters))
    names = [report.objective.name]
    names += [
        name
        for name in ("val_loss", "val_accuracy", "val_mae")
        if any(name in row.scores for row in rows) and name not in names
    ]
    budget = any(row.most_epochs is not None for row in rows)
    times = ("epoch", "of", "seconds") if budget else ("epoch", "seconds")
    lines = [_table_row(rank, row, names, parameters, budget) for rank, row in enumerate(rows, start=1)]
    return {
        "heads": ["", "trial", *names, *parameters, *times, "remark"],
        "rows": lines[:_MAX_ROWS],
        "others": lines[_MAX_ROWS:],
    }


def _table_row(
    rank: int, row: TrialRow, names: Sequence[str], parameters: Sequence[str], budget: bool
) -> dict[str, Any]:
    cells = []
    for name in names:
        deviation = row.deviations.get(name)
        spread = "" if deviation is None else f" ± {_number(deviation)}"
        cells.append(f"{_number(row.scores[name])}{spread}" if name in row.scores else "")
    cells += [label(row.hyperparameters.get(name, "")) for name in parameters]
    cells.append(str(row.best_epoch or ""))
    if budget:
        cells.append(str(row.most_epochs or ""))
    cells.append("" if row.seconds is None else f"{row.seconds:.1f}")
    return {
        "rank": rank,
        "trial": row.trial,
        "cells": cells,
        "remark": f"failed: {row.reason}" if row.status == "FAILED" else row.reason.partition(":")[0],
        "look": "dim" if row.score is None else "best" if rank == 1 else "",
    }


def _stated(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is set, in words."""
    return {name: _plain(value) for name, value in facts.items() if value not in (None, (), [])}


def _commonest(rows: Sequence[TrialRow]) -> str:
    return Counter(row.reason for row in rows).most_common(1)[0][0].rstrip(".")


def _number(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return label(value)
