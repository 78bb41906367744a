"""The callbacks that every training should have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_practice.callbacks.scores import ValidationScores
from keras_practice.callbacks.stopping import best_weights
from keras_practice.data import Task


def standard(
    val: Any, log_dir: str | Path | None = None, task: Task | None = None
) -> list[keras.callbacks.Callback]:
    """Validation scores, best weights, a NaN guard and TensorBoard, in that order.

    `fit` needs `validation_data` for `val_loss`, by which the best weights are chosen.

    Args:
        val: The validation set, as in `ValidationScores`.
        log_dir: Folder for TensorBoard's logs. Defaults to `None`, no logs.
        task: What is predicted. Defaults to `None`: the split's own task, or
            inferred from the labels.

    Returns:
        A fresh list for `fit(callbacks=...)`, to which more may be added.

    Source:
        A32, A40, A44.
    """
    callbacks = [
        ValidationScores(val, task),
        best_weights(),
        keras.callbacks.TerminateOnNaN(),
    ]
    if log_dir is not None:
        callbacks.append(keras.callbacks.TensorBoard(str(log_dir), write_graph=False))
    return callbacks
