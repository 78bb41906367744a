"""Stopping at the right time, with the right weights."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_practice.callbacks.direction import direction
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.private_api.keras import fit_frame

Mode = Literal["auto", "min", "max"]


def best_weights(
    monitor: str = "val_loss",
    patience: int = 5,
    min_delta: float = 1e-4,
    mode: Mode = "auto",
) -> keras.callbacks.EarlyStopping:
    """Early stopping that gives back the weights of the best epoch, however training ends.

    That holds for Ctrl-C as well, where `fit` runs in the main thread: the model
    has its best weights by the time that the `KeyboardInterrupt` leaves `fit`.
    An epoch whose score is NaN is the worst. Where the score is missing from an
    epoch's logs, as without validation data, the epoch is passed over, and one
    warning a `fit` says so.

    Args:
        monitor: Score in the epoch's logs. Defaults to `"val_loss"`.
        patience: Epochs without improvement after which training stops, at
            least 1. Defaults to `5`.
        min_delta: Least change that counts as an improvement, in the score's
            units. Defaults to `1e-4`.
        mode: `"min"`, `"max"`, or `"auto"`: known from the score's name (F1
            goes up). Defaults to `"auto"`.

    Returns:
        A `keras.callbacks.EarlyStopping`.

    Raises:
        ValueError: If `patience` or `min_delta` is outside its range, or the
            score's direction is unknown.

    Source:
        A32; Prechelt 1998, "Early stopping - but when?".
    """
    patience = check_positive_integer("patience", patience)
    if not 0 <= min_delta < float("inf"):
        raise ValueError(f"min_delta must be zero or a positive number. Got {min_delta}.")
    return _BestWeights(monitor, mode, patience, min_delta)


class _BestWeights(keras.callbacks.EarlyStopping):
    """Keras's early stopping, with the best weights after Ctrl-C too."""

    def __init__(self, monitor: str, mode: Mode, patience: float, min_delta: float) -> None:
        _check_mode(mode)
        super().__init__(
            monitor=monitor,
            patience=patience,
            min_delta=min_delta,
            mode=direction(monitor) if mode == "auto" else mode,
            restore_best_weights=True,
        )
        self._interrupt: _Interrupt | None = None
        self._warned = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier `fit` and listens for Ctrl-C."""
        super().on_train_begin(logs)
        self.best = None  # Which Keras 3.11 and 3.12 keep from the fit before.
        self._warned = False
        self._end_listening()  # A fit that crashed could not.
        # Others cannot be put back, or leave no model behind, or have Ctrl-C ignored.
        if _in_main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._interrupt = _Interrupt(self)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the best weights back."""
        super().on_train_end(logs)
        self._end_listening()

    def _end_listening(self) -> None:
        if self._interrupt is not None:
            self._interrupt.remove()
            self._interrupt = None

    def get_monitor_value(self, logs: dict[str, Any] | None) -> float | None:
        """The epoch's score, as Keras's early stopping asks for it."""
        value = _look_up(self, self.monitor, logs)
        if value is not None and math.isnan(value):
            # Nothing compares as better than NaN, so one NaN would stay the best for good.
            return math.inf if self.mode == "min" else -math.inf
        return value

    def restore(self) -> None:
        """Sets the best weights so far, where there are any."""
        if self.best_weights is not None:
            with tf.init_scope():  # Ctrl-C may come while a graph is being traced.
                self.model.set_weights(self.best_weights)


class _Interrupt:
    """A handler of SIGINT that restores a callback's best weights when Ctrl-C ends the `fit` of its model.

    It hands over to the handler that it found, and acts where that one raises:
    a handler that only takes a note leaves training as it is. Handlers may be
    removed in any order: one that has others above it stays among them and does
    nothing but hand over.
    """

    def __init__(self, callback: _BestWeights) -> None:
        # A fit that ends by an error leaves its handler installed, which must not keep the model in memory.
        self._callback: Callable[[], _BestWeights | None] = weakref.ref(callback)
        self._previous: Any = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        callback = self._callback()
        if callback is None or fit_frame(callback.model, frame) is None:
            self.remove()
            self._previous(signum, frame)
            return
        try:
            self._previous(signum, frame)
        except BaseException:
            callback.restore()
            self.remove()
            raise

    def remove(self) -> None:
        """Puts back the handler that was there before, as far as none is above this one."""
        self._callback = lambda: None
        if not _in_main_thread():
            return
        top = handler = signal.getsignal(signal.SIGINT)
        while isinstance(handler, _Interrupt) and handler._callback() is None:
            handler = handler._previous
        if handler is not top:
            signal.signal(signal.SIGINT, handler)


