"""Blind programs, written without sight of the checks: unusual ones without a fault."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import Input, Sequential, layers, ops
from keras.optimizers import SGD, Adam, Lion

from zoo import samples as given
from zoo.program import Program, Samples, healthy


def _stack(shape, *after, **compiled):
    """A sequence of layers, compiled."""
    model = Sequential([Input(shape), *after])
    model.compile(**compiled)
    return model


@healthy("recurrence")
def words_by_their_largest(seed):
    """Embedded words, convolved, and the largest of each channel."""
    model = Sequential([Input((24,), dtype="int32"), layers.Embedding(60, 24)])
    model.add(layers.Conv1D(64, 1, activation="relu"))
    model.add(layers.Conv1D(64, 9, padding="same", activation="relu"))
    model.add(layers.GlobalMaxPooling1D())
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed))


class _Tied(layers.Layer):
    """The transposed kernel of another layer, with a bias of its own."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def build(self, shape):
        self.bias = self.add_weight(shape=(64,), initializer="zeros")

    def call(self, x):
        return ops.sigmoid(ops.matmul(x, ops.transpose(self.encoder.kernel)) + self.bias)


@healthy("dense")
def an_autoencoder_with_tied_weights(seed):
    """A decoder that uses the encoder's kernel, transposed."""
    digits = given.digits(seed).with_x(lambda x: x.reshape(len(x), 64))
    encoder = layers.Dense(24, "tanh")
    inputs = Input((64,))
    model = keras.Model(inputs, _Tied(encoder)(encoder(inputs)))
    model.compile(Adam(3e-3), "binary_crossentropy")
    return Program(model, Samples(digits.x, digits.x, digits.x_test, digits.x_test, "numbers"), epochs=40)


@healthy("dense")
def three_units_for_the_flowers(seed):
    """A hidden layer of three tanh units for three kinds of iris."""
    model = _stack(
        (4,),
        layers.Dense(3, "tanh"),
        layers.Dense(3, "softmax"),
        optimizer=Adam(0.03),
        loss="sparse_categorical_crossentropy",
    )
    return Program(model, given.bundled("iris", seed), batch_size=8, epochs=40)


@healthy("dense")
def one_row_at_a_time(seed):
    """Gradient descent at 1e-3 with batches of one row, which are many steps."""
    model = _stack((5,), layers.Dense(32, "relu"), layers.Dense(1), optimizer=SGD(1e-3), loss="mse")
    return Program(model, given.houses(seed), batch_size=1, epochs=10)


@healthy("losses")
def leaky_output_for_positive_targets(seed):
    """Prices in hundred thousands, all positive, by a LeakyReLU on the output."""
    houses = given.houses(seed, scaled_y=False).with_y(lambda y: y / 1e5)
    hidden = [layers.Dense(64, "gelu"), layers.Dense(1), layers.LeakyReLU(0.1)]
    return Program(_stack((5,), *hidden, optimizer=Adam(3e-3), loss="huber"), houses)


@healthy("losses")
def mixed_up_rows(seed):
    """Mixup: sums of two images, with the labels mixed in the same shares."""
    digits = given.one_hot(given.digits(seed), 10)

    def mixed(x, y):
        share = tf.random.uniform((tf.shape(x)[0], 1), 0.0, 0.3)
        other = tf.random.shuffle(tf.range(tf.shape(x)[0]))
        images = (1 - share[..., None, None]) * x + share[..., None, None] * tf.gather(x, other)
        return images, (1 - share) * y + share * tf.gather(y, other)

    rows = tf.data.Dataset.from_tensor_slices((digits.x, digits.y)).shuffle(2_000, seed=seed)
    hidden = [layers.Flatten(), layers.Dense(96, "relu"), layers.Dense(10, "softmax")]
    model = _stack((8, 8, 1), *hidden, optimizer=Adam(3e-3), loss="categorical_crossentropy")
    return Program(model, digits.trained_on(rows.batch(32).map(mixed), None))


@healthy("losses")
def logarithms_of_prices(seed):
    """`log1p` of prices in euros, about 12.5, with the last bias at their mean."""
    houses = given.houses(seed, scaled_y=False).with_y(np.log1p)
    mean = keras.initializers.Constant(float(houses.y.mean()))
    hidden = [layers.Dense(64, "relu"), layers.Dense(1, bias_initializer=mean)]
    return Program(_stack((5,), *hidden, optimizer=Adam(3e-3), loss="mse", metrics=["mae"]), houses)


