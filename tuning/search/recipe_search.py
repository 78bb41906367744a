"""How a trial of a recipe is run: trained once or several times, and recorded."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_practice.core.files import replacing
from keras_practice.tuning.progress import SILENT, Progress
from keras_practice.tuning.records import DEVIATION, Training, TrialRow, rows_of, write_csv
from keras_practice.tuning.search import hparams
from keras_practice.tuning.search.oracles import derive_seed, oracle_for
from keras_practice.tuning.search.pruning import MedianPruning
from keras_practice.tuning.search.recipe_model import RecipeModel, Run
from keras_practice.tuning.search.reusing_tuner import ReusingTuner


class RecipeSearch(ReusingTuner):
    """A search over a recipe that records each training, and keeps its table up to date.

    Args:
        model: The recipe.
        out: Folder of the results.
        progress: What hears how far it is. Defaults to `SILENT`.
    """

    def __init__(self, model: RecipeModel, out: Path, progress: Progress = SILENT) -> None:
        settings = model.settings
        self._out, self._progress, self._settings, self._model = out, progress, settings, model
        self._part = 0
        self._trainings: dict[str, list[Training]] = {}
        oracle = oracle_for(
            settings.search,
            model.objective,
            trials=settings.trials,
            epochs=settings.epochs,
            seed=settings.seed,
        )
        super().__init__(oracle, model, directory=str(out), project_name="search")
        self.oracle.verbose = 0  # What is told goes to `progress`.
        for name in self.oracle.trials:
            self._trainings[name] = self._recorded(name)

    def rows(self) -> list[TrialRow]:
        """The trials so far."""
        seeds = {name: self.trial_seed(trial) for name, trial in self.oracle.trials.items()}
        return rows_of(self.oracle, seeds, self._trainings)

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
        self.oracle.discard(name)
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
        """Tells of the epoch, and ends a training that has diverged."""
        super().on_epoch_end(trial, model, epoch, logs=logs)
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            model.stop_training = True
        self._progress.epoch(self._part * self._settings.epochs + epoch)

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
        self._progress.trial(next(row for row in rows if row.trial == trial.trial_id), rows)

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
