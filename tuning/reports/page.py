"""The page about a search: what was tried, what came out, and how far to trust it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np

from keras_practice.core.files import replacing
from keras_practice.rendering.figures import Line, Panel, svg
from keras_practice.rendering.pages import page
from keras_practice.rendering.words import printable, sentence_case
from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.reports import charts
from keras_practice.tuning.reports.importance import edges, importances, noise
from keras_practice.tuning.space.dimensions import Dimension, label

_MAX_CURVES, _MAX_ROWS = 5, 20

_STYLE = """
.upright { display: none; }
@media (min-width: 48rem) { .upright { display: block; } .lying { display: none; } }
.wide { overflow-x: auto; }
.wide table { width: auto; min-width: 100%; }
.wide td, .wide th { padding-left: 0.7rem; }
.best td, .best th { font-weight: 600; }
.dim td, .dim th { color: var(--soft); }
.numbers td.why { white-space: normal; text-align: left; min-width: 14rem; }
.numbers tbody th { text-align: right; }
.lead { font-size: 1.05rem; }
.halo text { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
svg path:hover, svg circle:hover { stroke-width: 3.5; opacity: 1; }
"""


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
    parts = [_header(report)]
    if scored:
        parts += [
            _summary(report),
            _told(report, scored[0]),
            _overview(report),
            _importance(report),
            _against(report),
            _curves(report, scored),
        ]
    else:
        parts.append(_reasons(report))
    parts += [_table(report), _reading(), _settings(report)]
    text = page(report.title, "\n".join(part for part in parts if part))
    text = text.replace("</style>", f"{_STYLE}</style>", 1)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")


def _header(report: Report) -> str:
    counts = Counter(row.status for row in report.rows)
    told = [f"{len(report.rows)} trials"]
    told += [f"{counts[key]} {key.lower()}" for key in ("PRUNED", "FAILED") if counts[key]]
    ok = any(row.score is not None for row in report.rows)
    return f"""<header><h1>{_escape(report.title)}</h1>
<p><span class="pill {"finished" if ok else "failed"}">{"finished" if ok else "failed"}</span>
{_escape(", ".join(told))}. {_escape(report.how)}</p></header>"""


def _summary(report: Report) -> str:
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
    cards = [
        (f"Best: trial {row.trial}{epoch}", {name: label(value) for name, value in values.items()}, ""),
        ("Validation", validation, f"{report.objective.name} decides; {better} is better."),
        ("Test", test, "Looked at once, at the end: the figures to report."),
    ]
    drawn = "".join(
        f'<div class="card"><h3>{_escape(heading)}</h3>{_facts(facts)}'
        + (f'<p class="soft">{_escape(note)}</p>' if note else "")
        + "</div>"
        for heading, facts, note in cards
    )
    return f'<section><h2>The best</h2><div class="grid">{drawn}</div></section>'


def _told(report: Report, best: TrialRow) -> str:
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
    listed = "".join(f'<p class="hint">{_escape(hint)}</p>' for hint in hints)
    return f"<section><h2>What to make of it</h2>{listed}</section>"


def _overview(report: Report) -> str:
    if not report.axes:
        return ""
    drawn = "".join(
        f'<div class="{way} halo">'
        f"{charts.parallel(report.rows, report.axes, report.objective, way == 'upright')}</div>"
        for way in ("upright", "lying")
    )
    note = (
        "A line a trial, from blue (worst) to orange (best, thick); dashed where it failed. Where the orange "
        "lines run together, that hyperparameter matters. Rest the pointer on a line for its values."
    )
    return f'<section><h2>All trials</h2><div class="card">{drawn}<p class="soft">{note}</p></div></section>'


def _importance(report: Report) -> str:
    if len(report.axes) < 2:
        return ""
    found = importances(report.rows, report.axes, report.objective)
    drawn = charts.bars(found) if found.of else ""
    note = (
        "The share of the differences between trials that goes through each hyperparameter, alone or with "
        "others, so that the shares may add up to more than 100 %: how much worse a forest predicts the "
        "ranks of trials that it has not seen when that hyperparameter's values are shuffled, with the "
        "spread over three repetitions. It holds for the ranges that were searched and for no others."
    )
    chart = f'<div class="card">{drawn}</div>' if drawn else ""
    return f"""<section><h2>What mattered</h2><div class="grid">{chart}
<div class="card"><p class="lead">{_escape(found.sureness)}</p><p class="soft">{note}</p></div>
</div></section>"""


def _against(report: Report) -> str:
    if not report.axes:
        return ""
    cards = "".join(
        f'<div class="card">{charts.scatter(report.rows, axis, report.objective)}</div>'
        for axis in report.axes
    )
    name = _escape(report.objective.name)
    direction = "Higher" if report.objective.direction == "max" else "Lower"
    several = any(row.deviations for row in report.rows)
    spread = ", a line is the standard deviation over a trial's trainings" if several else ""
    return (
        f'<section><h2>{name} against each hyperparameter</h2><div class="grid">{cards}</div>'
        f'<p class="soft">{direction} is better. The star is the best trial, a ring was pruned, a cross '
        f"failed{spread}.</p></section>"
    )


def _curves(report: Report, scored: Sequence[TrialRow]) -> str:
    """The objective and the losses of the best trials, epoch by epoch."""
    chosen = [row for row in scored if row.trainings][:_MAX_CURVES]
    panels = []
    for name in dict.fromkeys((report.objective.name, "val_loss", "loss")):
        lines = tuple(
            Line(f"trial {row.trial}", np.arange(1, len(values) + 1), np.asarray(values))
            for row in chosen
            if (values := row.trainings[0].history.get(name))
        )
        if lines:
            words = name.replace("val_", "validation ").replace("_", " ")
            panels.append(Panel(sentence_case(words), lines, log="loss" in name, ordered=False))
    if not panels:
        return ""
    cards = "".join(f'<div class="card">{svg(panel)}</div>' for panel in panels)
    several = any(len(row.trainings) > 1 for row in chosen)
    note = '<p class="soft">The first training of each.</p>' if several else ""
    return f'<section><h2>Curves of the best trials</h2><div class="grid">{cards}</div>{note}</section>'


def _reasons(report: Report) -> str:
    listed = "".join(
        f"<li>{count} times: {_escape(reason)}</li>"
        for reason, count in Counter(row.reason for row in report.rows).most_common(5)
    )
    return f'<section><h2>Every trial failed</h2><ul class="card">{listed}</ul></section>'


def _table(report: Report) -> str:
    rows = report.rows
    parameters = list(dict.fromkeys(name for row in rows for name in row.hyperparameters))
    names = [report.objective.name]
    names += [
        name
        for name in ("val_loss", "val_accuracy", "val_mae")
        if any(name in row.scores for row in rows) and name not in names
    ]
    budget = any(row.most_epochs is not None for row in rows)
    heads = ["", "trial", *names, *parameters, "epoch", *(["of"] if budget else []), "seconds", "remark"]
    head = "".join(f'<th scope="col">{_escape(name.replace("_", " "))}</th>' for name in heads)
    drawn = [_table_row(number, row, names, parameters, budget) for number, row in enumerate(rows, start=1)]

    def table(lines: Sequence[str]) -> str:
        return (
            f'<div class="wide"><table class="numbers"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )

    rest = ""
    if len(drawn) > _MAX_ROWS:
        rest = (
            f'<details class="card"><summary>The other {len(drawn) - _MAX_ROWS} trials</summary>'
            f"{table(drawn[_MAX_ROWS:])}</details>"
        )
    return f'<section><h2>Trials</h2><div class="card">{table(drawn[:_MAX_ROWS])}</div>{rest}</section>'


def _table_row(
    number: int, row: TrialRow, names: Sequence[str], parameters: Sequence[str], budget: bool
) -> str:
    cells = []
    for name in names:
        deviation = row.deviations.get(name)
        spread = "" if deviation is None else f" ± {_number(deviation)}"
        cells.append(f"<td>{_number(row.scores[name])}{spread}</td>" if name in row.scores else "<td></td>")
    for name in parameters:
        value = row.hyperparameters.get(name, "")
        cells.append(f"<td>{_escape(label(value))}</td>")
    cells.append(f"<td>{row.best_epoch or ''}</td>")
    if budget:
        cells.append(f"<td>{row.most_epochs or ''}</td>")
    cells.append(f"<td>{'' if row.seconds is None else f'{row.seconds:.1f}'}</td>")
    remark = f"failed: {row.reason}" if row.status == "FAILED" else row.reason.partition(":")[0]
    cells.append(f'<td class="why">{_escape(remark)}</td>' if remark else "<td></td>")
    look = ' class="dim"' if row.score is None else ' class="best"' if number == 1 else ""
    return f'<tr{look}><td>{number}</td><th scope="row">{_escape(row.trial)}</th>{"".join(cells)}</tr>'


def _reading() -> str:
    return """<section><h2>What to do next</h2><ul class="card">
<li>The best value at an end of its range: widen the range there and search again.</li>
<li>Losses that still fall in the last epoch: more epochs, for fewer trials.</li>
<li>Several trials that cannot be told apart: the smallest model among them.</li>
<li>Validation far better than test: too many trials for too small a validation set; --folds 5 helps.</li>
</ul></section>"""


def _settings(report: Report) -> str:
    cards = "".join(
        f'<div class="card"><h3>{heading}</h3>'
        + _facts({name: _plain(value) for name, value in facts.items() if value not in (None, (), [])})
        + "</div>"
        for heading, facts in (("Settings", report.settings), ("Software and machine", report.facts))
    )
    return f'<section><h2>How it was made</h2><div class="grid">{cards}</div></section>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_escape(str(name).replace("_", " "))}</th><td>{_escape(text)}</td></tr>'
        for name, text in facts.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _escape(text: str) -> str:
    """The text as a page may hold it."""
    return html.escape(printable(text))


def _commonest(rows: Sequence[TrialRow]) -> str:
    return Counter(row.reason for row in rows).most_common(1)[0][0].rstrip(".")


def _number(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return label(value)
