"""What a model's structure, first weights and optimiser say before any training."""

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import optimizers

from keras_practice import data, recipes
from keras_practice.checks.inspection.context import context_of
from keras_practice.checks.rules import path as path_checks
from keras_practice.checks.rules.all import MODEL, OPTIMIZER
from keras_practice.core.layers import all_layers
from keras_practice.core.variables import preserved
from keras_practice.data import Task
from keras_practice.tuning.space.presets import builder_arguments, dataset_for

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 8)).astype("float32")
Y = (X @ RNG.normal(size=(8, 3))).argmax(axis=1)
YES = (Y == 0).astype("float32")
IMAGES = RNG.normal(size=(48, 12, 12, 1)).astype("float32")
KINDS = RNG.integers(0, 4, 48)
STEPS = RNG.normal(size=(48, 6, 2)).astype("float32")
WORDS = RNG.integers(1, 50, size=(48, 6)).astype("int32")


def look(model, x=X, y=Y, **options):
    """All findings as `{(check, severity): where}`."""
    first = keras.tree.map_structure(lambda a: a[:1], x)
    with preserved(model, first):
        context = context_of(model, x, y, **options)
        found = [f for check in (*MODEL, *OPTIMIZER) for f in check(context)]
    for finding in found:
        assert finding.evidence.endswith("."), finding
        assert finding.cause.endswith("."), finding
        assert finding.fix.endswith("."), finding
        assert finding.source.startswith("A"), finding
        assert "expected" in finding.evidence or "labels" in finding.evidence, finding
    return {(finding.check, finding.severity): finding.where for finding in found}


def serious(found):
    return {key: where for key, where in found.items() if key[1] != "info"}


def net(*layers, shape=(8,), loss="sparse_categorical_crossentropy", optimizer="adam"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(optimizer, loss)
    return model


def relu(units=16, **options):
    return L.Dense(units, activation="relu", **options)


def softmax(units=3, **options):
    return L.Dense(units, activation="softmax", **options)


def functional(inputs, outputs, loss="sparse_categorical_crossentropy"):
    model = keras.Model(inputs, outputs)
    model.compile("adam", loss)
    return model


class Plain(keras.Model):
    """Layers without activations of their own; what stands between them is given."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = L.Dense(16, name="first"), L.Dense(3, name="second")
        self.between = between

    def build(self, shape):
        self.first.build(shape)
        self.second.build((shape[0], 16))

    def call(self, x):
        return tf.nn.softmax(self.second(self.between(self.first(x))))


def subclassed(between):
    keras.utils.set_random_seed(0)
    model = Plain(between)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


IGNORES = ("ignores-input", "error")
WEIGHTS = ("initial-weights", "error")
TWO_WORDS = {"a": WORDS[:, :1], "b": WORDS[:, 1:2]}


def product_of_embeddings(initializer):
    a, b = (keras.Input((1,), dtype="int32", name=name) for name in "ab")
    left, right = (
        L.Flatten()(L.Embedding(50, 4, embeddings_initializer=initializer, name=name)(x))
        for name, x in (("left", a), ("right", b))
    )
    return functional({"a": a, "b": b}, L.Dot(1)([left, right]), "mse")


class First(L.Layer):
    def call(self, x):
        return x[:, 0]


class Features(L.Layer):
    """Features drawn at random and kept, before a bias that is learned."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 16), name="kernel", trainable=False)
        self.bias = self.add_weight(shape=(16,), name="bias", initializer="zeros")

    def call(self, x):
        return keras.ops.relu(x @ self.kernel + self.bias)


class Nothing(L.Layer):
    def call(self, x):
        return x * 0.0


def sides(dtype):
    a, b = (keras.Input((6 if dtype == "int32" else 8,), dtype=dtype, name=name) for name in "ab")
    start = L.Flatten()(L.Embedding(50, 4)(a)) if dtype == "int32" else a
    return functional({"a": a, "b": b}, softmax()(relu()(start)))


# A catalog of faults: model, data, then check, severity and a part of where.
def dense_pair():
    return net(L.Dense(16, name="one"), relu(name="two"), softmax())


def normal(deviation):
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=deviation, seed=1)}


