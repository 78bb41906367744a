"""What a search needs before its first trial: the recipe on its data, tried out, and the space."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras_tuner

from keras_practice import data, recipes
from keras_practice.callbacks import direction
from keras_practice.callbacks.scores import CLASS_SCORES, REGRESSION_SCORES
from keras_practice.core.arguments import check_positive_integer
from keras_practice.tuning.search.recipe_model import RecipeModel
from keras_practice.tuning.settings import Settings
from keras_practice.tuning.space.parameters import Draw, Fixed, Range, Space
from keras_practice.tuning.space.parsing import parse
from keras_practice.tuning.space.presets import dataset_for
from keras_practice.tuning.space.presets import space as space_for


@dataclass(frozen=True)
class Prepared:
    """A search before its first trial.

    Attributes:
        model: The recipe on its data, tried out, with the settings and the objective.
        space: What it is searched over.
        own: The space that the user gave, in the place of the settings' own; `None` if there was none.
    """

    model: RecipeModel
    space: Space | Draw
    own: Space | Draw | None = None

    @property
    def total(self) -> int:
        """Number of trials, if no space ends before."""
        settings = self.model.settings
        if settings.search != "grid" or not isinstance(self.space, Space):
            return settings.trials
        return math.prod(
            len(parameter.levels(settings.trials)) for parameter in self.space.parameters.values()
        )

    @property
    def description(self) -> str:
        """The space in words."""
        return str(self.space) if isinstance(self.space, Space) else f"the space {named(self.space)}"

    @property
    def fixed(self) -> dict[str, Any]:
        """What was set and not searched."""
        if not isinstance(self.space, Space):
            return {}
        return {name: kept.value for name, kept in self.space.parameters.items() if isinstance(kept, Fixed)}

    def identity(self) -> dict[str, Any]:
        """What makes it this very search and no other, as JSON would hold it."""
        settings = self.model.settings
        facts = settings.as_json() | {"data_sha256": fingerprint(settings)}
        if self.own is not None:
            facts["own_space"] = str(self.own) if isinstance(self.own, Space) else named(self.own)
        return facts


def prepared(settings: Settings, space: Space | Draw | None = None) -> Prepared:
    """The recipe on its data, tried out, and the space that it is searched over.

    Args:
        settings: What to search.
        space: A space in the place of the settings' own. Defaults to `None`.

    Raises:
        ValueError: If settings, data and space do not go together.
        OSError: If a data file cannot be read.
    """
    recipes.get(settings.recipe)
    dataset = data.load(settings.data, seed=settings.seed, path=settings.data_path)
    dataset = dataset_for(settings.recipe, dataset)
    objective = _objective(settings, dataset.task)
    drawn = _space(settings, dataset) if space is None else space
    if settings.search == "grid":
        if not isinstance(drawn, Space):
            raise ValueError(f"A grid must be of a described space. Got the function {named(drawn)}.")
        drawn = drawn.grid(settings.trials)
    model = RecipeModel(dataset, settings, objective, drawn.draw if isinstance(drawn, Space) else drawn)
    defaults = model.values(keras_tuner.HyperParameters())
    model.build_from(defaults)
    asked = parse(settings.set, settings.recipe) if space is None else {}
    for name, parameter in asked.items():
        for end in parameter.ends:
            if name == "batch_size":
                check_positive_integer(name, end)
            model.build_from({**defaults, name: end})
    return Prepared(model, drawn, space)


def _objective(settings: Settings, task: data.Task) -> keras_tuner.Objective:
    """The score that chooses the best trial, with its direction."""
    name = settings.objective or ("val_f1" if task.is_classification else "val_loss")
    bare = name.removeprefix("val_")
    # A share of samples that the model is sure of.
    known = keras_tuner.Objective(name, "max" if bare == "coverage" else direction(name))
    trained = ["loss", *(metric.name for metric in recipes.metrics_for(task))]
    scored = CLASS_SCORES if task.is_classification else REGRESSION_SCORES
    names = list(dict.fromkeys([*(f"val_{score}" for score in (*trained, *scored)), *trained]))
    if name not in names:
        raise ValueError(f"objective must be among {', '.join(names)} for {task}. Got {name}.")
    return known


def _space(settings: Settings, dataset: data.Dataset) -> Space:
    """The space that the settings ask for."""
    asked = parse(settings.set, settings.recipe)
    low, high = settings.learning_rate
    if "learning_rate" in asked and settings.learning_rate != Settings().learning_rate:
        raise ValueError(
            f"learning_rate must be set once. Got {low:g} to {high:g} beside {asked['learning_rate']}."
        )
    if settings.space == "none":
        return Space({"learning_rate": Range(low, high, log=True)}).replace(asked)
    wide = settings.space == "wide"
    return space_for(settings.recipe, dataset, wide=wide, learning_rate=(low, high)).replace(asked)


def fingerprint(settings: Settings) -> str | None:
    """What a user's file holds, so that a run is not resumed on other data."""
    path = settings.data if settings.data.endswith(".npz") else settings.data_path
    return None if path is None else sha256(Path(path).read_bytes()).hexdigest()


def named(function: Any) -> str:
    """A function's name, and a mark of its text where Python knows it."""
    name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    try:
        return f"{name} {sha256(inspect.getsource(function).encode()).hexdigest()[:12]}"
    except (OSError, TypeError):
        return name
