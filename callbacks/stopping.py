"""Stopping at the right time, with the right weights."""

from __future__ import annotations

from typing import Literal

import keras

from keras_practice.callbacks.direction import direction


def best_weights(
    monitor: str = "val_loss",
    patience: int = 5,
    min_delta: float = 1e-4,
    mode: Literal["auto", "min", "max"] = "auto",
) -> keras.callbacks.EarlyStopping:
    """Early stopping that gives back the weights of the best epoch, however training ends.

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
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
        raise ValueError(f"patience must be a positive integer. Got {patience!r}.")
    if not 0 <= min_delta < float("inf"):
        raise ValueError(f"min_delta must be zero or a positive number. Got {min_delta}.")
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"mode must be 'auto', 'min' or 'max'. Got {mode!r}.")
    return keras.callbacks.EarlyStopping(
        monitor=monitor,
        patience=patience,
        min_delta=min_delta,
        mode=direction(monitor) if mode == "auto" else mode,
        restore_best_weights=True,
    )
