"""Blind programs, a second set written without sight of the checks: what people get wrong most often."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import Input, Sequential, layers, ops
from keras.optimizers import Adam, RMSprop
from sklearn.datasets import make_circles

from zoo import samples as given
from zoo.program import Program, Samples, faulty, healthy

SPARSE = "sparse_categorical_crossentropy"


def _activities(seed):
    """60 steps of three accelerations in m/s2, and one of four activities, told by rhythm and strength."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, 1_000)
    rhythm = np.array([0.25, 0.5, 0.9, 0.5])[kind] * rng.uniform(0.9, 1.1, 1_000)
    strength = np.array([1.5, 2.0, 5.0, 4.5])[kind] * rng.uniform(0.8, 1.2, 1_000)
    turn = rhythm[:, None, None] * np.arange(60)[:, None] + rng.uniform(0, 6.3, (1_000, 1, 3))
    x = strength[:, None, None] * np.sin(turn) + rng.normal(scale=0.8, size=(1_000, 60, 3))
    return given.parted(x.astype(np.float32), kind)


def _customers(seed, share=0.5):
    """Age, balance, tenure, calls and salary in their own units, and who leaves."""
    rng = np.random.default_rng(seed)
    rows = 2_000
    age, tenure = rng.uniform(18, 80, rows), rng.uniform(0, 10, rows)
    balance, salary = rng.uniform(0, 250_000, rows), rng.uniform(10_000, 200_000, rows)
    calls = rng.poisson(2, rows)
    risk = 0.06 * (age - 50) - 0.3 * tenure + 0.6 * calls + np.where(balance > 120_000, 1.5, 0)
    risk += rng.normal(scale=0.5, size=rows)
    x = np.stack([age, balance, tenure, calls, salary], axis=1).astype(np.float32)
    return given.parted(x, (risk > np.quantile(risk, 1 - share)).astype(np.float32))


def _standardised(samples):
    mean, deviation = samples.x.mean(axis=0), samples.x.std(axis=0)
    return samples.with_x(lambda x: (x - mean) / deviation)


def _articles(seed):
    """20 word numbers each, and one of four topics, each of which has ten words of its own."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 4, 1_200)
    own = 1 + 10 * topic[:, None] + rng.integers(0, 10, (1_200, 20))
    words = np.where(rng.random((1_200, 20)) < 0.25, own, rng.integers(1, 200, (1_200, 20)))
    return given.parted(words.astype(np.int32), topic)


def _fitted(inputs, outputs, loss, optimizer=None, **more):
    model = keras.Model(inputs, outputs)
    model.compile(optimizer or Adam(3e-3), loss, **more)
    return model


def _stack(shape, *after, loss=SPARSE, optimizer=None, dtype=None):
    model = Sequential([Input(shape, dtype=dtype), *after])
    model.compile(optimizer or Adam(3e-3), loss)
    return model


class Batches(keras.utils.PyDataset):
    """Batches of rows in a given order."""

    def __init__(self, x, y, size):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        """The number of batches."""
        return len(self.y) // self.size

    def __getitem__(self, index):
        """One batch."""
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]


@faulty("input-scale")
def customers_in_dollars_and_years(seed, fault=True):
    """Balances of up to 250,000 beside a tenure in years."""
    customers = _customers(seed) if fault else _standardised(_customers(seed))
    hidden = [layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")]
    return Program(_stack((5,), *hidden, loss="binary_crossentropy"), customers)


@faulty("input-scale")
def bytes_read_row_by_row(seed, fault=True):
    """An LSTM over the rows of images whose pixels go up to 255."""
    digits = given.digits(seed).with_x(lambda x: x[..., 0] * (255 if fault else 1))
    model = _stack((8, 8), layers.LSTM(32), layers.Dense(10, "softmax"), optimizer=RMSprop(3e-3))
    return Program(model, digits, epochs=8)


@faulty("target-scale")
def one_head_in_euros(seed, fault=True):
    """Two numbers by one trunk, the second of them in euros: its error drowns the other's."""
    targets, factor = given.two_targets(seed), 50_000 if fault else 1
    targets = targets.with_y(lambda y: {"change": y[:, :1], "price": factor * (y[:, 1:] + 4)})
    inputs = Input((5,))
    x = layers.Dense(64, activation="relu")(inputs)
    outputs = {name: layers.Dense(1, name=name)(x) for name in ("change", "price")}
    return Program(_fitted(inputs, outputs, {"change": "mse", "price": "mse"}), targets)


