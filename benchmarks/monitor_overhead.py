"""What `TrainingMonitor` costs at its default, as a share of a training step.

    python benchmarks/monitor_overhead.py

`mlp` on digits in batches of 32, as `compile_for` leaves it (32 steps a call) and with one step a call, and
`convnet` on random images of MNIST's shape in batches of 64. One model is trained with and without the
monitor in turns: two equal models may differ by several per cent in speed, by where their arrays lie in
memory. Each turn gives one ratio, and the result is the median over the turns of all rounds; each round
builds a new model, and checks that the monitor leaves the training as it is, to the last bit of the weights.
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
    """Builder, training split, batch size, steps a call and epochs a fit, by name."""
    digits = data.load("digits")
    rng = np.random.default_rng(0)
    images = Split(rng.random((6400, 28, 28, 1), np.float32), rng.integers(0, 10, 6400), Task.multiclass(10))
    return {
        "mlp on digits": (recipes.mlp, digits.train, 32, 32, 10),
        "mlp on digits, one step a call": (recipes.mlp, digits.train, 32, 1, 10),
        "convnet on MNIST's shape": (recipes.convnet, images, 64, 32, 1),
    }


def state(model) -> list[np.ndarray]:
    """All that training changes."""
    return [
        keras.ops.convert_to_numpy(variable) for variable in (*model.variables, *model.optimizer.variables)
    ]


def restore(model, values) -> None:
    """Puts the model and its optimiser back."""
    for variable, value in zip((*model.variables, *model.optimizer.variables), values, strict=True):
        variable.assign(value)


def one_round(recipe, train, batch_size, steps, epochs, watching, turns) -> dict[str, list[float]]:
    """Seconds of each fit of each side, of one new model."""
    keras.utils.set_random_seed(0)
    model = recipes.compile_for(recipe(train.x.shape[1:], train.task), train.task)
    model.steps_per_execution = steps

    def fit(side: str) -> float:
        batches = train.batches(batch_size, seed=0)
        start = time.perf_counter()
        model.fit(batches, epochs=epochs, callbacks=watching[side], shuffle=False, verbose=0)
        return time.perf_counter() - start

    fit("without")
    before, results = state(model), []
    for side in watching:  # The first ones also trace.
        restore(model, before)
        fit(side)
        results.append(state(model))
    first, *others = results
    assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    times = {side: [] for side in watching}
    for turn in range(turns):
        # There and back, so that a drift of the machine's speed cancels.
        for side in list(watching)[:: 1 if turn % 2 else -1]:
            times[side].append(fit(side))
    return times


def main() -> None:
    """Prints the medians and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--only", default="", help="nets whose name starts with this")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    for name, (recipe, train, batch_size, steps, epochs) in nets().items():
        if not name.startswith(options.only):
            continue
        rounds = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                watching = {
                    "without": [],
                    "with": [TrainingMonitor(options.every, sink=lambda words: None)],
                    "and TensorBoard": [TrainingMonitor(options.every, folder, sink=lambda words: None)],
                }
                rounds.append(one_round(recipe, train, batch_size, steps, epochs, watching, options.turns))
            keras.utils.clear_session()
        count = epochs * -(-len(train) // batch_size)
        print(f"{name}, {count} steps a fit, {options.turns} turns, {options.rounds} rounds")
        for side in rounds[0]:
            ratios = [
                statistics.median(a / b for a, b in zip(times[side], times["without"], strict=True))
                for times in rounds
            ]
            every = [a / b for times in rounds for a, b in zip(times[side], times["without"], strict=True)]
            each = statistics.median(taken for times in rounds for taken in times[side]) / count
            print(
                f"  {side:16} {1e3 * each:7.3f} ms a step, ratio {statistics.median(every):.3f} "
                f"(rounds {min(ratios):.3f} to {max(ratios):.3f})"
            )


if __name__ == "__main__":
    main()
