"""Blind programs, written without sight of the checks: faults in the model or the optimiser."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import Input, Sequential, layers, ops
from keras.optimizers import SGD, Adam, Lion
from keras.optimizers.schedules import CosineDecay, ExponentialDecay

from zoo import samples as given
from zoo.program import Program, faulty


def _digits_net(*hidden, optimizer="adam", output="softmax"):
    """A net for digits with these layers in its middle."""
    model = Sequential([Input((8, 8, 1)), layers.Flatten(), *hidden, layers.Dense(10, output)])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _words_net(*after, mask_zero=False, optimizer=None):
    """An embedding of word numbers, these layers, and a yes or no."""
    model = Sequential([Input((None,), dtype="int32"), layers.Embedding(60, 16, mask_zero=mask_zero)])
    for layer in (*after, layers.Dense(1, "sigmoid")):
        model.add(layer)
    model.compile(optimizer or Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


@faulty("output-range", "output-loss")
def batch_norm_after_the_sigmoid(seed, fault=True):
    """Batch normalisation behind the output, so that probabilities become numbers about 0."""
    balanced = given.balanced(seed)
    model = Sequential([Input((8,)), layers.Dense(64, "relu"), layers.Dense(1)])
    model.add(layers.Activation("sigmoid") if fault else layers.BatchNormalization())
    model.add(layers.BatchNormalization() if fault else layers.Activation("sigmoid"))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.probabilities_of_yes(balanced))


@faulty("double-activation", "output-loss")
def a_softmax_within_and_without(seed, fault=True):
    """A subclass that takes the softmax of a head that ends in one."""

    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.trunk = Sequential([layers.Flatten(), layers.Dense(64, "relu")])
            self.head = layers.Dense(10, "softmax" if fault else None)

        def call(self, x):
            return ops.softmax(self.head(self.trunk(x)))

    model = Classifier()
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.probabilities(given.digits(seed), 10))


class _Affine(layers.Layer):
    """Dense with a tanh, written by hand."""

    def __init__(self, units, trainable_kernel):
        super().__init__()
        self.units, self.trainable_kernel = units, trainable_kernel

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), initializer="glorot_uniform", trainable=self.trainable_kernel
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, x):
        return ops.tanh(ops.matmul(x, self.kernel) + self.bias)


@faulty("frozen", "disconnected")
def kernels_that_are_not_trained(seed, fault=True):
    """Layers by hand whose kernels were added with `trainable=False`, and their biases without."""
    model = _digits_net(_Affine(24, not fault), _Affine(4, not fault), optimizer=Adam(0.01))
    return Program(model, given.digits(seed))


@faulty("disconnected", "vanishing-gradient")
def signs_in_place_of_tanh(seed, fault=True):
    """Hidden units that give their sign, which has no slope."""
    squash = layers.Activation(ops.sign if fault else ops.tanh)
    model = _digits_net(layers.Dense(6), squash, optimizer=Adam(0.01))
    return Program(model, given.digits(seed))


class TrainingByHand(keras.Model):
    """A training step of its own, which may forget its last line."""

    applies = True

    def train_step(self, batch):
        """One step of gradient descent."""
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        if self.applies:
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@faulty("loss-stuck", "tiny-overfit")
def a_training_step_that_applies_nothing(seed, fault=True):
    """A `train_step` that computes the gradients and does not apply them."""
    inputs = Input((5,))
    model = TrainingByHand(inputs, layers.Dense(1)(layers.Dense(64, activation="relu")(inputs)))
    model.applies = not fault
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.houses(seed))


@faulty("ignores-input", "uninformative-input", "tiny-overfit")
def pauses_that_are_masked(seed, fault=True):
    """Two pulses, a short or a long pause apart; `Masking(0.0)` skips the pause."""
    rng = np.random.default_rng(seed)
    start, pause = rng.integers(0, 4, 1_000), rng.integers(2, 12, 1_000)
    x = np.zeros((1_000, 16, 1), np.float32)
    x[np.arange(1_000), start] = x[np.arange(1_000), start + pause] = 1
    model = Sequential([Input((16, 1)), layers.Masking(0.0 if fault else -1.0), layers.GRU(16)])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.parted(x, (pause > 6).astype(np.float32)))


@faulty("vanishing-gradient", "ignores-input")
def zeros_after_the_words_and_no_mask(seed, fault=True):
    """Texts filled up with a hundred zeros, through which a recurrent net has to remember."""
    reviews = given.reviews(seed).with_x(lambda x: np.pad(x, ((0, 0), (0, 100))))
    return Program(_words_net(layers.SimpleRNN(16), mask_zero=not fault, optimizer=Adam(3e-3)), reviews)


@faulty("dead-units", "disconnected", "ignores-input")
def a_relu_with_a_ceiling_of_zero(seed, fault=True):
    """`ReLU(max_value=0)`, taken for `max(0, x)`."""
    ceiling = 0.0 if fault else None
    model = Sequential([Input((48, 1)), layers.Conv1D(16, 7, 2), layers.ReLU(max_value=ceiling)])
    model.add(layers.Conv1D(16, 5, activation="relu"))
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(3, "softmax"))
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.waves(seed))


@faulty("train-eval-gap", "dropout-rate")
def dropout_with_its_flag_turned_round(seed, fault=True):
    """A subclass that drops units in use, and none in training."""

    class Regressor(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(64, "relu")
            self.dropout = layers.Dropout(0.5 if fault else 0.1)
            self.head = layers.Dense(1)

        def call(self, x, training=False):
            return self.head(self.dropout(self.hidden(x), training=(not training) if fault else training))

    model = Regressor()
    model.compile(Adam(3e-3), "mse", metrics=["mae"])
    return Program(model, given.houses(seed))


@faulty("dropout-rate", "train-eval-gap")
def whole_channels_dropped(seed, fault=True):
    """`SpatialDropout2D(0.95)` after each of two convolutions of eight channels."""
    rate = 0.95 if fault else 0.05
    model = Sequential([Input((16, 16, 3))])
    for _ in range(2):
        model.add(layers.Conv2D(8, 3, activation="relu"))
        model.add(layers.SpatialDropout2D(rate))
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dense(3, "softmax"))
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed), epochs=30)


class _Sum(layers.Layer):
    """The sum of the steps so far, along one axis."""

    def __init__(self, axis):
        super().__init__()
        self.axis = axis

    def call(self, x):
        return ops.cumsum(x, axis=self.axis)


@faulty("batch-leak")
def summed_over_the_rows(seed, fault=True):
    """A running sum of the steps that runs along axis 0: over the samples."""
    model = Sequential([Input((16, 1)), _Sum(0 if fault else 1), layers.Dense(8, "tanh")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.running(seed))


class _Mixed(layers.Layer):
    """Pixels in rows, after the axes were brought into another order."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def call(self, x):
        return ops.reshape(ops.transpose(x, self.order), (-1, 64))


