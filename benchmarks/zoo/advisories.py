"""Programs that train, and have something that deserves a warning."""

from __future__ import annotations

import keras
import numpy as np
from keras import Input, Sequential, layers, losses
from keras.optimizers import SGD, Adam

from zoo import samples as given
from zoo.program import Program, advisory


@advisory("metric-task")
def accuracy_of_a_number(seed, fault=True):
    """A regression watched by accuracy, which counts exact hits."""
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse", metrics=["accuracy" if fault else "mae"])
    return Program(model, given.houses(seed))


@advisory("metric-task")
def mean_squared_error_of_classes(seed, fault=True):
    """Class numbers watched by the squared error of the probabilities."""
    metric = keras.metrics.MeanSquaredError() if fault else "accuracy"
    model = Sequential([Input((13,)), layers.Dense(32, "relu"), layers.Dense(3, "softmax")])
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=[metric])
    return Program(model, given.bundled("wine", seed), epochs=40)


@advisory("class-imbalance")
def one_in_two_hundred(seed, fault=True):
    """A yes in one row of two hundred, with accuracy as the metric."""
    model = Sequential([Input((8,)), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.rare(seed, 0.005 if fault else 0.5))


@advisory("class-imbalance")
def one_digit_hardly_ever(seed, fault=True):
    """Three kinds of wave, of which one has a hundredth of the rows."""
    waves = given.waves(seed)
    rng = np.random.default_rng(seed)
    kept = (waves.y > 0) | (rng.random(len(waves.y)) < (0.02 if fault else 1.0))
    model = Sequential(
        [
            Input((48, 1)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, waves.trained_on(waves.x[kept], waves.y[kept]), epochs=30)


@advisory("no-clipping")
def an_lstm_without_clipping(seed, fault=True):
    """An LSTM under gradient descent, whose gradients are not clipped."""
    model = Sequential([Input((24, 1)), layers.LSTM(16), layers.Dense(1)])
    model.compile(SGD(0.05, momentum=0.9, clipnorm=None if fault else 1.0), "mse")
    return Program(model, given.forecast(seed))


@advisory("loss-reduction")
def the_sum_of_the_losses(seed, fault=True):
    """A loss summed over the batch: the step grows with the batch."""
    loss = losses.MeanSquaredError(reduction="sum" if fault else "sum_over_batch_size")
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(SGD(1e-3 if fault else 3e-2), loss)
    return Program(model, given.houses(seed))


@advisory("leakage")
def training_rows_in_the_validation(seed, fault=True):
    """Validation data of which half are training rows."""
    digits = given.digits(seed)
    x, y = digits.x_test, digits.y_test
    if fault:
        x, y = np.concatenate([x[:150], digits.x[:150]]), np.concatenate([y[:150], digits.y[:150]])
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits, validation_data=(x, y))


@advisory("leakage")
def the_target_among_the_columns(seed, fault=True):
    """A table that still has its target as a column, in thousands."""
    rng = np.random.default_rng(seed)
    houses = given.houses(seed)

    def with_target(x, y):
        column = y * 1.3 + 0.2 if fault else rng.normal(size=len(y))
        return np.concatenate([x, column[:, None].astype(np.float32)], axis=1)

    houses = given.Samples(
        with_target(houses.x, houses.y),
        houses.y,
        with_target(houses.x_test, houses.y_test),
        houses.y_test,
        "numbers",
    )
    model = Sequential([Input((6,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    return Program(model, houses)


@advisory("leakage")
def the_label_among_the_columns(seed, fault=True):
    """A column that is filled in only after the answer is known: the answer itself."""
    tumours = given.bundled("breast_cancer", seed)
    x, x_test = (
        np.concatenate([x, (y if fault else 0 * y + x[:, 0])[:, None]], axis=1).astype(np.float32)
        for x, y in ((tumours.x, tumours.y), (tumours.x_test, tumours.y_test))
    )
    model = Sequential([Input((31,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.Samples(x, tumours.y, x_test, tumours.y_test))


@advisory("frozen")
def a_frozen_trunk_that_was_never_trained(seed, fault=True):
    """A frozen trunk whose weights are random: loading them was forgotten."""
    trunk = Sequential(
        [Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Conv2D(8, 3, activation="relu")]
    )
    trunk.trainable = not fault
    model = Sequential([Input((8, 8, 1)), trunk, layers.Flatten(), layers.Dense(10, activation="softmax")])
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@advisory("constant-feature")
def columns_that_never_change(seed, fault=True):
    """A table of which two columns are the same in every row."""
    houses = given.houses(seed)
    rng = np.random.default_rng(seed)

    def padded(x):
        more = np.full((len(x), 2), 3.0) if fault else rng.normal(size=(len(x), 2))
        return np.concatenate([x, more.astype(np.float32)], axis=1)

    model = Sequential([Input((7,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse")
    return Program(model, houses.with_x(padded))
