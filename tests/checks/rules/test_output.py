import functools

import keras
import numpy as np
import pytest
from keras import layers, losses, ops

from keras_practice.checks.inspection.context import context_of
from keras_practice.checks.inspection.metrics import metrics_of
from keras_practice.checks.rules.all import OUTPUT
from keras_practice.core.variables import preserved
from keras_practice.data import Task

RNG = np.random.default_rng(0)
N = 120
X = RNG.normal(size=(N, 4)).astype("float32")
THREE = RNG.integers(0, 3, N)
TEN = RNG.integers(0, 10, N)
TWO = RNG.integers(0, 2, N)
NUMBERS = RNG.normal(size=N).astype("float32")
SEQUENCES = RNG.normal(size=(N, 5, 4)).astype("float32")
STEPS = RNG.integers(0, 3, (N, 5))
IMAGES = RNG.uniform(size=(N, 6, 6, 3)).astype("float32")
MASKS = RNG.integers(0, 2, (N, 6, 6, 1))
MULTILABEL = RNG.integers(0, 2, (N, 4))


def one_hot(labels, classes=3):
    return np.eye(classes, dtype="float32")[labels]


def dense(units, activation=None, *more, x=X):
    """A model of one hidden layer, a last layer, and what follows it."""
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(8, "relu")
    return keras.Sequential([keras.Input(x.shape[1:]), hidden, layers.Dense(units, activation), *more])


def findings(model, loss, y, x=X, metrics=None, task=None):
    model.compile("sgd", loss, metrics=metrics)
    with preserved(model, x[:1]):
        context = context_of(model, x, y, task=task)
        return [finding for check in OUTPUT for finding in check(context)]


def said(*args, **kwargs):
    return [(f.check, f.severity) for f in findings(*args, **kwargs)]


