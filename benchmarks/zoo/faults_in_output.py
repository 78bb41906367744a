"""Programs whose output layer and loss do not go together."""

from __future__ import annotations

import keras
import numpy as np
from keras import Input, Sequential, layers, losses, ops
from keras.optimizers import SGD, Adam

from zoo import samples as given
from zoo.program import Program, faulty

# The pair of activation and loss.


@faulty("output-units", "output-loss")  # One unit is too few for a softmax; a softmax is wrong for one unit.
def softmax_over_one_unit(seed, fault=True):
    """A softmax over a single unit, which is 1 whatever comes in."""
    tumours = given.bundled("breast_cancer", seed)
    model = Sequential(
        [Input((30,)), layers.Dense(16, "relu"), layers.Dense(1, "softmax" if fault else "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, tumours)


@faulty("output-units", "output-loss")  # The same with a recurrent net.
def softmax_over_one_unit_after_an_lstm(seed, fault=True):
    """Reviews judged good or bad by a softmax over a single unit."""
    model = Sequential(
        [
            Input((24,), dtype="int32"),
            layers.Embedding(60, 16, mask_zero=True),
            layers.LSTM(16),
            layers.Dense(1, "softmax" if fault else "sigmoid"),
        ]
    )
    model.compile(Adam(5e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed), epochs=12)


@faulty("output-loss")
def sigmoids_for_one_of_ten_classes(seed, fault=True):
    """Ten sigmoids with categorical cross-entropy: the probabilities do not add up to 1."""
    digits = given.probabilities(given.digits(seed), 10)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(10, "sigmoid" if fault else "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


# To the loss, what comes in is no probability ("output-loss"); as for the values, they lie beyond 0 to 1
# ("output-range"). Both name the missing softmax or sigmoid.
@faulty("output-loss", "output-range")
def logits_without_from_logits(seed, fault=True):
    """Linear outputs into a cross-entropy that expects probabilities."""
    digits = given.digits(seed)
    model = Sequential([Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10)])
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=not fault), metrics=["accuracy"])
    return Program(model, digits)


@faulty("output-loss", "output-range")  # As above, for yes and no.
def logit_without_from_logits_on_a_small_convnet(seed, fault=True):
    """One linear output into a binary cross-entropy that expects a probability: disc or not."""
    shapes = given.shapes(seed).with_y(lambda y: (y == 0).astype(np.float32))
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ]
    )
    model.compile(Adam(5e-3), losses.BinaryCrossentropy(from_logits=not fault), metrics=["accuracy"])
    return Program(model, shapes, epochs=20)


# A softmax within the model and one within the loss: a wrong pair, and one activation too many.
@faulty("output-loss", "double-activation")
def from_logits_after_a_softmax(seed, fault=True):
    """`from_logits=True` on probabilities (behind a Reshape, where Keras cannot see through)."""
    rows = given.probabilities(given.rising(seed), 3)
    model = Sequential(
        [
            Input((16, 1)),
            layers.Conv1D(16, 3, padding="causal", activation="relu"),
            layers.Dense(3, "softmax"),
            layers.Reshape((16, 3)),
        ]
    )
    model.compile(Adam(5e-3), losses.SparseCategoricalCrossentropy(from_logits=fault), metrics=["accuracy"])
    return Program(model, rows)


@faulty("output-loss", "double-activation")  # As above, with the second softmax written out.
def softmax_again_in_a_custom_loss(seed, fault=True):
    """A custom loss that applies a softmax to the output of a softmax."""

    def loss(y_true, y_pred):
        if fault:
            y_pred = ops.softmax(1.0 * y_pred)
        return losses.sparse_categorical_crossentropy(y_true, y_pred)

    digits = given.probabilities(given.digits(seed), 10)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", loss)
    return Program(model, digits)


