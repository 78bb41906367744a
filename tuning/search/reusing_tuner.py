"""A tuner that trains trials one after another and shares between them what can be shared."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from keras_practice.core.files import replacing
from keras_practice.core.private_api.keras import restart_automatic_names
from keras_practice.core.private_api.keras_tuner import (
    build_config_path,
    built_model,
    callbacks_of_execution,
    tuner_path,
    weights_path,
)
from keras_practice.training.checkpoints import Checkpoints
from keras_practice.training.model_cache import ModelCache
from keras_practice.training.seeding import set_random_seed
from keras_practice.tuning.search.oracles import derive_seed
from keras_practice.tuning.search.tuner_callbacks import BestEpoch, tuner_hooks


class ReusingTuner(keras_tuner.Tuner):
    """`keras_tuner.Tuner` that trains several times faster, each trial from a seed of its own.

    What is shared, and what a trial's scores are, `RandomSearch` says.

    Args:
        oracle: Chooses the trials.
        hypermodel: A function `build(hp)` that returns a compiled model, or a
            `keras_tuner.HyperModel`. Defaults to `None`, as in KerasTuner: `run_trial` is overridden.
        **kwargs: As in `keras_tuner.Tuner`.
    """

    def __init__(self, oracle: keras_tuner.Oracle, hypermodel: Any = None, **kwargs: Any) -> None:
        self._cache, self._checkpoints, self._given_oracle = ModelCache(), Checkpoints(), oracle
        self._evicted = False
        # KerasTuner prints a line when it reloads.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(oracle, hypermodel, **kwargs)

    def trial_seed(self, trial: Trial) -> int:
        """The seed of everything random in one trial."""
        # KerasTuner's own worker has a client in its oracle's place, which does not tell the seed.
        return derive_seed(getattr(self.oracle, "seed", self._given_oracle.seed), trial.trial_id)

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs the trials that are left; arguments are those of `fit`."""
        try:
            with one_model_after_another():
                super().search(*args, **kwargs)
        finally:
            self._cache = ModelCache()  # Its models and arrays are of no more use.

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """Trains one trial from its own seed; arguments are those of `fit`."""
        start = time.perf_counter()
        # Keras's own has TensorFlow forget every graph that was prepared, those of models given up too.
        keeps = self._cache.has_models() and not self._evicted
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
            callbacks = callbacks_of_execution(self, given, trial, execution)
            callbacks = [*callbacks, tuner_hooks(self, trial), best]
            results.append(self._build_and_fit_model(trial, *args, **kwargs, callbacks=callbacks))
        return results

    def _try_build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        if not self._cache.has_models():
            return super()._try_build(hp)
        # Not after a `clear_session`, as in KerasTuner, which has TensorFlow prepare every graph anew.
        restart_automatic_names()
        model = built_model(self, hp)
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
        with self._cache.model_for(self._try_build(hp)) as model:
            results = self.hypermodel.fit(hp, model, *args, **kwargs)
            for callback in kwargs["callbacks"]:
                if isinstance(callback, BestEpoch):
                    callback.write(weights_path(self, trial.trial_id), self._checkpoints)
            # Without it KerasTuner cannot load a model whose layers learn their sizes from the data.
            with replacing(build_config_path(self, trial.trial_id)) as beside:
                beside.write_text(json.dumps(model.get_build_config()))
        self._evicted = False
        if self._cache.has_changed():
            self._evicted = self._cache.has_given_up()
            _keep_out_of_collections(with_earlier=self._evicted)
        return results

    def save(self) -> None:
        """Saves the search's state; a worker of KerasTuner's leaves that to its chief."""
        if isinstance(self.oracle, keras_tuner.Oracle):
            self.oracle.save()
        with replacing(tuner_path(self)) as beside:
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