def frozen_trunk():
    model = net(relu(64), relu(64), relu(64), softmax())
    for layer in model.layers[:3]:
        layer.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def frozen_wholly():
    model = net(relu(), softmax())
    model.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def nested_linear():
    inner = keras.Sequential([keras.Input((8,)), L.Dense(16), L.Dense(16)])
    return net(inner, softmax())


L2, L1 = keras.regularizers.L2, keras.regularizers.L1
BINARY = {"loss": "binary_crossentropy"}
FAULTS = {
    "linear": (lambda: net(L.Dense(16), L.Dense(16), softmax()), X, Y, "no-nonlinearity", "error", "output"),
    "linear-nested": (nested_linear, X, Y, "no-nonlinearity", "error", "output"),
    "linear-subclassed": (lambda: subclassed(tf.identity), X, Y, "no-nonlinearity", "error", "output"),
    "linear-conv": (
        lambda: net(L.Conv2D(4, 3), L.AveragePooling2D(2), L.Flatten(), softmax(4), shape=(12, 12, 1)),
        IMAGES,
        KINDS,
        "no-nonlinearity",
        "error",
        "output",
    ),
    "linear-pair": (dense_pair, X, Y, "no-nonlinearity", "warning", "one, two"),
    "linear-autoencoder": (
        lambda: net(L.Dense(2), L.Dense(8), loss="mse"),
        X,
        X,
        "no-nonlinearity",
        "warning",
        "output",
    ),
    "relu-then-softmax": (
        lambda: net(relu(), L.Dense(3, activation="relu", name="last"), L.Softmax()),
        X,
        Y,
        "double-activation",
        "error",
        "last",
    ),
    "two-softmax": (
        lambda: net(relu(), softmax(), L.Softmax()),
        X,
        Y,
        "double-activation",
        "error",
        "softmax",
    ),
    "tanh-then-sigmoid": (
        lambda: net(relu(), L.Dense(1, activation="tanh"), L.Activation("sigmoid"), **BINARY),
        X,
        YES,
        "double-activation",
        "error",
        "activation",
    ),
    "relu-twice": (lambda: net(relu(), L.ReLU(), softmax()), X, Y, "double-activation", "info", "re_lu"),
    "norm-after-softmax": (
        lambda: net(relu(), softmax(), L.BatchNormalization(name="norm")),
        X,
        Y,
        "double-activation",
        "error",
        "norm",
    ),
    "hidden-softmax": (
        lambda: net(softmax(16, name="hidden"), softmax()),
        X,
        Y,
        "saturating-activation",
        "error",
        "hidden",
    ),
    "sigmoids": (
        lambda: net(*[L.Dense(16, activation="sigmoid") for _ in range(7)], softmax()),
        X,
        Y,
        "saturating-activation",
        "error",
        "dense",
    ),
    "tanh-at-its-limits": (
        lambda: net(L.Dense(16, activation="tanh", name="hidden"), softmax()),
        X * 100,
        Y,
        "saturating-activation",
        "warning",
        "hidden",
    ),
    "zeros": (
        lambda: net(relu(name="hidden", kernel_initializer="zeros"), softmax()),
        X,
        Y,
        "initial-weights",
        "error",
        "hidden",
    ),
    "constant": (
        lambda: net(
            relu(name="hidden", kernel_initializer=keras.initializers.Constant(0.1)),
            softmax(kernel_initializer="ones"),
        ),
        X,
        Y,
        "initial-weights",
        "error",
        "hidden",
    ),
    "constant-before-random": (
        lambda: net(L.Dense(16, activation="tanh", name="hidden", kernel_initializer="ones"), softmax()),
        X,
        Y,
        "initial-weights",
        "warning",
        "hidden",
    ),
    "weights-too-large": (
        lambda: net(relu(name="hidden", **normal(10)), relu(), softmax()),
        X,
        Y,
        "initial-weights",
        "error",
        "hidden",
    ),
    "weights-too-small": (
        lambda: net(relu(name="hidden", **normal(1e-4)), relu(), softmax()),
        X,
        Y,
        "initial-weights",
        "error",
        "hidden",
    ),
    "bias-too-large": (
        lambda: net(relu(name="hidden", bias_initializer=keras.initializers.Constant(100.0)), softmax()),
        X,
        Y,
        "initial-weights",
        "error",
        "hidden",
    ),
    "all-frozen": (frozen_wholly, X, Y, "frozen", "error", "model"),
    "frozen-trunk": (frozen_trunk, X, Y, "frozen", "error", "dense"),
    "round": (lambda: subclassed(tf.round), X, Y, "disconnected", "error", "first"),
    "stopped": (
        lambda: subclassed(lambda h: tf.stop_gradient(tf.nn.relu(h))),
        X,
        Y,
        "disconnected",
        "error",
        "first",
    ),
    "dropout-high": (
        lambda: net(relu(32), L.Dropout(0.9, name="drop"), softmax()),
        X,
        Y,
        "dropout-rate",
        "error",
        "drop",
    ),
    "dropout-strong": (
        lambda: net(relu(32), L.Dropout(0.7, name="drop"), softmax()),
        X,
        Y,
        "dropout-rate",
        "warning",
        "drop",
    ),
    "dropout-twice": (
        lambda: net(relu(32), L.Dropout(0.6), L.Dropout(0.6, name="again"), softmax()),
        X,
        Y,
        "dropout-rate",
        "error",
        "again",
    ),
    "dropout-of-few": (
        lambda: net(relu(), relu(1), L.Dropout(0.5, name="drop"), L.Dense(1, activation="sigmoid"), **BINARY),
        X,
        YES,
        "dropout-rate",
        "error",
        "drop",
    ),
    "dropout-after-output": (
        lambda: net(relu(), softmax(), L.Dropout(0.2, name="drop")),
        X,
        Y,
        "dropout-rate",
        "error",
        "drop",
    ),
    "dropout-in-lstm": (
        lambda: net(L.Bidirectional(L.LSTM(4, recurrent_dropout=0.9), name="rnn"), softmax(), shape=(6, 2)),
        STEPS,
        Y[:48],
        "dropout-rate",
        "error",
        "rnn",
    ),
    "norm-of-output": (
        lambda: net(relu(), L.Dense(1), L.BatchNormalization(name="norm"), loss="mse"),
        X,
        YES,
        "batch-norm-batch",
        "warning",
        "norm",
    ),
    "l2": (
        lambda: net(relu(name="hidden", kernel_regularizer=L2(1.0)), softmax()),
        X,
        Y,
        "over-regularized",
        "error",
        "hidden",
    ),
    "l1": (
        lambda: net(relu(name="hidden", kernel_regularizer=L1(0.5)), softmax()),
        X,
        Y,
        "over-regularized",
        "error",
        "hidden",
    ),
    "max-norm": (
        lambda: net(relu(name="hidden", kernel_constraint=keras.constraints.MaxNorm(0.01)), softmax()),
        X,
        Y,
        "over-regularized",
        "error",
        "hidden",
    ),
    "adamw-decay": (
        lambda: net(relu(), softmax(), optimizer=keras.optimizers.AdamW(1e-3, weight_decay=20.0)),
        X,
        Y,
        "over-regularized",
        "error",
        "optimizer",
    ),
    "one-unit": (lambda: net(relu(), relu(1, name="neck"), softmax()), X, Y, "capacity", "error", "neck"),
    "dear-activities": (
        lambda: net(relu(512, name="hidden", activity_regularizer=keras.regularizers.L1(0.05)), softmax()),
        X,
        Y,
        "over-regularized",
        "warning",
        "hidden",
    ),
    "faded": (
        lambda: net(*[L.Dense(16, "tanh", name=f"d{i}", **normal(0.05)) for i in range(12)], softmax()),
        X,
        Y,
        "initial-weights",
        "error",
        "d",
    ),
    "fading-state": (
        lambda: net(L.SimpleRNN(8, name="rnn", recurrent_initializer="zeros"), softmax(), shape=(40, 2)),
        RNG.normal(size=(48, 40, 2)).astype("float32"),
        Y[:48],
        "initial-weights",
        "warning",
        "rnn",
    ),
    "growing-state": (
        lambda: net(
            L.SimpleRNN(8, "relu", recurrent_initializer=keras.initializers.Identity(1.6), name="rnn"),
            softmax(),
            shape=(40, 2),
        ),
        RNG.normal(size=(48, 40, 2)).astype("float32"),
        Y[:48],
        "initial-weights",
        "error",
        "rnn",
    ),
    "kept-kernel": (lambda: net(Features(name="mine"), softmax()), X, Y, "frozen", "warning", "mine"),
    "signs": (
        lambda: net(L.Dense(64, name="lost"), L.Activation(keras.ops.sign), softmax()),
        X,
        Y,
        "disconnected",
        "error",
        "lost",
    ),
    "words-of-zero": (lambda: product_of_embeddings("zeros"), TWO_WORDS, YES[:48], *WEIGHTS, "right"),
    "first-step": (lambda: net(First(), relu(), softmax(4), shape=(6, 2)), STEPS, KINDS, *IGNORES, "x"),
    "one-side": (lambda: sides("float32"), {"a": X, "b": X[::-1]}, Y, *IGNORES, "b"),
    "one-side-of-words": (lambda: sides("int32"), {"a": WORDS, "b": WORDS[::-1]}, Y[:48], *IGNORES, "b"),
    "nothing-left": (lambda: net(Nothing(name="gone"), relu(), softmax()), X, Y, *IGNORES, "gone"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_placed(fault):
    build, x, y, check, severity, where = FAULTS[fault]
    found = look(build(), x, y)
    assert where in found.get((check, severity), ""), found
    assert [key for key in found if key[1] == "error" and key[0] != check] == []


def residual_zeros():
    x = inputs = keras.Input((8,))
    x = relu()(x)
    for _ in range(2):
        x = L.Add()([x, L.Dense(16, kernel_initializer="zeros")(relu()(x))])
    return functional(inputs, softmax(kernel_initializer="zeros")(x))


def squeeze_excite():
    inputs = keras.Input((12, 12, 1))
    x = L.Conv2D(8, 3, activation="relu")(inputs)
    gate = L.Dense(8, activation="sigmoid")(relu(1)(L.GlobalAveragePooling2D()(x)))
    x = L.Conv2D(8, 3, activation="relu")(L.Multiply()([x, L.Reshape((1, 1, 8))(gate)]))
    return functional(inputs, softmax(4)(L.GlobalMaxPooling2D()(x)))


def transformer():
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(50, 8)(inputs)
    x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)]))
    x = L.LayerNormalization()(L.Add()([x, L.Dense(8)(L.Dense(16, activation="gelu")(x))]))
    return functional(inputs, softmax()(L.GlobalAveragePooling1D()(x)))


