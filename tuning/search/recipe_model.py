"""What a trial of a recipe trains: the model of its hyperparameters, on one fold's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_practice import recipes
from keras_practice.callbacks import ValidationScores, best_weights
from keras_practice.data import Dataset
from keras_practice.tuning.search.folds import fold_of, held_out
from keras_practice.tuning.settings import Settings
from keras_practice.tuning.space.parameters import TRAINING, Draw
from keras_practice.tuning.space.parsing import kinds_of

# Without the coverage, whose accuracy is undefined while no sample is covered.
_SCORES = ("f1", "precision", "recall", "auc")
_MAX_BYTES = 2**26


class RecipeModel(keras_tuner.HyperModel):
    """A recipe on a data set, with a space to draw its hyperparameters from.

    Args:
        dataset: What is trained and validated on, where `run` names no fold.
        settings: The search's settings.
        objective: The score that chooses the best epoch.
        draw: Gives the values of a trial; see `Space.draw`.

    Raises:
        ValueError: If there are too few samples for the folds.
    """

    def __init__(
        self, dataset: Dataset, settings: Settings, objective: keras_tuner.Objective, draw: Draw
    ) -> None:
        super().__init__()
        self.dataset, self.settings, self.objective, self.draw = dataset, settings, objective, draw
        self.run = Run(dataset)
        self._held = () if settings.folds == 1 else held_out(dataset, settings.folds, settings.seed)
        self._folds: dict[int, Dataset] = {}

    def fold(self, number: int) -> Dataset:
        """The data of a fold, counted from 0."""
        if not self._held:
            return self.dataset
        if number not in self._folds:
            if self.dataset.train.x.nbytes > _MAX_BYTES:
                self._folds.clear()  # Each is a copy of nearly everything.
            self._folds[number] = fold_of(self.dataset, self._held[number])
        return self._folds[number]

    def values(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Every hyperparameter that the space sets, with the training's own that it does not."""
        drawn = self.draw(hp)
        if not isinstance(drawn, Mapping):
            raise ValueError(f"A space must give a dictionary of hyperparameters. Got {drawn!r}.")
        values = {"optimizer": "adam", "batch_size": self.settings.batch_size, **drawn}
        if "learning_rate" not in values:
            low, high = self.settings.learning_rate
            values["learning_rate"] = hp.Float("learning_rate", low, high, sampling="log")
        known = kinds_of(self.settings.recipe)
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"A space's hyperparameters must be among {', '.join(known)}. Got {', '.join(unknown)}."
            )
        return values

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model."""
        return self.build_from(self.values(hp))

    def build_from(self, values: Mapping[str, Any]) -> keras.Model:
        """The compiled model of these values."""
        arguments = {name: value for name, value in values.items() if name not in TRAINING}
        model = recipes.get(self.settings.recipe)(self.dataset.input_shape, self.dataset.task, **arguments)
        return recipes.compile_for(
            model,
            self.dataset.task,
            optimizer=values["optimizer"],
            learning_rate=values["learning_rate"],
        )

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains with the run's data and callbacks, and keeps the history."""
        run, settings = self.run, self.settings
        watching = [
            ValidationScores(run.dataset.val, scores=self._scores()),
            best_weights(self.objective.name, mode=self.objective.direction),
            *run.callbacks,
        ]
        if run.log_dir is not None:
            watching.append(keras.callbacks.TensorBoard(str(run.log_dir), write_graph=False))
        history = model.fit(
            # Made anew for each trial, so that its order does not depend on the trials before.
            run.dataset.train.batches(self.values(hp)["batch_size"], seed=settings.seed),
            validation_data=run.dataset.val.batches(256),
            epochs=hp.values.get("tuner/epochs", settings.epochs),
            shuffle=False,  # The batches shuffle themselves; Keras warns otherwise.
            verbose=0,
            callbacks=[*watching, *kwargs["callbacks"]],
        )
        run.history = {name: [float(v) for v in values] for name, values in history.history.items()}
        return history

    def _scores(self) -> tuple[str, ...] | None:
        if not self.dataset.task.is_classification:
            return None
        wanted = self.objective.name.removeprefix("val_")
        return (*_SCORES, wanted) if wanted.startswith("coverage") else _SCORES


@dataclass
class Run:
    """What differs between the trainings of one search."""

    dataset: Dataset
    log_dir: Path | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    history: dict[str, list[float]] | None = None
