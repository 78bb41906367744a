"""What a search shows while it runs: a bar and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
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
from keras_practice.tuning.results import TrialRow
from keras_practice.tuning.settings import Settings


class Display:
    """Shows a search on the console; a context manager around the running part.

    Args:
        settings: The search's settings.
        objective: The score that chooses the best trial.
        console: Where to write. Defaults to `None`, standard output.
    """

    def __init__(self, settings: Settings, objective: str, console: Console | None = None) -> None:
        self._settings, self._objective = settings, objective
        # A table must not be cut to 80 columns in a file.
        self._console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        self._progress: Progress | None = None
        self._done = 0

    def start(self, dataset: Dataset) -> None:
        """Says what is searched."""
        settings = self._settings
        low, high = settings.learning_rate
        self._line(
            f"{settings.trials} trials of {settings.recipe} on {dataset.name} "
            f"({len(dataset.train):,} train, {len(dataset.val):,} val, {len(dataset.test):,} test samples), "
            f"learning rate {low:g} to {high:g}, up to {settings.epochs} epochs each, "
            f"judged by {self._objective}, {_devices()}"
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
                "", total=self._settings.trials * self._settings.epochs, finished=self._count(), best=""
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
        self._done = sum(row.status in ("COMPLETED", "FAILED") for row in rows)
        if self._done:
            self._line(f"resuming: {self._done} of {self._settings.trials} trials were finished before")
        self._update(rows)

    def epoch(self, epoch: int) -> None:
        """Moves the bar; `epoch` counts from 0."""
        if self._progress is not None:
            self._progress.update(self._bar, completed=self._done * self._settings.epochs + epoch + 1)

    def trial(self, row: TrialRow, rows: Sequence[TrialRow]) -> None:
        """Shows that a trial has ended."""
        self._done += 1
        if self._progress is None:
            values = ", ".join(f"{name} {_short(value)}" for name, value in row.hyperparameters.items())
            result = f"failed: {row.reason}" if row.score is None else f"{self._objective} {row.score:.4f}"
            seconds = "" if row.seconds is None else f", {row.seconds:.1f} s"
            self._line(f"trial {self._count()}: {values}: {result}{self._best(rows)}{seconds}")
        self._update(rows)

    def all_failed(self, rows: Sequence[TrialRow]) -> None:
        """Says why no trial succeeded."""
        reason, count = Counter(row.reason for row in rows).most_common(1)[0]
        self._line(f"Every trial failed; {count} of {len(rows)} with: {reason}")

    def finish(self, rows: Sequence[TrialRow], best: dict[str, Any], out: Path) -> None:
        """Shows the trials, the best of them and where everything is."""
        parameters = list(dict.fromkeys(name for row in rows for name in row.hyperparameters))
        # The other scores are in trials.csv; these fit on a terminal of 80 columns.
        shown = ("val_loss", "val_accuracy", "val_mae")
        names = [self._objective, *(n for n in shown if n in rows[0].scores and n != self._objective)]
        plain = not self._console.is_terminal
        table = Table(box=None if plain else SIMPLE_HEAD, pad_edge=False)
        for column in ("", "trial", *parameters, *names, "epoch", "seconds"):
            table.add_column(
                column.replace("_", " ").removeprefix("val ") if not plain else column, justify="right"
            )
        for rank, row in enumerate(rows, start=1):
            table.add_row(
                str(rank),
                row.trial,
                *(_short(row.hyperparameters.get(name)) for name in parameters),
                *(_score(row.scores.get(name)) for name in names),
                "" if row.best_epoch is None else str(row.best_epoch),
                "" if row.seconds is None else f"{row.seconds:.1f}",
                style="bold green" if rank == 1 and not plain else "",
            )
        self._console.print(table)
        values = ", ".join(f"{name} {_short(value)}" for name, value in best["hyperparameters"].items())
        test = ", ".join(f"{name} {value:.4f}" for name, value in best["test"].items())
        self._line(f"best: trial {best['trial']}, {values}")
        self._line(f"on the test split, looked at once: {test}")
        self._line(f"in {out}: best.keras, best.json, trials.csv, search.png, tensorboard")

    def _update(self, rows: Sequence[TrialRow]) -> None:
        if self._progress is not None:
            self._progress.update(
                self._bar,
                completed=self._done * self._settings.epochs,
                finished=self._count(),
                best=self._best(rows).removeprefix(", "),
            )

    def _count(self) -> str:
        return f"{self._done}/{self._settings.trials}"

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


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