def bag_of_words():
    inputs = keras.Input((6,), dtype="int32")
    return functional(inputs, softmax()(L.GlobalAveragePooling1D()(L.Embedding(50, 8)(inputs))))


def mixture_of_experts():
    inputs = keras.Input((8,))
    gate = L.Dense(4, activation="softmax")(inputs)
    experts = L.Reshape((4, 6))(relu(24)(inputs))
    mixed = keras.ops.sum(experts * keras.ops.expand_dims(gate, -1), axis=1)
    return functional(inputs, softmax()(mixed))


def by_operations():
    inputs = keras.Input((8,))
    return functional(inputs, keras.ops.softmax(L.Dense(3)(keras.ops.relu(L.Dense(16)(inputs)))))


def scaled_sigmoid():
    inputs = keras.Input((8,))
    return functional(inputs, 5 * keras.ops.sigmoid(L.Dense(1)(relu()(inputs))), "mse")


def trained():
    model = net(relu(), softmax())
    model.fit(X, Y, epochs=1, verbose=0)
    return model


def pretrained_trunk():
    trunk = keras.Sequential([keras.Input((8,)), relu(), relu()])
    # As after loading: no array is what an initializer gives, no bias is zero.
    trunk.set_weights([w + 0.1 * RNG.normal(size=w.shape) for w in trunk.get_weights()])
    trunk.trainable = False
    return net(trunk, softmax())


