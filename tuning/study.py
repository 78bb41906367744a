"""A whole search: data in, a folder with the best model and its evidence out."""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_practice import data
from keras_practice.callbacks import scores
from keras_practice.callbacks.environment import environment
from keras_practice.core.errors import InputError
from keras_practice.core.files import replacing
from keras_practice.training.tracing import quiet_tracing
from keras_practice.tuning.engines.chief_worker.processes import ServingError
from keras_practice.tuning.engines.chief_worker.server import Serving, serve, serving
from keras_practice.tuning.engines.ray import OnRay, on_ray, search_on_ray
from keras_practice.tuning.output_folder import locked
from keras_practice.tuning.records import TrialRow, write_csv
from keras_practice.tuning.reports.display import Display
from keras_practice.tuning.reports.figures import search_figure
from keras_practice.tuning.reports.importance import edges
from keras_practice.tuning.reports.page import Report, write_report
from keras_practice.tuning.search import hparams
from keras_practice.tuning.search.preparation import fingerprint, named, prepared
from keras_practice.tuning.search.recipe_search import RecipeModel, RecipeSearch
from keras_practice.tuning.settings import Settings
from keras_practice.tuning.space.dimensions import dimensions_of
from keras_practice.tuning.space.presets import Draw, Fixed, Space

_OURS = (
    "settings.json",
    "trials.csv",
    "best.keras",
    "best.json",
    "search.png",
    "report.html",
    "search",
    "tensorboard",
)


# Found here once, while the start is quiet: TensorFlow reports on drivers when it first looks.
tf.config.list_physical_devices()


def tune(
    settings: Settings,
    out: str | Path,
    *,
    overwrite: bool = False,
    space: Space | Draw | None = None,
    workers: int | None = None,
    chief: str | None = None,
    engine: str = "local",
    ray_address: str | None = None,
) -> bool:
    """Searches, evaluates the best model once on the test split, and leaves everything in `out`.

    `out` then holds `trials.csv`, `best.keras`, `best.json`, `search.png`,
    `report.html` and TensorBoard logs. A search that was stopped goes on where
    it was. Of several trainings a trial (`folds`, `repeats`), the mean decides;
    the best hyperparameters are then trained once more on the training split,
    from the trial's own seed, with the validation split to choose the epoch, and
    that is the best model.

    Args:
        settings: What to search.
        out: Folder for the results; made if it is absent.
        overwrite: Whether to start anew where `out` holds an earlier run.
            Defaults to `False`.
        space: A space of your own, in the place of `settings.space` and
            `settings.set`: a `Space`, or a function of KerasTuner's
            hyperparameters that returns a dictionary of the recipe's arguments
            and, where it likes, `learning_rate`, `optimizer` and `batch_size`.
            Defaults to `None`.
        workers: Processes on this machine that run trials side by side. Random and
            grid search find the same with any number; hyperband, bayesian search and
            pruning look at the trials that have ended, whose order depends on it.
            Defaults to `None`, this process; with Ray, one for each core.
        chief: `[HOST:]PORT` to hand the trials out at, to workers that join from
            this machine or, where a host is named, from others. Defaults to `None`.
        engine: `"ray"` to have trials trained by Ray; see `ray_engine`. Defaults to
            `"local"`.
        ray_address: Address of a Ray cluster that this machine is part of: `"auto"` or
            `"host:port"`. Defaults to `None`, a Ray of this machine alone.

    Returns:
        Whether any trial succeeded.

    Raises:
        InputError: If settings, data or `out` cannot be used; nothing is lost.

    Source:
        A25, A39, A45.
    """
    out = Path(out)
    with ExitStack() as held:
        try:
            shared = _shared(workers, chief, engine, ray_address)
            if shared is not None:
                os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # The GPU is for the workers, too.
                if space is not None and not isinstance(shared, OnRay):
                    raise ValueError(f"A space of your own must be searched in one process. Got {shared}.")
            model, drawn = prepared(settings, space)
            if out.exists() and not out.is_dir():
                raise ValueError(f"OUT must be a folder. Got the file {out}.")
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(out))
            _open_folder(out, settings, space, overwrite)
        except (ValueError, OSError) as error:
            raise InputError(" ".join(str(error).split())) from error
        try:
            return _search(model, drawn, out, shared)
        except ServingError as error:
            raise InputError(str(error)) from error
        except _UnreadableError as error:
            raise InputError(
                f"{out} holds an earlier run that cannot be read; --overwrite starts anew. {error}"
            ) from error


def _shared(
    workers: int | None, chief: str | None, engine: str, ray_address: str | None
) -> Serving | OnRay | None:
    """Who runs the trials; `None`: this process."""
    if engine == "ray":
        return on_ray(workers, ray_address, chief)
    if engine != "local":
        raise ValueError(f"engine must be one of local, ray. Got {engine!r}.")
    if ray_address is not None:
        raise ValueError(f"An address of Ray's must come with the engine ray. Got {ray_address}.")
    return serving(1 if workers is None else workers, chief)


