"""The best model of a search, kept with its scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_practice import data
from keras_practice.callbacks import scores
from keras_practice.callbacks.environment import environment
from keras_practice.core.files import replacing
from keras_practice.tuning.output_folder import unreadable
from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.search.preparation import Prepared
from keras_practice.tuning.search.recipe_search import RecipeSearch


def keep_best(search: RecipeSearch, row: TrialRow, problem: Prepared, out: Path) -> dict[str, Any]:
    """Saves the best model and its scores; the test split is looked at once in the life of `out`.

    Args:
        search: The search.
        row: The best trial.
        problem: What was searched.
        out: Folder of the results.

    Returns:
        What `best.json` holds.

    Raises:
        InputError: If an earlier `best.json` cannot be read.
    """
    model = problem.model
    kept, dataset, settings = out / "best.json", model.dataset, model.settings
    if kept.exists() and (out / "best.keras").exists():
        try:
            best: dict[str, Any] = json.loads(kept.read_text())
        except ValueError as error:
            raise unreadable(out, f"Got {kept}: {error}") from error
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
        "fixed": problem.fixed,
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