def deep_sigmoids_with_norm():
    blocks = [
        layer for _ in range(5) for layer in (L.Dense(16), L.BatchNormalization(), L.Activation("sigmoid"))
    ]
    return net(*blocks, softmax())


def stack(*activations):
    return net(*[L.Dense(16, activation=name) for name in activations], softmax())


HEALTHY = {
    "logistic-regression": (lambda: net(softmax(kernel_initializer="zeros")), X, Y),
    "linear-regression": (lambda: net(L.Dense(1), loss="mse", optimizer="sgd"), X, YES),
    "two-sigmoids": (lambda: stack("sigmoid", "sigmoid"), X, Y),
    "many-activations": (lambda: stack("mish", "silu", "gelu", "hard_sigmoid", "softplus"), X, Y),
    "five-tanh": (lambda: stack(*["tanh"] * 5), X, Y),
    "five-normalised-sigmoids": (deep_sigmoids_with_norm, X, Y),
    "by-operations": (by_operations, X, Y),
    "subclassed": (lambda: subclassed(tf.nn.relu), X, Y),
    "low-rank": (lambda: net(L.Dense(3), relu(64), softmax()), X, Y),
    "residual-zeros": (residual_zeros, X, Y),
    "squeeze-excite": (squeeze_excite, IMAGES, KINDS),
    "transformer": (transformer, WORDS, Y[:48]),
    "bag-of-words": (bag_of_words, WORDS, Y[:48]),
    "mixture-of-experts": (mixture_of_experts, X, Y),
    "scaled-sigmoid": (scaled_sigmoid, X, 4 * YES + 1),
    "output-bias": (
        lambda: net(relu(), L.Dense(1, bias_initializer=keras.initializers.Constant(22.0)), loss="mse"),
        X,
        YES + 22,
    ),
    "trained": (trained, X, Y),
    "pretrained-trunk": (pretrained_trunk, X, Y),
    "code-of-one": (lambda: net(relu(4), L.Dense(1), relu(4), L.Dense(8), loss="mse"), X, X),
    "xor": (
        lambda: net(relu(2), L.Dense(1, activation="sigmoid"), shape=(2,), **BINARY),
        np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32"),
        np.array([0, 1, 1, 0], "float32"),
    ),
    "wrappers": (
        lambda: net(
            L.TimeDistributed(relu(4)),
            L.Bidirectional(L.GRU(4)),
            softmax(),
            shape=(6, 2),
            optimizer=keras.optimizers.Adam(clipnorm=1.0),
        ),
        STEPS,
        Y[:48],
    ),
    "spectral": (lambda: net(L.SpectralNormalization(relu()), softmax()), X, Y),
    "separable": (
        lambda: net(
            L.SeparableConv2D(4, 3, activation="relu"),
            L.Conv2DTranspose(4, 2, strides=2),
            L.MaxPooling2D(),
            L.GlobalAveragePooling2D(),
            softmax(4),
            shape=(12, 12, 1),
        ),
        IMAGES,
        KINDS,
    ),
    "l2-of-the-tutorials": (
        lambda: net(relu(64, kernel_regularizer=L2(0.01)), relu(64, kernel_regularizer=L2(0.01)), softmax()),
        X,
        Y,
    ),
    "strong-weights-under-norm": (
        lambda: net(L.Dense(16, **normal(10)), L.BatchNormalization(), L.ReLU(), softmax()),
        X,
        Y,
    ),
    "self-normalising": (
        lambda: net(
            L.Dense(16, activation="selu", kernel_initializer="lecun_normal"),
            L.AlphaDropout(0.1),
            softmax(),
        ),
        X,
        Y,
    ),
}


