"""The callbacks that a search adds to each trial's `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine.trial import Trial

from keras_practice.core.variables import all_variables, read_values
from keras_practice.training.checkpoints import Checkpoints


def tuner_hooks(tuner: keras_tuner.Tuner, trial: Trial) -> keras.callbacks.Callback:
    """A callback that calls `on_epoch_begin`, `on_epoch_end` and the like of a tuner.

    Those of batches, which have many batches to a call no place, are only called where
    the tuner's class does something in them.
    """
    overridden = any(
        getattr(type(tuner), name) is not getattr(keras_tuner.Tuner, name)
        for name in ("on_batch_begin", "on_batch_end")
    )
    return (_BatchHooks if overridden else _EpochHooks)(tuner, trial)


class _EpochHooks(keras.callbacks.Callback):
    def __init__(self, tuner: keras_tuner.Tuner, trial: Trial) -> None:
        super().__init__()
        self._tuner, self._trial = tuner, trial

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the tuner's own."""
        self._tuner.on_epoch_begin(self._trial, self.model, epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the tuner's own."""
        self._tuner.on_epoch_end(self._trial, self.model, epoch, logs=logs)


class _BatchHooks(_EpochHooks):
    def on_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the tuner's own."""
        self._tuner.on_batch_begin(self._trial, self.model, batch, logs)

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the tuner's own."""
        self._tuner.on_batch_end(self._trial, self.model, batch, logs)


class BestEpoch(keras.callbacks.Callback):
    """Keeps what a checkpoint of the best epoch holds in memory, to be written once.

    One serves all executions of a trial. A trial that is killed half-way is run again
    from its start, so that nothing is lost.

    Args:
        objective: The score that says which epoch is the best. Where it is not in the
            logs, the last epoch is.
    """

    def __init__(self, objective: keras_tuner.Objective) -> None:
        super().__init__()
        self._objective = objective
        self._value: float | None = None
        self._state: list[Any] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Copies the model's state if this epoch is the best so far."""
        if self._objective.has_value(logs):
            value = float(self._objective.get_value(logs))
            # As in KerasTuner: NaN, or an infinity of the wrong sign, is never better.
            worst = float("-inf") if self._objective.direction == "max" else float("inf")
            if not self._objective.better_than(value, worst if self._value is None else self._value):
                return
            self._value = value
        self._state = read_values(all_variables(self.model))

    def write(self, path: str | Path, checkpoints: Checkpoints) -> None:
        """Writes the best epoch as a checkpoint, if there is one since the last time."""
        if self._state is None:
            return
        state, self._state = self._state, None
        # A part of a file does no harm: a trial counts by a file that is written later.
        checkpoints.write(self.model, state, path)
