"""The trials of a search as rows, best first."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_tuner.engine.trial import TrialStatus

from keras_practice.data.files import replacing
from keras_practice.tuning.search import RandomSearch


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        trial: Its number, as text.
        seed: The seed of everything random in it.
        status: `"COMPLETED"`, `"FAILED"` or `"RUNNING"`.
        hyperparameters: Values by name.
        score: The objective's best value; `None` if the trial did not succeed.
        scores: Every score of the best epoch, by name.
        best_epoch: The best epoch, from 1.
        seconds: Time that the trial took.
        reason: Why it failed; empty if it did not.
    """

    trial: str
    seed: int
    status: str
    hyperparameters: dict[str, Any]
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    seconds: float | None = None
    reason: str = ""


def rows_of(search: RandomSearch) -> list[TrialRow]:
    """The search's trials so far: completed ones best first, then the others by number."""
    rows = []
    for trial in search.oracle.trials.values():
        scores = {name: float(tracker.get_best_value()) for name, tracker in trial.metrics.metrics.items()}
        epoch, seconds = scores.pop("best_epoch", None), scores.pop("seconds", None)
        completed = trial.status == TrialStatus.COMPLETED and trial.score is not None
        rows.append(
            TrialRow(
                trial=trial.trial_id,
                seed=search.trial_seed(trial),
                status=str(trial.status),
                hyperparameters=dict(trial.hyperparameters.values),
                score=float(trial.score) if completed else None,
                scores=scores,
                best_epoch=None if epoch is None else int(epoch),
                seconds=seconds,
                reason=_reason(trial) if trial.status == TrialStatus.FAILED else "",
            )
        )
    sign = -1 if search.oracle.objective.direction == "max" else 1
    return sorted(rows, key=lambda row: (row.score is None, sign * (row.score or 0.0), row.trial))


def _reason(trial: Any) -> str:
    """The last line of the trial's traceback, or what its scores say."""
    lines = (trial.message or "").strip().splitlines()
    return lines[-1].strip() if lines else "the objective was not a number"


def write_csv(rows: Sequence[TrialRow], path: Path) -> None:
    """Writes one line a trial: every hyperparameter, every score, seconds."""
    parameters = list(dict.fromkeys(name for row in rows for name in row.hyperparameters))
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    with replacing(path) as beside, beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", *parameters, *names, "best_epoch", "seconds", "seed", "reason"])
        for row in rows:
            writer.writerow(
                [
                    row.trial,
                    row.status,
                    *(row.hyperparameters.get(name, "") for name in parameters),
                    *(_plain(row.scores.get(name)) for name in names),
                    _plain(row.best_epoch),
                    "" if row.seconds is None else f"{row.seconds:.3f}",
                    row.seed,
                    row.reason,
                ]
            )


def _plain(value: float | int | None) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
