"""A trial that is trained by a process which has no folder in common with the search: there and back."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_practice.core.files import replacing
from keras_practice.tuning.search.recipe_model import RecipeModel
from keras_practice.tuning.search.recipe_search import RecipeSearch


@dataclass(frozen=True)
class TrialRequest:
    """A trial to be trained.

    Attributes:
        trial: Its state, as KerasTuner has it.
        before: The states of the trials that it goes on from, in Hyperband.
        earlier: What pruning compares with; see `RecipeSearch.earlier`.
    """

    trial: dict[str, Any]
    before: tuple[dict[str, Any], ...]
    earlier: list[list[float]]


@dataclass(frozen=True)
class TrialResult:
    """What came of it.

    Attributes:
        result: What `RecipeSearch.receive` takes.
        files: What was written, by path from the folder of the results.
        fatal: The traceback of an error that ends the search; empty if there was none.
    """

    result: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    fatal: str = ""


class RemoteTrials(RecipeSearch):
    """The side that trains: one trial after another, each as a search in one process would.

    What trials share, such as traced graphs, outlasts each of them.

    Args:
        model: The recipe.
        folder: An empty folder of this process alone.
    """

    def __init__(self, model: RecipeModel, folder: Path) -> None:
        self._earlier: list[list[float]] = []
        super().__init__(model, folder)

    def earlier(self, name: str) -> list[list[float]]:
        """As the request has it."""
        return self._earlier

    def train(self, request: TrialRequest) -> TrialResult:
        """Trains a trial, and takes along all that was written."""
        trial, fatal = Trial.from_state(request.trial), ""
        name = trial.trial_id
        self.oracle.trials = {one["trial_id"]: Trial.from_state(one) for one in request.before} | {
            name: trial
        }
        self._earlier, self._trainings = request.earlier, {}
        result: dict[str, Any] = {}
        try:
            result |= {"metrics": self.run_trial(trial), "status": TrialStatus.COMPLETED}
        except Exception as error:
            result |= {"message": traceback.format_exc(), "status": TrialStatus.FAILED}
            if isinstance(error, keras_tuner.errors.FatalError):
                fatal = result["message"]
        # A model may have asked for more hyperparameters than there were.
        result["hyperparameters"] = trial.hyperparameters.get_config()
        result["trainings"] = [asdict(training) for training in self._trainings.get(name, ())]
        files = self._taken(Path(self.get_trial_dir(name)), self._out / "tensorboard" / name)
        return TrialResult(result, files, fatal)

    def _taken(self, *folders: Path) -> dict[str, bytes]:
        """The files of these folders, which are removed."""
        taken = {}
        for folder in folders:
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                # Of several trainings no model is kept: the best trial is trained anew.
                if self._settings.trainings == 1 or not file.name.startswith("checkpoint"):
                    taken[file.relative_to(self._out).as_posix()] = file.read_bytes()
            shutil.rmtree(folder, ignore_errors=True)
        return taken


def request_of(search: RecipeSearch, trial: Trial) -> TrialRequest:
    """What another process has to know of a search's trial to train it."""
    before, first = [], trial
    while (name := first.hyperparameters.values.get("tuner/trial_id")) is not None:
        first = search.oracle.get_trial(name)
        before.append(first.get_state())
    return TrialRequest(trial.get_state(), tuple(before), search.earlier(trial.trial_id))


def receive(search: RecipeSearch, folder: Path, name: str, came: TrialResult) -> None:
    """Records what came of a trial, as if it had been trained by the search itself.

    Args:
        search: The search.
        folder: Folder of its results.
        name: The trial's number.
        came: What came of it.

    Raises:
        keras_tuner.errors.FatalError: If the trial has ended the search.
    """
    if came.fatal:
        raise keras_tuner.errors.FatalError(came.fatal)
    shutil.rmtree(folder / "tensorboard" / name, ignore_errors=True)  # What a killed run has left of it.
    for path, content in came.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as beside:
            beside.write_bytes(content)
    search.receive(name, came.result)
