"""What a search shows while it runs: a bar and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from keras_practice.callbacks.environment import environment
from keras_practice.data import Dataset
from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.settings import Settings


class Display:
    """Shows a search on the console; a context manager around the running part.

    Args:
        settings: The search's settings.
        objective: The score that chooses the best trial.
        total: Number of trials, if no space ends before.
        console: Where to write. Defaults to `None`, standard output.
    """

    def __init__(
        self, settings: Settings, objective: str, total: int, console: Console | None = None
    ) -> None:
        self._settings, self._objective, self._total = settings, objective, total
        # A table must not be cut to 80 columns in a file.
        self._console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        self._progress: Progress | None = None
        self._done, self._each = 0, settings.epochs * settings.trainings

    def start(self, dataset: Dataset, space: str) -> None:
        """Says what is searched."""
        settings = self._settings
        how = "" if settings.search == "random" else f"{settings.search} search, "
        means = [
            f"{count} {name}"
            for count, name in ((settings.folds, "folds"), (settings.repeats, "repeats"))
            if count > 1
        ]
        several = f"mean of {' x '.join(means)}, " if means else ""
        self._line(
            f"{self._total} trials of {settings.recipe} on {dataset.name} "
            f"({len(dataset.train):,} train, {len(dataset.val):,} val, {len(dataset.test):,} test samples), "
            f"{how}{space}, up to {settings.epochs} epochs each, "
            f"{several}judged by {self._objective}, {_devices()}"
        )

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("trials"),
                BarColumn(),
                TextColumn("{task.fields[finished]}"),
                TextColumn("{task.fields[best]}", style="bold"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar = self._progress.add_task(
                "", total=self._total * self._each, finished=self._count(), best=""
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def resume(self, rows: Sequence[TrialRow]) -> None:
        """Says how many trials an earlier run has finished."""
        self._done = sum(row.status != "RUNNING" for row in rows)
        if self._done:
            self._line(f"resuming: {self._done} of {self._total} trials were finished before")
        self._update(rows)

    def epoch(self, epoch: int) -> None:
        """Moves the bar; `epoch` counts from 0 through all trainings of a trial."""
        if self._progress is not None:
            self._progress.update(self._bar, completed=self._done * self._each + epoch + 1)

    def trial(self, row: TrialRow, rows: Sequence[TrialRow]) -> None:
        """Shows that a trial has ended."""
        self._done += 1
        if self._progress is None:
            values = _listed(row.hyperparameters)
            result = f"failed: {row.reason}" if row.score is None else f"{self._objective} {row.score:.4f}"
            if self._objective in row.deviations:
                result += f" (deviation {row.deviations[self._objective]:.4f})"
            if row.status == "PRUNED":
                result += f", {row.reason}"
            seconds = "" if row.seconds is None else f", {row.seconds:.1f} s"
            self._line(
                f"trial {self._count()}:{values and f' {values}:'} {result}{self._best(rows)}{seconds}"
            )
        self._update(rows)

    def note(self, text: str) -> None:
        """Says something about the run itself."""
        self._line(text)

    def all_failed(self, rows: Sequence[TrialRow]) -> None:
        """Says why no trial succeeded."""
        reason, count = Counter(row.reason for row in rows).most_common(1)[0]
        self._line(f"Every trial failed; {count} of {len(rows)} with: {reason}")

    def finish(
        self, rows: Sequence[TrialRow], best: dict[str, Any], out: Path, hints: Sequence[str] = ()
    ) -> None:
        """Shows the trials, the best of them, what should be known of it and where everything is."""
        parameters = list(dict.fromkeys(name for row in rows for name in row.hyperparameters))
        shown = ("val_loss", "val_accuracy", "val_mae")
        others = [name for name in shown if name in rows[0].scores and name != self._objective]
        plain = not self._console.is_terminal
        columns = {
            "": [str(rank) for rank in range(1, len(rows) + 1)],
            "trial": [row.trial for row in rows],
            **{name: [_short(row.hyperparameters.get(name, "")) for row in rows] for name in parameters},
            **{
                name: [_score(row.scores.get(name), row.deviations.get(name)) for row in rows]
                for name in (self._objective, *others)
            },
            "epoch": ["" if row.best_epoch is None else str(row.best_epoch) for row in rows],
            "seconds": ["" if row.seconds is None else f"{row.seconds:.1f}" for row in rows],
        }
        heads = {name: name if plain else name.replace("_", " ").removeprefix("val ") for name in columns}
        # What does not fit on a terminal is in trials.csv.
        for name in ("seconds", "epoch", *reversed(others)):
            if _width(columns, heads) > self._console.width:
                del columns[name]
        table = Table(box=None if plain else SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            table.add_column(heads[name], justify="right")
        for rank, cells in enumerate(zip(*columns.values(), strict=True)):
            table.add_row(*cells, style="bold green" if rank == 0 and not plain else "")
        self._console.print(table)
        if len(rows) < self._total:
            self._line(f"the space holds no more than these {len(rows)} trials")
        values = _listed(best["hyperparameters"])
        test = ", ".join(f"{name} {value:.4f}" for name, value in best["test"].items())
        self._line(f"best: trial {best['trial']}{values and f', {values}'}")
        self._line(f"on the test split, looked at once: {test}")
        for hint in hints:
            self._line(hint)
        self._line(f"in {out}: best.keras, best.json, trials.csv, report.html, search.png, tensorboard")

    def _update(self, rows: Sequence[TrialRow]) -> None:
        if self._progress is not None:
            self._progress.update(
                self._bar,
                completed=self._done * self._each,
                finished=self._count(),
                best=self._best(rows).removeprefix(", "),
            )

    def _count(self) -> str:
        return f"{self._done}/{self._total}"

    def _best(self, rows: Sequence[TrialRow]) -> str:
        if not rows or rows[0].score is None:
            return ""
        return f", best {self._objective} {rows[0].score:.4f}"

    def _line(self, text: str) -> None:
        # soft_wrap: a line is one line, whatever the terminal's width.
        self._console.print(text, soft_wrap=True, markup=False)


def _devices() -> str:
    gpus = [device for device in environment()["devices"] if device.startswith("GPU")]
    return f"on {', '.join(gpus)}" if gpus else "on the CPU"


def _width(columns: Mapping[str, Sequence[str]], heads: Mapping[str, str]) -> int:
    """Letters that a table of these columns needs in a line."""
    return sum(max(map(len, (heads[name], *cells))) + 2 for name, cells in columns.items())


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _score(value: float | None, deviation: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if deviation is None else f"{value:.4f} ±{deviation:.4f}"
