"""Why does it not learn? One look before training says so.

    python examples/preflight.py

A net for wave forms takes the first step of each sequence, where all steps were meant, and is compiled with
a rate a million times too low. Both are found without a long training.
"""

import keras

from keras_practice import checks, data


def wrong_net(dataset):
    """`x[:, 0]` in place of a layer that reads every step."""
    inputs = keras.Input(dataset.input_shape, name="wave")
    hidden = keras.layers.Dense(32, activation="relu")(inputs[:, 0])
    outputs = keras.layers.Dense(dataset.task.outputs, activation="softmax")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(1e-9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    """Prints the report; returns it."""
    waves = data.load("waves", seed=0)
    keras.utils.set_random_seed(0)
    report = checks.preflight(wrong_net(waves), waves.train.x, waves.train.y)
    print(report)
    return report


if __name__ == "__main__":
    main()
