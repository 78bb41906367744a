import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.checks.inspection.context import context_of
from keras_practice.checks.rules import all as rules
from keras_practice.checks.rules.all import DATA

layers = keras.layers
SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(1_000, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64")
Y3 = np.digitize(X[:, 0], [-0.5, 0.5])
IMAGES = RNG.integers(0, 256, size=(400, 12, 12, 1)).astype("uint8")
IMAGE_LABELS = RNG.integers(0, 4, size=400)
for row, label in enumerate(IMAGE_LABELS):
    IMAGES[row, 3 * label : 3 * label + 3] = 255


def net(shape, *stack, loss="binary_crossentropy", optimizer="adam"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *stack])
    model.compile(optimizer, loss)
    return model


def mlp(width=6, *, outputs=1, end="sigmoid", first=(), **options):
    hidden = [layers.Dense(32, "relu"), layers.Dense(16, "relu")]
    return net((width,), *first, *hidden, layers.Dense(outputs, end), **options)


def regressor(width=6, **options):
    return mlp(width, end=None, loss="mse", **options)


def found(model, x, y, check=None, **options):
    """What the checks say, by name and severity, without remarks."""
    context = context_of(model, x, y, **options)
    checks = DATA if check is None else [check]
    return [f for c in checks for f in c(context) if f.severity != "info"]


def verdicts(*args, **options):
    return [(f.check, f.severity) for f in found(*args, **options)]


def plain_model(dataset):
    kind = dataset.task.kind
    loss = {"binary": "binary_crossentropy", "regression": "mse"}.get(kind, SPARSE)
    end = {"binary": "sigmoid", "regression": None}.get(kind, "softmax")
    shape = dataset.input_shape
    stack = [layers.Flatten()] if len(shape) == 3 else []
    if len(shape) == 2:
        stack = [layers.Conv1D(8, 3, activation="relu"), layers.GlobalAveragePooling1D()]
    return net(shape, *stack, layers.Dense(32, "relu"), layers.Dense(dataset.task.outputs, end), loss=loss)


# ---- healthy data


@pytest.mark.parametrize("name", [n for n in data.names() if n not in ("mnist", "fashion_mnist", "cifar10")])
def test_bundled_data_are_healthy(name):
    dataset = data.load(name)
    assert (
        verdicts(
            plain_model(dataset), dataset.train.x, dataset.train.y, validation_data=dataset.val.batches()
        )
        == []
    )


def test_a_recipe_on_batches_is_healthy():
    dataset = data.load("digits")
    model = recipes.compile_for(recipes.mlp(dataset.input_shape, dataset.task), dataset.task)
    assert verdicts(model, dataset.train.batches(64), None, validation_data=dataset.val.batches(64)) == []


XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32")


@pytest.mark.parametrize("times", [1, 250])
def test_xor_is_healthy_though_validation_repeats_it(times):
    x = np.tile(XOR, (times, 1))
    y = (x[:, 0] != x[:, 1]).astype("int64")
    assert verdicts(mlp(2), x, y, validation_data=(x, y)) == []


def test_parity_is_never_called_noise_for_sure():
    bits = RNG.integers(0, 2, size=(2_000, 16)).astype("float32")
    assert ("uninformative-input", "error") not in verdicts(mlp(16), bits, bits[:, :8].sum(axis=1) % 2)
    table = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype("float32")
    assert verdicts(mlp(8), table, table.sum(axis=1) % 2) == []


def test_what_only_an_interaction_tells_is_found():
    x = RNG.normal(size=(2_000, 10))
    y = (x[:, 0] * x[:, 1] > 0).astype("int64")
    assert verdicts(mlp(10), x, y) == []


def test_a_shape_that_moves_is_not_called_noise_for_sure():
    x = RNG.normal(scale=0.3, size=(800, 64, 1))
    y = RNG.integers(0, 2, 800)
    shapes = np.array([[1, -1] * 4, [1, 1, -1, -1] * 2])
    for i, start in enumerate(RNG.integers(0, 56, 800)):
        x[i, start : start + 8, 0] += shapes[y[i]]
    model = net(
        (64, 1),
        layers.Conv1D(8, 8, activation="relu"),
        layers.GlobalMaxPooling1D(),
        layers.Dense(1, "sigmoid"),
    )
    assert not [v for v in verdicts(model, x, y) if v[1] == "error"]


def test_heavy_tails_are_healthy():
    x = RNG.lognormal(sigma=2, size=(2_000, 10))
    y = (x[:, 0] > np.median(x[:, 0])).astype("int64")
    assert verdicts(mlp(10), (x - x.mean(axis=0)) / x.std(axis=0), y) == []


