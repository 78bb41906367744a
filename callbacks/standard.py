"""The callbacks that every training should have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import keras

from keras_practice.callbacks.explosion import StopOnExplosion
from keras_practice.callbacks.monitor import TrainingMonitor
from keras_practice.callbacks.report import LiveReport
from keras_practice.callbacks.resuming import resumable as make_resumable
from keras_practice.callbacks.stopping import best_weights as make_best_weights
from keras_practice.callbacks.validation_scores import ValidationScores
from keras_practice.data import Task

Choice: TypeAlias = bool | keras.callbacks.Callback

_WRITING = ("tensorboard", "resumable", "report")


def standard(
    val: Any,
    log_dir: str | Path | None = None,
    task: Task | None = None,
    *,
    scores: Choice = True,
    monitor: Choice = True,
    nan_guard: Choice = True,
    best_weights: Choice = True,
    tensorboard: Choice = True,
    resumable: Choice = True,
    report: Choice = True,
) -> list[keras.callbacks.Callback]:
    """Everything that a training should be watched by, safe to be used as it is.

    `fit` needs `validation_data` for `val_loss`, by which the best weights are
    chosen; with the same samples as `val`, the scores cost no pass of their own.

    Each callback can be left out (`False`) or replaced by one of your own, by name:
    `standard(val, "runs/1", monitor=False, best_weights=best_weights("val_f1"))`.

    Args:
        val: The validation set, as in `ValidationScores`.
        log_dir: Folder of this run. Defaults to `None`: nothing is written, and
            `tensorboard`, `resumable` and `report` are left out.
        task: What is predicted. Defaults to `None`: the split's own task, or
            inferred from the labels.
        scores: `ValidationScores`: F1, precision, recall, AUC and coverage.
        monitor: `TrainingMonitor`: gradients, updates, activations, speed.
        nan_guard: `StopOnExplosion`: ends with the last good weights.
        best_weights: `best_weights()`: early stopping by `val_loss`.
        tensorboard: Keras's `TensorBoard`; the scores and the monitor write beside
            it. Show all with `tensorboard --logdir <log_dir>`.
        resumable: `resumable()`: the same script goes on after a crash.
        report: `LiveReport`: `report.html` and `report.png` in `log_dir`.

    Returns:
        A fresh list for `fit(callbacks=...)`, to which more may be added.

    Raises:
        ValueError: If `val` does not fit the task, or a choice is neither a callback
            nor a truth value.

    Source:
        A32, A40 to A45, A55.
    """
    folder = Path() if log_dir is None else Path(log_dir)
    # The report is the last, so that it shows what the others saw.
    choices: dict[str, tuple[Choice, Callable[[], keras.callbacks.Callback]]] = {
        "scores": (scores, lambda: ValidationScores(val, task, log_dir=log_dir)),
        "monitor": (monitor, lambda: TrainingMonitor(log_dir=log_dir)),
        "nan_guard": (nan_guard, StopOnExplosion),
        "best_weights": (best_weights, make_best_weights),
        "tensorboard": (tensorboard, lambda: keras.callbacks.TensorBoard(str(folder), write_graph=False)),
        "resumable": (resumable, lambda: make_resumable(folder / "resume.npz")),
        "report": (report, lambda: LiveReport(folder)),
    }
    callbacks = []
    for name, (choice, make) in choices.items():
        if isinstance(choice, keras.callbacks.Callback):
            callbacks.append(choice)
        elif not isinstance(choice, bool):
            raise ValueError(f"{name} must be True, False or a callback. Got {choice!r}.")
        elif choice and (log_dir is not None or name not in _WRITING):
            callbacks.append(make())
    return callbacks