HEALTHY |= {
    "cropped": (
        lambda: net(L.Cropping2D(4), L.Flatten(), relu(), softmax(4), shape=(12, 12, 1)),
        IMAGES,
        KINDS,
    ),
    "two-words": (lambda: product_of_embeddings("uniform"), TWO_WORDS, YES[:48]),
    "largest-word": (
        lambda: net(L.Embedding(50, 8), L.GlobalMaxPooling1D(), relu(), softmax(), shape=(6,)),
        WORDS,
        Y[:48],
    ),
    "long-sequences": (
        lambda: net(L.LSTM(4), softmax(), shape=(400, 1), optimizer=optimizers.Adam(clipnorm=1.0)),
        RNG.normal(size=(48, 400, 1)).astype("float32"),
        Y[:48],
    ),
    "schedule-in-steps": (
        lambda: net(
            relu(), softmax(), optimizer=optimizers.Adam(optimizers.schedules.CosineDecay(1e-3, 200))
        ),
        X,
        Y,
    ),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_a_sound_model_is_left_in_peace(case):
    build, x, y = HEALTHY[case]
    assert serious(look(build(), x, y)) == {}


SUITABLE = {"conv1d": "waves", "rnn": "waves", "convnet": "digits", "resnet": "digits", "lenet5": None}
LARGE = {"alexnet", "googlenet", "resnet", "rnn"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in recipes.names()]
)
def test_recipes_are_left_in_peace(name):
    keras.utils.set_random_seed(0)
    if name == "autoencoder":
        model, task, y = (
            recipes.autoencoder((8,), Task.regression(8), units=(6,), code=3),
            Task.regression(8),
            X,
        )
        x = X
    elif name in ("lenet5", "alexnet", "googlenet"):  # No bundled images are large enough.
        x, y, task = RNG.normal(size=(8, 32, 32, 1)).astype("float32"), np.arange(8) % 3, Task.multiclass(3)
        model = recipes.get(name)((32, 32, 1), task, **({"variant": "small"} if name == "alexnet" else {}))
    else:
        dataset = dataset_for(name, data.load(SUITABLE.get(name, "iris")))
        x, y, task = dataset.train.x[:200], dataset.train.y[:200], dataset.task
        model = recipes.get(name)(dataset.input_shape, task, **arguments_of(name))
    recipes.compile_for(model, task)
    assert serious(look(model, x, y)) == {}


