"""How a trial of a recipe is run: built, trained once or several times, recorded."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_practice import recipes
from keras_practice.callbacks import ValidationScores, best_weights
from keras_practice.core.files import replacing
from keras_practice.data import Dataset
from keras_practice.tuning.records import DEVIATION, Training, TrialRow, rows_of, write_csv
from keras_practice.tuning.reports.display import Display
from keras_practice.tuning.search import hparams
from keras_practice.tuning.search.folds import fold_of, held_out
from keras_practice.tuning.search.oracles import OracleChooser
from keras_practice.tuning.search.pruning import MedianPruning
from keras_practice.tuning.search.random_oracle import derive_seed
from keras_practice.tuning.search.random_search import RandomSearch
from keras_practice.tuning.settings import Settings
from keras_practice.tuning.space.parsing import kinds_of
from keras_practice.tuning.space.presets import TRAINING, Draw

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


class RecipeSearch(RandomSearch, OracleChooser):
    """A search over a recipe that records each training, and keeps its table and display up to date.

    Args:
        model: The recipe.
        out: Folder of the results.
        display: What shows how far it is.
        **kwargs: As in `RandomSearch`.
    """

    def __init__(self, model: RecipeModel, out: Path, display: Display, **kwargs: Any) -> None:
        settings = model.settings
        self._out, self._shown, self._settings, self._model = out, display, settings, model
        self._part = 0
        self._trainings: dict[str, list[Training]] = {}
        super().__init__(
            model,
            model.objective,
            settings.trials,
            settings.seed,
            max_consecutive_failed_trials=settings.trials + 1,  # One bad region must not end the search.
            directory=str(out),
            project_name="search",
            strategy=settings.search,
            epochs=settings.epochs,
            **kwargs,
        )
        for name in self.oracle.trials:
            self._trainings[name] = self._recorded(name)

    def rows(self) -> list[TrialRow]:
        """The trials so far."""
        return rows_of(self, self._trainings)

    def ended(self) -> int:
        """How many trials have ended."""
        ended = (TrialStatus.COMPLETED, TrialStatus.FAILED)
        return sum(trial.status in ended for trial in self.oracle.trials.values())

    def receive(self, name: str, result: Mapping[str, Any]) -> None:
        """Takes the result of a trial that was run elsewhere as if it had been run here.

        Args:
            name: The trial's number.
            result: Its `status`, and where they are known its `message`,
                `hyperparameters` as KerasTuner's configuration, `metrics` by name with
                their `step`, and `trainings`, each as a dictionary.
        """
        trial = self.oracle.get_trial(name)
        self._trainings[name] = [Training(**entry) for entry in result.get("trainings", ())]
        self._record(name)
        if "hyperparameters" in result:
            trial.hyperparameters = keras_tuner.HyperParameters.from_config(result["hyperparameters"])
        trial.metrics = type(trial.metrics)()  # Without those of a run that was broken off.
        if metrics := result.get("metrics"):
            self.oracle.update_trial(name, metrics, step=result.get("step", 0))
        trial.status, trial.message = result["status"], result.get("message")
        self.oracle.drop(name)
        self.on_trial_end(trial)

    def earlier(self, name: str) -> list[list[float]]:
        """The objective by epoch in the other trials' first trainings, for pruning by the median."""
        if not self._settings.prune:
            return []
        return [
            trainings[0].history.get(self._model.objective.name, [])
            for other, trainings in self._trainings.items()
            if other != name and trainings
        ]

    def trial_seed(self, trial: Trial) -> int:
        """The seed of everything random in the trial's present training.

        Hyperband's trial that is given more epochs repeats the one that earned it
        them, and goes on.
        """
        first = trial
        while (before := first.hyperparameters.values.get("tuner/trial_id")) is not None:
            first = self.oracle.get_trial(before)
        seed = super().trial_seed(first)
        return derive_seed(seed, self._part) if self._part else seed

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains on each fold as often as is asked for; returns means and deviations."""
        start = time.perf_counter()
        name, objective = trial.trial_id, self._model.objective
        self._mark_start(name)
        folder = self._out / "tensorboard" / name
        shutil.rmtree(folder, ignore_errors=True)  # What a killed run has left of it.
        self._trainings[name], scores = [], []
        try:
            for part in range(self._settings.trainings):
                self._part = part
                fold, repeat = divmod(part, self._settings.repeats)
                pruning = self._pruning(name)
                log_dir = folder if self._settings.trainings == 1 else folder / f"{fold + 1}-{repeat + 1}"
                run = self._model.run = Run(self._model.fold(fold), log_dir, pruning)
                best = super().run_trial(trial, *args, **kwargs)
                score = float(best[objective.name])
                pruned = pruning[0].reason if pruning else ""
                self._trainings[name].append(
                    Training(fold + 1, repeat + 1, self.trial_seed(trial), score, run.history or {}, pruned)
                )
                scores.append(best)
                if pruned or not math.isfinite(score):
                    break  # The trainings that are left would not change the verdict.
        finally:
            self._part = 0
            self._record(name)
            self._starts(name).unlink(missing_ok=True)
        _check_finite(self._trainings[name], objective.name)
        means = _means(scores) | {"seconds": time.perf_counter() - start}
        hparams.write_trial(folder, trial.hyperparameters.values, means, name)
        return means

    def train_anew(self, trial: Trial) -> keras.Model:
        """The trial's model, trained once more on the training split, with its best epoch's weights."""
        self._model.run = Run(self._model.dataset)
        super().run_trial(trial)
        return self.load_model(trial)

    def on_epoch_end(self, trial: Trial, model: keras.Model, epoch: int, logs: Any = None) -> None:
        """Moves the bar, and ends a training that has diverged."""
        super().on_epoch_end(trial, model, epoch, logs=logs)
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            model.stop_training = True
        self._shown.epoch(self._part * self._settings.epochs + epoch)

    def on_trial_end(self, trial: Trial) -> None:
        """Brings the table up to date, and removes the models that are not among the best."""
        super().on_trial_end(trial)
        rows = self.rows()
        write_csv(rows, self._out / "trials.csv")
        # Of several trainings, only the last would be there; the best trial is trained anew.
        kept = 0 if self._settings.trainings > 1 else self._settings.keep
        for row in [row for row in rows if row.status != "RUNNING"][kept:]:
            for file in Path(self.get_trial_dir(row.trial)).glob("checkpoint*"):
                file.unlink()
        self._shown.trial(next(row for row in rows if row.trial == trial.trial_id), rows)

    def _pruning(self, name: str) -> list[MedianPruning]:
        """The callback that ends the trial's first training where it falls behind."""
        if not self._settings.prune or self._part:
            return []
        objective = self._model.objective
        return [MedianPruning(objective.name, objective.direction, self.earlier(name))]

    def _mark_start(self, name: str) -> None:
        """Fails a trial during which the process was killed twice, so that the search is not stuck at it."""
        file = self._starts(name)
        killed = int(file.read_text()) if file.exists() else 0
        file.unlink(missing_ok=True)
        if killed > 1:
            raise keras_tuner.errors.FailedTrialError(
                f"the process was killed {killed} times while it ran, as happens where memory runs out"
            )
        file.write_text(f"{killed + 1}")

    def _starts(self, name: str) -> Path:
        """Where it is kept how often the trial was begun and neither ended nor was stopped."""
        return Path(self.get_trial_dir(name)) / "starts"

    def _file(self, name: str) -> Path:
        return Path(self.get_trial_dir(name)) / "trainings.json"

    def _record(self, name: str) -> None:
        with replacing(self._file(name)) as beside:
            beside.write_text(json.dumps([asdict(training) for training in self._trainings[name]]) + "\n")

    def _recorded(self, name: str) -> list[Training]:
        file = self._file(name)
        return [Training(**entry) for entry in json.loads(file.read_text())] if file.exists() else []


def _check_finite(trainings: Sequence[Training], objective: str) -> None:
    """Fails a trial one of whose trainings diverged, and says where."""
    for training in trainings:
        if not math.isfinite(training.score):
            losses = training.history.get("loss", [])
            at = next((epoch for epoch, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
            where = "" if len(trainings) == 1 else f" in fold {training.fold}, training {training.repeat}"
            raise keras_tuner.errors.FailedTrialError(
                f"diverged: the loss was not a finite number in epoch {at}{where}"
                if at is not None
                else f"{objective} was not a finite number in any epoch{where}"
            )


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the trainings, and deviations where there are several; what is not finite is left out."""
    figures: dict[str, float] = {}
    for name in scores[0]:
        values = [entry[name] for entry in scores if name in entry]
        if name == "seconds" or len(values) < len(scores) or not all(map(math.isfinite, values)):
            continue
        figures[name] = statistics.fmean(values)
        if len(values) > 1 and name != "best_epoch":
            figures[f"{name}{DEVIATION}"] = statistics.stdev(values)
    return figures
