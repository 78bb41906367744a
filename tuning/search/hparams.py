"""Hyperparameters and scores for TensorBoard's HParams page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from tensorboard.plugins.hparams import api

_BEST = "best/"


def write_experiment(folder: Path, space: list[Any], objective: keras_tuner.Objective) -> None:
    """Says what is searched: each hyperparameter with its range, and the score that it is judged by.

    Args:
        folder: Folder of TensorBoard's logs.
        space: KerasTuner's hyperparameters.
        objective: The score.
    """
    if any(folder.glob("events.out.tfevents.*")):
        return  # Written before the search was stopped.
    metrics = [api.Metric(_BEST + objective.name, display_name=f"best {objective.name}")]
    if objective.name != "val_loss":
        metrics.append(api.Metric(f"{_BEST}val_loss", display_name="val_loss of that epoch"))
    metrics.append(api.Metric(f"{_BEST}seconds", display_name="seconds"))
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        api.hparams_config([api.HParam(hp.name, _domain(hp)) for hp in space], metrics)
    writer.close()


def write_trial(folder: Path, values: Mapping[str, Any], scores: Mapping[str, float], name: str) -> None:
    """Adds a trial: its hyperparameters, and the scores of its best epoch.

    Args:
        folder: The trial's own folder.
        values: Hyperparameters by name.
        scores: Scores by name.
        name: The trial's name.
    """
    shown = {key: value for key, value in values.items() if not key.startswith("tuner/")}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        api.hparams(shown, trial_id=name)
        for key, value in scores.items():
            tf.summary.scalar(_BEST + key, value, step=0)
    writer.close()


def _domain(hp: Any) -> Any:
    if isinstance(hp, keras_tuner.engine.hyperparameters.Float):
        return api.RealInterval(float(hp.min_value), float(hp.max_value))
    if isinstance(hp, keras_tuner.engine.hyperparameters.Int):
        return api.IntInterval(int(hp.min_value), int(hp.max_value))
    return api.Discrete(list(hp.values))
