"""`learning_rate_sweep` of 32 rates against 32 plain Keras fits, `mlp` on digits.

    python benchmarks/learning_rate_sweep.py
    python benchmarks/learning_rate_sweep.py --turns 5 --fits 32

A plain fit is build, compile with Keras's default steps_per_execution, and `fit` with validation data, for
as many epochs on batches as large. Both sides include all tracing. They take turns within one process, from
a clear session each. With fewer `--fits` than rates, that many are timed, evenly spaced among the rates, and
their mean counts for all; the time of a fit does not depend on its rate. The goal is a ratio of at least 15.
"""

import argparse
import platform
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.tuning.sweeps.learning_rate import learning_rate_sweep

GOAL = 15.0
DIGITS = data.load("digits")
RATES = np.geomspace(1e-5, 10.0, 32)


def build() -> keras.Model:
    """The net that is swept."""
    return recipes.compile_for(recipes.mlp(DIGITS.input_shape, DIGITS.task), DIGITS.task)


def sweep_seconds(epochs: int, batch_size: int) -> float:
    """Time of a whole sweep."""
    keras.backend.clear_session()
    start = time.perf_counter()
    result = learning_rate_sweep(
        build, DIGITS.train, DIGITS.val, list(RATES), epochs=epochs, batch_size=batch_size
    )
    taken = time.perf_counter() - start
    assert not result.why_one_by_one, result.why_one_by_one
    return taken


def plain_seconds(epochs: int, batch_size: int, fits: int) -> float:
    """Time of 32 plain fits, of which so many are run."""
    rates = RATES[np.unique(np.linspace(0, len(RATES) - 1, fits).round().astype(int))]
    train, val = DIGITS.train, DIGITS.val
    start = time.perf_counter()
    for rate in rates:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        model = recipes.mlp(DIGITS.input_shape, DIGITS.task)
        model.compile(
            keras.optimizers.Adam(float(rate), clipnorm=1.0),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        model.fit(
            train.x,
            train.y,
            batch_size=batch_size,
            epochs=epochs,
            validation_data=(val.x, val.y),
            verbose=0,
        )
    return (time.perf_counter() - start) * len(RATES) / len(rates)


def main() -> None:
    """Prints the medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--fits", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    sweeps, plains = [], []
    for _ in range(options.turns):
        sweeps.append(sweep_seconds(options.epochs, options.batch_size))
        plains.append(plain_seconds(options.epochs, options.batch_size, options.fits))
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    sweep, plain = statistics.median(sweeps), statistics.median(plains)
    print(f"{len(RATES)} rates, {options.epochs} epochs, median of {options.turns} turns")
    print(f"sweep {sweep:7.2f} s   {len(RATES)} plain fits {plain:7.2f} s", end="")
    print(f" ({options.fits} of them run)" if options.fits < len(RATES) else "")
    print(f"ratio {plain / sweep:.1f} (goal: at least {GOAL:g})")


if __name__ == "__main__":
    main()