def arguments_of(name):
    return builder_arguments(name, keras_tuner.HyperParameters())


def test_several_inputs_and_outputs_are_followed():
    a, b = keras.Input((8,), name="a"), keras.Input((1,), dtype="int32", name="b")
    joined = L.Concatenate()([a, L.Flatten()(L.Embedding(10, 4)(b))])
    deep = L.Dense(1, name="deep")(relu()(joined))
    flat = L.Dense(1, name="flat")(L.Dense(8)(joined))
    model = functional({"a": a, "b": b}, {"deep": deep, "flat": flat}, {"deep": "mse", "flat": "mse"})
    x = {"a": X, "b": RNG.integers(0, 10, (160, 1))}
    assert serious(look(model, x, {"deep": YES, "flat": YES})) == {("no-nonlinearity", "error"): "flat"}


def test_an_array_that_is_not_used_is_named():
    class Idle(L.Layer):
        def build(self, shape):
            self.used = self.add_weight(shape=(shape[-1], 4), name="used")
            self.idle = self.add_weight(shape=(2, 2), name="idle")
            self.number = self.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros")

        def call(self, x):
            return keras.ops.relu(x @ self.used)

    assert serious(look(net(Idle(name="custom"), softmax()))) == {("disconnected", "warning"): "custom"}


