"""Ending trials early that fall behind."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_practice.core.arguments import check_integer


class MedianPruning(keras.callbacks.Callback):
    """Ends a training at an epoch at which it is worse than the median of earlier ones at that epoch.

    Args:
        monitor: Score in the epoch's logs, such as `"val_f1"`.
        mode: `"max"` or `"min"`: where the score is better.
        earlier: That score's values by epoch, one sequence for each training
            before this one.
        warmup_trials: Earlier trainings that must have reached an epoch before
            anything ends at it, at least 1. Defaults to `4`.
        warmup_epochs: First epochs at which nothing ends. Defaults to `1`.

    Attributes:
        reason: Why the training was ended; empty if it was not.
        stopped_epoch: The epoch at whose end that was, from 0.

    Raises:
        ValueError: If a warm-up is outside its range, or the mode is unknown.

    Source:
        Golovin et al. 2017, "Google Vizier", section 3.2.2 (median stopping rule).
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        earlier: Sequence[Sequence[float]],
        warmup_trials: int = 4,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max'. Got {mode!r}.")
        self.monitor, self.mode, self.earlier = monitor, mode, earlier
        self.warmup_trials = check_integer("warmup_trials", warmup_trials, least=1)
        self.warmup_epochs = check_integer("warmup_epochs", warmup_epochs, least=0)
        self.reason, self.stopped_epoch = "", 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier `fit`."""
        self.reason, self.stopped_epoch = "", 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares, and ends the training."""
        if epoch < self.warmup_epochs or logs is None or self.monitor not in logs:
            return
        values = [self._ordered(values[epoch]) for values in self.earlier if len(values) > epoch]
        if len(values) < self.warmup_trials:
            return
        median, own = statistics.median(values), self._ordered(logs[self.monitor])
        if own < median:
            sign = 1 if self.mode == "max" else -1
            side = "below" if self.mode == "max" else "above"
            self.reason = (
                f"pruned after epoch {epoch + 1}: {self.monitor} {sign * own:.4g} was {side} the median "
                f"{sign * median:.4g} of {len(values)} earlier trials"
            )
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _ordered(self, value: Any) -> float:
        """The value, turned so that higher is better; NaN is the worst."""
        number = float(value)
        if math.isnan(number):
            return -math.inf
        return number if self.mode == "max" else -number