@healthy("dense")
def four_fifths_of_a_thousand_dropped(seed):
    """Dropout of 0.8 after a layer of 1,500 units."""
    hidden = [layers.Flatten(), layers.Dense(1_500, "relu"), layers.Dropout(0.8), layers.Dense(10)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Program(_stack((8, 8, 1), *hidden, optimizer=Adam(1e-3), loss=loss), given.digits(seed))


class NoisyTraining(keras.Model):
    """A training step of its own that adds noise to the inputs."""

    def train_step(self, batch):
        """One step of gradient descent."""
        x, y = batch
        with tf.GradientTape() as tape:
            predicted = self(x + 0.05 * tf.random.normal(tf.shape(x)), training=True)
            loss = self.compute_loss(x, y, predicted)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        for metric in self.metrics:
            metric.update_state(loss) if metric.name == "loss" else metric.update_state(y, predicted)
        return {metric.name: metric.result() for metric in self.metrics}


@healthy("plumbing")
def a_training_step_with_noise(seed):
    """A `train_step` written by hand."""
    inputs = Input((13,))
    outputs = layers.Dense(3, activation="softmax")(layers.Dense(32, activation="relu")(inputs))
    model = NoisyTraining(inputs, outputs)
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("wine", seed))


@healthy("dense")
def momentum_of_two_nines(seed):
    """Gradient descent at 1e-3 with a momentum of 0.99, worth a hundred times the rate."""
    hidden = [layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(3, "softmax")]
    loss = "sparse_categorical_crossentropy"
    model = _stack((2,), *hidden, optimizer=SGD(1e-3, 0.99), loss=loss, metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


@healthy("plumbing")
def gradients_of_eight_batches(seed):
    """Gradients are gathered over eight small batches before each update."""
    optimizer = Adam(0.01, gradient_accumulation_steps=8)
    hidden = [layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    model = _stack((8, 8, 1), *hidden, optimizer=optimizer, loss="sparse_categorical_crossentropy")
    return Program(model, given.digits(seed), batch_size=4)


@healthy("convolution")
def prelu_under_lion(seed):
    """Parametric ReLUs, shared over the pixels, under Lion."""
    model = Sequential([Input((16, 16, 3))])
    for filters in (16, 32):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.PReLU(shared_axes=[1, 2]))
        model.add(layers.MaxPooling2D())
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dense(3, "softmax"))
    model.compile(Lion(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@healthy("plumbing")
def cosine_of_two_towers(seed):
    """Two inputs, two nets of unit-norm outputs, and their scaled product as the logit."""
    inputs = {name: Input((4,), name=name) for name in ("left", "right")}
    towers = [
        layers.UnitNormalization()(layers.Dense(16)(layers.Dense(32, activation="relu")(each)))
        for each in inputs.values()
    ]
    cosine = layers.Dot(axes=1)(towers)
    model = keras.Model(inputs, layers.Rescaling(8.0)(cosine))
    model.compile(Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
    return Program(model, given.pairs(seed), epochs=30)


@healthy("dense")
def spectral_norm_throughout(seed):
    """Every hidden layer under spectral normalisation."""
    hidden = [layers.SpectralNormalization(layers.Dense(64, "leaky_relu")) for _ in range(2)]
    model = _stack((30,), *hidden, layers.Dense(1), optimizer=Adam(3e-3), loss="hinge")
    return Program(model, given.bundled("breast_cancer", seed).with_y(lambda y: 2 * y - 1))


class _Fourier(layers.Layer):
    """Sines and cosines of random multiples of the input, which are not trained."""

    def build(self, shape):
        normal = keras.initializers.RandomNormal(stddev=3.0, seed=1)
        self.pitch = self.add_weight(shape=(shape[-1], 32), initializer=normal, trainable=False)

    def call(self, x):
        angle = ops.matmul(x, self.pitch)
        return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)


@healthy("dense")
def fourier_features(seed):
    """A fast swinging function of one number, by fixed random Fourier features."""
    x = np.random.default_rng(seed).uniform(-1, 1, (1_200, 1))
    y = np.sin(9 * x[:, 0]) + 0.5 * np.cos(5 * x[:, 0])
    samples = given.parted(x.astype(np.float32), y.astype(np.float32), "numbers")
    model = _stack((1,), _Fourier(), layers.Dense(32, "relu"), layers.Dense(1), optimizer="adam", loss="mse")
    return Program(model, samples)


@healthy("losses")
def one_softplus_unit(seed):
    """Counts by a single softplus unit: no hidden layer, and a squared error."""
    model = _stack((6,), layers.Dense(1, "softplus"), optimizer=Adam(0.03), loss="mse")
    return Program(model, given.counts(seed))


@healthy("recurrence")
def short_waves_filled_up(seed):
    """Waves of 24 to 48 steps, filled up with -9, which a mask hides from an LSTM."""
    waves, rng = given.waves(seed), np.random.default_rng(seed)

    def cut(x):
        x = x.copy()
        x[np.arange(48) >= rng.integers(24, 49, (len(x), 1))] = -9
        return x

    hidden = [layers.Masking(-9.0), layers.LSTM(32), layers.Dense(3, "softmax")]
    model = _stack((48, 1), *hidden, optimizer=Adam(0.01), loss="sparse_categorical_crossentropy")
    return Program(model, waves.with_x(cut))


@healthy("losses")
def ten_times_yes_or_no(seed):
    """Ten sigmoids with binary cross-entropy for ten classes, one against the rest."""
    hidden = [layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "sigmoid")]
    model = _stack((8, 8, 1), *hidden, optimizer=Adam(3e-3), loss="binary_crossentropy")
    return Program(model, given.one_hot(given.digits(seed), 10))