def _in_main_thread() -> bool:
    """Whether Python lets this thread set handlers of signals."""
    return threading.current_thread() is threading.main_thread()


class TimeBudget(_BestWeights):
    """Ends training when its time is over and leaves the best weights so far.

    The clock runs from the beginning of `fit`, so that tracing and validation
    count. It is looked at after every call of the training function and after
    every epoch: training ends late by one such call
    (`steps_per_execution` batches) and one validation pass at most. The epoch
    that is cut short is validated and may be the best.

    Where the score is missing from an epoch's logs, as without validation data,
    one warning a `fit` says so, and training ends in time with its last weights.
    Ctrl-C gives the best weights back, as with `best_weights`.

    Args:
        seconds: Time for one `fit`, above 0.
        monitor: Score in the epoch's logs by which epochs are compared. Defaults
            to `"val_loss"`.
        mode: `"min"`, `"max"`, or `"auto"`: known from the score's name.
            Defaults to `"auto"`.

    Attributes:
        ran_out: Whether the time ran out.

    Raises:
        ValueError: If an argument is outside its range, or the score's direction
            is unknown.

    Source:
        A32.
    """

    def __init__(self, seconds: float, monitor: str = "val_loss", mode: Mode = "auto") -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be a positive number. Got {seconds}.")
        super().__init__(monitor, mode, patience=math.inf, min_delta=0.0)
        self.seconds = seconds
        self.ran_out = False
        self._begin = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        super().on_train_begin(logs)
        self.ran_out = False
        self._begin = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the clock."""
        self._look_at_clock()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights where they are the best, and looks at the clock."""
        super().on_epoch_end(epoch, logs)
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        if time.monotonic() - self._begin >= self.seconds:
            self.ran_out = self.model.stop_training = True


class StopOnTarget(keras.callbacks.Callback):
    """Stops training after the first epoch whose score reaches the goal that was set beforehand.

    Where the score is missing from an epoch's logs, the epoch is passed over,
    and one warning a `fit` says so. NaN reaches no target.

    Args:
        score: Score in the epoch's logs, such as `"val_f1"`.
        value: The goal, in the score's units; reaching it exactly is enough.
        mode: `"min"` (the score must come down to `value`), `"max"`, or
            `"auto"`: known from the score's name and the model's metrics.
            Defaults to `"auto"`.

    Attributes:
        reached_epoch: The epoch, counted from 0, whose score reached the goal;
            `None` as long as there is none.

    Raises:
        ValueError: If an argument is outside its range; at the beginning of
            `fit`, if the score's direction is unknown.

    Source:
        A55.
    """

    def __init__(self, score: str, value: float, mode: Mode = "auto") -> None:
        super().__init__()
        if not math.isfinite(value):
            raise ValueError(f"value must be a finite number. Got {value}.")
        _check_mode(mode)
        self.score = score
        self.value = value
        self.mode = mode
        self.reached_epoch: int | None = None
        self._upwards = mode == "max"
        self._warned = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier `fit` and asks the model for the score's direction."""
        self.reached_epoch = None
        self._warned = False
        self._upwards = (direction(self.score, self.model) if self.mode == "auto" else self.mode) == "max"

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares the score with the goal."""
        score = _look_up(self, self.score, logs)
        if score is not None and (score >= self.value if self._upwards else score <= self.value):
            self.reached_epoch = epoch
            self.model.stop_training = True


def _look_up(callback: _BestWeights | StopOnTarget, score: str, logs: dict[str, Any] | None) -> float | None:
    """A score in the logs, `None` with one warning a `fit` where it is missing."""
    logs = logs or {}
    if score not in logs and not callback._warned:
        callback._warned = True
        warnings.warn(
            f"Scores that are watched must be in the epoch's logs; epochs without are passed over. "
            f"Got no {score!r} among {', '.join(map(repr, logs)) or 'none'}.",
            stacklevel=2,
        )
    return logs.get(score)


def _check_mode(mode: str) -> None:
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"mode must be 'auto', 'min' or 'max'. Got {mode!r}.")