@faulty("output-units", "output-range", "output-loss")
def a_softmax_for_a_forecast(seed, fault=True):
    """One number to forecast, by a unit with a softmax, which is always 1."""
    last = layers.Dense(1, "softmax" if fault else None)
    return Program(_stack((24, 1), layers.GRU(24), last, loss="mse"), given.forecast(seed))


@faulty("output-range")
def stars_from_a_sigmoid(seed, fault=True):
    """Ratings of 1 to 5 by a sigmoid, from the embeddings of a user and a film."""
    inputs = {name: Input((1,), dtype="int32", name=name) for name in ("user", "film")}
    user = layers.Flatten()(layers.Embedding(40, 8)(inputs["user"]))
    film = layers.Flatten()(layers.Embedding(30, 8)(inputs["film"]))
    x = layers.Dense(32, activation="relu")(layers.Concatenate()([user, film]))
    outputs = layers.Dense(1, activation="sigmoid" if fault else None)(x)
    return Program(_fitted(inputs, outputs, "mse", Adam(0.01)), given.ratings(seed))


@faulty("output-units", "output-loss", "label-range")
def sparse_cross_entropy_of_one_sigmoid(seed, fault=True):
    """A yes or no by one sigmoid, with the loss for class numbers."""
    loss = SPARSE if fault else "binary_crossentropy"
    model = _stack((5,), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid"), loss=loss)
    return Program(model, _standardised(_customers(seed)))


@faulty("output-loss", "label-task")
def several_labels_with_categorical_cross_entropy(seed, fault=True):
    """Sigmoids for several labels at once, with the loss for one of many classes."""
    loss = "categorical_crossentropy" if fault else "binary_crossentropy"
    model = _stack((15,), layers.Dense(64, "relu"), layers.Dense(6, "sigmoid"), loss=loss)
    return Program(model, given.tags(seed))


@faulty("saturating-activation", "vanishing-gradient")
def softmax_in_every_hidden_layer(seed, fault=True):
    """`activation="softmax"` copied into the hidden layers."""
    kind = "softmax" if fault else "relu"
    hidden = [layers.Dense(32, kind) for _ in range(3)]
    model = _stack((8, 8, 1), layers.Flatten(), *hidden, layers.Dense(10, "softmax"))
    return Program(model, given.digits(seed), epochs=10)


@faulty("no-nonlinearity")
def circles_by_a_linear_subclass(seed, fault=True):
    """A subclass of three dense layers, none of which was given an activation."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = Sequential([layers.Dense(32, None if fault else "relu") for _ in range(2)])
            self.head = layers.Dense(1, "sigmoid")

        def call(self, x):
            return self.head(self.hidden(x))

    x, y = make_circles(1_000, noise=0.08, factor=0.5, random_state=seed)
    model = Net()
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.parted(x.astype(np.float32), y.astype(np.float32)))


@faulty("learning-rate-high")
def adam_at_a_fifth_on_rows_of_pixels(seed, fault=True):
    """Adam at 0.2 on a net of six dense layers."""
    hidden = [layers.Flatten(), *(layers.Dense(64, "relu") for _ in range(5))]
    optimizer = Adam(0.2 if fault else 1e-3)
    model = _stack((8, 8, 1), *hidden, layers.Dense(10, "softmax"), optimizer=optimizer)
    return Program(model, given.digits(seed))


@faulty("learning-rate-low")
def a_rate_for_fine_tuning(seed, fault=True):
    """A text classifier from scratch at 1e-6, the rate of somebody's fine-tuning."""
    hidden = [layers.Embedding(200, 32), layers.Conv1D(32, 3, activation="relu"), layers.GlobalMaxPooling1D()]
    optimizer = Adam(1e-6 if fault else 3e-3)
    model = _stack((20,), *hidden, layers.Dense(4, "softmax"), optimizer=optimizer, dtype="int32")
    return Program(model, _articles(seed))


@faulty("uninformative-input")
def inputs_and_labels_shuffled_apart(seed, fault=True):
    """Two data sets, each shuffled by itself, and zipped."""
    samples = _activities(seed)
    x, y = (tf.data.Dataset.from_tensor_slices(part) for part in (samples.x, samples.y))
    if fault:
        rows = tf.data.Dataset.zip((x.shuffle(750, seed=seed), y.shuffle(750, seed=seed + 1)))
    else:
        rows = tf.data.Dataset.zip((x, y)).shuffle(750, seed=seed)
    hidden = [layers.Conv1D(16, 7, 2, activation="relu"), layers.GlobalAveragePooling1D()]
    model = _stack((60, 3), *hidden, layers.Dense(4, "softmax"), optimizer=Adam(0.01))
    return Program(model, samples.trained_on(rows.batch(32), None))


@faulty("batch-norm-batch")
def a_generator_of_single_rows(seed, fault=True):
    """A `PyDataset` that gives one row at a time, into a net with batch normalisation."""
    samples = _standardised(_customers(seed))
    hidden = [layers.Dense(32), layers.BatchNormalization(), layers.ReLU()]
    model = _stack((5,), *hidden, layers.Dense(1, "sigmoid"), loss="binary_crossentropy")
    rows = Batches(samples.x, samples.y, 1 if fault else 32)
    return Program(model, samples.trained_on(rows, None), epochs=5)


@faulty("dropout-rate")
def dropout_everywhere_in_a_text_net(seed, fault=True):
    """Nine tenths dropped of the embedding, of the LSTM's input and of its state, and before the head."""
    rate = 0.9 if fault else 0.1
    hidden = [layers.Embedding(60, 16, mask_zero=True), layers.SpatialDropout1D(rate)]
    hidden += [layers.LSTM(16, dropout=rate, recurrent_dropout=rate), layers.Dropout(rate)]
    head, loss = layers.Dense(1, "sigmoid"), "binary_crossentropy"
    model = _stack((24,), *hidden, head, loss=loss, optimizer=Adam(0.01), dtype="int32")
    return Program(model, given.reviews(seed), epochs=8)


@faulty("initial-weights", "exploding-gradient", "initial-loss")
def weights_of_one_in_two_towers(seed, fault=True):
    """`kernel_initializer="ones"` in both towers of a comparison."""
    start = "ones" if fault else "glorot_uniform"
    inputs = {name: Input((4,), name=name) for name in ("left", "right")}
    towers = list(inputs.values())
    for units in (32, 16):
        towers = [layers.Dense(units, "relu", kernel_initializer=start)(x) for x in towers]
    x = layers.Dense(1, activation="sigmoid", kernel_initializer=start)(layers.Concatenate()(towers))
    return Program(_fitted(inputs, x, "binary_crossentropy"), given.pairs(seed), epochs=10)


@faulty("frozen")
def an_encoder_that_stayed_frozen(seed, fault=True):
    """A small encoder from scratch, with the `trainable = False` of a transfer-learning guide."""
    hidden = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    encoder = Sequential([Input((8, 8, 1)), *hidden, layers.Dense(4, "tanh")])
    encoder.trainable = not fault
    model = _stack((8, 8, 1), encoder, layers.Dense(10, "softmax"), optimizer=Adam(0.01))
    return Program(model, given.digits(seed))


@faulty("ordered-data")
def a_shuffle_buffer_of_one_batch(seed, fault=True):
    """Folders read one after the other, and `shuffle(32)`, which mixes neighbours alone."""
    digits = given.digits(seed)
    ordered = given.sorted_by_label(digits)
    buffer = 32 if fault else len(digits.x)
    rows = tf.data.Dataset.from_tensor_slices((ordered.x, ordered.y)).shuffle(buffer, seed=seed).batch(32)
    hidden = [layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    return Program(_stack((8, 8, 1), *hidden, optimizer=Adam(0.01)), digits.trained_on(rows, None))


@faulty("leakage")
def refunds_known_only_afterwards(seed, fault=True):
    """A column that is filled in once the customer has left, and empty for those asked about."""
    samples = _standardised(_customers(seed))
    refund = samples.y * np.random.default_rng(seed).uniform(1, 2, len(samples.y))
    known = refund if fault else np.zeros_like(refund)
    x = np.column_stack([samples.x, known]).astype(np.float32)
    x_test = np.pad(samples.x_test, ((0, 0), (0, 1)))
    model = _stack((6,), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid"), loss="binary_crossentropy")
    return Program(model, Samples(x, samples.y, x_test, samples.y_test))


@faulty("class-imbalance")
def hardly_anybody_leaves(seed, fault=True):
    """Two customers of a hundred leave; the net says that nobody does, and is 98 % right."""
    samples = _standardised(_customers(seed, 0.02 if fault else 0.5))
    model = _stack((5,), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid"), loss="binary_crossentropy")
    return Program(model, samples, epochs=10)


@faulty("exploding-gradient", "initial-weights", "initial-loss")
def rectified_state_over_sixty_steps(seed, fault=True):
    """`SimpleRNN(activation="relu")` with a random normal recurrent kernel, over sixty steps."""
    start = keras.initializers.RandomNormal(stddev=0.5) if fault else "orthogonal"
    recurrent = layers.SimpleRNN(32, "relu" if fault else "tanh", recurrent_initializer=start)
    scaled = _activities(seed).with_x(lambda x: x / 3)
    return Program(_stack((60, 3), recurrent, layers.Dense(4, "softmax")), scaled, epochs=15)


@faulty("over-regularized")
def l1_and_l2_on_a_gru(seed, fault=True):
    """`L1L2(0.1, 0.1)` on all kernels of a GRU and its head."""
    every = keras.regularizers.L1L2(*([0.1, 0.1] if fault else [1e-5, 1e-5]))
    recurrent = layers.GRU(24, kernel_regularizer=every, recurrent_regularizer=every)
    model = _stack((24, 1), recurrent, layers.Dense(1, kernel_regularizer=every), loss="mse")
    return Program(model, given.forecast(seed))


@faulty("output-loss", "loss-diverges", "initial-loss")
def errors_with_their_sign(seed, fault=True):
    """A custom loss that averages the differences and forgets to square them."""
    houses = given.houses(seed).with_y(lambda y: y[:, None])

    def error(y_true, y_pred):
        return y_pred - y_true if fault else ops.square(y_pred - y_true)

    return Program(_stack((5,), layers.Dense(64, "relu"), layers.Dense(1), loss=error), houses)


@healthy("convolution")
def the_small_convnet_of_the_guides(seed):
    """Two convolutions with pooling, dropout of a half, one-hot labels, a tenth held back."""
    hidden = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()]
    hidden += [layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D()]
    hidden += [layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, "softmax")]
    model = _stack((16, 16, 1), *hidden, optimizer="adam", loss="categorical_crossentropy")
    digits = given.one_hot(given.large_digits(seed, 16, 1_000), 10)
    return Program(model, digits, validation_split=0.1, epochs=15)


@healthy("recurrence")
def two_bidirectional_lstms(seed):
    """Film reviews: an embedding and two bidirectional LSTMs, without a mask."""
    hidden = [layers.Embedding(60, 32), layers.Bidirectional(layers.LSTM(16, return_sequences=True))]
    hidden += [layers.Bidirectional(layers.LSTM(16)), layers.Dense(1, "sigmoid")]
    model = _stack((24,), *hidden, loss="binary_crossentropy", optimizer="adam", dtype="int32")
    return Program(model, given.reviews(seed), epochs=8)


@healthy("convolution")
def a_fully_convolutional_net_for_sensors(seed):
    """Three 1-D convolutions with batch normalisation, and global pooling."""
    inputs = x = Input((60, 3))
    for _ in range(3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(32, 3, padding="same")(x)))
    outputs = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    return Program(_fitted(inputs, outputs, SPARSE, "adam"), _activities(seed), validation_split=0.2)


@healthy("recurrence")
def a_convolutional_text_net(seed):
    """An embedding, dropout of a half, strided convolutions, the largest, and one dense layer."""
    hidden = [layers.Embedding(200, 64), layers.Dropout(0.5)]
    hidden += [layers.Conv1D(64, 5, strides=2, activation="relu"), layers.GlobalMaxPooling1D()]
    hidden += [layers.Dense(64, "relu"), layers.Dropout(0.5), layers.Dense(4, "softmax")]
    model = _stack((20,), *hidden, optimizer="adam", dtype="int32")
    return Program(model, _articles(seed))


@healthy("convolution")
def a_small_xception(seed):
    """Bytes rescaled in the model, separable convolutions, a residual connection by a strided one."""
    inputs = Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same")(layers.Rescaling(1 / 255)(inputs))
    x = before = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(2):
        x = layers.BatchNormalization()(layers.SeparableConv2D(32, 3, padding="same")(layers.ReLU()(x)))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Add()([x, layers.Conv2D(32, 1, strides=2)(before)])
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
    shapes = given.shapes(seed).with_x(lambda x: np.clip(255 * x, 0, 255).astype(np.uint8))
    return Program(_fitted(inputs, layers.Dense(3, activation="softmax")(x), SPARSE), shapes, epochs=25)


@healthy("plumbing")
def wide_and_deep(seed):
    """A linear path beside a deep one, joined before the output, from a `tf.data.Dataset` of dicts."""
    base = _standardised(_customers(seed))
    both = base.with_x(lambda x: {"wide": (x > 0).astype(np.float32), "deep": x})
    inputs = {name: Input((5,), name=name) for name in ("wide", "deep")}
    deep = layers.Dense(32, activation="relu")(inputs["deep"])
    deep = layers.Dropout(0.3)(layers.BatchNormalization()(deep))
    outputs = layers.Dense(1, activation="sigmoid")(layers.Concatenate()([inputs["wide"], deep]))
    rows = tf.data.Dataset.from_tensor_slices((both.x, base.y)).shuffle(1_500, seed=seed).batch(32)
    both = both.trained_on(rows.prefetch(2), None)
    return Program(_fitted(inputs, outputs, "binary_crossentropy"), both, epochs=10)


@healthy("plumbing")
def twins_with_a_contrastive_loss(seed):
    """Two digits through one encoder: are they different? The distance, by the contrastive loss."""
    digits, rng = given.digits(seed), np.random.default_rng(seed)

    def paired(x, y, rows):
        one, two = rng.integers(0, len(y), (2, 10 * rows))
        same = np.flatnonzero(y[one] == y[two])[: rows // 2]
        chosen = rng.permutation(np.concatenate([same, np.flatnonzero(y[one] != y[two])[: len(same)]]))
        one, two = one[chosen], two[chosen]
        return {"one": x[one], "two": x[two]}, (y[one] != y[two]).astype(np.float32)

    def contrastive(y_true, y_pred):
        return (1 - y_true) * ops.square(y_pred) + y_true * ops.square(ops.maximum(1 - y_pred, 0))

    encoder = Sequential([Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()])
    encoder.add(layers.Dense(32, "tanh"))
    inputs = {name: Input((8, 8, 1), name=name) for name in ("one", "two")}
    gap = layers.Subtract()([encoder(each) for each in inputs.values()])
    distance = layers.Lambda(lambda d: ops.sqrt(ops.sum(d**2, axis=1, keepdims=True) + 1e-7))(gap)
    outputs = layers.Dense(1, activation="sigmoid")(layers.BatchNormalization()(distance))
    samples = Samples(*paired(digits.x, digits.y, 2_000), *paired(digits.x_test, digits.y_test, 600))
    return Program(_fitted(inputs, outputs, contrastive, RMSprop(3e-3)), samples)


@healthy("dense")
def fuel_by_a_normalization_layer(seed):
    """Miles per gallon, about 23, of raw columns, by an adapted layer and the absolute error."""
    rng = np.random.default_rng(seed)
    weight, power = rng.uniform(1_600, 5_000, 800), rng.uniform(45, 230, 800)
    year, cylinders = rng.integers(70, 83, 800), rng.choice([4, 6, 8], 800)
    miles = 60_000 / (weight + 4 * power) + 0.7 * (year - 76) - 0.5 * cylinders + 8 + rng.normal(size=800)
    x = np.stack([cylinders, power, weight, year], axis=1).astype(np.float32)
    cars = given.parted(x, miles.astype(np.float32), "numbers")
    hidden = [layers.Normalization(axis=-1), layers.Dense(64, "relu"), layers.Dense(64, "relu")]
    hidden[0].adapt(cars.x)
    model = _stack((4,), *hidden, layers.Dense(1), loss="mean_absolute_error", optimizer=Adam(1e-3))
    return Program(model, cars, validation_split=0.2, epochs=60)


@healthy("recurrence")
def an_autoencoder_for_anomalies(seed):
    """Standardised accelerations through strided convolutions and dropout, and back."""
    samples = _activities(seed).with_x(lambda x: x / 2.6)
    same = {"padding": "same", "activation": "relu"}
    encoder = [layers.Conv1D(32, 7, 2, **same), layers.Dropout(0.2), layers.Conv1D(16, 7, 2, **same)]
    decoder = [layers.Conv1DTranspose(16, 7, 2, **same), layers.Dropout(0.2)]
    decoder += [layers.Conv1DTranspose(32, 7, 2, **same), layers.Conv1DTranspose(3, 7, padding="same")]
    model = _stack((60, 3), *encoder, *decoder, loss="mse", optimizer=Adam(1e-3))
    targets = Samples(samples.x, samples.x, samples.x_test, samples.x_test, "numbers")
    return Program(model, targets, validation_split=0.1)


@healthy("plumbing")
def tickets_with_priority_and_department(seed):
    """A text and its tags in; a priority by a sigmoid and a department by a softmax out."""
    articles, rng = _articles(seed), np.random.default_rng(seed)

    def whole(words, topic):
        tags = rng.integers(0, 2, (len(topic), 6)).astype(np.float32)
        urgent = ((tags[:, 0] + tags[:, 1] + (topic == 0)) > 1).astype(np.float32)
        return {"text": words, "tags": tags}, {"priority": urgent[:, None], "department": np.eye(4)[topic]}

    inputs = {"text": Input((20,), dtype="int32", name="text"), "tags": Input((6,), name="tags")}
    text = layers.GlobalAveragePooling1D()(layers.Embedding(200, 32)(inputs["text"]))
    x = layers.Dense(32, activation="relu")(layers.Concatenate()([text, inputs["tags"]]))
    outputs = {"priority": layers.Dense(1, activation="sigmoid", name="priority")(x)}
    outputs["department"] = layers.Dense(4, activation="softmax", name="department")(x)
    loss = {"priority": "binary_crossentropy", "department": "categorical_crossentropy"}
    model = _fitted(inputs, outputs, loss, loss_weights={"priority": 1.0, "department": 0.5})
    samples = Samples(*whole(articles.x, articles.y), *whole(articles.x_test, articles.y_test))
    return Program(model, samples, epochs=25)
