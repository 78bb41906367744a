"""Trials a minute: `keras_practice.tuning.RandomSearch` against `keras_tuner.RandomSearch`.

    python benchmarks/tuning_speed.py

Both sides get the same `build(hp)`, data, epochs, batches and callbacks, and run the same trials: those
that `keras_practice` draws, each from the same seed. They take turns within one process. Afterwards every
score of every epoch is compared.
"""

import argparse
import gc
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.tuning import RandomSearch

DIGITS = data.load("digits")
Build = Callable[[keras_tuner.HyperParameters], keras.Model]


def compiled(model: keras.Model, hp: keras_tuner.HyperParameters) -> keras.Model:
    """A model, compiled as Keras's own examples do it, with the learning rate that is searched."""
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def mlp(hp: keras_tuner.HyperParameters) -> keras.Model:
    """The learning rate of the dense net."""
    return compiled(recipes.mlp(DIGITS.input_shape, DIGITS.task), hp)


def convnet(hp: keras_tuner.HyperParameters) -> keras.Model:
    """The learning rate of the convolutional net."""
    return compiled(recipes.convnet(DIGITS.input_shape, DIGITS.task), hp)


def shapes(hp: keras_tuner.HyperParameters) -> keras.Model:
    """Widths, depth, dropout and learning rate of the dense net."""
    width = hp.Choice("width", [32, 64, 128])
    units = [width] * hp.Int("depth", 1, 3)
    dropout = hp.Float("dropout", 0.1, 0.5)
    return compiled(recipes.mlp(DIGITS.input_shape, DIGITS.task, units=units, dropout=dropout), hp)


SPACES: dict[str, Build] = {"mlp": mlp, "convnet": convnet, "shapes": shapes}


class Recorded(keras_tuner.HyperModel):
    """A hypermodel that starts trials at the seeds that it is given, and keeps every epoch's scores."""

    def __init__(self, build: Build, seeds: dict[str, int]) -> None:
        super().__init__()
        self._function, self._seeds = build, seeds
        self.histories: dict[str, dict[str, list[float]]] = {}

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """A model from the seed that belongs to these hyperparameters."""
        if (seed := self._seeds.get(repr(sorted(hp.values.items())))) is not None:
            keras.utils.set_random_seed(seed)
        return self._function(hp)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains, and keeps what `fit` returns."""
        history = model.fit(*args, **kwargs)
        self.histories[repr(sorted(hp.values.items()))] = history.history
        return history


class SameTrials(keras_tuner.oracles.RandomSearchOracle):
    """Draws the values that it is given, one trial after the other."""

    def __init__(self, values: list[dict[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        self._values = values

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of trial number `trial_id`."""
        return {"status": "RUNNING", "values": dict(self._values[int(trial_id)])}


def drawn(build: Build, trials: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The values of the trials, and the seed of each."""
    with tempfile.TemporaryDirectory() as folder:
        search = RandomSearch(build, "val_accuracy", trials, seed, directory=folder)
        values, seeds = [], {}
        for _ in range(trials):
            trial = search.oracle.create_trial("tuner0")
            search.oracle.ongoing_trials.clear()
            values.append(trial.hyperparameters.values)
            seeds[repr(sorted(trial.hyperparameters.values.items()))] = search.trial_seed(trial)
        return values, seeds


def run(search: keras_tuner.Tuner, epochs: int, batch_size: int) -> float:
    """Seconds of a whole search."""
    gc.collect()
    start = time.perf_counter()
    search.search(
        DIGITS.train.x,
        DIGITS.train.y,
        validation_data=(DIGITS.val.x, DIGITS.val.y),
        epochs=epochs,
        batch_size=batch_size,
        verbose=0,
    )
    return time.perf_counter() - start


def compare(name: str, options: argparse.Namespace) -> None:
    """Prints the medians of both sides, their ratio, and how far apart their scores are."""
    build = SPACES[name]
    seconds: dict[str, list[float]] = {"keras_tuner": [], "keras_practice": []}
    apart = 0.0
    for turn in range(options.turns):
        values, seeds = drawn(build, options.trials, seed=turn)
        histories = {}
        for side in seconds:
            # `keras_practice` starts each trial at its seed by itself.
            recorded = Recorded(build, seeds if side == "keras_tuner" else {})
            with tempfile.TemporaryDirectory() as folder:
                where = {"directory": folder, "project_name": name}
                if side == "keras_practice":
                    search = RandomSearch(recorded, "val_accuracy", options.trials, turn, **where)
                else:
                    objective = keras_tuner.Objective("val_accuracy", "max")
                    oracle = SameTrials(values, objective=objective, max_trials=options.trials)
                    search = keras_tuner.Tuner(oracle, recorded, **where)
                search.oracle.verbose = 0
                recorded.histories.clear()
                seconds[side].append(run(search, options.epochs, options.batch_size))
            histories[side] = recorded.histories
        assert len(histories["keras_tuner"]) == options.trials
        for key, history in histories["keras_tuner"].items():
            for score, plain in history.items():
                apart = max(
                    apart, float(np.max(np.abs(np.subtract(plain, histories["keras_practice"][key][score]))))
                )
    plain, ours = (statistics.median(taken) / options.trials for taken in seconds.values())
    print(
        f"{name:8} keras_tuner {plain:6.2f} s a trial, keras_practice {ours:6.2f} s: "
        f"{plain / ours:5.1f} times the trials a minute; scores apart by {apart:.1e} at most",
        flush=True,
    )


def main() -> None:
    """Compares on each space."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spaces", nargs="*", default=list(SPACES), help=f"among {', '.join(SPACES)}")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    for name in options.spaces:
        compare(name, options)


if __name__ == "__main__":
    main()
