"""A whole search: data in, a folder with the best model and its evidence out."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from keras_practice import data, recipes
from keras_practice.callbacks import ValidationScores, best_weights, direction, scores
from keras_practice.callbacks.environment import environment
from keras_practice.data.files import replacing
from keras_practice.tuning.display import Display
from keras_practice.tuning.figures import search_figure
from keras_practice.tuning.results import TrialRow, rows_of, write_csv
from keras_practice.tuning.search import RandomSearch
from keras_practice.tuning.settings import Settings
from keras_practice.tuning.spaces import builder_arguments, dataset_for

# Without the coverage, whose accuracy is undefined while no sample is covered.
_SCORES = ("f1", "precision", "recall", "auc")
_OURS = ("settings.json", "trials.csv", "best.keras", "best.json", "search.png", "search", "tensorboard")


# Found here once, while the start is quiet: TensorFlow reports on drivers when it first looks.
tf.config.list_physical_devices()


class InputError(Exception):
    """Something that the user can mend, said in one sentence."""


@dataclass(frozen=True)
class _RecipeModel(keras_tuner.HyperModel):
    """A recipe on a data set, tuned over its learning rate and its own space."""

    dataset: data.Dataset
    settings: Settings
    objective: str

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        low, high = self.settings.learning_rate
        arguments = builder_arguments(self.settings.recipe, hp)
        model = recipes.get(self.settings.recipe)(self.dataset.input_shape, self.dataset.task, **arguments)
        rate = hp.Float("learning_rate", low, high, sampling="log")
        return recipes.compile_for(model, self.dataset.task, learning_rate=rate)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        scored = ValidationScores(
            self.dataset.val, scores=_SCORES if self.dataset.task.is_classification else None
        )
        watching = [scored, best_weights(self.objective)]
        return model.fit(
            # Made anew for each trial, so that its order does not depend on the trials before.
            self.dataset.train.batches(self.settings.batch_size, seed=self.settings.seed),
            validation_data=self.dataset.val.batches(256),
            epochs=self.settings.epochs,
            shuffle=False,  # The batches shuffle themselves; Keras warns otherwise.
            verbose=0,
            callbacks=[*watching, *kwargs["callbacks"]],
        )


class _ShownSearch(RandomSearch):
    """A search that shows how far it is, and keeps its table up to date."""

    def __init__(self, display: Display, table: Path, *args: Any, **kwargs: Any) -> None:
        self._shown, self._table = display, table
        super().__init__(*args, **kwargs)

    def on_epoch_end(self, trial: Trial, model: keras.Model, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(trial, model, epoch, logs=logs)
        self._shown.epoch(epoch)

    def on_trial_end(self, trial: Trial) -> None:
        super().on_trial_end(trial)
        rows = rows_of(self)
        write_csv(rows, self._table)
        self._shown.trial(next(row for row in rows if row.trial == trial.trial_id), rows)


def tune(settings: Settings, out: str | Path, *, overwrite: bool = False) -> bool:
    """Searches, evaluates the best model once on the test split, and leaves everything in `out`.

    `out` then holds `trials.csv`, `best.keras`, `best.json`, `search.png` and
    TensorBoard logs. A search that was stopped goes on where it was.

    Args:
        settings: What to search.
        out: Folder for the results; made if it is absent.
        overwrite: Whether to start anew where `out` holds an earlier run.
            Defaults to `False`.

    Returns:
        Whether any trial succeeded.

    Raises:
        InputError: If settings, data or `out` cannot be used; nothing is lost.

    Source:
        A25, A39, A45.
    """
    out = Path(out)
    try:
        recipes.get(settings.recipe)
        dataset = data.load(settings.data, seed=settings.seed, path=settings.data_path)
        dataset = dataset_for(settings.recipe, dataset)
        objective = settings.objective or ("val_f1" if dataset.task.is_classification else "val_loss")
        direction(objective)
        model = _RecipeModel(dataset, settings, objective)
        model.build(keras_tuner.HyperParameters())
        _open_folder(out, settings, overwrite)
    except (ValueError, OSError) as error:
        raise InputError(error) from error

    display = Display(settings, objective)
    display.start(dataset)
    try:
        with warnings.catch_warnings(), display:
            # Keras loads weights before it has the optimiser's variables, which are not needed.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            search = _open_search(display, out, model)
            display.resume(rows_of(search))
            search.search(
                callbacks=[keras.callbacks.TensorBoard(str(out / "tensorboard"), write_graph=False)],
                verbose=0,
            )
            rows = rows_of(search)
            write_csv(rows, out / "trials.csv")
            if rows[0].score is None:
                display.all_failed(rows)
                return False
            best = _keep_best(search, rows[0], dataset, settings, objective, out)
    except _UnreadableError as error:
        raise InputError(
            f"{out} holds an earlier run that cannot be read; --overwrite starts anew. {error}"
        ) from error
    with replacing(out / "search.png") as beside:
        search_figure(
            rows, search.oracle.objective, f"{settings.recipe} on {dataset.name}: {settings.trials} trials"
        ).savefig(beside, dpi=150)
    display.finish(rows, best, out)
    return True


class _UnreadableError(Exception):
    """An earlier run whose files cannot be read."""


def _open_search(display: Display, out: Path, model: _RecipeModel) -> _ShownSearch:
    settings = model.settings
    try:
        return _ShownSearch(
            display,
            out / "trials.csv",
            model,
            objective=model.objective,
            max_trials=settings.trials,
            seed=settings.seed,
            max_consecutive_failed_trials=settings.trials + 1,  # One bad region must not end the search.
            directory=str(out),
            project_name="search",
        )
    except Exception as error:
        # The model was built once before, so that only the files are left to fail.
        raise _UnreadableError(f"Got {type(error).__name__}: {error}") from error


def _open_folder(out: Path, settings: Settings, overwrite: bool) -> None:
    """Makes the folder, or checks that it holds this very search."""
    recorded = out / "settings.json"
    wanted = settings.as_json() | {"data_sha256": _fingerprint(settings)}
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT must be a folder. Got the file {out}.")
    if overwrite and recorded.exists():
        for name in _OURS:
            old = out / name
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    if recorded.exists():
        try:
            earlier = json.loads(recorded.read_text())
            differences = [
                f"{name} {earlier.get(name)!r} there, {value!r} here"
                for name, value in wanted.items()
                if earlier.get(name) != value
            ]
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{recorded} of the earlier run cannot be read; --overwrite starts anew. Got {error}"
            ) from error
        if differences:
            raise ValueError(
                f"{out} holds a run with other settings; choose another OUT, or --overwrite to start anew. "
                f"Got {'; '.join(differences)}."
            )
        return
    if out.exists() and (foreign := [name for name in _OURS if (out / name).exists()]):
        raise ValueError(
            f"{out} holds {', '.join(foreign)} but no settings.json, so it cannot be told what run it is; "
            f"choose another OUT."
        )
    out.mkdir(parents=True, exist_ok=True)
    with replacing(recorded) as beside:
        beside.write_text(json.dumps(wanted, indent=2) + "\n")


def _fingerprint(settings: Settings) -> str | None:
    """What a user's file holds, so that a run is not resumed on other data."""
    path = settings.data if settings.data.endswith(".npz") else settings.data_path
    return None if path is None else sha256(Path(path).read_bytes()).hexdigest()


