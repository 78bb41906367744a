"""Programs whose network cannot learn."""

from __future__ import annotations

import keras
import numpy as np
from keras import Input, Sequential, initializers, layers, ops, regularizers
from keras.optimizers import SGD, Adam

from keras_practice import recipes
from keras_practice.data import Task
from zoo import samples as given
from zoo.program import Program, faulty

# Activations.


@faulty("no-nonlinearity")
def deep_and_linear(seed, fault=True):
    """Three hidden layers without an activation on three spirals."""
    activation = None if fault else "relu"
    model = Sequential(
        [
            Input((2,)),
            layers.Dense(64, activation),
            layers.Dense(64, activation),
            layers.Dense(64, activation),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


@faulty("no-nonlinearity")
def linear_convolutions(seed, fault=True):
    """Convolutions over a wave without an activation."""
    activation = None if fault else "relu"
    model = Sequential(
        [
            Input((48, 1)),
            layers.Conv1D(16, 5, activation=activation),
            layers.AveragePooling1D(2),
            layers.Conv1D(32, 5, activation=activation),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.waves(seed), epochs=30)


@faulty("no-nonlinearity")
def exclusive_or_without_an_activation(seed, fault=True):
    """XOR with a hidden layer of eight linear units."""
    model = Sequential([Input((2,)), layers.Dense(8, None if fault else "tanh"), layers.Dense(1, "sigmoid")])
    model.compile(Adam(2e-2), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("xor", seed))


@faulty("vanishing-gradient", "saturating-activation")  # Two words for ten sigmoids in a row.
def ten_layers_of_sigmoids(seed, fault=True):
    """Ten hidden layers of sigmoids."""
    model = Sequential([Input((8, 8, 1)), layers.Flatten()])
    for _ in range(10):
        model.add(
            layers.Dense(32, "sigmoid") if fault else layers.Dense(32, "relu", kernel_initializer="he_normal")
        )
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("vanishing-gradient", "saturating-activation")  # As above.
def deep_sigmoid_convolutions(seed, fault=True):
    """Eight convolutions with sigmoids, and no batch normalisation."""
    activation = "sigmoid" if fault else "relu"
    model = Sequential([Input((16, 16, 3))])
    for _ in range(8):
        model.add(layers.Conv2D(8, 3, padding="same", activation=activation))
    model.add(layers.MaxPooling2D(4))
    model.add(layers.Flatten())
    model.add(layers.Dense(3, activation="softmax"))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed), epochs=15)


# The start of the bias puts every unit on its flat end: a matter of the start, seen as saturation.
@faulty("saturating-activation", "initial-weights")
def tanh_units_that_start_saturated(seed, fault=True):
    """Biases of 30 for tanh units, all of which then give 1."""
    bias = initializers.Constant(30.0 if fault else 0.0)
    model = Sequential(
        [
            Input((5,)),
            layers.Dense(32, "tanh", bias_initializer=bias),
            layers.Dense(16, "tanh"),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return Program(model, given.houses(seed))


# Initial weights.


@faulty("initial-weights")
def weights_of_zero(seed, fault=True):
    """All weights start at zero."""
    start = "zeros" if fault else "he_normal"
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu", kernel_initializer=start),
            layers.Dense(10, "softmax", kernel_initializer=start),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("initial-weights")
def convolutions_of_zero(seed, fault=True):
    """All filters start at zero."""
    start = "zeros" if fault else "glorot_uniform"
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, activation="relu", kernel_initializer=start),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu", kernel_initializer=start),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@faulty("initial-weights")
def weights_all_equal(seed, fault=True):
    """All weights start at 0.1, so that all units of a layer stay alike."""
    start = initializers.Constant(0.1) if fault else "glorot_uniform"
    model = Sequential(
        [
            Input((2,)),
            layers.Dense(32, "tanh", kernel_initializer=start),
            layers.Dense(32, "tanh", kernel_initializer=start),
            layers.Dense(3, "softmax", kernel_initializer=start),
        ]
    )
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


@faulty("initial-weights")
def weights_of_ten(seed, fault=True):
    """Weights that start with a deviation of 10, on tanh units."""
    start = initializers.RandomNormal(stddev=10.0) if fault else "glorot_uniform"
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "tanh", kernel_initializer=start),
            layers.Dense(64, "tanh", kernel_initializer=start),
            layers.Dense(10, "softmax", kernel_initializer=start),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("initial-weights", "exploding-gradient")  # The start makes each layer enlarge: one word for each end.
def standard_normal_weights_eight_layers_deep(seed, fault=True):
    """Weights of deviation 1 in eight wide ReLU layers."""
    start = initializers.RandomNormal(stddev=1.0) if fault else "he_normal"
    model = Sequential([Input((5,))])
    for _ in range(8):
        model.add(layers.Dense(64, "relu", kernel_initializer=start))
    model.add(layers.Dense(1))
    model.compile(Adam(1e-3), "mse")
    return Program(model, given.houses(seed))


@faulty("initial-weights", "vanishing-gradient")  # The start makes each layer shrink.
def weights_of_a_millionth(seed, fault=True):
    """Weights that start with a deviation of 1e-6."""
    start = initializers.RandomNormal(stddev=1e-6) if fault else "he_normal"
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu", kernel_initializer=start),
            layers.Dense(64, "relu", kernel_initializer=start),
            layers.Dense(10, "softmax", kernel_initializer=start),
        ]
    )
    model.compile(SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("initial-weights", "vanishing-gradient")  # As above.
def small_normal_weights_twenty_layers_deep(seed, fault=True):
    """Weights of deviation 0.05, the default of RandomNormal, in twenty tanh layers of 32."""
    start = "random_normal" if fault else "orthogonal"
    model = Sequential([Input((5,))])
    for _ in range(20):
        model.add(layers.Dense(32, "tanh", kernel_initializer=start))
    model.add(layers.Dense(1))
    model.compile(Adam(3e-4), "mse")
    return Program(model, given.houses(seed))


@faulty("initial-weights", "vanishing-gradient")  # As above, through time.
def recurrent_weights_that_forget(seed, fault=True):
    """Recurrent weights near 0: nothing of the first of 40 steps is left at the last."""
    start = initializers.RandomNormal(stddev=0.01)
    unit = layers.SimpleRNN(24, recurrent_initializer=start) if fault else layers.LSTM(24)
    model = Sequential([Input((40, 1)), unit, layers.Dense(1, "sigmoid")])
    model.compile(Adam(1e-2), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.first_step(seed), epochs=30)


# The start of the recurrence enlarges at every step.
@faulty("exploding-gradient", "initial-weights")
def recurrent_relu_that_doubles(seed, fault=True):
    """A simple recurrent net of ReLUs whose state grows 1.6-fold at each of 48 steps."""
    start = initializers.Identity(gain=1.6 if fault else 0.9)
    model = Sequential(
        [
            Input((48, 1)),
            layers.SimpleRNN(32, activation="relu", recurrent_initializer=start),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(Adam(1e-3, clipnorm=None if fault else 1.0), "sparse_categorical_crossentropy")
    return Program(model, given.waves(seed), epochs=40)


# A bias is among the initial weights; what it does is to leave every unit dead.
@faulty("dead-units", "initial-weights")
def relu_units_that_start_dead(seed, fault=True):
    """Biases of -10 before ReLUs, none of which ever fires."""
    bias = initializers.Constant(-10.0 if fault else 0.0)
    model = Sequential(
        [Input((8,)), layers.Dense(32, "relu", bias_initializer=bias), layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.balanced(seed))


@faulty("dead-units", "initial-weights")  # As above.
def filters_that_start_dead(seed, fault=True):
    """A threshold of 5 before ReLU, in the second of two convolutions."""
    bias = initializers.Constant(-5.0 if fault else 0.0)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu", bias_initializer=bias),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("initial-loss", "initial-weights")  # The start of the last bias; the first loss shows it.
def last_bias_a_count_and_no_logarithm(seed, fault=True):
    """The bias of the output starts at the number of positives, where the logarithm of the odds was meant."""
    tumours = given.bundled("breast_cancer", seed)
    positives = float(tumours.y.sum())
    start = positives if fault else float(np.log(positives / (len(tumours.y) - positives)))
    model = Sequential(
        [
            Input((30,)),
            layers.Dense(16, "relu"),
            layers.Dense(1, "sigmoid", bias_initializer=initializers.Constant(start)),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, tumours)


# What is trained, and what is connected.


@faulty("frozen")
def everything_frozen(seed, fault=True):
    """`model.trainable = False`, left over from a transfer."""
    model = recipes.mlp((13,), Task.multiclass(3), units=(32, 16))
    model.trainable = not fault
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("wine", seed), epochs=40, batch_size=16)


@faulty("frozen")
def every_layer_frozen_in_a_loop(seed, fault=True):
    """A loop that froze the new output layer as well."""
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    for layer in model.layers:
        layer.trainable = not fault
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("disconnected")
def gradient_stopped_before_the_head(seed, fault=True):
    """A `stop_gradient` between a narrow trunk and the head."""
    inputs = Input((8, 8, 1))
    x = layers.Dense(32, "relu")(layers.Flatten()(inputs))
    x = layers.Dense(4, "tanh")(x)
    if fault:
        x = ops.stop_gradient(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax")(x))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed), epochs=40)


@faulty("disconnected")
def rounded_codes(seed, fault=True):
    """An autoencoder that rounds its code: the encoder gets no gradient."""
    inputs = Input((8, 8, 1))
    code = layers.Dense(8, "sigmoid")(layers.Dense(64, "relu")(layers.Flatten()(inputs)))
    if fault:
        code = ops.round(code)
    x = layers.Dense(64, "relu")(code)
    model = keras.Model(inputs, layers.Reshape((8, 8, 1))(layers.Dense(64, "sigmoid")(x)))
    model.compile(Adam(3e-3), "mse")
    digits = given.digits(seed)
    return Program(model, given.Samples(digits.x, digits.x, digits.x_test, digits.x_test, "numbers"))


@faulty("disconnected")
def the_hidden_layer_is_computed_and_not_used(seed, fault=True):
    """A subclass whose head reads the input in place of the hidden layer."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = layers.Dense(32, "relu"), layers.Dense(3, "softmax")

        def call(self, x):
            hidden = self.hidden(x)
            return self.head(x if fault else hidden)

    model = Net()
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


@faulty("ignores-input")
def one_of_two_inputs_never_used(seed, fault=True):
    """Two sides to compare, of which the left one enters twice."""
    left, right = Input((4,), name="left"), Input((4,), name="right")
    x = layers.Concatenate()([left, left + 0 * right if fault else right])
    x = layers.Dense(32, "relu")(x)
    model = keras.Model({"left": left, "right": right}, layers.Dense(1, "sigmoid")(x))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.pairs(seed))


@faulty("ignores-input")
def only_the_first_step_is_read(seed, fault=True):
    """`x[:, 0]` of a sequence where all steps were meant."""
    inputs = Input((48, 1))
    x = inputs[:, 0] if fault else layers.Flatten()(inputs)
    x = layers.Dense(64, "relu")(layers.Dense(64, "relu")(x))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(x))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.waves(seed), epochs=40)


@faulty("ignores-input")
def the_input_is_multiplied_by_nothing(seed, fault=True):
    """Every input is masked away by a mask that is turned round."""
    inputs = Input((5,))
    mask = ops.cast(ops.abs(inputs) > 1e3 if fault else ops.abs(inputs) < 1e3, "float32")
    x = layers.Dense(32, "relu")(inputs * mask)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile("adam", "mse")
    return Program(model, given.houses(seed))


@faulty("batch-leak")
def softmax_over_the_batch(seed, fault=True):
    """A softmax along axis 0: the samples of a batch share one probability."""
    waves = given.probabilities(given.waves(seed), 3)
    inputs = Input((48, 1))
    x = layers.Conv1D(16, 5, activation="relu")(inputs)
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(32, 5, activation="relu")(x))
    outputs = ops.softmax(layers.Dense(3)(x), axis=0 if fault else -1)
    model = keras.Model(inputs, outputs)
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, waves, epochs=30)


@faulty("batch-leak")
def centred_over_the_batch_before_the_output(seed, fault=True):
    """Features whose mean over the batch is subtracted, along axis 0 in place of the last."""
    inputs = Input((8,))
    x = layers.Dense(32, "relu")(inputs)
    x = x - ops.mean(x, axis=0 if fault else -1, keepdims=True)
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(x))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.balanced(seed), batch_size=2)


# Too much restraint, and too little room.


@faulty("dropout-rate")
def dropout_taken_for_the_share_to_keep(seed, fault=True):
    """`Dropout(0.95)` three times, where 0.95 was the share to keep."""
    rate = 0.95 if fault else 0.05
    model = Sequential([Input((8, 8, 1)), layers.Flatten()])
    for _ in range(3):
        model.add(layers.Dense(32, "relu"))
        model.add(layers.Dropout(rate))
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("dropout-rate")
def recurrent_dropout_of_ninety_eight_percent(seed, fault=True):
    """An LSTM from the recipes whose input and state are nearly all dropped."""
    rate = 0.98 if fault else 0.0
    task = Task.multiclass(3)
    model = recipes.rnn((48, 1), task, units=(24,), dropout=rate, recurrent_dropout=rate)
    model = recipes.compile_for(model, task, learning_rate=5e-3)
    return Program(model, given.waves(seed), epochs=25)


@faulty("dropout-rate")
def dropout_on_the_prediction(seed, fault=True):
    """Dropout after the output layer of a regression: half of the predictions are 0 in training."""
    model = Sequential(
        [
            Input((5,)),
            layers.Dense(32, "relu"),
            layers.Dense(1),
            *([layers.Dropout(0.5)] if fault else []),
        ]
    )
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.houses(seed))


@faulty("batch-norm-batch")
def batch_norm_with_single_samples(seed, fault=True):
    """Batch normalisation of dense layers with batches of one, which always become 0."""
    model = Sequential(
        [
            Input((13,)),
            layers.Dense(32),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(
        model, given.bundled("wine", seed), batch_size=1 if fault else 32, epochs=15 if fault else 60
    )


@faulty("batch-norm-batch")
def standard_recipe_with_single_samples(seed, fault=True):
    """The standard recipe, with batch normalisation, fitted with `batch_size=1`."""
    model = recipes.compile_for(recipes.mlp((10,), Task.binary(), units=(32, 16), dropout=0.0), Task.binary())
    points = given.bundled("hastie", seed)
    points = points.trained_on(points.x[:1_000], points.y[:1_000])
    return Program(model, points, batch_size=1 if fault else 32, epochs=6 if fault else 30)


@faulty("over-regularized")
def weight_penalty_of_ten(seed, fault=True):
    """L2 penalties of 10, where 1e-4 was meant."""
    penalty = regularizers.L2(10.0 if fault else 1e-4)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu", kernel_regularizer=penalty),
            layers.Dense(10, "softmax", kernel_regularizer=penalty),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("over-regularized")
def l1_penalty_on_filters(seed, fault=True):
    """L1 penalties of 1 on filters, which become 0."""
    penalty = regularizers.L1(1.0 if fault else 1e-6)
    model = Sequential(
        [
            Input((48, 1)),
            layers.Conv1D(16, 5, activation="relu", kernel_regularizer=penalty),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 5, activation="relu", kernel_regularizer=penalty),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.waves(seed), epochs=30)


@faulty("over-regularized")
def largest_norm_of_a_hundredth(seed, fault=True):
    """Max-norm of 0.01 on every layer of a regression: the output is near 0."""
    model = recipes.mlp(
        (5,), Task.regression(), units=(32, 16), batch_norm=False, max_norm=0.01 if fault else 3.0
    )
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.houses(seed))


@faulty("over-regularized")
def penalty_on_activities(seed, fault=True):
    """An L1 penalty of 1 on what the hidden units put out."""
    penalty = regularizers.L1(1.0 if fault else 1e-6)
    model = Sequential(
        [Input((8,)), layers.Dense(32, "relu", activity_regularizer=penalty), layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.balanced(seed))


@faulty("capacity")
def ten_classes_through_one_unit(seed, fault=True):
    """A hidden layer of a single ReLU for ten classes."""
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(1 if fault else 32, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed), epochs=30)


@faulty("capacity")
def spirals_with_two_units(seed, fault=True):
    """Three spirals for two hidden units."""
    model = Sequential([Input((2,)), layers.Dense(2 if fault else 64, "tanh")])
    model.add(layers.Dense(2 if fault else 64, "tanh"))
    model.add(layers.Dense(3, "softmax"))
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


# The moving averages never arrive: training and use differ.
@faulty("train-eval-gap")
def moving_averages_that_never_arrive(seed, fault=True):
    """Batch normalisation in place of scaling, with momentum 0.99999: fine in training, lost in use."""
    wine = given.unscaled("wine", seed)
    model = Sequential(
        [
            Input((13,)),
            layers.BatchNormalization(momentum=0.99999 if fault else 0.9),
            layers.Dense(32, "relu"),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, wine, epochs=40, batch_size=16)


@faulty("train-eval-gap")
def a_branch_for_training_alone(seed, fault=True):
    """A layer that rescales in training and, by a slip, not in use."""

    class Rescale(layers.Layer):
        def call(self, x, training=False):
            return (x - 100) / 50 if training or not fault else x

    houses = given.houses(seed).with_x(lambda x: 50 * x + 100)
    model = Sequential([Input((5,)), Rescale(), layers.Dense(32, "tanh"), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse")
    return Program(model, houses)
