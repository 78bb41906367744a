"""Random search that knows which scores go up."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from keras_practice.callbacks import direction
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.files import replacing
from keras_practice.training.checkpoints import Checkpoints
from keras_practice.training.model_cache import ModelCache
from keras_practice.training.seeding import set_random_seed
from keras_practice.tuning.search.random_oracle import RandomOracle, derive_seed
from keras_practice.tuning.search.tuner_callbacks import BestEpoch, tuner_hooks


class RandomSearch(keras_tuner.Tuner):
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
            # KerasTuner takes a seed of 0 for none.
            seed=None if seed is None else 1 + derive_seed("search", seed),
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self._reuse, self._checkpoints, self._seeded = ModelCache(), Checkpoints(), oracle
        self._gave_up = False
        # KerasTuner prints a line when it reloads.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(oracle, hypermodel, **kwargs)

    def trial_seed(self, trial: Trial) -> int:
        """The seed of everything random in one trial."""
        # KerasTuner's own worker has a client in its oracle's place, which does not tell the seed.
        return derive_seed(getattr(self.oracle, "seed", self._seeded.seed), trial.trial_id)

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs the trials that are left; arguments are those of `fit`."""
        try:
            with one_model_after_another():
                super().search(*args, **kwargs)
        finally:
            self._reuse = ModelCache()  # Its models and arrays are of no more use.

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """Trains one trial from its own seed; arguments are those of `fit`."""
        start = time.perf_counter()
        # Keras's own has TensorFlow forget every graph that was prepared, those of models given up too.
        keeps = self._reuse.has_models() and not self._gave_up
        (set_random_seed if keeps else keras.utils.set_random_seed)(self.trial_seed(trial))
        results = self._run_executions(trial, *args, **kwargs)
        if not all(isinstance(result, keras.callbacks.History) for result in results):
            return results
        best = [_best_epoch(result, self.oracle.objective) for result in results]
        shared = set(best[0]).intersection(*best)
        means = {
            name: math.fsum(scores[name] for scores in best) / len(best) for name in best[0] if name in shared
        }
        return {**means, "seconds": time.perf_counter() - start}

    def _run_executions(self, trial: Trial, *args: Any, **kwargs: Any) -> list[Any]:
        if self.distribution_strategy is not None:
            results: list[Any] = super().run_trial(trial, *args, **kwargs)
            return results
        given = kwargs.pop("callbacks", [])
        best = BestEpoch(self.oracle.objective)
        results = []
        for execution in range(self.executions_per_trial):
            callbacks = self._deepcopy_callbacks(given)
            self._configure_tensorboard_dir(callbacks, trial, execution)
            callbacks = [*callbacks, tuner_hooks(self, trial), best]
            results.append(self._build_and_fit_model(trial, *args, **kwargs, callbacks=callbacks))
        return results

    def _try_build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        if not self._reuse.has_models():
            return super()._try_build(hp)
        # Not after a `clear_session`, as in KerasTuner, which has TensorFlow prepare every graph anew.
        model = self._build_hypermodel(hp)
        if not isinstance(model, keras.Model):
            raise keras_tuner.errors.FatalTypeError(
                f"The hypermodel must build a keras.Model. Got {type(model).__name__}."
            )
        size = sum(math.prod(weight.shape) for weight in model.trainable_weights) if model.built else 0
        if self.max_model_size and size > self.max_model_size:
            raise keras_tuner.errors.FailedTrialError(
                f"A model may have {self.max_model_size} parameters. Got {size}."
            )
        return model

    def _build_and_fit_model(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """One execution of one trial."""
        if self.distribution_strategy is not None:
            return super()._build_and_fit_model(trial, *args, **kwargs)
        hp = trial.hyperparameters
        with self._reuse.model_for(self._try_build(hp)) as model:
            results = self.hypermodel.fit(hp, model, *args, **kwargs)
            for callback in kwargs["callbacks"]:
                if isinstance(callback, BestEpoch):
                    callback.write(self._get_checkpoint_fname(trial.trial_id), self._checkpoints)
            # Without it KerasTuner cannot load a model whose layers learn their sizes from the data.
            with replacing(self._get_build_config_fname(trial.trial_id)) as beside:
                beside.write_text(json.dumps(model.get_build_config()))
        self._gave_up = False
        if self._reuse.has_changed():
            self._gave_up = self._reuse.has_given_up()
            _keep_out_of_collections(with_earlier=self._gave_up)
        return results

    def save(self) -> None:
        """Saves the search's state; a worker of KerasTuner's leaves that to its chief."""
        if isinstance(self.oracle, keras_tuner.Oracle):
            self.oracle.save()
        with replacing(self._get_tuner_fname()) as beside:
            super(keras_tuner.engine.base_tuner.BaseTuner, self).save(str(beside))


@contextlib.contextmanager
def one_model_after_another() -> Iterator[None]:
    """Suits a program that builds, traces and forgets a model in every trial.

    What is imported stays out of the garbage collections that KerasTuner runs
    each time, as do graphs that are kept, and TensorFlow does not warn of every model's first step.
    """

    def is_news(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_news)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        logger.removeFilter(is_news)


def _keep_out_of_collections(with_earlier: bool) -> None:
    """Has what is there now, imported modules and traced graphs, passed over when garbage is looked for.

    Garbage among what is passed over since an earlier call is only found `with_earlier`, which takes a
    good part of a second.
    """
    if with_earlier:
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def _best_epoch(history: keras.callbacks.History, objective: keras_tuner.Objective) -> dict[str, float]:
    """The logs of the epoch with the best objective, and that objective, under their names."""
    lengths = {len(values) for values in history.history.values()}
    best: dict[str, float] = {}
    for epoch in range(min(lengths, default=0)):
        logs = {name: float(values[epoch]) for name, values in history.history.items()}
        if not objective.has_value(logs):
            raise ValueError(f"The objective must be in the epoch's logs. Got {', '.join(logs)}.")
        value = float(objective.get_value(logs))
        if not best or objective.better_than(value, best[objective.name]) or math.isnan(best[objective.name]):
            best = {**logs, objective.name: value, "best_epoch": float(epoch + 1)}
    if not best:
        raise ValueError("A trial must train for at least one epoch. Got an empty history.")
    return best


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