@faulty("batch-leak", "ignores-input")
def a_transpose_that_moves_the_batch(seed, fault=True):
    """`transpose` with the batch in second place and then a `reshape`: rows of several images."""
    model = Sequential([Input((8, 8, 1)), _Mixed((1, 0, 2, 3) if fault else (0, 2, 1, 3))])
    model.add(layers.Dense(64, "relu"))
    model.add(layers.Dense(10, "softmax"))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


class _Positions(layers.Layer):
    """Position embeddings, with the words' own added or not."""

    def __init__(self, adds):
        super().__init__()
        self.adds, self.words, self.places = adds, layers.Embedding(60, 16), layers.Embedding(24, 16)

    def call(self, x):
        places = self.places(ops.zeros_like(x) + ops.arange(24, dtype=x.dtype))
        return self.words(x) + places if self.adds else places


@faulty("ignores-input", "disconnected")
def positions_without_their_words(seed, fault=True):
    """A transformer's embedding that returns the positions and leaves the words out."""
    inputs = Input((24,), dtype="int32")
    x = _Positions(not fault)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed))


@faulty("initial-weights", "vanishing-gradient")
def two_embeddings_of_zero(seed, fault=True):
    """A product of two embeddings that both start at zero: neither gets a gradient."""
    start = "zeros" if fault else "uniform"
    inputs = {name: Input((1,), dtype="int32", name=name) for name in ("user", "film")}
    user = layers.Flatten()(layers.Embedding(40, 8, embeddings_initializer=start)(inputs["user"]))
    film = layers.Flatten()(layers.Embedding(30, 8, embeddings_initializer=start)(inputs["film"]))
    model = keras.Model(inputs, layers.Dot(1)([user, film]))
    model.compile(Adam(0.01), "mse")
    return Program(model, given.ratings(seed).with_y(lambda y: y - 3))


@faulty("initial-weights", "exploding-gradient", "initial-loss")
def weights_from_zero_to_one(seed, fault=True):
    """`RandomUniform(0, 1)` for every kernel: all weights are positive, and large."""
    start = keras.initializers.RandomUniform(0, 1, seed=seed) if fault else "he_normal"
    hidden = [layers.Dense(128, "relu", kernel_initializer=start) for _ in range(4)]
    return Program(_digits_net(*hidden, optimizer=SGD(0.05)), given.digits(seed))