class Brief(losses.Loss):
    """A user's own class around a function, without Keras's care for shapes."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def squared(y, p):
    return ops.mean(ops.square(y - p), axis=-1)


def from_logits(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True)


def binary_without_guard(y, p):
    return -ops.mean(y * ops.log(p) + (1 - y) * ops.log(1 - p), axis=-1)


def binary_with_guard(y, p):
    p = ops.clip(p, 1e-7, 1 - 1e-7)
    return -ops.mean(y * ops.log(p) + (1 - y) * ops.log(1 - p), axis=-1)


def categorical_by_hand(y, p):
    return -ops.sum(y * ops.log(p + 1e-7), axis=-1)


def wrong_sign(y, p):
    return ops.sum(y * ops.log(p + 1e-7), axis=-1)


def focal(y, p):
    p = ops.clip(p, 1e-7, 1 - 1e-7)
    right = y * p + (1 - y) * (1 - p)
    return ops.mean(-((1 - right) ** 2) * ops.log(right), axis=-1)


def dice_score(y, p):
    return (2 * ops.sum(y * p) + 1) / (ops.sum(y) + ops.sum(p) + 1)


def quantiles(y, p):
    """Three quantiles for one target: shapes that broadcast on purpose."""
    levels = ops.convert_to_tensor([0.1, 0.5, 0.9])
    error = y - p
    return ops.mean(ops.maximum(levels * error, (levels - 1) * error), axis=-1)


def gaussian(y, p):
    """Mean and log variance, two outputs for one target."""
    mean, log_variance = p[:, 0], p[:, 1]
    return log_variance + ops.square(y[:, 0] - mean) / ops.exp(log_variance)


def contrastive(y, p):
    """Labels 1 for pairs that belong together, outputs are distances."""
    return ops.mean(y * ops.square(p) + (1 - y) * ops.square(ops.maximum(1 - p, 0)), axis=-1)


def critic(y, p):
    return ops.mean(y * p)


def correlation(y, p):
    y, p = y - ops.mean(y), p - ops.mean(p)
    return ops.sum(y * p) / (ops.sqrt(ops.sum(y * y) * ops.sum(p * p)) + 1e-7)


def rooted(y, p):
    return ops.sqrt(ops.mean(ops.square(y - p)))


def smooth_l1(y, p):
    error = ops.abs(y - p)
    return ops.mean(ops.where(error < 1, error**2 / 2, error - 0.5), axis=-1)


HEALTHY = {
    "sparse": lambda: (dense(3, "softmax"), "sparse_categorical_crossentropy", THREE),
    "sparse as columns": lambda: (dense(3, "softmax"), "sparse_categorical_crossentropy", THREE[:, None]),
    "sparse as floats": lambda: (dense(3, "softmax"), "sparse_categorical_crossentropy", THREE.astype("f")),
    "a softmax layer": lambda: (dense(3, None, layers.Softmax()), "sparse_categorical_crossentropy", THREE),
    "by shape": lambda: (dense(3, "softmax"), losses.SparseCategoricalCrossentropy(), THREE),
    "ignored class": lambda: (
        dense(3, "softmax"),
        losses.SparseCategoricalCrossentropy(ignore_class=255),
        np.where(X[:, 0] > 1, 255, THREE),
    ),
    "logits": lambda: (dense(3), losses.SparseCategoricalCrossentropy(from_logits=True), THREE),
    "logits by hand": lambda: (dense(3), from_logits, THREE),
    "logits in a partial": lambda: (
        dense(1),
        functools.partial(losses.binary_crossentropy, from_logits=True),
        TWO,
    ),
    "one-hot": lambda: (dense(3, "softmax"), "categorical_crossentropy", one_hot(THREE)),
    "smoothed": lambda: (dense(3, "softmax"), "categorical_crossentropy", one_hot(THREE) * 0.9 + 0.1 / 3),
    "categorical focal": lambda: (dense(3, "softmax"), losses.CategoricalFocalCrossentropy(), one_hot(THREE)),
    "divergence": lambda: (dense(3, "softmax"), "kl_divergence", one_hot(THREE) * 0.9 + 0.1 / 3),
    "exponential, divided": lambda: (dense(3, "exponential"), "categorical_crossentropy", one_hot(THREE)),
    "log-softmax as logits": lambda: (
        dense(3, "log_softmax"),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        THREE,
    ),
    "binary": lambda: (dense(1, "sigmoid"), "binary_crossentropy", TWO),
    "binary booleans": lambda: (dense(1, "sigmoid"), "binary_crossentropy", TWO.astype(bool)),
    "binary, two units": lambda: (dense(2, "softmax"), "sparse_categorical_crossentropy", TWO),
    "binary, custom activation": lambda: (
        dense(1, lambda z: 0.5 * (1 + ops.tanh(z))),
        "binary_crossentropy",
        TWO,
    ),
    "hard sigmoid": lambda: (dense(1, "hard_sigmoid"), "binary_crossentropy", TWO),
    "soft labels": lambda: (dense(1, "sigmoid"), "binary_crossentropy", 0.1 + 0.8 * TWO),
    "votes": lambda: (dense(1, "sigmoid"), "binary_crossentropy", TEN / 9),
    "binary focal": lambda: (dense(1, "sigmoid"), losses.BinaryFocalCrossentropy(), TWO),
    "multilabel": lambda: (dense(4, "sigmoid"), "binary_crossentropy", MULTILABEL),
    "hinge, linear": lambda: (dense(1), "hinge", 2 * TWO - 1),
    "hinge, tanh, 0 and 1": lambda: (dense(1, "tanh"), "squared_hinge", TWO),
    "categorical hinge": lambda: (dense(3), "categorical_hinge", one_hot(THREE)),
    "regression": lambda: (dense(1), "mse", NUMBERS),
    "regression of many": lambda: (dense(4), "mae", X),
    "ratings": lambda: (dense(1), "mse", (1 + THREE).astype("float32")),
    "counts": lambda: (dense(1, "exponential"), "poisson", TEN),
    "tanh in reach": lambda: (dense(1, "tanh"), "mse", np.tanh(NUMBERS)),
    "relu in reach": lambda: (dense(1, "relu"), "mse", np.abs(NUMBERS)),
    "scaled after tanh": lambda: (dense(1, "tanh", layers.Rescaling(100.0)), "mse", 30 * NUMBERS),
    "cosine": lambda: (dense(4), "cosine_similarity", X),
    "steps": lambda: (dense(3, "softmax", x=SEQUENCES), "sparse_categorical_crossentropy", STEPS, SEQUENCES),
    "one-hot steps": lambda: (
        dense(3, "softmax", x=SEQUENCES),
        "categorical_crossentropy",
        one_hot(STEPS),
        SEQUENCES,
    ),
    "padded one-hot steps": lambda: (
        dense(3, "softmax", x=SEQUENCES),
        "categorical_crossentropy",
        one_hot(STEPS) * (np.arange(5) < 4)[:, None],
        SEQUENCES,
    ),
    "segmentation": lambda: (dense(1, "sigmoid", x=IMAGES), "binary_crossentropy", MASKS, IMAGES),
    "segmentation without channel": lambda: (
        dense(1, "sigmoid", x=IMAGES),
        "binary_crossentropy",
        MASKS[..., 0],
        IMAGES,
    ),
    "segmentation, dice": lambda: (dense(1, "sigmoid", x=IMAGES), losses.Dice(), MASKS, IMAGES),
    "autoencoder": lambda: (dense(3, "sigmoid", x=IMAGES), "binary_crossentropy", IMAGES, IMAGES),
    "own class": lambda: (dense(1), Brief(squared), NUMBERS[:, None]),
    "own binary": lambda: (dense(1, "sigmoid"), binary_with_guard, TWO),
    "own categorical": lambda: (dense(3, "softmax"), categorical_by_hand, one_hot(THREE)),
    "own focal": lambda: (dense(1, "sigmoid"), focal, TWO),
    "own dice": lambda: (dense(1, "sigmoid", x=IMAGES), lambda y, p: 1 - dice_score(y, p), MASKS, IMAGES),
    "own quantiles": lambda: (dense(3), quantiles, NUMBERS[:, None]),
    "own gaussian": lambda: (dense(2), gaussian, NUMBERS[:, None]),
    "own contrastive": lambda: (dense(1), contrastive, TWO),
    "own critic": lambda: (dense(1), critic, 2 * TWO - 1),
    "own root": lambda: (dense(1), rooted, NUMBERS),
    "own correlation": lambda: (dense(1), lambda y, p: -correlation(y, p), NUMBERS),
    "own smooth L1": lambda: (dense(1), smooth_l1, NUMBERS),
    "loss in the model": lambda: (dense(1), lambda y, p: ops.mean(p), np.zeros(N)),
    "margin on tanh": lambda: (
        dense(1, "tanh"),
        lambda y, p: ops.mean(ops.maximum(1 - y * p, 0)),
        2 * TWO - 1,
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_right_choice_raises_nothing(name):
    model, loss, y, *x = HEALTHY[name]()
    assert said(model, loss, y, *x) == []


WRONG = {
    # Labels.
    "counted from 1": lambda: (
        "label-range",
        dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        THREE + 1,
    ),
    "a mark of -1": lambda: (
        "label-range",
        dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        np.where(X[:, 0] > 1, -1, THREE),
    ),
    "another mark than ignored": lambda: (
        "label-range",
        dense(3, "softmax"),
        losses.SparseCategoricalCrossentropy(ignore_class=-1),
        np.where(X[:, 0] > 1, 255, THREE % 2),
    ),
    "-1 and 1": lambda: ("label-range", dense(1, "sigmoid"), "binary_crossentropy", 2 * TWO - 1),
    "1 and 2": lambda: ("label-range", dense(1, "sigmoid"), "binary_crossentropy", TWO + 1),
    "pixels to 255": lambda: (
        "label-range",
        dense(3, "sigmoid", x=IMAGES),
        "binary_crossentropy",
        np.round(255 * IMAGES),
        IMAGES,
    ),
    "hinge on 1 and 2": lambda: ("label-range", dense(1), "hinge", TWO + 1),
    "negative counts": lambda: ("label-range", dense(1, "softplus"), "poisson", NUMBERS),
    "integers for rows": lambda: ("label-encoding", dense(3, "softmax"), "categorical_crossentropy", THREE),
    "columns for rows": lambda: (
        "label-encoding",
        dense(3, "softmax"),
        losses.CategoricalCrossentropy(),
        THREE[:, None],
    ),
    "rows for integers": lambda: (
        "label-encoding",
        dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        one_hot(THREE),
    ),
    "integers and squared error": lambda: ("label-encoding", dense(3, "softmax"), "mse", THREE[:, None]),
    "words": lambda: (
        "label-encoding",
        dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        np.array(["a", "b", "c"])[THREE],
    ),
    "all against all": lambda: ("label-encoding", dense(1), Brief(squared), NUMBERS),
    "all against all, squeezed": lambda: (
        "label-encoding",
        dense(1, None, layers.Reshape(())),
        Brief(smooth_l1),
        NUMBERS[:, None],
    ),
    "classes first": lambda: (
        "label-encoding",
        dense(3, "softmax", x=SEQUENCES),
        "categorical_crossentropy",
        np.moveaxis(one_hot(STEPS), -1, 1),
        SEQUENCES,
    ),
    "divided classes": lambda: (
        "label-scale",
        dense(10, "softmax"),
        "sparse_categorical_crossentropy",
        (TEN / 9).astype("float32"),
    ),
    "standardised classes": lambda: (
        "label-scale",
        dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        ((THREE - THREE.mean()) / THREE.std()).astype("float32"),
    ),
    "standardised yes and no": lambda: (
        "label-scale",
        dense(1, "sigmoid"),
        "binary_crossentropy",
        (TWO - TWO.mean()) / TWO.std(),
    ),
    "yes and no over 255": lambda: ("label-scale", dense(1, "sigmoid"), "binary_crossentropy", TWO / 255),
    "one-hot over 255": lambda: (
        "label-scale",
        dense(3, "softmax"),
        "categorical_crossentropy",
        one_hot(THREE) / 255,
    ),
    "one-hot standardised": lambda: (
        "label-scale",
        dense(3, "softmax"),
        "categorical_crossentropy",
        (one_hot(THREE) - one_hot(THREE).mean(0)) / one_hot(THREE).std(0),
    ),
    "numbers as classes": lambda: (
        "label-task",
        dense(3, "softmax"),
        "sparse_categorical_crossentropy",
        np.abs(NUMBERS),
    ),
    "numbers as yes and no": lambda: ("label-task", dense(1, "sigmoid"), "binary_crossentropy", NUMBERS),
    "numbers and softmax": lambda: ("label-task", dense(4, "softmax"), "mse", 2 * X),
    "several labels, one softmax": lambda: (
        "label-task",
        dense(4, "softmax"),
        "categorical_crossentropy",
        MULTILABEL,
    ),
    # Output and loss.
    "linear, sparse": lambda: ("output-loss", dense(3), "sparse_categorical_crossentropy", THREE),
    "linear, binary": lambda: ("output-loss", dense(1), "binary_crossentropy", TWO),
    "zeroed linear, binary": lambda: (
        "output-loss",
        keras.Sequential([keras.Input((4,)), layers.Dense(1, kernel_initializer="zeros")]),
        "binary_crossentropy",
        TWO,
    ),
    "linear, categorical": lambda: ("output-loss", dense(3), "categorical_crossentropy", one_hot(THREE)),
    "linear, dice": lambda: ("output-loss", dense(1, x=IMAGES), losses.Dice(), MASKS, IMAGES),
    "relu, sparse": lambda: ("output-loss", dense(3, "relu"), "sparse_categorical_crossentropy", THREE),
    "relu, binary": lambda: ("output-loss", dense(1, "relu"), "binary_crossentropy", TWO),
    "tanh, binary": lambda: ("output-loss", dense(1, "tanh"), "binary_crossentropy", TWO),
    "log-softmax as probabilities": lambda: (
        "output-loss",
        dense(3, "log_softmax"),
        "sparse_categorical_crossentropy",
        THREE,
    ),
    "relu logits, binary": lambda: (
        "output-loss",
        dense(1, "relu"),
        losses.BinaryCrossentropy(from_logits=True),
        TWO,
    ),
    "softmax over one, binary": lambda: ("output-loss", dense(1, "softmax"), "binary_crossentropy", TWO),
    "softmax over one, mse": lambda: ("output-loss", dense(1, "softmax"), "mse", TWO),
    "softmax over one, sparse": lambda: (
        "output-loss",
        dense(1, "softmax"),
        "sparse_categorical_crossentropy",
        TWO,
    ),
    "one sigmoid, categorical": lambda: ("output-loss", dense(1, "sigmoid"), "categorical_crossentropy", TWO),
    "softmax twice": lambda: (
        "output-loss",
        dense(3, "softmax", layers.Softmax()),
        "sparse_categorical_crossentropy",
        THREE,
    ),
    "relu, then sigmoid": lambda: (
        "output-loss",
        dense(1, "relu", layers.Activation("sigmoid")),
        "binary_crossentropy",
        TWO,
    ),
    "softmax over the batch": lambda: (
        "output-loss",
        dense(3, lambda z: ops.softmax(z, axis=0)),
        "sparse_categorical_crossentropy",
        THREE,
    ),
    "softmax over the steps": lambda: (
        "output-loss",
        dense(3, None, layers.Softmax(axis=1), x=SEQUENCES),
        "sparse_categorical_crossentropy",
        STEPS,
        SEQUENCES,
    ),
    "sigmoids, sparse": lambda: (
        "output-loss",
        dense(3, "sigmoid"),
        "sparse_categorical_crossentropy",
        THREE,
    ),
    "sigmoids, categorical": lambda: (
        "output-loss",
        dense(3, "sigmoid"),
        "categorical_crossentropy",
        one_hot(THREE),
    ),
    "softmax, several labels": lambda: (
        "output-loss",
        dense(4, "softmax"),
        "binary_crossentropy",
        MULTILABEL,
    ),
    "softmax, then logits by hand": lambda: (
        "output-loss",
        dense(3, "softmax"),
        lambda y, p: ops.mean(ops.logsumexp(p, axis=-1) - ops.sum(y * p, axis=-1)),
        one_hot(THREE),
    ),
    "linear, own log": lambda: ("output-loss", dense(3), categorical_by_hand, one_hot(THREE)),
    "linear rate": lambda: ("output-loss", dense(1), "poisson", TEN),
    "relu margin": lambda: ("output-loss", dense(1, "relu"), "hinge", 2 * TWO - 1),
    "no guard": lambda: ("output-loss", dense(1, "sigmoid"), binary_without_guard, TWO),
    "own division": lambda: (
        "output-loss",
        dense(1),
        lambda y, p: ops.mean(ops.abs(y - p) / y),
        TEN.astype("float32"),
    ),
    "wrong sign": lambda: ("output-loss", dense(3, "softmax"), wrong_sign, one_hot(THREE)),
    "wrong sign, numbers": lambda: ("output-loss", dense(1), lambda y, p: -ops.mean((y - p) ** 2), NUMBERS),
    "a correlation to lower": lambda: ("output-loss", dense(1), correlation, NUMBERS),
    "no square": lambda: ("output-loss", dense(1), lambda y, p: ops.mean(y - p), NUMBERS),
    "percentages of zero": lambda: ("output-loss", dense(1), "mape", TEN.astype("float32")),
    "a direction of one number": lambda: ("output-loss", dense(1), "cosine_similarity", NUMBERS),
    "logarithms of what is below -1": lambda: ("label-range", dense(1), "msle", 3 * NUMBERS),
    "mean first, square after": lambda: (
        "loss-reduction",
        dense(1),
        lambda y, p: ops.square(ops.mean(y) - ops.mean(p)),
        NUMBERS,
    ),
    "no gradient": lambda: (
        "output-loss",
        dense(3, "softmax"),
        lambda y, p: ops.mean(ops.cast(ops.not_equal(ops.argmax(p, -1), ops.argmax(y, -1)), "float32")),
        one_hot(THREE),
    ),
    "zero gradient": lambda: (
        "output-loss",
        dense(1, "sigmoid"),
        lambda y, p: ops.mean(ops.square(y - ops.stop_gradient(p)) + 0 * p),
        TWO,
    ),
    "no loss": lambda: ("output-loss", dense(1), None, NUMBERS),
    # Range and units.
    "sigmoid, hundreds": lambda: ("output-range", dense(1, "sigmoid"), "mse", 100 * NUMBERS + 300),
    "tanh, standardised": lambda: ("output-range", dense(1, "tanh"), "mse", NUMBERS),
    "relu, negatives": lambda: ("output-range", dense(1, "relu"), "mae", NUMBERS),
    "softplus, negatives": lambda: ("output-range", dense(1, "softplus"), losses.Huber(), NUMBERS),
    "tanh, own loss": lambda: ("output-range", dense(1, "tanh"), smooth_l1, 5 * NUMBERS),
    "too few units": lambda: ("output-units", dense(5, "softmax"), "sparse_categorical_crossentropy", TEN),
    "one unit for three": lambda: ("output-units", dense(1, "sigmoid"), "binary_crossentropy", THREE),
    "columns": lambda: ("output-units", dense(1), "mse", X),
    "too many columns": lambda: ("output-units", dense(3), "mse", NUMBERS[:, None]),
    "own mean square, columns": lambda: ("output-units", dense(1), Brief(squared), X),
    "two units for yes and no": lambda: ("output-units", dense(2, "sigmoid"), "binary_crossentropy", TWO),
    "other rows": lambda: ("output-units", dense(4, "softmax"), "categorical_crossentropy", one_hot(THREE)),
    "every step": lambda: ("output-units", dense(1, x=SEQUENCES), "mse", NUMBERS, SEQUENCES),
    "every step for a column": lambda: (
        "output-units",
        dense(1, x=SEQUENCES),
        "mse",
        NUMBERS[:, None],
        SEQUENCES,
    ),
    "no pooling": lambda: (
        "output-units",
        dense(3, "softmax", x=IMAGES),
        "sparse_categorical_crossentropy",
        THREE,
        IMAGES,
    ),
}


# Keras itself warns of a softmax over one unit.
@pytest.mark.filterwarnings("ignore:You are using a softmax", "ignore:Exception encountered")
@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_one_error(name):
    check, model, loss, y, *x = WRONG[name]()
    assert said(model, loss, y, *x) == [(check, "error")]


DOUBTFUL = {
    "softmax beside from_logits": lambda: (
        ("output-loss", "warning"),
        dense(3, "softmax"),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        THREE,
    ),
    "softmax beside from_logits, by hand": lambda: (
        ("output-loss", "warning"),
        dense(3, "softmax"),
        from_logits,
        THREE,
    ),
    "softmax behind a reshape, from_logits": lambda: (
        ("output-loss", "error"),
        dense(3, "softmax", layers.Reshape((3,))),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        THREE,
    ),
    "tanh logits": lambda: (
        ("output-loss", "warning"),
        dense(3, "tanh"),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        THREE,
    ),
    "softmax, binary, exclusive": lambda: (
        ("output-loss", "warning"),
        dense(3, "softmax"),
        "binary_crossentropy",
        one_hot(THREE),
    ),
    "relu before softmax": lambda: (
        ("output-loss", "warning"),
        dense(3, "relu", layers.Softmax()),
        "sparse_categorical_crossentropy",
        THREE,
    ),
    "sigmoid with hinge": lambda: (("output-loss", "warning"), dense(1, "sigmoid"), "hinge", TWO),
    "squared error of a softmax": lambda: (
        ("output-loss", "info"),
        dense(3, "softmax"),
        "mse",
        one_hot(THREE),
    ),
    "placeholders or not": lambda: (
        ("output-loss", "warning"),
        dense(1),
        lambda y, p: ops.mean(p**2),
        NUMBERS,
    ),
    "a score in place of a loss": lambda: (
        ("output-loss", "warning"),
        dense(1, "sigmoid", x=IMAGES),
        dice_score,
        MASKS,
        IMAGES,
    ),
    "exclusive labels, sigmoids": lambda: (
        ("label-task", "info"),
        dense(3, "sigmoid"),
        "binary_crossentropy",
        one_hot(THREE),
    ),
    "whole numbers": lambda: (("label-task", "info"), dense(1), "mse", THREE),
    "samples of no class": lambda: (
        ("label-task", "warning"),
        dense(3, "softmax"),
        "categorical_crossentropy",
        one_hot(THREE) * (X[:, :1] > -1),
    ),
    "a few out of reach": lambda: (
        ("output-range", "warning"),
        dense(1, "relu"),
        "mse",
        np.where(np.arange(N) < 3, -1, 5 + NUMBERS),
    ),
    "noise below zero": lambda: (
        ("output-range", "warning"),
        dense(1, "relu"),
        "mse",
        np.where(np.arange(N) % 2, -0.01, 5 + NUMBERS),
    ),
    "many units": lambda: (
        ("output-units", "warning"),
        dense(6, "softmax"),
        "sparse_categorical_crossentropy",
        TWO,
    ),
    "summed": lambda: (("loss-reduction", "warning"), dense(1), losses.MeanSquaredError("sum"), NUMBERS),
    "not reduced": lambda: (
        ("loss-reduction", "warning"),
        dense(1),
        losses.MeanSquaredError("none"),
        NUMBERS,
    ),
    "summed by hand": lambda: (
        ("loss-reduction", "warning"),
        dense(1),
        lambda y, p: ops.sum((y - p) ** 2),
        NUMBERS,
    ),
    "no guard on logits": lambda: (
        ("output-loss", "warning"),
        dense(1),
        lambda y, p: ops.mean(ops.log(1 + ops.exp(ops.exp(p))) - y * p),
        TWO,
    ),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_may_be_right_is_no_more_than_a_warning(name):
    expected, model, loss, y, *x = DOUBTFUL[name]()
    assert said(model, loss, y, *x) == [expected]


MISUSED = {
    "accuracy of numbers": (dense, (1,), "mse", NUMBERS, "accuracy"),
    "exact equality": (dense, (1, "sigmoid"), "binary_crossentropy", TWO, keras.metrics.Accuracy),
    "threshold on logits": (
        dense,
        (1,),
        losses.BinaryCrossentropy(from_logits=True),
        TWO,
        keras.metrics.BinaryAccuracy,
    ),
    "yes and no for classes": (
        dense,
        (3, "softmax"),
        "categorical_crossentropy",
        one_hot(THREE),
        keras.metrics.BinaryAccuracy,
    ),
    "sparse for one-hot": (
        dense,
        (3, "softmax"),
        "categorical_crossentropy",
        one_hot(THREE),
        "sparse_categorical_accuracy",
    ),
    "one-hot for sparse": (
        dense,
        (3, "softmax"),
        "sparse_categorical_crossentropy",
        THREE,
        keras.metrics.categorical_accuracy,
    ),
    "an error of classes": (dense, (3, "softmax"), "sparse_categorical_crossentropy", THREE, "mae"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_a_metric_that_measures_something_else_is_a_warning(name):
    make, arguments, loss, y, metric = MISUSED[name]
    metric = metric() if isinstance(metric, type) else metric
    assert said(make(*arguments), loss, y, metrics=[metric]) == [("metric-task", "warning")]


@pytest.mark.parametrize(
    ("arguments", "loss", "y", "metric"),
    [
        ((3, "softmax"), "sparse_categorical_crossentropy", THREE, "accuracy"),
        ((3, "softmax"), "categorical_crossentropy", one_hot(THREE), keras.metrics.AUC()),
        ((3, "softmax"), "categorical_crossentropy", one_hot(THREE), "mse"),
        ((1, "sigmoid"), "binary_crossentropy", TWO, keras.metrics.Precision()),
        ((1,), losses.BinaryCrossentropy(from_logits=True), TWO, keras.metrics.BinaryAccuracy(threshold=0)),
        ((1,), "mse", NUMBERS, keras.metrics.R2Score()),
        ((1,), "mse", TWO, "accuracy"),
        ((1, "tanh"), "hinge", 2 * TWO - 1, "accuracy"),
        ((1,), "mse", NUMBERS, lambda y, p: ops.mean(p)),
    ],
)
def test_a_metric_that_suits_raises_nothing(arguments, loss, y, metric):
    assert said(dense(*arguments), loss, y, metrics=[metric]) == []


def test_an_accuracy_or_a_task_says_that_numbers_are_classes():
    assert said(dense(1), "mse", THREE, metrics=["accuracy"]) == [("label-task", "error")]
    assert said(dense(1), "mse", THREE, task=Task.multiclass(3)) == [("label-task", "error")]


def test_metrics_are_read_from_each_output():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {"kind": layers.Dense(3, "softmax")(inputs), "size": layers.Dense(1)(inputs)})
    own = keras.metrics.BinaryAccuracy(threshold=0.2)
    model.compile(
        loss={"kind": "sparse_categorical_crossentropy", "size": "mse"},
        metrics={"kind": ["accuracy", own], "size": keras.metrics.mean_absolute_error},
        weighted_metrics={"size": ["mse"]},
    )
    with preserved(model, X[:1]):
        context = context_of(model, X, {"kind": THREE, "size": NUMBERS})
    read = [(m.output, m.name, m.config.get("threshold")) for m in metrics_of(model, context.heads)]
    assert read == [
        ("kind", "accuracy", None),
        ("kind", "binaryaccuracy", 0.2),
        ("size", "meanabsoluteerror", None),
        ("size", "mse", None),
    ]


def test_an_output_that_counts_nothing_is_named():
    x = keras.Input(X.shape[1:])
    model = keras.Model(x, {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(1, name="b")(x)})
    y = {"a": NUMBERS, "b": NUMBERS}
    for weights, expected in (({"a": 1.0, "b": 0.0}, ["output 'b'"]), ({"a": 1.0, "b": 0.1}, [])):
        model.compile("sgd", {"a": "mse", "b": "mse"}, loss_weights=weights)
        with preserved(model, X[:1]):
            context = context_of(model, X, y)
            found = [finding for check in OUTPUT for finding in check(context)]
        assert [f.where for f in found if (f.check, f.severity) == ("disconnected", "error")] == expected


def test_only_the_output_at_fault_is_named():
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, {"kind": layers.Dense(3, name="kind")(inputs), "size": layers.Dense(1, name="size")(inputs)}
    )
    loss = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    (found,) = findings(model, loss, {"kind": THREE, "size": NUMBERS})
    assert (found.check, found.where) == ("output-loss", "output 'kind'")


def test_a_model_with_its_own_training_step_needs_no_loss():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    inputs = keras.Input((4,))
    assert said(Own(inputs, layers.Dense(1)(inputs)), None, NUMBERS) == []


def test_the_sentence_names_what_is_seen_and_what_is_expected():
    (found,) = findings(dense(3, "softmax"), "sparse_categorical_crossentropy", THREE + 1)
    assert "1 to 3" in found.evidence
    assert "0 to 2" in found.evidence
    assert found.fix == "subtract 1 from the labels."
    (found,) = findings(dense(1, "tanh"), "mse", NUMBERS)
    share = np.mean(np.abs(NUMBERS) > 1)
    assert f"{share:.1%}" in found.evidence
    assert "-1 to 1" in found.evidence


def test_two_faults_are_two_findings():
    found = said(dense(3), "sparse_categorical_crossentropy", THREE + 1)
    assert sorted(found) == [("label-range", "error"), ("output-loss", "error")]
