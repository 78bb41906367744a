"""Random search that knows which scores go up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner

from keras_practice.callbacks import direction
from keras_practice.core.arguments import check_positive_integer
from keras_practice.tuning.search.oracles import RandomOracle, oracle_seed
from keras_practice.tuning.search.reusing_tuner import ReusingTuner


class RandomSearch(ReusingTuner):
    """`keras_tuner.RandomSearch`, several times faster, that knows directions, repeats exactly and resumes.

    It takes the same arguments and any `build(hp)`, and differs in this:

    - The objective's direction comes from the metric. KerasTuner calls the worst
      trial the best for `val_f1_score` and others that go up; here a score whose
      direction is not known is an error.
    - Each trial has a seed of its own, which follows from the search's seed and
      the trial's number, so that a trial repeats alone and a resumed search
      equals an undisturbed one (on a CPU; GPU kernels may add in any order).
    - A search that is killed at any moment resumes: finished trials are kept and
      the running one is run again.
    - The best epoch's scores of a trial are in `trial.metrics`, with `best_epoch`
      (from 1) and `seconds`.
    - Trials share what they can: graphs that were traced, for models that differ only
      in weights and in numbers such as learning rate, dropout or weight decay; arrays
      on the device; and the best epoch's weights wait in memory for the trial's end to
      be written. A trial's scores are those of plain `fit`. What shares is found out
      by comparing the models that `build(hp)` returns; one with parts of someone else's
      making, or that runs eagerly or in another float type than float32, is trained
      plainly.

    KerasTuner's own distributed mode, by its environment variables, works as it does
    there, and needs the same `seed` in every process.

    Args:
        hypermodel: A function `build(hp)` that returns a compiled model, or a
            `keras_tuner.HyperModel`.
        objective: Name of a score in the epoch's logs, a `keras_tuner.Objective`
            or a list of these. Defaults to `None`, as in KerasTuner: `run_trial`
            or `HyperModel.fit` returns one number to minimise.
        max_trials: Number of trials. Defaults to `10`.
        seed: Fixes the trials. Defaults to `None`, chosen at random.
        hyperparameters, tune_new_entries, allow_new_entries, max_retries_per_trial,
            max_consecutive_failed_trials: As in `keras_tuner.RandomSearch`.
        **kwargs: As in `keras_tuner.Tuner`: `directory`, `project_name`,
            `overwrite`, `executions_per_trial` and others.

    Raises:
        ValueError: If the objective's direction is unknown, or contradicts what
            is known of the score, or `max_trials` is not positive.

    Source:
        A25; Bergstra and Bengio 2012, "Random search for hyper-parameter optimization".
    """

    def __init__(
        self,
        hypermodel: Callable[[keras_tuner.HyperParameters], keras.Model]
        | keras_tuner.HyperModel
        | None = None,
        objective: Any = None,
        max_trials: int = 10,
        seed: int | None = None,
        hyperparameters: keras_tuner.HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        max_trials = check_positive_integer("max_trials", max_trials)
        self.seed = seed
        oracle = RandomOracle(
            objective=_resolve(objective, hypermodel, hyperparameters),
            max_trials=max_trials,
            seed=None if seed is None else oracle_seed(seed),
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


def _resolve(objective: Any, hypermodel: Any, hyperparameters: keras_tuner.HyperParameters | None) -> Any:
    """The objective with its direction, looked up in the model that is tuned."""
    if objective is None:
        return None
    if isinstance(objective, (list, tuple)):
        return [_resolve(one, hypermodel, hyperparameters) for one in objective]
    stated = objective.direction if isinstance(objective, keras_tuner.Objective) else None
    name = objective.name if isinstance(objective, keras_tuner.Objective) else objective
    if not isinstance(name, str):
        raise ValueError(
            f"objective must be the name of a score or a keras_tuner.Objective. Got {objective!r}."
        )
    build = getattr(hypermodel, "build", hypermodel)
    model = None
    if build is not None:
        hp = hyperparameters.copy() if hyperparameters else keras_tuner.HyperParameters()
        model = build(hp)
    try:
        known = direction(name, model if isinstance(model, keras.Model) else None)
    except ValueError:
        if stated is None:
            raise
        known = stated
    if stated not in (None, known):
        raise ValueError(f"{name} is better {'high' if known == 'max' else 'low'}. Got direction {stated!r}.")
    return keras_tuner.Objective(name, known)