def _search(model: RecipeModel, drawn: Space | Draw, out: Path, shared: Serving | OnRay | None) -> bool:
    settings, dataset, objective = model.settings, model.dataset, model.objective
    total = settings.trials
    if settings.search == "grid" and isinstance(drawn, Space):
        total = math.prod(len(parameter.levels(total)) for parameter in drawn.parameters.values())
    display = Display(settings, objective.name, total)
    display.start(dataset, _described(drawn))
    with warnings.catch_warnings(), quiet_tracing(), display:
        # Keras loads weights before it has the optimiser's variables, which are not needed.
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        search = _open_search(display, out, model)
        display.resume(search.rows())
        hparams.write_experiment(out / "tensorboard", search.oracle.get_space().space, objective)
        if shared is None:
            search.search(verbose=0)
        elif isinstance(shared, OnRay):
            search_on_ray(search, out, display, shared, total)
        else:
            told = {"settings": settings.as_json(), "data_sha256": fingerprint(settings)}
            serve(search, out, display, shared, total, told)
        rows = search.rows()
        write_csv(rows, out / "trials.csv")
        best = None if rows[0].score is None else _keep_best(search, rows[0], model, drawn, out)
    title = f"{settings.recipe} on {dataset.name}: {len(rows)} trials"
    axes = {axis.name: axis for axis in dimensions_of(search.oracle.get_space().space)}
    facts = environment()
    write_report(
        Report(
            f"Search: {settings.recipe} on {dataset.name}",
            f"{settings.search.capitalize()} search over {_described(drawn)}.",
            rows,
            tuple(axes.values()),
            objective,
            best,
            settings.as_json(),
            {**facts.pop("versions"), **facts},
        ),
        out / "report.html",
    )
    if best is None:
        display.all_failed(rows)
        return False
    first = axes.get("learning_rate", next(iter(axes.values()), None))
    with replacing(out / "search.png") as beside:
        search_figure(rows, objective, title, first).savefig(beside, dpi=150)
    display.finish(rows, best, out, edges(rows[0], tuple(axes.values())))
    return True


def _described(drawn: Space | Draw) -> str:
    return str(drawn) if isinstance(drawn, Space) else f"the space {named(drawn)}"


class _UnreadableError(Exception):
    """An earlier run whose files cannot be read."""


def _open_search(display: Display, out: Path, model: RecipeModel) -> RecipeSearch:
    try:
        return RecipeSearch(model, out, display)
    except Exception as error:
        # The model was built once before, so that only the files are left to fail.
        raise _UnreadableError(f"Got {type(error).__name__}: {' '.join(str(error).split())}") from error


def _open_folder(out: Path, settings: Settings, space: Space | Draw | None, overwrite: bool) -> None:
    """Checks that the folder holds this very search or none, and says which it is."""
    recorded = out / "settings.json"
    wanted = settings.as_json() | {"data_sha256": fingerprint(settings)}
    if space is not None:
        wanted["own_space"] = str(space) if isinstance(space, Space) else named(space)
    if overwrite and recorded.exists():
        for name in _OURS:
            old = out / name
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    if recorded.exists():
        try:
            # An earlier version did not know all of them.
            earlier = Settings().as_json() | json.loads(recorded.read_text())
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{recorded} of the earlier run cannot be read; --overwrite starts anew. Got {error}"
            ) from error
        differences = [
            f"{name} {earlier.get(name)!r} there, {wanted.get(name)!r} here"
            for name in dict.fromkeys([*wanted, *earlier])
            if earlier.get(name) != wanted.get(name) and name != "keep"
        ]
        if differences:
            raise ValueError(
                f"{out} holds a run with other settings; choose another OUT, or --overwrite to start anew. "
                f"Got {'; '.join(differences)}."
            )
        return
    if foreign := [name for name in _OURS if (out / name).exists()]:
        raise ValueError(
            f"{out} holds {', '.join(foreign)} but no settings.json, so it cannot be told what run it is; "
            f"choose another OUT."
        )
    with replacing(recorded) as beside:
        beside.write_text(json.dumps(wanted, indent=2) + "\n")


def _keep_best(
    search: RecipeSearch, row: TrialRow, model: RecipeModel, drawn: Space | Draw, out: Path
) -> dict[str, Any]:
    """Saves the best model and its scores; the test split is looked at once in the life of `out`."""
    kept, dataset, settings = out / "best.json", model.dataset, model.settings
    if kept.exists() and (out / "best.keras").exists():
        try:
            best: dict[str, Any] = json.loads(kept.read_text())
        except ValueError as error:
            raise _UnreadableError(f"Got {kept}: {error}") from error
        return best
    trial = search.oracle.get_trial(row.trial)
    there = any(Path(search.get_trial_dir(row.trial)).glob("checkpoint*"))
    final = search.load_model(trial) if settings.trainings == 1 and there else search.train_anew(trial)
    with replacing(out / "best.keras") as beside:
        final.save(beside)

    def scored(split: data.Split, prefix: str = "") -> dict[str, float]:
        found = scores(split.y, final.predict(split.x, batch_size=256, verbose=0), dataset.task)
        return {f"{prefix}{name}": v for name, v in found.items() if not name.startswith("coverage")}

    best = {
        "trial": row.trial,
        "hyperparameters": row.hyperparameters,
        "fixed": _fixed(drawn),
        "objective": model.objective.name,
        "direction": model.objective.direction,
        "best_epoch": row.best_epoch,
        "validation": {name: value for name, value in row.scores.items() if name.startswith("val_")},
    }
    if settings.trainings > 1:
        best["validation_std"] = {n: v for n, v in row.deviations.items() if n.startswith("val_")}
        best["trainings"] = settings.trainings
        best["final_validation"] = scored(dataset.val, "val_")
    best |= {
        "test": scored(dataset.test),
        "trial_seed": row.seed,
        "settings": settings.as_json(),
        "environment": environment(),
    }
    with replacing(kept) as beside:
        beside.write_text(json.dumps(best, indent=2) + "\n")
    return best


def _fixed(drawn: Space | Draw) -> dict[str, Any]:
    """What was set and not searched."""
    if not isinstance(drawn, Space):
        return {}
    return {name: kept.value for name, kept in drawn.parameters.items() if isinstance(kept, Fixed)}