@faulty("over-regularized")
def a_penalty_on_the_forecast(seed, fault=True):
    """`activity_regularizer` on the output layer, which draws all predictions to zero."""
    penalty = keras.regularizers.L1(3.0 if fault else 1e-6)
    model = Sequential([Input((24, 1)), layers.LSTM(24), layers.Dense(1, activity_regularizer=penalty)])
    model.compile(Adam(3e-3), "mse", metrics=["mae"])
    return Program(model, given.forecast(seed))


@faulty("capacity", "tiny-overfit", "ignores-input")
def pooled_before_anything_is_seen(seed, fault=True):
    """Average pooling over the whole image in front of the convolutions."""
    size = 16 if fault else 1
    model = Sequential([Input((16, 16, 3)), layers.AveragePooling2D(size)])
    model.add(layers.Conv2D(16, 3, padding="same", activation="relu"))
    model.add(layers.Conv2D(32, 3, padding="same", activation="relu"))
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dense(3, "softmax"))
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@faulty("ignores-input", "capacity")
def a_reach_of_five_steps(seed, fault=True):
    """Causal convolutions that reach five steps back, where the first of forty decides."""
    dilations = (1, 1) if fault else (1, 2, 4, 8, 16)
    model = Sequential([Input((40, 1))])
    for dilation in dilations:
        model.add(layers.Conv1D(16, 3, padding="causal", dilation_rate=dilation, activation="relu"))
    model.add(layers.Cropping1D((39, 0)))
    model.add(layers.Flatten())
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.first_step(seed))


@faulty("learning-rate-low")
def adadelta_as_it_comes(seed, fault=True):
    """`Adadelta()` with its default rate of 0.001, a thousandth of the paper's."""
    optimizer = keras.optimizers.Adadelta() if fault else keras.optimizers.Adadelta(1.0)
    return Program(_digits_net(layers.Dense(64, "relu"), optimizer=optimizer), given.digits(seed))


@faulty("learning-rate-low", "optimizer-config")
def a_decay_counted_in_epochs(seed, fault=True):
    """A cosine decay over 20 steps, where 20 epochs were meant."""
    steps = 20 if fault else 20 * 34
    model = Sequential([Input((48, 1)), layers.LSTM(32), layers.Dense(3, "softmax")])
    model.compile(Adam(CosineDecay(0.01, steps)), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.waves(seed))


@faulty("learning-rate-high", "optimizer-config")
def a_decay_rate_above_one(seed, fault=True):
    """`ExponentialDecay` with a rate of 1.5, which makes the learning rate grow."""
    rate = ExponentialDecay(0.01, 20, 1.5 if fault else 0.98)
    return Program(_digits_net(layers.Dense(64, "relu"), optimizer=SGD(rate, 0.9)), given.digits(seed))


@faulty("learning-rate-high")
def lion_with_the_rate_of_sgd(seed, fault=True):
    """Lion at 0.1: it takes steps of that size in every weight."""
    model = Sequential([Input((16, 16, 3)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D()])
    model.add(layers.Conv2D(32, 3, activation="relu"))
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dense(3, "softmax"))
    model.compile(Lion(0.1 if fault else 1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@faulty("optimizer-config")
def averages_that_overwrite_the_weights(seed, fault=True):
    """The weights are replaced after every step by an average that hardly moves."""
    every = {"use_ema": True, "ema_momentum": 0.9999, "ema_overwrite_frequency": 1} if fault else {}
    optimizer = Adam(3e-3, **every)
    return Program(_digits_net(layers.Dense(64, "relu"), optimizer=optimizer), given.digits(seed))


@faulty("disconnected", "loss-stuck")
def a_loss_weight_of_zero(seed, fault=True):
    """Two outputs, of which one has a loss weight of 0, left from a trial."""
    inputs = Input((5,))
    x = layers.Dense(64, activation="relu")(inputs)
    names = ("first", "second")
    model = keras.Model(inputs, {name: layers.Dense(1, name=name)(x) for name in names})
    weights = {"first": 1.0, "second": 0.0 if fault else 1.0}
    model.compile(Adam(3e-3), loss=dict.fromkeys(names, "mse"), loss_weights=weights)
    targets = given.two_targets(seed)
    return Program(model, targets.with_y(lambda y: {name: y[:, [i]] for i, name in enumerate(names)}))
