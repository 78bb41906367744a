"""An epoch in one graph where TensorFlow has one thread for operations that wait, as on one core.

Run by `test_epoch_function.py`, which stops it where it waits for ever.
"""

import os
import threading

os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import keras
import numpy as np
import tensorflow as tf

from keras_practice.training.batches import DeviceArrays, Epoch, batches_of
from keras_practice.training.epoch_function import EpochFunction


class OneOfTwo(keras.layers.Layer):
    """A layer that calls a function and chooses between two."""

    def call(self, x):
        doubled = tf.function(lambda x: 2.0 * x, autograph=False)
        return tf.cond(tf.reduce_sum(x) > 0.0, lambda: doubled(x), lambda: x)


def net(*layers):
    model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


NETS = {
    "small": lambda: net(keras.layers.Dense(6, "relu")),
    "calls": lambda: net(keras.layers.Dense(6, "relu"), OneOfTwo()),
    "convolves": lambda: net(keras.layers.Reshape((8, 1)), keras.layers.Conv1D(2, 3), keras.layers.Flatten()),
}


def runs(ours, plain, rows):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 8)).astype("float32"), rng.integers(0, 3, rows)
    plain.set_weights(ours.get_weights())
    EpochFunction(ours, "train", [], inline=True)(
        Epoch([batches_of(DeviceArrays().get((x, y)), 16, shuffle=False)], whole=True)
    )
    plain.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    for variable, other in zip(ours.variables, plain.variables, strict=True):
        np.testing.assert_allclose(variable, other, atol=1e-6, err_msg=variable.path)


if __name__ == "__main__":
    for name, build in NETS.items():
        for rows in (80, 40):  # Enough batches for a loop that steps are put into, and too few.
            runs(build(), build(), rows)
            print(f"{name}, {rows} rows: done", flush=True)
    pairs = [(NETS["calls"](), NETS["calls"]()) for _ in range(3)]
    together = [threading.Thread(target=runs, args=(*pair, 80)) for pair in pairs]
    for one in together:
        one.start()
    for one in together:
        one.join()
    print("three at once: done", flush=True)
