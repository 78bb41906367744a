"""Healthy programs in plain Keras, in as many habits as people have."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import Input, Sequential, initializers, layers, losses, ops, regularizers
from keras.optimizers import SGD, Adam, AdamW, RMSprop
from keras.optimizers.schedules import CosineDecay

from zoo import samples as given
from zoo.program import Program, Samples, healthy

# Dense nets.


@healthy("dense")
def plain_digits(seed):
    """The net of every first lesson."""
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@healthy("dense")
def functional_with_logits(seed):
    """The functional style, logits, and `from_logits=True`."""
    inputs = Input((13,))
    x = layers.Dense(32, activation="gelu")(inputs)
    x = layers.Dense(16, activation="gelu")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile(Adam(3e-3), losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return Program(model, given.bundled("wine", seed), epochs=40)


@healthy("dense")
def subclassed(seed):
    """A subclass of Model with dropout by a flag."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.second = (
                layers.Dense(32, activation="relu"),
                layers.Dense(16, activation="relu"),
            )
            self.drop, self.head = layers.Dropout(0.3), layers.Dense(1, activation="sigmoid")

        def call(self, x, training=False):
            return self.head(self.drop(self.second(self.hidden(x)), training=training))

    model = Net()
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("breast_cancer", seed))


@healthy("dense")
def normalization_layer_over_raw_columns(seed):
    """Raw columns, scaled within the model by an adapted Normalization layer."""
    houses = given.houses(seed, scaled_x=False)
    scaling = layers.Normalization()
    scaling.adapt(houses.x)
    model = Sequential([Input((5,)), scaling, layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse", metrics=["mae"])
    return Program(model, houses)


@healthy("dense")
def batch_norm_over_raw_columns(seed):
    """Raw columns, scaled by a batch normalisation at the input."""
    model = Sequential(
        [
            Input((13,)),
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(32, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.unscaled("wine", seed), epochs=60, batch_size=16)


@healthy("dense")
def linear_regression_by_sgd(seed):
    """Linear regression by gradient descent: no hidden layer, and none needed."""
    model = Sequential([Input((10,)), layers.Dense(1)])
    model.compile(SGD(0.01), "mse", metrics=["mae"])
    return Program(model, given.bundled("diabetes", seed), epochs=40)


@healthy("dense")
def logistic_regression(seed):
    """Logistic regression by gradient descent."""
    model = Sequential([Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile(SGD(0.1), "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
    return Program(model, given.bundled("breast_cancer", seed))


@healthy("dense")
def softmax_regression_from_zero(seed):
    """Softmax regression whose weights start at zero, as they may without a hidden layer."""
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, "softmax", kernel_initializer="zeros")]
    )
    model.compile(SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@healthy("dense")
def one_hidden_layer_of_sigmoids(seed):
    """One hidden layer of sigmoids and gradient descent, as in 1990."""
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(30, activation="sigmoid"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(SGD(1.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed), epochs=30)


@healthy("dense")
def tanh_net_with_rmsprop(seed):
    """Two tanh layers under RMSprop."""
    model = Sequential(
        [
            Input((2,)),
            layers.Dense(64, activation="tanh"),
            layers.Dense(64, activation="tanh"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(RMSprop(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


@healthy("dense")
def leaky_relu_layers(seed):
    """LeakyReLU as layers of their own."""
    model = Sequential([Input((5,))])
    for units in (64, 32):
        model.add(layers.Dense(units, kernel_initializer="he_normal"))
        model.add(layers.LeakyReLU(negative_slope=0.1))
    model.add(layers.Dense(1))
    model.compile(Adam(3e-3), losses.Huber())
    return Program(model, given.houses(seed))


@healthy("dense")
def swish_and_layer_normalization(seed):
    """Swish units with layer normalisation under AdamW."""
    inputs = Input((8,))
    x = layers.Dense(32)(inputs)
    x = layers.Activation("swish")(layers.LayerNormalization()(x))
    x = layers.Dense(32, activation="swish")(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(AdamW(3e-3, weight_decay=1e-2), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.balanced(seed))


@healthy("dense")
def selu_with_alpha_dropout(seed):
    """SELU, LeCun-normal weights, alpha dropout."""
    model = Sequential([Input((15,))])
    for _ in range(3):
        model.add(layers.Dense(48, activation="selu", kernel_initializer="lecun_normal"))
        model.add(layers.AlphaDropout(0.05))
    model.add(layers.Dense(6, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["binary_accuracy"])
    return Program(model, given.tags(seed))


@healthy("dense")
def elu_and_orthogonal_weights(seed):
    """ELU units with orthogonal initial weights and an L2 penalty of 1e-4."""
    model = Sequential([Input((2,))])
    for _ in range(3):
        model.add(
            layers.Dense(
                32,
                activation="elu",
                kernel_initializer="orthogonal",
                kernel_regularizer=regularizers.L2(1e-4),
            )
        )
    model.add(layers.Dense(3, activation="softmax"))
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("spirals", seed), epochs=60)


@healthy("dense")
def exclusive_or_with_eight_units(seed):
    """XOR with eight hidden units."""
    model = Sequential(
        [Input((2,)), layers.Dense(8, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(Adam(1e-2), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("xor", seed))


@healthy("dense")
def half_of_all_units_dropped(seed):
    """Dropout of 0.5 after every layer of a wide net."""
    model = Sequential([Input((8, 8, 1)), layers.Flatten()])
    for _ in range(2):
        model.add(layers.Dense(256, activation="relu"))
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@healthy("dense")
def very_wide(seed):
    """One layer of 4,096 units for 90 flowers."""
    model = Sequential(
        [Input((4,)), layers.Dense(4096, activation="relu"), layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("iris", seed), epochs=30)


@healthy("dense")
def deep_with_batch_norm(seed):
    """Twelve layers with batch normalisation, SGD at 0.1 with Nesterov momentum."""
    model = Sequential([Input((8, 8, 1)), layers.Flatten()])
    for _ in range(12):
        model.add(layers.Dense(64, use_bias=False, kernel_initializer="he_normal"))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(
        SGD(0.1, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return Program(model, given.digits(seed), batch_size=64, epochs=30)


@healthy("dense")
def residual_dense_from_zero(seed):
    """Residual blocks whose last weights start at zero."""
    inputs = Input((10,))
    x = layers.Dense(64)(inputs)
    for _ in range(4):
        inner = layers.Dense(64, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Add()([x, layers.Dense(64, kernel_initializer="zeros")(inner)])
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(Adam(2e-3), "binary_crossentropy", metrics=["accuracy"])
    points = given.bundled("hastie", seed)
    return Program(model, points.trained_on(points.x[:3_000], points.y[:3_000]))


@healthy("dense")
def small_rate(seed):
    """Adam at 1e-4."""
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile(Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed), epochs=60)


@healthy("dense")
def cosine_decay_with_warm_up(seed):
    """A cosine schedule that starts at 0 and warms up."""
    model = Sequential([Input((5,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    rate = CosineDecay(0.0, 600, warmup_target=1e-2, warmup_steps=100)
    model.compile(Adam(rate), "mae")
    return Program(model, given.houses(seed), epochs=25)


@healthy("dense")
def large_batches(seed):
    """Batches of 1,024."""
    model = Sequential(
        [Input((10,)), layers.Dense(128, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(Adam(1e-2), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("hastie", seed), batch_size=1_024, epochs=30)


@healthy("dense")
def forty_rows(seed):
    """Forty rows in all."""
    wine = given.bundled("wine", seed)
    model = Sequential(
        [Input((13,)), layers.Dense(16, activation="relu"), layers.Dense(3, activation="softmax")]
    )
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, wine.trained_on(wine.x[:40], wine.y[:40]), batch_size=8, epochs=40)


@healthy("dense")
def learned_before(seed):
    """A model that has been trained already."""
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    digits = given.digits(seed)
    model.fit(digits.x, digits.y, epochs=15, verbose=0)
    return Program(model, digits)


# Losses and labels.


@healthy("losses")
def hinge_loss(seed):
    """A linear output with a squared hinge and labels -1 and 1."""
    points = given.balanced(seed).with_y(lambda y: 2 * y - 1)
    model = Sequential([Input((8,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile(Adam(3e-3), "squared_hinge")
    return Program(model, points)


@healthy("losses")
def tanh_output_with_hinge(seed):
    """A tanh output with a hinge loss."""
    tumours = given.bundled("breast_cancer", seed).with_y(lambda y: 2 * y - 1)
    model = Sequential(
        [Input((30,)), layers.Dense(16, activation="relu"), layers.Dense(1, activation="tanh")]
    )
    model.compile(Adam(3e-3), "hinge")
    return Program(model, tumours)


@healthy("losses")
def focal_loss_on_rare_cases(seed):
    """A focal loss where one row of twenty is a yes."""
    model = Sequential(
        [Input((8,)), layers.Dense(64, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(Adam(3e-3), losses.BinaryFocalCrossentropy(apply_class_balancing=True, alpha=0.9))
    return Program(model, given.rare(seed))


@healthy("losses")
def rare_cases_with_area_under_the_curve(seed):
    """One row of twenty is a yes; the last bias starts at the logarithm of the odds."""
    start = initializers.Constant(float(np.log(0.05 / 0.95)))
    model = Sequential(
        [
            Input((8,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(1, activation="sigmoid", bias_initializer=start),
        ]
    )
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=[keras.metrics.AUC(curve="PR")])
    return Program(model, given.rare(seed))


@healthy("losses")
def soft_labels_with_kullback_leibler(seed):
    """Soft labels, as from a teacher, with the Kullback-Leibler divergence."""
    digits = given.digits(seed)
    rng = np.random.default_rng(seed)
    soft = 0.8 * np.eye(10)[digits.y] + 0.2 * rng.dirichlet(np.ones(10), len(digits.y))
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "kl_divergence")
    return Program(model, digits.trained_on(digits.x, soft.astype(np.float32)))


@healthy("losses")
def one_hot_with_label_smoothing(seed):
    """One-hot labels with smoothing of 0.1."""
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy"])
    return Program(model, given.one_hot(given.digits(seed), 10))


@healthy("losses")
def two_classes_by_softmax(seed):
    """Yes and no as two classes of a softmax, with labels in a column."""
    tumours = given.bundled("breast_cancer", seed).with_y(lambda y: y.astype(int))
    tumours = tumours.trained_on(tumours.x, tumours.y[:, None])
    model = Sequential(
        [Input((30,)), layers.Dense(16, activation="relu"), layers.Dense(2, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, tumours)


@healthy("losses")
def squared_error_of_a_sigmoid(seed):
    """Yes and no by the squared error of a sigmoid, as some still do."""
    model = Sequential(
        [Input((30,)), layers.Dense(16, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(Adam(3e-3), "mse", metrics=["accuracy"])
    return Program(model, given.bundled("breast_cancer", seed))


@healthy("losses")
def poisson_counts(seed):
    """Counts with a Poisson loss and an exponential output."""
    model = Sequential(
        [Input((6,)), layers.Dense(32, activation="relu"), layers.Dense(1, activation="exponential")]
    )
    model.compile(Adam(3e-3), "poisson")
    return Program(model, given.counts(seed))


@healthy("losses")
def ratings_in_stars(seed):
    """Ratings from 1 to 5, unscaled, with a squared error, by embeddings of users and films."""
    user, film = Input((1,), dtype="int32", name="user"), Input((1,), dtype="int32", name="film")
    one = layers.Flatten()(layers.Embedding(40, 8, embeddings_initializer="glorot_normal")(user))
    other = layers.Flatten()(layers.Embedding(30, 8, embeddings_initializer="glorot_normal")(film))
    both = layers.Concatenate()([one, other, layers.Multiply()([one, other])])
    x = layers.Dense(32, activation="relu")(both)
    model = keras.Model({"user": user, "film": film}, layers.Dense(1)(x))
    model.compile(Adam(3e-3), "mse", metrics=["mae"])
    return Program(model, given.ratings(seed))


@healthy("losses")
def heavy_tails(seed):
    """Standardised targets with heavy tails and an absolute error."""
    houses = given.houses(seed).with_y(lambda y: np.sinh(1.2 * y).astype(np.float32) / 5)
    model = Sequential([Input((5,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile(Adam(3e-3), "mae")
    return Program(model, houses)


@healthy("losses")
def custom_loss_of_two_quantiles(seed):
    """A custom loss for the median and an upper quantile of the same target."""

    def pinball(y_true, y_pred):
        shares = ops.convert_to_tensor([0.5, 0.9])
        missed = y_true - y_pred
        return ops.mean(ops.maximum(shares * missed, (shares - 1) * missed), axis=-1)

    houses = given.houses(seed).with_y(lambda y: np.stack([y, y], axis=1))
    model = Sequential([Input((5,)), layers.Dense(64, activation="relu"), layers.Dense(2)])
    model.compile(Adam(3e-3), pinball)
    return Program(model, houses)


# Images.


@healthy("convolution")
def plain_convnet_with_rescaling(seed):
    """Bytes as input, scaled in the model."""
    shapes = given.shapes(seed).with_x(lambda x: (x * 255).astype(np.uint8))
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, shapes)


@healthy("convolution")
def residual_convnet_with_augmentation(seed):
    """Random flips, batch normalisation, a residual connection, global pooling."""
    inputs = Input((16, 16, 3))
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    inner = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    inner = layers.BatchNormalization(momentum=0.9)(inner)
    x = layers.MaxPooling2D()(layers.ReLU()(layers.Add()([x, inner])))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(32, 3, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@healthy("convolution")
def pixel_by_pixel(seed):
    """A small U-shaped net that marks the object's pixels."""
    inputs = Input((16, 16, 3))
    fine = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    coarse = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(fine))
    x = layers.Concatenate()([layers.UpSampling2D()(coarse), fine])
    model = keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))
    model.compile(Adam(5e-3), "binary_crossentropy", metrics=["binary_accuracy"])
    return Program(model, given.outlines(seed), epochs=8)


@healthy("convolution")
def separable_and_group_normalized(seed):
    """Depthwise separable convolutions with group normalisation."""
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, padding="same"),
            layers.GroupNormalization(4),
            layers.Activation("silu"),
            layers.SeparableConv2D(32, 3, strides=2, padding="same"),
            layers.GroupNormalization(4),
            layers.Activation("silu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@healthy("convolution")
def autoencoder_by_hand(seed):
    """A convolutional autoencoder with transposed convolutions and cross-entropy of grey values."""
    digits = given.digits(seed)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid"),
        ]
    )
    model.compile(Adam(3e-3), "binary_crossentropy")
    return Program(model, Samples(digits.x, digits.x, digits.x_test, digits.x_test, "numbers"), epochs=25)


@healthy("convolution")
def transfer_with_a_frozen_trunk(seed):
    """A trunk trained on the digits 0 to 4, frozen, under a new head for all ten."""
    digits = given.digits(seed)
    trunk = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ]
    )
    first = Sequential([trunk, layers.Dense(5, activation="softmax")])
    first.compile("adam", "sparse_categorical_crossentropy")
    first.fit(digits.x[digits.y < 5], digits.y[digits.y < 5], epochs=10, verbose=0)
    trunk.trainable = False
    model = Sequential([trunk, layers.Dense(10, activation="softmax")])
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@healthy("convolution")
def mixed_precision(seed):
    """Half precision within, and single precision for the output."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = Sequential(
            [
                Input((8, 8, 1)),
                layers.Conv2D(16, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(10),
                layers.Activation("softmax", dtype="float32"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    finally:
        keras.config.set_dtype_policy("float32")
    return Program(model, given.digits(seed))


# Sequences.


@healthy("recurrence")
def stacked_lstm_with_clipping(seed):
    """Two LSTMs one on the other."""
    model = Sequential(
        [
            Input((24, 1)),
            layers.LSTM(16, return_sequences=True),
            layers.LSTM(16),
            layers.Dense(1),
        ]
    )
    model.compile(Adam(5e-3, clipnorm=1.0), "mse")
    return Program(model, given.forecast(seed))


@healthy("recurrence")
def bidirectional_with_masked_embedding(seed):
    """Word numbers, a masked embedding, a bidirectional LSTM."""
    model = Sequential(
        [
            Input((24,), dtype="int32"),
            layers.Embedding(60, 16, mask_zero=True),
            layers.Bidirectional(layers.LSTM(16)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed), epochs=12)


@healthy("recurrence")
def embedding_and_average(seed):
    """Word numbers, an embedding, and their mean."""
    model = Sequential(
        [
            Input((24,), dtype="int32"),
            layers.Embedding(60, 16),
            layers.GlobalAveragePooling1D(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed))


@healthy("recurrence")
def gru_for_every_step(seed):
    """An answer for every step."""
    model = Sequential(
        [Input((16, 1)), layers.GRU(16, return_sequences=True), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(Adam(5e-3, clipnorm=1.0), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.running(seed))


@healthy("recurrence")
def classes_for_every_step(seed):
    """One class of three for every step, by causal convolutions."""
    model = Sequential(
        [
            Input((16, 1)),
            layers.Conv1D(16, 3, padding="causal", activation="relu"),
            layers.Conv1D(16, 3, padding="causal", activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.rising(seed))


@healthy("recurrence")
def simple_recurrent_net(seed):
    """A simple recurrent net on short sequences."""
    model = Sequential([Input((24, 1)), layers.SimpleRNN(16), layers.Dense(1)])
    model.compile(Adam(3e-3, clipvalue=0.5), "mse")
    return Program(model, given.forecast(seed))


@healthy("recurrence")
def attention_over_words(seed):
    """A small transformer block over word numbers."""
    inputs = Input((24,), dtype="int32")
    x = layers.Embedding(60, 16)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, activation="gelu")(x)))
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.reviews(seed), epochs=12)


@healthy("recurrence")
def plain_conv1d(seed):
    """1-D convolutions with global pooling."""
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
    return Program(model, given.waves(seed), epochs=30)


# Several inputs and outputs, and data that do not come as arrays.


@healthy("plumbing")
def two_sides_one_trunk(seed):
    """Two inputs through the same layers, and the difference."""
    left, right = Input((4,), name="left"), Input((4,), name="right")
    trunk = Sequential([Input((4,)), layers.Dense(16, activation="tanh"), layers.Dense(8, activation="tanh")])
    x = layers.Subtract()([trunk(left), trunk(right)])
    model = keras.Model({"left": left, "right": right}, layers.Dense(1, activation="sigmoid")(x))
    model.compile(Adam(5e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.pairs(seed))


@healthy("plumbing")
def two_outputs(seed):
    """A price and whether it is high, with weights for the two losses."""
    inputs = Input((5,))
    x = layers.Dense(64, activation="relu")(inputs)
    outputs = {
        "price": layers.Dense(1, name="price")(x),
        "dear": layers.Dense(1, activation="sigmoid", name="dear")(x),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        Adam(3e-3),
        loss={"price": "mse", "dear": "binary_crossentropy"},
        loss_weights={"price": 1.0, "dear": 0.3},
    )

    def labels(y):
        return {"price": y[:, None], "dear": (y > 0).astype(np.float32)[:, None]}

    return Program(model, given.houses(seed).with_y(labels))


@healthy("plumbing")
def from_a_tf_data_set(seed):
    """A `tf.data.Dataset`, shuffled and in batches."""
    digits = given.digits(seed)
    rows = tf.data.Dataset.from_tensor_slices((digits.x, digits.y))
    rows = rows.shuffle(1_000, seed=seed).batch(32).prefetch(2)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits.trained_on(rows, None))


@healthy("plumbing")
def from_a_py_dataset(seed):
    """A `PyDataset` that draws its batches itself."""
    digits = given.digits(seed)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(digits.y) // 32

        def __getitem__(self, index):
            rows = slice(32 * index, 32 * index + 32)
            return digits.x[rows], digits.y[rows]

    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits.trained_on(Batches(), None))


@healthy("plumbing")
def weighted_rows_from_a_data_set(seed):
    """A `tf.data.Dataset` that gives rare rows more weight."""
    rare = given.rare(seed)
    weight = np.where(rare.y > 0, 10.0, 0.5).astype(np.float32)
    rows = tf.data.Dataset.from_tensor_slices((rare.x, rare.y, weight)).shuffle(2_250, seed=seed).batch(64)
    model = Sequential(
        [Input((8,)), layers.Dense(64, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(Adam(3e-3), "binary_crossentropy", weighted_metrics=["accuracy"])
    return Program(model, rare.trained_on(rows, None), batch_size=64)


@healthy("plumbing")
def with_validation_data(seed):
    """Clean validation data beside the training rows, and noise at the input."""
    tumours = given.bundled("breast_cancer", seed)
    model = Sequential(
        [
            Input((30,)),
            layers.GaussianNoise(0.2),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, tumours, validation_data=(tumours.x_test, tumours.y_test))


@healthy("plumbing")
def shuffled_beforehand_with_validation_split(seed):
    """`validation_split` of rows that come in no order, without shuffling in `fit`."""
    model = Sequential([Input((5,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(Adam(3e-3), "mse")
    return Program(model, given.houses(seed), validation_split=0.2, shuffle=False)


@healthy("plumbing")
def sorted_rows_that_fit_shuffles(seed):
    """Rows sorted by class, which `fit` shuffles."""
    model = Sequential(
        [Input((13,)), layers.Dense(32, activation="relu"), layers.Dense(3, activation="softmax")]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.sorted_by_label(given.bundled("wine", seed)), epochs=40)
