"""Blind programs, written without sight of the checks: faults in the data, the labels or the loss."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import Input, Sequential, layers, ops
from keras.optimizers import SGD, Adam

from zoo import samples as given
from zoo.program import Program, Samples, faulty


def _dense(features, units, activation, loss, optimizer="adam", hidden=(64,)):
    """A plain net for tables."""
    stack = [layers.Dense(width, "relu") for width in hidden]
    model = Sequential([Input((features,)), *stack, layers.Dense(units, activation)])
    model.compile(optimizer, loss)
    return model


def _convnet(shape, classes, optimizer="adam"):
    """A plain net for images."""
    model = Sequential([Input(shape), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D()])
    model.add(layers.Conv2D(32, 3, activation="relu"))
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dense(32, "relu"))
    model.add(layers.Dense(classes, "softmax"))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _rows(samples, *weights):
    """The training rows as a `tf.data.Dataset`."""
    return tf.data.Dataset.from_tensor_slices((samples.x, samples.y, *weights))


@faulty("constant-feature", "uninformative-input")
def a_lookup_that_knows_no_word(seed, fault=True):
    """A vocabulary in capitals for texts in small letters: every word is the unknown one."""
    words = [f"word{number}" for number in range(1, 60)]
    lookup = layers.StringLookup(vocabulary=[word.upper() if fault else word for word in words])
    texts = np.array(["", *words])

    def looked_up(x):
        return np.where(x > 0, ops.convert_to_numpy(lookup(tf.constant(texts[x]))) + 1, 0).astype(np.int32)

    model = Sequential([Input((24,), dtype="int32"), layers.Embedding(62, 16, mask_zero=True)])
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed).with_x(looked_up))


@faulty("uninformative-input")
def labels_one_row_off(seed, fault=True):
    """The heading of a target file was read as a row, so that each row has its neighbour's target."""
    houses = given.houses(seed)
    y = np.roll(houses.y, 1) if fault else houses.y
    model = _dense(5, 1, None, "mse", Adam(3e-3))
    return Program(model, houses.trained_on(houses.x, y))


@faulty("uninformative-input")
def files_sorted_as_text(seed, fault=True):
    """Images in the order 1, 10, 100, 2, and labels in the order 1, 2, 3."""
    shapes = given.shapes(seed)
    order = sorted(range(len(shapes.y)), key=str) if fault else range(len(shapes.y))
    model = _convnet((16, 16, 3), 3, Adam(3e-3))
    return Program(model, shapes.trained_on(shapes.x[list(order)], shapes.y))


@faulty("uninformative-input")
def a_reshape_where_a_transpose_was_meant(seed, fault=True):
    """A file with a line for each column, brought to the right shape by `reshape`."""
    wine = given.bundled("wine", seed)
    by_column = np.ascontiguousarray(wine.x.T)
    x = by_column.reshape(wine.x.shape) if fault else by_column.T
    model = _dense(13, 3, "softmax", "sparse_categorical_crossentropy", Adam(3e-3))
    return Program(model, wine.trained_on(np.ascontiguousarray(x), wine.y), epochs=40)


@faulty("uninformative-input")
def every_recording_scaled_to_its_own_peak(seed, fault=True):
    """Loud or soft is the question, and each recording is divided by its own deviation."""
    rng = np.random.default_rng(seed)
    loud = rng.integers(0, 2, 1_000)
    x = rng.normal(size=(1_000, 64, 1)) * np.where(loud == 1, 1.2, 0.6)[:, None, None]
    x = x / x.std(axis=1, keepdims=True) if fault else x / x.std()
    model = Sequential([Input((64, 1)), layers.Conv1D(16, 5, activation="relu")])
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.parted(x.astype(np.float32), loud.astype(np.float32)))