def test_where_the_gradient_stops_is_said():
    model = subclassed(tf.round)
    with preserved(model, X[:1]):
        (finding,) = path_checks.disconnected(context_of(model, X, Y))
    assert "rint in model" in finding.cause or "round in model" in finding.cause


def test_a_loss_that_fails_is_left_to_others():
    def broken(y_true, y_pred):
        raise ValueError("no")

    model = net(relu(), softmax(), loss=broken)
    with preserved(model, X[:1]):
        assert list(path_checks.disconnected(context_of(model, X, Y))) == []


@pytest.mark.parametrize(("batch_size", "severity"), [(1, "error"), (4, "warning"), (32, None)])
def test_batch_norm_needs_a_batch(batch_size, severity):
    model = net(L.Dense(16), L.BatchNormalization(name="norm"), L.ReLU(), softmax())
    expected = {("batch-norm-batch", severity): "norm"} if severity else {}
    assert serious(look(model, batch_size=batch_size)) == expected


def test_the_batches_of_a_data_set_are_what_batch_norm_gets():
    model = net(L.Dense(16), L.BatchNormalization(name="norm"), L.ReLU(), softmax())
    single = tf.data.Dataset.from_tensor_slices((X, Y)).batch(1)
    with preserved(model, X[:1]):
        context = context_of(model, single, None, batch_size=32)
    assert context.batch_size == 1
    assert [f.severity for check in MODEL for f in check(context) if f.check == "batch-norm-batch"] == [
        "error"
    ]


def test_batch_norm_of_images_counts_their_pixels():
    model = net(L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), softmax(4), shape=(12, 12, 1))
    assert serious(look(model, IMAGES, KINDS, batch_size=1)) == {}


def test_frozen_batch_norm_is_of_no_concern():
    norm = L.BatchNormalization()
    norm.trainable = False
    assert serious(look(net(L.Dense(16), norm, L.ReLU(), softmax()), batch_size=1)) == {}


def test_a_model_is_given_back_as_it_was():
    model = net(relu(), L.BatchNormalization(), L.Dropout(0.3), softmax())
    before = [np.array(v.numpy()) for v in model.variables]
    look(model)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


OPTIMIZERS = {
    "adam-1": (lambda: optimizers.Adam(1.0), "learning-rate-high", "error"),
    "adam-0.05": (lambda: optimizers.Adam(0.05), "learning-rate-high", "warning"),
    "sgd-50": (lambda: optimizers.SGD(50.0), "learning-rate-high", "error"),
    "sgd-2": (lambda: optimizers.SGD(2.0), "learning-rate-high", "warning"),
    "adam-1e-9": (lambda: optimizers.Adam(1e-9), "learning-rate-low", "error"),
    "sgd-1e-9": (lambda: optimizers.SGD(1e-9), "learning-rate-low", "error"),
    "zero": (lambda: optimizers.SGD(0.0), "learning-rate-low", "error"),
    "negative": (lambda: optimizers.SGD(-0.01), "learning-rate-low", "error"),
    "schedule-of-zeros": (
        lambda: optimizers.Adam(optimizers.schedules.PiecewiseConstantDecay([10], [0.0, 0.0])),
        "learning-rate-low",
        "error",
    ),
    "schedule-up": (
        lambda: optimizers.Adam(optimizers.schedules.PiecewiseConstantDecay([100], [1e-3, 1.0])),
        "learning-rate-high",
        "error",
    ),
    "adadelta": (lambda: optimizers.Adadelta(), "learning-rate-low", "error"),
    "momentum": (lambda: optimizers.SGD(0.01, momentum=0.999), "optimizer-config", "warning"),
    "momentum-too-long": (lambda: optimizers.SGD(0.01, momentum=0.9999), "optimizer-config", "error"),
    "beta_1": (lambda: optimizers.Adam(beta_1=1.0), "optimizer-config", "error"),
    "beta_1-too-long": (lambda: optimizers.Adam(beta_1=0.99999), "optimizer-config", "error"),
    "schedule-in-epochs": (
        lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(1e-3, 1, 0.5)),
        "learning-rate-low",
        "error",
    ),
    "beta_2": (lambda: optimizers.Adam(beta_2=0.1), "optimizer-config", "warning"),
    "epsilon": (lambda: optimizers.Adam(epsilon=1.0), "optimizer-config", "warning"),
    "clip-sgd": (lambda: optimizers.SGD(clipnorm=1e-6), "optimizer-config", "error"),
    "clip-adam": (lambda: optimizers.Adam(clipvalue=1e-6), "optimizer-config", "warning"),
    "average": (
        lambda: optimizers.Adam(use_ema=True, ema_momentum=0.9999, ema_overwrite_frequency=1),
        "optimizer-config",
        "error",
    ),
    "accumulation": (
        lambda: optimizers.Adam(gradient_accumulation_steps=1_000),
        "optimizer-config",
        "warning",
    ),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_setting_of_the_optimizer_is_found(case):
    make, check, severity = OPTIMIZERS[case]
    assert serious(look(net(relu(32), softmax(), optimizer=make()))) == {(check, severity): "optimizer"}


