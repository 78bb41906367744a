"""A whole search: data in, a folder with the best model and its evidence out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_practice.callbacks.environment import environment
from keras_practice.core.errors import InputError
from keras_practice.core.files import replacing
from keras_practice.training.tracing import quiet_tracing
from keras_practice.tuning.best_model import keep_best
from keras_practice.tuning.engine_choice import chosen_engine
from keras_practice.tuning.engines.base import Engine
from keras_practice.tuning.output_folder import opened, unreadable
from keras_practice.tuning.progress import Progress
from keras_practice.tuning.records import TrialRow, write_csv
from keras_practice.tuning.reports.display import Display
from keras_practice.tuning.reports.figures import search_figure
from keras_practice.tuning.reports.importance import edges
from keras_practice.tuning.reports.page import Report, write_report
from keras_practice.tuning.search import hparams
from keras_practice.tuning.search.preparation import Prepared, prepared
from keras_practice.tuning.search.recipe_search import RecipeSearch
from keras_practice.tuning.settings import Settings
from keras_practice.tuning.space.dimensions import Dimension, dimensions_of
from keras_practice.tuning.space.parameters import Draw, Space

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
            chosen = chosen_engine(engine, workers, chief, ray_address)
            if chosen.trains_elsewhere:
                os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # The GPU is for the workers, too.
            if space is not None and not chosen.takes_any_space:
                raise ValueError(f"A space of your own must be searched in one process. Got {chosen}.")
            problem = prepared(settings, space)
            held.enter_context(opened(out, problem.identity(), overwrite))
        except (ValueError, OSError) as error:
            raise InputError(" ".join(str(error).split())) from error
        return _searched(problem, chosen, out)


def _searched(problem: Prepared, engine: Engine, out: Path) -> bool:
    """Runs the trials and leaves the results; returns whether any trial succeeded."""
    model = problem.model
    display = Display(model.settings, model.objective.name, problem.total)
    display.start(model.dataset, problem.description)
    with warnings.catch_warnings(), quiet_tracing(), display:
        # Keras loads weights before it has the optimiser's variables, which are not needed.
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        search = _opened_search(problem, out, display)
        space = search.oracle.get_space().space
        display.resume(search.rows())
        hparams.write_experiment(out / "tensorboard", space, model.objective)
        engine.run(search, out, display, problem.total)
        rows = search.rows()
        write_csv(rows, out / "trials.csv")
        best = None if rows[0].score is None else keep_best(search, rows[0], problem, out)
    dimensions = dimensions_of(search.oracle.get_space().space)
    _report(problem, rows, best, dimensions, out)
    if best is None:
        display.all_failed(rows)
        return False
    display.finish(rows, best, out, edges(rows[0], dimensions))
    return True


def _opened_search(problem: Prepared, out: Path, progress: Progress) -> RecipeSearch:
    try:
        return RecipeSearch(problem.model, out, progress)
    except Exception as error:
        # The model was built once before, so that only the files are left to fail.
        raise unreadable(out, f"Got {type(error).__name__}: {' '.join(str(error).split())}") from error


def _report(
    problem: Prepared,
    rows: Sequence[TrialRow],
    best: dict[str, Any] | None,
    dimensions: Sequence[Dimension],
    out: Path,
) -> None:
    """Leaves `report.html` and, where a trial succeeded, `search.png`."""
    model, facts = problem.model, environment()
    settings, name = model.settings, model.dataset.name
    write_report(
        Report(
            f"Search: {settings.recipe} on {name}",
            f"{settings.search.capitalize()} search over {problem.description}.",
            rows,
            dimensions,
            model.objective,
            best,
            settings.as_json(),
            {**facts.pop("versions"), **facts},
        ),
        out / "report.html",
    )
    if best is None:
        return
    by_name = {dimension.name: dimension for dimension in dimensions}
    first = by_name.get("learning_rate", next(iter(dimensions), None))
    title = f"{settings.recipe} on {name}: {len(rows)} trials"
    with replacing(out / "search.png") as beside:
        search_figure(rows, model.objective, title, first).savefig(beside, dpi=150)