@faulty("output-loss", "output-range")  # Values from -1 to 1 are no probabilities.
def tanh_with_cross_entropy(seed, fault=True):
    """A tanh output, from -1 to 1, with binary cross-entropy."""
    model = Sequential(
        [Input((8,)), layers.Dense(32, "relu"), layers.Dense(1, "tanh" if fault else "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.balanced(seed))


@faulty("output-loss", "output-range")  # Values from 0 up are no probabilities.
def relu_with_cross_entropy(seed, fault=True):
    """ReLU outputs, from 0 up, with categorical cross-entropy."""
    waves = given.one_hot(given.waves(seed), 3)
    model = Sequential(
        [
            Input((48, 1)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="relu" if fault else "softmax"),
        ]
    )
    model.compile(Adam(5e-3), "categorical_crossentropy", metrics=["accuracy"])
    return Program(model, waves, epochs=30)


@faulty("output-loss", "output-range")  # The loss takes the logarithm of what may be negative.
def poisson_loss_on_a_linear_output(seed, fault=True):
    """A Poisson loss, which takes a logarithm, on an output that may be negative."""
    model = Sequential(
        [Input((6,)), layers.Dense(32, "relu"), layers.Dense(1, None if fault else "exponential")]
    )
    model.compile(Adam(3e-3), "poisson")
    return Program(model, given.counts(seed))


# A softmax over the steps: each step's values add up to something else than 1, so the pair is wrong.
@faulty("output-loss", "output-range")
def softmax_over_the_steps(seed, fault=True):
    """A class for each step, with the softmax along the steps in place of the classes."""
    rows = given.probabilities(given.rising(seed), 3)
    inputs = Input((16, 1))
    x = layers.Conv1D(16, 3, padding="causal", activation="relu")(inputs)
    outputs = ops.softmax(layers.Dense(3)(x), axis=1 if fault else -1)
    model = keras.Model(inputs, outputs)
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, rows)


@faulty("double-activation")
def softmax_twice(seed, fault=True):
    """A softmax layer after a layer that ends in softmax."""
    digits = given.probabilities(given.digits(seed), 10)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(10, "softmax"),
            *([layers.Softmax()] if fault else []),
        ]
    )
    model.compile(SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("double-activation")
def sigmoid_twice(seed, fault=True):
    """A sigmoid of a sigmoid: never below one half."""
    model = Sequential(
        [
            Input((30,)),
            layers.Dense(16, "relu"),
            layers.Dense(1, "sigmoid"),
            *([layers.Activation("sigmoid")] if fault else []),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("breast_cancer", seed))


@faulty("double-activation")
def relu_before_the_last_sigmoid(seed, fault=True):
    """A ReLU between the last layer and its sigmoid: no answer below one half."""
    model = Sequential(
        [
            Input((8,)),
            layers.Dense(32, "relu"),
            layers.Dense(1, "relu" if fault else None),
            layers.Activation("sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.balanced(seed))


# The range of the output.


@faulty("output-range")
def relu_for_a_number_of_either_sign(seed, fault=True):
    """A ReLU on the output for standardised targets, half of which are negative."""
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1, "relu" if fault else None)])
    model.compile("adam", "mse")
    return Program(model, given.houses(seed))


@faulty("output-range")
def sigmoid_for_a_number_of_either_sign(seed, fault=True):
    """A sigmoid on the output of a recurrent net for values from -1 to 1."""
    model = Sequential(
        [Input((24, 1)), layers.GRU(16), layers.Dense(1, activation="sigmoid" if fault else None)]
    )
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.forecast(seed))


@faulty("output-range")
def tanh_for_values_up_to_forty(seed, fault=True):
    """A tanh on the output for targets from about 0 to 40."""
    houses = given.houses(seed).with_y(lambda y: 8 * y + 14)
    model = Sequential([Input((5,)), layers.Dense(64, "relu"), layers.Dense(1, "tanh" if fault else None)])
    model.compile(Adam(1e-2), "mse")
    return Program(model, houses)


@faulty("output-range")
def softplus_rebuilds_what_is_centred(seed, fault=True):
    """An autoencoder of standardised columns whose last layer cannot be negative."""
    wine = given.bundled("wine", seed)
    wine = given.Samples(wine.x, wine.x, wine.x_test, wine.x_test, "numbers")
    model = Sequential(
        [Input((13,)), layers.Dense(8, "tanh"), layers.Dense(13, "softplus" if fault else None)]
    )
    model.compile(Adam(1e-2), "mse")
    return Program(model, wine, epochs=60)


# The number of outputs.


@faulty("output-units", "label-range")  # Ten classes meet five units; five labels lie beyond the units.
def five_units_for_ten_classes(seed, fault=True):
    """A softmax over five units for ten classes."""
    digits = given.digits(seed)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(5 if fault else 10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("output-units", "label-range")  # Three classes meet one unit; class 2 lies beyond yes and no.
def one_sigmoid_for_three_classes(seed, fault=True):
    """One sigmoid with binary cross-entropy for the classes 0, 1 and 2."""
    model = Sequential(
        [
            Input((4,)),
            layers.Dense(16, "relu"),
            layers.Dense(1, "sigmoid") if fault else layers.Dense(3, "softmax"),
        ]
    )
    loss = "binary_crossentropy" if fault else "sparse_categorical_crossentropy"
    model.compile(Adam(1e-2), loss, metrics=["accuracy"])
    return Program(model, given.bundled("iris", seed), epochs=40)


@faulty("output-units")
def one_output_for_two_numbers(seed, fault=True):
    """One unit for two targets: it is compared to both."""
    model = Sequential([Input((5,)), layers.Dense(64, "relu"), layers.Dense(1 if fault else 2)])
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.two_targets(seed))


# The output has a shape that does not fit the labels: too many numbers a sample, or labels of another form.
@faulty("output-units", "label-encoding")
def no_flatten_before_the_output(seed, fault=True):
    """A convolutional net without Flatten: ten numbers for every pixel."""
    digits = given.digits(seed)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            *([] if fault else [layers.Flatten()]),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


# The same without an error message: rows of labels are spread over the steps, and so over other samples.
@faulty("output-units", "label-encoding")
def every_step_of_an_lstm_for_one_number(seed, fault=True):
    """`return_sequences=True` before the output: 24 predictions for one target."""
    model = Sequential([Input((24, 1)), layers.LSTM(16, return_sequences=fault), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.forecast(seed))


# Custom losses.


# A loss whose sign is turned has no check of its own: its value ("initial-loss") and its course
# ("loss-diverges") show it, and the loss is what has to change ("output-loss").
@faulty("output-loss", "initial-loss", "loss-diverges")
def a_loss_that_grows_with_success(seed, fault=True):
    """A custom loss with the sign turned: the error is made as large as can be."""

    def loss(y_true, y_pred):
        squared = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return -squared if fault else squared

    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile("adam", loss)
    return Program(model, given.houses(seed))


@faulty("output-loss", "initial-loss", "loss-diverges")  # As above.
def cross_entropy_without_its_minus(seed, fault=True):
    """Cross-entropy written by hand without the minus."""

    def loss(y_true, y_pred):
        found = ops.sum(y_true * ops.log(y_pred + 1e-7), axis=-1)
        return found if fault else -found

    waves = given.one_hot(given.waves(seed), 3)
    model = Sequential([Input((48, 1)), layers.GRU(24), layers.Dense(3, "softmax")])
    model.compile(Adam(3e-3), loss, metrics=["accuracy"])
    return Program(model, waves, epochs=25)


@faulty("initial-loss", "loss-diverges")  # The loss is infinite from the start.
def logarithm_of_counts_without_an_epsilon(seed, fault=True):
    """A squared difference of logarithms where counts may be 0."""

    def loss(y_true, y_pred):
        epsilon = 0.0 if fault else 1.0
        return ops.mean(ops.square(ops.log(y_true + epsilon) - ops.log(y_pred + epsilon)), axis=-1)

    model = Sequential([Input((6,)), layers.Dense(32, "relu"), layers.Dense(1, "softplus")])
    model.compile(Adam(3e-3), loss)
    return Program(model, given.counts(seed), epochs=30)


# The loss is not a number as soon as an output is exactly 0 or 1.
@faulty("output-loss", "initial-loss", "loss-diverges")
def cross_entropy_without_an_epsilon(seed, fault=True):
    """Cross-entropy written by hand; on counts of thousands the sigmoid rounds to 0 and 1."""

    def loss(y_true, y_pred):
        p = y_pred if fault else ops.clip(y_pred, 1e-6, 1 - 1e-6)
        return -ops.mean(y_true * ops.log(p) + (1 - y_true) * ops.log(1 - p), axis=-1)

    tumours = given.bundled("breast_cancer", seed).with_x(lambda x: x * 10)
    model = Sequential([Input((30,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", loss)
    return Program(model, tumours, epochs=30)


# The loss takes the logarithm of the labels: a wrong use of the loss, seen first in its value.
@faulty("output-loss", "initial-loss")
def arguments_of_the_loss_exchanged(seed, fault=True):
    """A custom loss that calls cross-entropy with prediction and truth exchanged."""

    def loss(y_true, y_pred):
        if fault:
            return losses.categorical_crossentropy(y_pred, y_true)
        return losses.categorical_crossentropy(y_true, y_pred)

    digits = given.probabilities(given.digits(seed), 10)
    digits = digits.trained_on(digits.x, np.eye(10, dtype=np.float32)[digits.y])
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", loss)
    return Program(model, digits)


@faulty("loss-reduction")
def mean_before_the_square(seed, fault=True):
    """A custom loss that takes the mean of the batch first and the square of it after."""

    def loss(y_true, y_pred):
        if fault:
            return ops.square(ops.mean(y_true - y_pred, axis=0))
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile("adam", loss)
    return Program(model, given.houses(seed))


@faulty("loss-reduction")
def probabilities_averaged_over_the_batch(seed, fault=True):
    """Cross-entropy between the batch's mean label and its mean prediction: the wrong axis."""

    def loss(y_true, y_pred):
        if fault:
            y_true, y_pred = (ops.mean(part, axis=0, keepdims=True) for part in (y_true, y_pred))
        return -ops.sum(y_true * ops.log(y_pred + 1e-7), axis=-1)

    digits = given.one_hot(given.digits(seed), 10)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", loss, metrics=["accuracy"])
    return Program(model, digits)