def test_columns_of_deviation_a_tenth_and_ten_are_healthy():
    assert verdicts(mlp(), X * np.array([0.1, 10, 1, 1, 1, 1]), (X[:, 1] > 0).astype("int64")) == []


def test_ids_of_an_embedding_have_no_scale():
    ids = RNG.integers(10, 5_000, size=(600, 40))
    y = RNG.integers(0, 2, 600)
    ids[np.arange(600), RNG.integers(0, 40, 600)] = 5 + y
    ids[:, 0] = 1  # A mark of the start.
    model = net(
        (40,), layers.Embedding(5_000, 8), layers.GlobalAveragePooling1D(), layers.Dense(1, "sigmoid")
    )
    assert verdicts(model, ids, y) == []


class IdsAndNumbers(keras.Model):
    """Looks up the first column and reads the others as numbers."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.table = layers.Embedding(1_000, 4)
        self.hidden = layers.Dense(16, "relu")
        self.out = layers.Dense(1, "sigmoid")

    def call(self, x):
        ids = self.table(keras.ops.cast(x[:, 0], "int32"))
        return self.out(keras.ops.concatenate([ids, self.hidden(x[:, 1:] / self.scale)], axis=1))


def test_a_subclassed_model_is_judged_by_what_its_layers_read():
    x = np.concatenate([RNG.integers(0, 1_000, size=(1_000, 1)), X], axis=1).astype("float32")
    model = IdsAndNumbers(1.0)
    model.compile("adam", "binary_crossentropy")
    assert verdicts(model, x, Y) == []
    x[:, 1:] *= 300
    assert verdicts(model, x, Y, check=rules.input_scale) == [("input-scale", "error")]
    model = IdsAndNumbers(300.0)
    model.compile("adam", "binary_crossentropy")
    assert verdicts(model, x, Y) == []


def test_texts_are_left_alone():
    words = layers.TextVectorization(max_tokens=50, output_sequence_length=4)
    texts = np.array([["red apple"], ["green pear"]] * 60)
    words.adapt(texts)
    model = keras.Sequential([words, layers.Embedding(50, 4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    x, y = tf.constant(texts), np.array([0, 1] * 60)
    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(30)
    assert verdicts(model, rows, None) == []


def test_an_autoencoder_does_not_leak():
    x = X @ RNG.normal(size=(6, 6)).astype("float32")
    assert verdicts(mlp(outputs=6, end=None, loss="mse"), x, x) == []


# ---- NaN and infinity


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["training x", "training y", "validation x", "validation y"])
def test_one_bad_number_is_found_wherever_it_is(value, where):
    x, y, val_x, val_y = X[:600].copy(), X[:600, :1] * 2, X[600:].copy(), X[600:, :1] * 2
    bad = {"training x": x, "training y": y, "validation x": val_x, "validation y": val_y}[where]
    bad[123, 0] = value
    errors = [f for f in found(regressor(), x, y, validation_data=(val_x, val_y)) if f.severity == "error"]
    assert [f.check for f in errors] == ["non-finite-data"]
    assert errors[0].where.startswith(where)
    assert "the first in row 123" in errors[0].evidence


def test_a_sum_that_overflows_is_no_infinity():
    x = np.full((100, 2), 3e38, "float32")
    assert verdicts(mlp(2), x, Y[:100], check=rules.non_finite_data) == []


def test_a_model_that_fills_in_nan_itself_is_left_alone():
    x = X.copy()
    x[5, 2] = np.nan
    inputs = keras.Input((6,))
    filled = keras.ops.where(keras.ops.isnan(inputs), 0.0, inputs)
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(filled))
    model.compile("adam", "binary_crossentropy")
    assert verdicts(model, x, Y, check=rules.non_finite_data) == []
    assert verdicts(mlp(), x, Y, check=rules.non_finite_data) == [("non-finite-data", "error")]


# ---- scale of inputs


def images(*first, optimizer="adam"):
    stack = [layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(4, "softmax")]
    return net((12, 12, 1), *first, *stack, loss=SPARSE, optimizer=optimizer)


def test_raw_pixels_are_an_error_and_scaled_ones_are_not():
    check = rules.input_scale
    assert verdicts(images(), IMAGES, IMAGE_LABELS, check=check) == [("input-scale", "error")]
    assert verdicts(images(), IMAGES / 255, IMAGE_LABELS, check=check) == []
    assert verdicts(images(layers.Rescaling(1 / 255)), IMAGES, IMAGE_LABELS, check=check) == []
    assert verdicts(images(layers.BatchNormalization()), IMAGES, IMAGE_LABELS, check=check) == []


def test_a_normalization_layer_helps_if_it_was_adapted():
    x = X * 300 + 1_000
    normalization = layers.Normalization()
    assert verdicts(mlp(first=[normalization]), x, Y) == [("input-scale", "error")]
    adapted = layers.Normalization()
    adapted.adapt(x)
    assert verdicts(mlp(first=[adapted]), x, Y) == []


def test_a_frozen_layer_takes_what_it_was_trained_for():
    base = layers.Dense(8, "relu", trainable=False)
    model = net((6,), base, layers.Dense(8, "relu"), layers.Dense(1, "sigmoid"))
    assert verdicts(model, X * 100, Y, check=rules.input_scale) == []


@pytest.mark.parametrize(
    ("x", "severity", "words"),
    [
        (X * 1e-4, "error", "samples differ by"),
        (X * 0.02, "warning", "samples differ by"),
        (X + 2_000, "error", "a typical value is 2e+03"),
        (X * 0.1 + 5, "warning", "deviations away from 0"),
        (X * [1e-3, 3, 1, 1, 1, 1], "warning", "column 0 never moves by more"),
        (np.where(X > 2.5, -999, X), "warning", "rows have values up to 999"),
    ],
)
def test_other_scales_that_hurt(x, severity, words):
    findings = found(mlp(), x, Y, check=rules.input_scale)
    assert [f.severity for f in findings] == [severity]
    assert words in findings[0].evidence


@pytest.mark.parametrize(("factor", "shift", "severity"), [(100, 50, "error"), (1, 4, "warning")])
def test_validation_on_another_scale(factor, shift, severity):
    options = {"validation_data": (X[600:] * factor + shift, Y[600:]), "check": rules.input_scale}
    findings = found(mlp(), X[:600], Y[:600], **options)
    assert [(f.where, f.severity) for f in findings] == [("validation x", severity)]


def test_validation_pixels_from_0_to_255():
    x = IMAGES / np.float32(255)
    options = {"validation_data": (IMAGES[300:], IMAGE_LABELS[300:]), "check": rules.input_scale}
    findings = found(images(), x[:300], IMAGE_LABELS[:300], **options)
    assert [(f.where, f.severity) for f in findings] == [("validation x", "error")]


# ---- scale of targets


def test_targets_in_their_own_unit():
    check = rules.target_scale
    assert verdicts(regressor(), X, X[:, 0] * 3 + 5, check=check) == []
    assert verdicts(regressor(), X, X[:, 0] * 200 + 400, check=check) == [("target-scale", "warning")]
    assert verdicts(regressor(), X, X[:, 0] * 1e5 + 3e5, check=check) == [("target-scale", "error")]
    normal = regressor(optimizer=keras.optimizers.SGD(0.01))
    assert verdicts(normal, X, X[:, 0] * 80 + 150, check=check) == [("target-scale", "error")]


def test_a_bold_rate_reaches_far_targets():
    celsius = np.array([-40, -10, 0, 8, 15, 22, 38.0])
    model = net((1,), layers.Dense(1), loss="mse", optimizer=keras.optimizers.Adam(0.1))
    assert verdicts(model, celsius, celsius * 1.8 + 32) == []


def test_a_model_that_scales_its_output_back_is_left_alone():
    model = net(
        (6,), layers.Dense(16, "relu"), layers.Dense(1), layers.Rescaling(1e5, offset=3e5), loss="mse"
    )
    assert verdicts(model, X, X[:, 0] * 1e5 + 3e5, check=rules.target_scale) == []


def test_targets_in_different_units():
    y = np.stack([X[:, 0], X[:, 1] * 0.01], axis=1)
    model = mlp(outputs=2, end=None, loss="mse")
    assert verdicts(model, X, y, check=rules.target_scale) == [("target-scale", "warning")]


# ---- features that never change


def test_constant_features():
    check = rules.constant_feature
    one = X.copy()
    one[:, 2] = 7
    assert verdicts(mlp(), one, Y, check=check) == [("constant-feature", "warning")]
    assert verdicts(mlp(), np.full_like(X, 3), Y, check=check) == [("constant-feature", "error")]
    one[999, 2] = 8
    assert verdicts(mlp(), one, Y, check=check) == []
    border = IMAGES.copy()
    border[:, 0] = 0
    context = context_of(images(), border / 255, IMAGE_LABELS)
    assert [f.severity for f in check(context)] == ["info"]


# ---- leakage


def test_rows_in_both_sets():
    options = {"check": rules.leakage}
    seen = found(mlp(), X[:800], Y[:800], validation_data=(X[700:], Y[700:]), **options)
    assert [f.check for f in seen] == ["leakage"]
    assert "33.3% of the validation rows" in seen[0].evidence
    assert "100% of them have the same label" in seen[0].evidence
    assert verdicts(mlp(), X[:800], Y[:800], validation_data=(X[800:], Y[800:]), **options) == []
    seen = found(mlp(), X[:800], Y[:800], validation_data=(X[700:], 1 - Y[700:]), **options)
    assert "0% of them have the same label" in seen[0].evidence


def test_rows_repeated_before_the_split():
    x, y = np.concatenate([X[:500], X[:500]]), np.concatenate([Y[:500], Y[:500]])
    assert ("leakage", "warning") in verdicts(mlp(), x, y, validation_split=0.3)


def test_rows_that_repeat_by_nature_are_expected():
    x = RNG.integers(0, 4, size=(3_000, 5)).astype("float32")
    y = (x.sum(axis=1) > 7).astype("int64")
    assert verdicts(mlp(5), x, y, validation_split=0.2, check=rules.leakage) == []


@pytest.mark.parametrize("copy", [Y, Y * 2.0 - 1, 1 - Y], ids=["same", "scaled", "turned round"])
def test_labels_among_the_inputs(copy):
    x = np.concatenate([X, copy[:, None]], axis=1)
    seen = found(mlp(7), x, Y, check=rules.leakage)
    assert [(f.where, f.severity) for f in seen] == [("x, column 6", "warning")]


def test_a_target_among_the_inputs():
    x = np.concatenate([X, X[:, :1] * 3], axis=1)
    assert verdicts(regressor(7), x, x[:, 6], check=rules.leakage) == [("leakage", "warning")]
    in_thousands = x[:, 6] * 1_000 - 5
    assert verdicts(regressor(7), x, in_thousands, check=rules.leakage) == [("leakage", "warning")]


def test_a_smooth_series_is_no_copy_of_its_next_value():
    walk = RNG.normal(size=2_000).cumsum().astype("float32")
    x = np.lib.stride_tricks.sliding_window_view(walk, 6)[:-1]
    assert np.corrcoef(x[:, 5], walk[6:])[0, 1] > 0.99
    assert verdicts(regressor(6), np.array(x), walk[6:], check=rules.leakage) == []


def test_pixels_that_were_scaled_before_the_model():
    layer = keras.layers.Rescaling(1 / 255)
    for x, expected in ((IMAGES / 255, [("input-scale", "error")]), (IMAGES, [])):
        model = keras.Sequential([keras.Input(IMAGES.shape[1:]), layer, keras.layers.Flatten()])
        model.add(keras.layers.Dense(2, "softmax"))
        model.compile("adam", SPARSE)
        seen = found(model, x, IMAGE_LABELS, check=rules.input_scale)
        assert [(f.check, f.severity) for f in seen if f.where == layer.name] == expected


@pytest.mark.parametrize(("weight", "expected"), [(0.0, True), (-1.0, True), (1.0, False)])
def test_weights_of_samples(weight, expected):
    weights = np.full(len(Y), weight, "float32")
    batches = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(32)
    assert bool(verdicts(mlp(), batches, None, check=rules.sample_weight)) is expected


# ---- order


SORTED = np.argsort(Y3, kind="stable")
THREE = {"outputs": 3, "end": "softmax", "loss": SPARSE}


def test_sorted_rows_matter_without_shuffling_only():
    check = rules.ordered_data
    sorted_rows = tf.data.Dataset.from_tensor_slices((X[np.argsort(Y3, kind="stable")], np.sort(Y3)))
    for buffer, expected in (
        (1, [("ordered-data", "error")]),
        (32, [("ordered-data", "warning")]),
        (1_000, []),
    ):
        batches = sorted_rows.shuffle(buffer).batch(32)
        assert verdicts(mlp(**THREE), batches, None, check=check) == expected
    x, y = X[np.argsort(Y3, kind="stable")], np.sort(Y3)
    assert verdicts(mlp(**THREE), x, y, check=check) == []
    assert verdicts(mlp(**THREE), x, y, check=check, shuffle=False) == [("ordered-data", "error")]
    assert verdicts(mlp(**THREE), X, Y3, check=check, shuffle=False) == []
    assert verdicts(mlp(**THREE), x, y, check=check, shuffle=False, batch_size=1_000) == []


def test_a_split_of_sorted_rows_holds_other_classes():
    x, y = X[np.argsort(Y3, kind="stable")], np.sort(Y3)
    seen = found(mlp(**THREE), x, y, validation_split=0.4, check=rules.ordered_data)
    assert [f.severity for f in seen] == ["error"]
    assert "1 class (2) in the validation split, never in training" in seen[0].evidence
    assert verdicts(mlp(**THREE), x, y, validation_split=0.1, check=rules.ordered_data) == [
        ("ordered-data", "warning")
    ]
    assert verdicts(mlp(**THREE), X, Y3, validation_split=0.2, check=rules.ordered_data) == []


def test_a_trend_in_time_is_a_warning_at_most():
    y = np.linspace(-2, 2, 1_000) + RNG.normal(scale=0.05, size=1_000)
    seen = verdicts(regressor(), X, y, shuffle=False, validation_split=0.2, check=rules.ordered_data)
    assert {severity for _, severity in seen} == {"warning"}
    walk = np.sin(np.arange(1_000) / 30)
    assert verdicts(regressor(), X, walk, shuffle=False, check=rules.ordered_data) == []


# ---- classes


def test_classes_that_are_alone_missing_or_rare():
    check = rules.class_imbalance
    assert verdicts(mlp(), X, Y, check=check) == []
    assert verdicts(mlp(), X, np.zeros(1_000, int), check=check) == [("class-imbalance", "error")]
    assert verdicts(mlp(), X, X[:, 0] > 2.05, check=check) == [("class-imbalance", "warning")]
    four = mlp(outputs=4, end="softmax", loss=SPARSE)
    seen = found(four, X, Y3 + 1, check=check)
    assert [f.severity for f in seen] == ["warning"]
    assert "1 of the 4 classes that the output knows (0)" in seen[0].evidence
    one_hot = mlp(outputs=3, end="softmax", loss="categorical_crossentropy")
    assert verdicts(one_hot, X, np.eye(3)[Y3], check=check) == []


def test_a_label_that_is_never_set():
    y = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 99], axis=1).astype("float32")
    seen = found(mlp(outputs=3), X, y, check=rules.class_imbalance)
    assert [f.severity for f in seen] == ["warning"]
    assert seen[0].where.endswith("label 2")


def test_a_loss_of_ones_own_may_take_labels_that_say_nothing():
    def own(_, outputs):
        return keras.ops.mean(outputs**2)

    assert verdicts(mlp(loss=own), X, np.zeros(1_000), check=rules.class_imbalance) == []


# ---- noise


@pytest.mark.parametrize("seed", range(3))
def test_labels_out_of_step_are_told(seed):
    y = np.random.default_rng(seed).permutation(Y)
    seen = found(mlp(), X, y)
    assert [f.check for f in seen] == ["uninformative-input"]
    assert "neighbours" in seen[0].evidence


def test_noise_is_an_error_where_all_learners_agree():
    # By design about two draws of noise in five leave some learner in doubt, which gives a warning.
    noise = [np.random.default_rng(seed).normal(size=1_000) for seed in (5, 6, 7)]
    told = [verdicts(regressor(), X, y) for y in noise]
    assert [("uninformative-input", "error")] in told
    assert all(verdict for verdict in told)


def test_too_few_rows_say_nothing():
    y = RNG.permutation(Y[:90])
    assert verdicts(mlp(), X[:90], y) == []


def test_a_weak_signal_is_signal():
    y = (X[:, 0] + RNG.normal(scale=3, size=1_000) > 0).astype("int64")
    assert verdicts(mlp(), X, y) == []


# ---- all together


def test_the_worst_comes_first():
    x = np.concatenate([X * 300, np.ones((1_000, 1), "float32")], axis=1)
    context = context_of(mlp(7), x, Y, validation_data=(x / 300, Y))
    order = ["error", "warning", "info"]
    for check in DATA:
        ranks = [order.index(f.severity) for f in check(context)]
        assert ranks == sorted(ranks)


def test_several_inputs_are_named():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    hidden = [layers.Dense(8, "relu", name=f"read_{x.name}")(x) for x in (left, right)]
    model = keras.Model(
        {"left": left, "right": right}, layers.Dense(1, "sigmoid")(layers.concatenate(hidden))
    )
    model.compile("adam", "binary_crossentropy")
    seen = found(model, {"left": X, "right": X * 500}, Y, check=rules.input_scale)
    assert [(f.where, f.severity) for f in seen] == [("right into read_right", "error")]


def test_a_look_changes_nothing():
    x, y = X.copy(), Y.copy()
    context = context_of(mlp(), x, y, validation_split=0.2)
    before = [np.array(w) for w in context.model.weights]
    first = [str(f) for c in DATA for f in c(context)]
    assert [str(f) for c in DATA for f in c(context)] == first
    np.testing.assert_array_equal(x, X)
    for one, other in zip(before, context.model.weights, strict=True):
        np.testing.assert_array_equal(one, np.array(other))
