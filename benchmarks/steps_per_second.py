"""Training steps a second: plain `compile` and `fit` on arrays, against `compile_for` and `batches`.

    python benchmarks/steps_per_second.py

Both sides train `mlp` on digits from the same weights on the same batches in the same order, in turns
within one process; afterwards their weights are compared.
"""

import argparse
import platform
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from keras_practice import data, recipes

DIGITS = data.load("digits")


def model(ours: bool) -> keras.Model:
    """The net, compiled by `compile_for` or plainly."""
    keras.utils.set_random_seed(0)
    net = recipes.mlp(DIGITS.input_shape, DIGITS.task)
    if ours:
        return recipes.compile_for(net, DIGITS.task)
    net.compile(
        keras.optimizers.Adam(1e-3, clipnorm=1.0), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return net


def seconds(net: keras.Model, ours: bool, epochs: int, batch_size: int) -> float:
    """Time of one `fit`, unshuffled so that both sides see the same batches."""
    keras.utils.set_random_seed(1)
    train = DIGITS.train
    start = time.perf_counter()
    if ours:
        net.fit(train.batches(batch_size, shuffle=False), epochs=epochs, verbose=0, shuffle=False)
    else:
        net.fit(train.x, train.y, batch_size=batch_size, epochs=epochs, verbose=0, shuffle=False)
    return time.perf_counter() - start


def main() -> None:
    """Prints the medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    steps = options.epochs * -(-len(DIGITS.train) // options.batch_size)
    sides = {"plain": False, "compile_for": True}
    nets = {name: model(ours) for name, ours in sides.items()}
    for name, ours in sides.items():
        seconds(nets[name], ours, 1, options.batch_size)  # Traces.
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(options.turns):
        for name, net in nets.items():
            times[name].append(seconds(net, sides[name], options.epochs, options.batch_size))
    apart = max(
        float(np.abs(one - other).max())
        for one, other in zip(*(net.get_weights() for net in nets.values()), strict=True)
    )
    rates = {name: steps / statistics.median(taken) for name, taken in times.items()}
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    for name, rate in rates.items():
        print(f"{name:12} {rate:8.0f} steps/s   steps_per_execution {nets[name].steps_per_execution}")
    print(f"ratio {rates['compile_for'] / rates['plain']:.2f}, largest difference of the weights {apart:.1e}")


if __name__ == "__main__":
    main()
