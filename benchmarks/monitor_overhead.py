"""What `TrainingMonitor` costs at its default, as a share of a training step.

    python benchmarks/monitor_overhead.py

`mlp` on digits in batches of 32, and `convnet` on random images of MNIST's shape in batches of 64, with and
without the monitor, side by side in one process. Two equal nets may differ by several per cent in speed, by
where their arrays lie in memory; so each round builds all sides anew, times each in turns, and gives one
ratio, and the result is the median of the rounds. Each side ends with the same weights, which is checked.
"""

import argparse
import platform
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.callbacks import TrainingMonitor
from keras_practice.data import Split, Task


def nets() -> dict[str, tuple]:
    """Name, builder, training split, batch size, epochs a fit and fits a round."""
    digits = data.load("digits")
    rng = np.random.default_rng(0)
    task = Task.multiclass(10)
    images = Split(rng.random((6400, 28, 28, 1), np.float32), rng.integers(0, 10, 6400), task)
    return {
        "mlp on digits": (recipes.mlp, digits.train, 32, 10, 4),
        "convnet on MNIST's shape": (recipes.convnet, images, 64, 1, 2),
    }


def one_round(recipe, train, batch_size, epochs, fits, watching) -> dict[str, float]:
    """Seconds of the median fit of each side, in new models."""
    models = {}
    for side in watching:
        keras.utils.set_random_seed(0)
        models[side] = recipes.compile_for(recipe(train.x.shape[1:], train.task), train.task)
    times = {side: [] for side in watching}
    for turn in range(fits + 1):
        # There and back, so that a drift of the machine's speed cancels.
        for side in list(watching)[:: 1 if turn % 2 else -1]:
            batches = train.batches(batch_size, seed=turn)
            start = time.perf_counter()
            models[side].fit(batches, epochs=epochs, callbacks=watching[side], shuffle=False, verbose=0)
            if turn:  # The first one traces.
                times[side].append(time.perf_counter() - start)
    first, *others = (model.get_weights() for model in models.values())
    assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    return {side: statistics.median(taken) for side, taken in times.items()}


def main() -> None:
    """Prints the medians and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--every", type=int, default=50)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    for name, (recipe, train, batch_size, epochs, fits) in nets().items():
        rounds = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                watching = {
                    "without": [],
                    "with": [TrainingMonitor(options.every, sink=lambda words: None)],
                    "and TensorBoard": [TrainingMonitor(options.every, folder, sink=lambda words: None)],
                }
                rounds.append(one_round(recipe, train, batch_size, epochs, fits, watching))
            keras.utils.clear_session()
        steps = epochs * -(-len(train) // batch_size)
        print(f"{name}, {steps} steps a fit, {fits} fits a round, {options.rounds} rounds")
        for side in rounds[0]:
            ratios = sorted(taken[side] / taken["without"] for taken in rounds)
            each = statistics.median(taken[side] for taken in rounds) / steps
            print(
                f"  {side:16} {1e3 * each:7.3f} ms a step, ratio {statistics.median(ratios):.3f} "
                f"(rounds {ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


if __name__ == "__main__":
    main()