def _keep_best(
    search: RandomSearch, row: TrialRow, dataset: data.Dataset, settings: Settings, objective: str, out: Path
) -> dict[str, Any]:
    """Saves the best model and its scores; the test split is looked at once in the life of `out`."""
    kept = out / "best.json"
    if kept.exists() and (out / "best.keras").exists():
        try:
            best: dict[str, Any] = json.loads(kept.read_text())
        except ValueError as error:
            raise _UnreadableError(f"Got {kept}: {error}") from error
        return best
    model = search.get_best_models(1)[0]
    with replacing(out / "best.keras") as beside:
        model.save(beside)
    predictions = model.predict(dataset.test.x, batch_size=256, verbose=0)
    best = {
        "trial": row.trial,
        "hyperparameters": row.hyperparameters,
        "objective": objective,
        "direction": search.oracle.objective.direction,
        "best_epoch": row.best_epoch,
        "validation": {name: value for name, value in row.scores.items() if name.startswith("val_")},
        "test": {
            name: value
            for name, value in scores(dataset.test.y, predictions, dataset.task).items()
            if not name.startswith("coverage")
        },
        "trial_seed": row.seed,
        "settings": settings.as_json(),
        "environment": environment(),
    }
    with replacing(kept) as beside:
        beside.write_text(json.dumps(best, indent=2) + "\n")
    return best
