"""What a search is told, and the sentence for each thing that is wrong with it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from keras_practice.core.arguments import check_positive_integer, is_integer

SEARCHES = ("random", "grid", "hyperband", "bayesian")
SPACES = ("narrow", "wide", "none")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a search's results.

    Attributes:
        data: Name of a data set, or the path of an `.npz` file. Defaults to `"digits"`.
        recipe: Name of a recipe. Defaults to `"mlp"`.
        trials: Most trials, at least 1; a grid or a small space may have fewer.
            Defaults to `16`.
        epochs: Most epochs a trial, at least 1; a trial stops after five without
            improvement. Defaults to `8`.
        batch_size: Samples a batch, where that is not searched. Defaults to `64`.
        learning_rate: Lowest and highest learning rate; its logarithm is drawn
            evenly. Defaults to `(1e-5, 1e-1)`.
        objective: Score that chooses the best trial. Defaults to `None`: `val_f1`
            for classes, `val_loss` for regression.
        data_path: Local `.npz` file for `mnist`, `fashion_mnist` or `cifar10`.
            Defaults to `None`, downloaded.
        seed: Fixes the split, the trials and the training. Defaults to `0`.
        search: `"random"`, `"grid"`, `"hyperband"` or `"bayesian"`. Defaults to
            `"random"`.
        space: What is searched beside the learning rate: `"narrow"`, the one or
            two hyperparameters that matter most in the recipe; `"wide"`, also
            widths, penalties, optimizer and batch size; or `"none"`. Defaults to
            `"narrow"`.
        set: More hyperparameters, or others in the place of the space's own, such
            as `"dropout=0:0.5"`; see `tuning.parsing`. Defaults to `()`.
        folds: Parts of the training and validation samples that serve as
            validation data in turn; `1` keeps to the validation split. Defaults to `1`.
        repeats: Trainings of each trial, or of each of its folds, from different
            seeds. Defaults to `1`.
        prune: Whether a trial ends at an epoch at which it is worse than the
            median of the trials before it. Defaults to `False`.
        keep: Trials whose models are kept on disk, the best ones. Defaults to `3`.

    Raises:
        ValueError: If a number is outside its range, or a word unknown.

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
    search: str = "random"
    space: str = "narrow"
    set: tuple[str, ...] = ()
    folds: int = 1
    repeats: int = 1
    prune: bool = False
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "batch_size", "folds", "repeats", "keep"):
            object.__setattr__(self, name, check_positive_integer(name, getattr(self, name)))
        if not is_integer(self.seed) or not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be an integer from 0 to 2**31 - 1. Got {self.seed!r}.")
        object.__setattr__(self, "seed", int(self.seed))
        for name, words in (("search", SEARCHES), ("space", SPACES)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}. Got {getattr(self, name)!r}.")
        low, high = self.learning_rate
        if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
            raise ValueError(
                f"learning_rate must be a range of positive numbers, low to high. Got {low:g} to {high:g}."
            )
        given: Any = self.set
        if isinstance(given, str) or not all(isinstance(text, str) for text in given):
            raise ValueError(f"set must be a sequence of texts, such as 'dropout=0:0.5'. Got {given!r}.")
        object.__setattr__(self, "set", tuple(given))

    @property
    def trainings(self) -> int:
        """Trainings of each trial."""
        return self.folds * self.repeats

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON would hold them."""
        return asdict(self) | {"learning_rate": list(self.learning_rate), "set": list(self.set)}