@faulty("train-eval-gap", "uninformative-input")
def stripes_turned_at_random(seed, fault=True):
    """Upright or level stripes, with random turns by any angle as augmentation."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 2, 800)
    wave = np.sin(rng.uniform(0.8, 1.6, (800, 1)) * np.arange(16) + rng.uniform(0, 6, (800, 1)))
    images = np.repeat(wave[:, :, None], 16, axis=2)
    images = np.where(level[:, None, None] == 1, images, images.transpose(0, 2, 1))
    x = (images + 0.3 * rng.normal(size=images.shape))[..., None].astype(np.float32)
    model = Sequential([Input((16, 16, 1)), layers.RandomRotation(0.5 if fault else 0.02, seed=seed)])
    model.add(layers.Conv2D(8, 5, activation="relu"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.parted(x, level.astype(np.float32)))


@faulty("input-scale")
def fractions_normalised_as_bytes(seed, fault=True):
    """Pixels from 0 to 1 go through the mean and deviation of pixels up to 255."""
    mean, variance = (78.0, 95.0**2) if fault else (78 / 255, (95 / 255) ** 2)
    model = Sequential([Input((8, 8, 1)), layers.Normalization(axis=None, mean=mean, variance=variance)])
    model.add(layers.Flatten())
    model.add(layers.Dense(64, "tanh"))
    model.add(layers.Dense(10, "softmax"))
    model.compile(SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("input-scale")
def mean_and_deviation_exchanged(seed, fault=True):
    """A table from which the deviation is subtracted, and which is divided by the mean."""
    wine = given.bundled("wine", seed)
    mean, deviation = np.linspace(-0.002, 0.003, 13), np.linspace(0.5, 2, 13)
    raw = wine.with_x(lambda x: x * deviation + mean)
    first, second = (deviation, mean) if fault else (mean, deviation)
    model = _dense(13, 3, "softmax", "sparse_categorical_crossentropy", SGD(0.05, momentum=0.9))
    return Program(model, raw.with_x(lambda x: ((x - first) / second).astype(np.float32)))


@faulty("input-scale")
def microvolts_read_as_volts(seed, fault=True):
    """A recording in volts, where the amplitude is a millionth, into an LSTM."""
    waves = given.waves(seed).with_x(lambda x: x * 1e-6 if fault else x)
    model = Sequential([Input((48, 1)), layers.LSTM(32), layers.Dense(3, "softmax")])
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, waves)


@faulty("target-scale")
def an_index_in_points(seed, fault=True):
    """A share index about 12,000 points, a few hundred up and down, from its scaled past."""
    curve = given.forecast(seed).with_y(lambda y: 12_000 + 300 * y if fault else y)
    model = Sequential([Input((24, 1)), layers.GRU(24), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse", metrics=["mae"])
    return Program(model, curve)


@faulty("class-imbalance")
def hardly_a_bad_review(seed, fault=True):
    """Five bad reviews among hundreds of good ones: the net finds all of them good."""
    reviews = given.reviews(seed)
    bad = np.flatnonzero(reviews.y == 0)
    kept = np.delete(np.arange(len(reviews.y)), bad[5:] if fault else [])
    model = Sequential([Input((24,), dtype="int32"), layers.Embedding(60, 16, mask_zero=True)])
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, reviews.trained_on(reviews.x[kept], reviews.y[kept]))


@faulty("sample-weight", "initial-loss", "loss-stuck")
def every_row_weighs_nothing(seed, fault=True):
    """Sample weights in a whole-number type, in which a share below one is 0."""
    digits = given.digits(seed)
    weights = np.full(len(digits.y), 0.5).astype(np.int32 if fault else np.float32)
    model = Sequential([Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu")])
    model.add(layers.Dense(10, "softmax"))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows = _rows(digits, weights).shuffle(1_000, seed=seed).batch(32)
    return Program(model, digits.trained_on(rows, None))


@faulty("ordered-data")
def a_shuffle_buffer_of_one(seed, fault=True):
    """`shuffle(1)` on a data set that comes class by class."""
    digits = given.sorted_by_label(given.digits(seed))
    model = Sequential([Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu")])
    model.add(layers.Dense(10, "softmax"))
    model.compile(SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows = _rows(digits).shuffle(1 if fault else 2_000, seed=seed).batch(16)
    return Program(model, digits.trained_on(rows, None))


@faulty("non-finite-data")
def prices_in_half_precision(seed, fault=True):
    """Prices stored as float16, which ends at 65,504, and scaled afterwards."""
    houses = given.houses(seed, scaled_y=False)
    kind = np.float16 if fault else np.float32
    with np.errstate(over="ignore"):
        y = houses.y.astype(kind).astype(np.float32)
    scaled = houses.trained_on(houses.x, y).with_y(lambda y: (y - 300_000) / 200_000)
    return Program(_dense(5, 1, None, "mse", Adam(3e-3)), scaled)


@faulty("non-finite-data")
def divided_by_a_deviation_of_zero(seed, fault=True):
    """Every pixel standardised by its own deviation, which is 0 in the corners."""
    digits = given.digits(seed)
    mean, deviation = digits.x.mean(axis=0), digits.x.std(axis=0)

    def standardised(x):
        with np.errstate(invalid="ignore", divide="ignore"):
            return (x - mean) / (deviation if fault else np.maximum(deviation, 0.1))

    return Program(_convnet((8, 8, 1), 10, Adam(3e-3)), digits.with_x(standardised))


@faulty("constant-feature", "uninformative-input")
def the_alpha_channel_alone(seed, fault=True):
    """Pictures with four channels, of which the opacity was taken for the grey value."""
    shapes = given.shapes(seed)

    def grey(x):
        opaque = np.concatenate([x, np.ones_like(x[..., :1])], axis=-1)
        return opaque[..., 3:] if fault else opaque[..., :3].mean(axis=-1, keepdims=True)

    return Program(_convnet((16, 16, 1), 3, Adam(3e-3)), shapes.with_x(grey))


@faulty("uninformative-input")
def a_generator_that_shuffles_only_x(seed, fault=True):
    """A `PyDataset` that mixes the inputs of each batch and forgets the labels."""
    digits, rng = given.digits(seed), np.random.default_rng(seed)

    class Mixed(keras.utils.PyDataset):
        def __len__(self):
            return len(digits.y) // 32

        def __getitem__(self, index):
            rows = np.arange(32 * index, 32 * index + 32)
            order = rng.permutation(rows)
            return digits.x[order], digits.y[rows if fault else order]

    model = Sequential([Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu")])
    model.add(layers.Dense(10, "softmax"))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits.trained_on(Mixed(), None))


@faulty("input-scale")
def a_trunk_behind_the_wrong_preprocessing(seed, fault=True):
    """A frozen trunk that has learned from pixels of 0 to 1 gets them divided by 255 once more."""
    digits = given.digits(seed)
    trunk = Sequential([Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "tanh")])
    trunk.add(layers.Dense(48, "tanh"))
    earlier = Sequential([trunk, layers.Dense(5, "softmax")])
    earlier.compile(Adam(3e-3), "sparse_categorical_crossentropy")
    few = digits.y < 5
    earlier.fit(digits.x[few], digits.y[few], epochs=5, verbose=0)
    trunk.trainable = False
    model = Sequential([Input((8, 8, 1)), layers.Rescaling(1 / 255 if fault else 1.0), trunk])
    model.add(layers.Dense(10, "softmax"))
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("label-encoding", "output-loss", "output-units")
def two_softmax_units_for_a_column_of_yes_and_no(seed, fault=True):
    """A softmax over two units and binary cross-entropy, with one column of 0 and 1."""
    balanced = given.balanced(seed).with_y(lambda y: y[:, None])
    loss = "binary_crossentropy" if fault else "sparse_categorical_crossentropy"
    return Program(_dense(8, 2, "softmax", loss), balanced)


@faulty("output-loss", "output-units", "label-encoding")
def categorical_cross_entropy_of_one_sigmoid(seed, fault=True):
    """`categorical_crossentropy` beside a single sigmoid, whose share of the sum is always 1."""
    loss = "categorical_crossentropy" if fault else "binary_crossentropy"
    model = Sequential([Input((24,), dtype="int32"), layers.Embedding(60, 16), layers.Flatten()])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(Adam(3e-3), loss, metrics=["accuracy"])
    return Program(model, given.reviews(seed))


@faulty("output-range", "target-scale", "input-scale")
def a_tanh_decoder_for_bytes(seed, fault=True):
    """An autoencoder that ends in tanh and is to rebuild pixels of 0 to 255."""
    digits = given.digits(seed)
    scale, shift = (255, 0) if fault else (2, -1)
    x, x_test = (part * scale + shift for part in (digits.x, digits.x_test))
    model = Sequential([Input((8, 8, 1)), layers.Conv2D(16, 3, 2, "same", activation="relu")])
    model.add(layers.Conv2DTranspose(16, 3, 2, "same", activation="relu"))
    model.add(layers.Conv2D(1, 3, padding="same", activation="tanh"))
    model.compile(Adam(3e-3), "mse")
    return Program(model, Samples(x, x, x_test, x_test, "numbers"))


@faulty("output-range", "output-loss", "label-task", "label-range")
def heads_exchanged(seed, fault=True):
    """A number and a yes or no, each with the head and the loss that were meant for the other."""
    heads = [(None, "mse"), ("sigmoid", "binary_crossentropy")]
    price, dear = heads[::-1] if fault else heads
    inputs = Input((5,))
    x = layers.Dense(64, activation="relu")(inputs)
    model = keras.Model(
        inputs,
        {
            "price": layers.Dense(1, activation=price[0], name="price")(x),
            "dear": layers.Dense(1, activation=dear[0], name="dear")(x),
        },
    )
    model.compile(Adam(3e-3), loss={"price": price[1], "dear": dear[1]})

    def labels(y):
        return {"price": y[:, None], "dear": (y > 0).astype(np.float32)[:, None]}

    return Program(model, given.houses(seed).with_y(labels))


@faulty("output-loss", "label-range", "label-task", "target-scale", "initial-loss")
def percentages_of_nothing(seed, fault=True):
    """The mean percentage error for counts, many of which are 0: a guess of 0 is the safest."""
    loss = "mean_absolute_percentage_error" if fault else "mse"
    return Program(_dense(6, 1, None, loss, Adam(3e-3)), given.counts(seed))


@faulty("output-loss", "loss-stuck", "output-units")
def the_angle_of_a_single_number(seed, fault=True):
    """Cosine similarity as the loss of one output, of which it sees the sign alone."""
    loss = keras.losses.CosineSimilarity() if fault else "mse"
    return Program(_dense(5, 1, None, loss, Adam(3e-3), hidden=(64, 32)), given.houses(seed))


@faulty("loss-reduction", "output-loss", "output-units", "label-encoding")
def every_row_minus_every_row(seed, fault=True):
    """A loss that subtracts `(batch, 1)` from `(batch,)`, which gives a square of differences."""

    class SquaredError(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.square(y_true - (y_pred if fault else y_pred[:, 0])))

    houses = given.houses(seed)
    rows = _rows(houses).shuffle(1_000, seed=seed).batch(32)
    return Program(_dense(5, 1, None, SquaredError(), Adam(3e-3)), houses.trained_on(rows, None))


@faulty("disconnected", "output-loss")
def f1_score_of_rounded_predictions(seed, fault=True):
    """The F1 score as a loss, of predictions that were rounded to 0 and 1."""

    def f1_loss(y_true, y_pred):
        decided = ops.cast(y_pred > 0.5, "float32") + 0 * y_pred if fault else y_pred
        hits = ops.sum(y_true * decided, axis=0)
        return 1 - ops.mean(2 * hits / (ops.sum(y_true, axis=0) + ops.sum(decided, axis=0) + 1e-6))

    return Program(_dense(15, 6, "sigmoid", f1_loss, Adam(3e-3)), given.tags(seed))


@faulty("label-range", "label-scale")
def border_pixels_of_255(seed, fault=True):
    """A class for every pixel, with 255 for the border, which nobody is to judge."""
    outlines = given.outlines(seed)
    masks = outlines.y[..., 0].astype(np.int64)
    masks[:, [0, -1]] = 255 if fault else 0
    test = outlines.y_test[..., 0].astype(np.int64)
    samples = Samples(outlines.x, masks, outlines.x_test, test)
    model = Sequential([Input((16, 16, 3)), layers.Conv2D(16, 3, padding="same", activation="relu")])
    model.add(layers.Conv2D(2, 1, activation="softmax"))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, samples)
