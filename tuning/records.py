"""The trials of a search as rows, best first."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_practice.core.files import replacing


@dataclass(frozen=True)
class Training:
    """One training of a trial.

    Attributes:
        fold: The fold that it was validated on, from 1.
        repeat: Which of the fold's trainings it is, from 1.
        seed: The seed of everything random in it.
        score: The objective's best value; NaN where the training diverged.
        history: Every score by epoch, as Keras's history has them.
        pruned: Why it was ended by the median; empty if it was not.
    """

    fold: int
    repeat: int
    seed: int
    score: float
    history: dict[str, list[float]]
    pruned: str = ""


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        trial: Its number, as text.
        seed: The seed of everything random in it, or in its first training.
        status: `"COMPLETED"`, `"PRUNED"`, `"FAILED"` or `"RUNNING"`.
        hyperparameters: Values by name.
        score: The objective's best value, the mean over the trainings; `None` if
            the trial did not succeed.
        scores: Every score of the best epoch, by name; means over the trainings.
        deviations: Their standard deviations over the trainings (n - 1); empty
            where there was one training.
        best_epoch: The best epoch, from 1; rounded mean over the trainings.
        most_epochs: Epochs that the trial was given; `None` if all the same.
        seconds: Time that the trial took.
        reason: Why it failed or was pruned; empty if it was not.
        trainings: Its trainings, as far as they were recorded.
    """

    trial: str
    seed: int
    status: str
    hyperparameters: dict[str, Any]
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    deviations: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    most_epochs: int | None = None
    seconds: float | None = None
    reason: str = ""
    trainings: tuple[Training, ...] = ()


def rows_of(
    oracle: keras_tuner.Oracle,
    seeds: Mapping[str, int],
    trainings: Mapping[str, Sequence[Training]] | None = None,
) -> list[TrialRow]:
    """The trials so far: completed ones best first, then pruned ones, then the others by number.

    Args:
        oracle: What has chosen them and knows their scores.
        seeds: The seed of each trial, by its number.
        trainings: The trainings of each trial, by its number. Defaults to `None`,
            not recorded.
    """
    recorded = trainings or {}
    rows = [_row(trial, seeds[name], recorded.get(name, ())) for name, trial in oracle.trials.items()]
    sign = -1 if oracle.objective.direction == "max" else 1
    return sorted(
        rows,
        key=lambda row: (row.score is None, row.status == "PRUNED", sign * (row.score or 0.0), row.trial),
    )


def _row(trial: Any, seed: int, trainings: Sequence[Training]) -> TrialRow:
    scores = {name: float(tracker.get_best_value()) for name, tracker in trial.metrics.metrics.items()}
    epoch, seconds = scores.pop("best_epoch", None), scores.pop("seconds", None)
    deviations = {name: scores.pop(name) for name in list(scores) if name.endswith(DEVIATION)}
    completed = trial.status == TrialStatus.COMPLETED and trial.score is not None
    pruned = next((training.pruned for training in trainings if training.pruned), "")
    values = trial.hyperparameters.values
    return TrialRow(
        trial=trial.trial_id,
        seed=seed,
        status="PRUNED" if pruned and completed else str(trial.status),
        hyperparameters={name: value for name, value in values.items() if not name.startswith("tuner/")},
        score=float(trial.score) if completed else None,
        scores=scores,
        deviations={name.removesuffix(DEVIATION): value for name, value in deviations.items()},
        best_epoch=None if epoch is None else round(epoch),
        most_epochs=values.get("tuner/epochs"),
        seconds=seconds,
        reason=reason_of(trial) if trial.status == TrialStatus.FAILED else pruned,
        trainings=tuple(trainings),
    )


DEVIATION = "_std"

_ERROR = re.compile(r"^([\w.]*(?:Error|Exception|Interrupt|Exit|Stop\w*)):?(?: (.*))?$")
_MEMORY = ("MemoryError", "ResourceExhaustedError")


def reason_of(trial: Any) -> str:
    """What the trial's traceback ends with, in one line, or what its scores say."""
    lines = (trial.message or "").strip().splitlines()
    if not lines:
        return "the objective was not a number"
    # TensorFlow's messages go on for lines after the first, and warnings may follow the error.
    found = [match for match in map(_ERROR.match, lines) if match]
    if not found:
        return lines[-1].strip()
    kind, message = found[-1].group(1).rpartition(".")[2], (found[-1].group(2) or "").strip()
    if kind == "FailedTrialError":
        return message
    told = f"{kind}: {message}" if message else kind
    return f"out of memory, {told}" if kind.endswith(_MEMORY) else told


def write_csv(rows: Sequence[TrialRow], path: Path) -> None:
    """Writes one line a trial: every hyperparameter, every score, seconds."""
    parameters = list(dict.fromkeys(name for row in rows for name in row.hyperparameters))
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    columns = [
        name
        for score in names
        for name in (score, f"{score}{DEVIATION}")
        if name == score or any(score in row.deviations for row in rows)
    ]
    given = ["epochs"] if any(row.most_epochs is not None for row in rows) else []
    with replacing(path) as beside, beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["trial", "status", *parameters, *columns, "best_epoch", *given, "seconds", "seed", "reason"]
        )
        for row in rows:
            figures = row.scores | {f"{name}{DEVIATION}": value for name, value in row.deviations.items()}
            writer.writerow(
                [
                    row.trial,
                    row.status,
                    *(row.hyperparameters.get(name, "") for name in parameters),
                    *(_plain(figures.get(name)) for name in columns),
                    _plain(row.best_epoch),
                    *(_plain(row.most_epochs) for _ in given),
                    "" if row.seconds is None else f"{row.seconds:.3f}",
                    row.seed,
                    row.reason,
                ]
            )


def _plain(value: float | int | None) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
