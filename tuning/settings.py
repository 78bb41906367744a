"""What a search is told, and the sentence for each thing that is wrong with it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Everything that decides a search's results.

    Attributes:
        data: Name of a data set, or the path of an `.npz` file. Defaults to `"digits"`.
        recipe: Name of a recipe. Defaults to `"mlp"`.
        trials: Number of trials, at least 1. Defaults to `16`.
        epochs: Most epochs a trial, at least 1; a trial stops after five without
            improvement. Defaults to `8`.
        batch_size: Samples a batch. Defaults to `64`.
        learning_rate: Lowest and highest learning rate; its logarithm is drawn
            evenly. Defaults to `(1e-5, 1e-1)`.
        objective: Score that chooses the best trial. Defaults to `None`: `val_f1`
            for classes, `val_loss` for regression.
        data_path: Local `.npz` file for `mnist`, `fashion_mnist` or `cifar10`.
            Defaults to `None`, downloaded.
        seed: Fixes the split, the trials and the training. Defaults to `0`.

    Raises:
        ValueError: If a number is outside its range.

    Source:
        A25, A45.
    """

    data: str = "digits"
    recipe: str = "mlp"
    trials: int = 16
    epochs: int = 8
    batch_size: int = 64
    learning_rate: tuple[float, float] = (1e-5, 1e-1)
    objective: str | None = None
    data_path: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer. Got {value!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be an integer from 0 to 2**31 - 1. Got {self.seed!r}.")
        low, high = self.learning_rate
        if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
            raise ValueError(
                f"learning_rate must be a range of positive numbers, low to high. Got {low:g} to {high:g}."
            )

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON would hold them."""
        return asdict(self) | {"learning_rate": list(self.learning_rate)}
