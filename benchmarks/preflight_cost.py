"""How long `checks.preflight` takes, with its short trainings and without.

    python benchmarks/preflight_cost.py
    python benchmarks/preflight_cost.py --data mnist.npz

`mlp` with its defaults on digits, and with `--data` on MNIST: the median of five looks, each at a new model.
"""

import argparse
import platform
import statistics
import time

import keras
import tensorflow as tf

from keras_practice import checks, data, recipes


def seconds(dataset: data.Dataset, run: bool, turns: int) -> list[float]:
    """Of each look."""
    taken = []
    for turn in range(turns + 1):  # The first one also imports and warms up.
        keras.utils.set_random_seed(turn)
        model = recipes.compile_for(recipes.mlp(dataset.input_shape, dataset.task), dataset.task)
        start = time.perf_counter()
        assert checks.preflight(model, dataset.train.x, dataset.train.y, run=run).passed
        taken.append(time.perf_counter() - start)
        keras.utils.clear_session()
    return taken[1:]


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="FILE", help="a local mnist.npz")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    sets = [data.load("digits")] + ([data.load("mnist", path=options.data)] if options.data else [])
    for dataset in sets:
        for run in (True, False):
            taken = seconds(dataset, run, options.turns)
            print(
                f"{dataset.name:8} run={run!s:6} {statistics.median(taken):5.2f} s "
                f"({min(taken):.2f} to {max(taken):.2f})"
            )


if __name__ == "__main__":
    main()