USUAL = {
    "sgd-0.1": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(),
    "adagrad": lambda: optimizers.Adagrad(0.01),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "adam-1e-4": lambda: optimizers.Adam(1e-4),
    "warmup": lambda: optimizers.AdamW(
        optimizers.schedules.CosineDecay(0.0, 1_000, warmup_target=1e-3, warmup_steps=100), weight_decay=0.05
    ),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(1e-3)),
    "average": lambda: optimizers.Adam(use_ema=True, ema_momentum=0.99, ema_overwrite_frequency=100),
}


@pytest.mark.parametrize("case", USUAL)
def test_usual_optimizers_are_left_in_peace(case):
    assert serious(look(net(relu(32), softmax(), optimizer=USUAL[case]()))) == {}


@pytest.mark.parametrize(
    ("layer", "optimizer", "severity"),
    [
        (lambda: L.SimpleRNN(4), lambda: optimizers.Adam(), "warning"),
        (lambda: L.LSTM(4), lambda: optimizers.Adam(), "info"),
        (lambda: L.Bidirectional(L.GRU(4)), lambda: optimizers.Adam(), "info"),
        (lambda: L.LSTM(4), lambda: optimizers.SGD(), "warning"),
        (lambda: L.LSTM(4), lambda: optimizers.Adam(clipvalue=0.5), None),
        (
            lambda: L.LSTM(4),
            lambda: optimizers.LossScaleOptimizer(optimizers.Adam(global_clipnorm=1.0)),
            None,
        ),
    ],
)
def test_recurrent_nets_are_clipped(layer, optimizer, severity):
    found = look(net(layer(), softmax(), shape=(6, 2), optimizer=optimizer()), STEPS, Y[:48])
    assert [key[1] for key in found if key[0] == "no-clipping"] == ([severity] if severity else [])


def test_all_layers_looks_into_wrappers_and_custom_layers():
    class Block(L.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.parts = [L.Dense(2, name="inside")]

        def build(self, shape):
            self.parts[0].build(shape)

        def call(self, x):
            return self.parts[0](x)

    model = net(
        L.Bidirectional(L.LSTM(4, return_sequences=True, name="lstm")),
        L.TimeDistributed(Block()),
        shape=(6, 2),
    )
    layers = all_layers(model)
    names = {layer.name for layer in layers}
    assert {"inside", "forward_lstm", "backward_lstm"} <= names
    assert len(layers) == len({id(layer) for layer in layers})
