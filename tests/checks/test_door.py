"""What the checks take: whatever `fit` takes, and what becomes of what they cannot look at."""

import json
import sys
import time

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers, ops

from keras_practice import checks
from keras_practice.checks.__main__ import main
from keras_practice.checks.trials.lent_optimizers import CannotLendError
from keras_practice.checks.trials.own_step import OwnTraining

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64")
THREE = X[:, :3].argmax(axis=1)


def compiled(inputs, outputs, loss=None, **options):
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.01), loss, **options)
    return model


def net(units=1, last="sigmoid", loss="binary_crossentropy", **options):
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    return compiled(x, layers.Dense(units, last, name="out")(x), loss, **options)


def errors(report):
    return [finding.check for finding in report.findings if finding.severity == "error"]


def sound(report):
    return report.passed is True and report.unlooked == ()


class Rebuilds(layers.Layer):
    """A loss of the layer's own."""

    def call(self, pair):
        self.add_loss(ops.mean((pair[0] - pair[1]) ** 2))
        return pair[1]


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return ops.mean((ops.cast(y, "float32") - y_pred[:, 0]) ** 2)


class Sorted(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        rows = np.argsort(Y, kind="stable")[20 * index : 20 * index + 20]
        return X[rows], Y[rows]


def batches(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(32)


def endless():
    while True:
        rows = RNG.integers(0, len(X), 32)
        yield X[rows], Y[rows]


def words():
    x = keras.Input((1,), dtype="string")
    hot = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(x)
    return compiled(x, layers.Dense(1, "sigmoid")(hot), "binary_crossentropy")


TEXT = np.where(Y[:, None] == 1, "a", "b")


def test_strings_of_a_data_set_are_no_fault_of_the_program():
    report = checks.preflight(words(), batches(TEXT, Y))
    assert sound(report), str(report)


def test_of_several_inputs_the_one_that_is_refused_is_named():
    texts = {name: keras.Input((1,), dtype="string", name=name) for name in ("z", "b")}
    inputs = {**texts, "a": keras.Input((6,), name="a")}
    hot = [layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(text) for text in texts.values()]
    out = layers.Dense(1, "sigmoid")(layers.Concatenate()([*hot, inputs["a"]]))
    model = compiled(inputs, out, "binary_crossentropy")
    tensor = tf.constant(TEXT)
    report = checks.preflight(model, {"z": tensor, "a": X, "b": TEXT}, Y, run=False)
    assert [(f.check, f.where) for f in report.findings] == [("raises", "b")]
    assert checks.preflight(model, {"z": tensor, "a": X, "b": tensor}, Y, run=False).unlooked == ()


@pytest.mark.parametrize("kind", [object, str])
def test_arrays_of_strings_are_refused_as_fit_refuses_them(kind):
    model = words()
    with pytest.raises(ValueError, match="Invalid dtype"):
        model.fit(TEXT.astype(kind), Y, verbose=0)
    report = checks.preflight(model, TEXT.astype(kind), Y, run=False)
    assert errors(report) == ["raises"]
    assert "tf.constant" in report.findings[0].fix
    model.fit(tf.constant(TEXT), Y, verbose=0)
    assert checks.preflight(model, tf.constant(TEXT), Y, run=False).passed


def test_our_own_fault_is_no_finding(monkeypatch):
    def broken_rule(context):
        raise RuntimeError("no such column")

    module = sys.modules[checks.preflight.__module__]
    monkeypatch.setattr(module, "RULES", (broken_rule, *module.RULES))
    report = checks.preflight(net(), X, np.ones_like(Y), run=False)
    assert errors(report) == ["class-imbalance"]
    report = checks.preflight(net(), X, Y, run=False)
    assert report.passed is None
    assert len(report.unlooked) == 1
    for words in ("broken-rule: RuntimeError (no such column) at preflight.py:", "please report it"):
        assert words in report.unlooked[0]
    assert str(report).startswith("Not looked at: broken-rule")
    assert "Not looked at" in report.html()
    assert json.loads(json.dumps(report.to_dict()))["passed"] is None
    with pytest.raises(checks.CheckFailedError, match="Not looked at"):
        report.raise_if_failed()


def test_what_fails_beside_a_step_that_raises_is_not_called_our_fault():
    report = checks.preflight(net(), X, np.where(Y == 1, "yes", "no").tolist())
    assert "label-encoding" in errors(report)
    assert all("fault of keras-practice" not in line for line in report.unlooked)
    assert any("look here again once it does not" in line for line in report.unlooked)


def test_what_the_loss_raises_is_a_finding():
    def loss(y, p):
        raise TypeError("no such colour")

    report = checks.preflight(net(loss=loss), X, Y)
    assert "raises" in errors(report)
    assert "no such colour" in next(f.evidence for f in report.findings if f.check == "raises")


def test_a_loss_that_is_asked_in_another_way_than_ours_is_left_alone():
    class Halves(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return self.loss(y[:2], y_pred[:2])

    def loss(y, p):
        return ops.mean((ops.reshape(y, (2, 1)) - p) ** 2)

    x = keras.Input((6,))
    model = Halves(x, layers.Dense(1)(x))
    model.compile("adam", loss)
    report = checks.preflight(model, X, Y.astype("float32"), run=False)
    assert not any(finding.check == "output-loss" for finding in report.findings), str(report)


def test_an_output_without_a_loss_needs_no_labels():
    x = keras.Input((6,))
    features = layers.Dense(4, "relu", name="features")(x)
    outputs = {"features": features, "out": layers.Dense(1, "sigmoid", name="out")(features)}
    model = compiled(x, outputs, {"out": "binary_crossentropy"})
    for report in (
        checks.preflight(model, X, {"out": Y}),
        checks.initial_loss(model, X, {"out": Y}),
    ):
        assert sound(report), str(report)
    with pytest.raises(ValueError, match=r"names of the outputs, features, out\. Got other"):
        checks.preflight(model, X, {"other": Y})


@pytest.mark.parametrize("form", ["dataset", "scipy"])
def test_sparse_inputs_are_handed_on_as_such(form):
    x = keras.Input((6,), sparse=True)
    model = compiled(x, layers.Dense(1, "sigmoid")(x), "binary_crossentropy")
    sparse = np.where(X > 0, X, 0)
    if form == "dataset":
        report = checks.preflight(model, batches(tf.sparse.from_dense(sparse), Y))
    else:
        report = checks.preflight(model, scipy.sparse.csr_matrix(sparse), Y)
    assert sound(report), str(report)


def test_ragged_inputs_are_handed_on_as_such():
    lengths = RNG.integers(1, 5, len(Y))
    ids = tf.RaggedTensor.from_row_lengths(np.repeat(Y + 1, lengths), lengths)

    class Mean(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(3, 4)
            self.out = layers.Dense(1, "sigmoid")

        def call(self, x):
            assert isinstance(x, tf.RaggedTensor)
            return self.out(tf.reduce_mean(self.table(x.to_tensor()), axis=1))

    model = Mean()
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    report = checks.preflight(model, batches(ids, Y))
    assert sound(report), str(report)


def test_batches_of_different_lengths_are_filled_up():
    def some():
        for length in (2, 3, 4, 3, 2):
            ids = RNG.integers(1, 5, (16, length))
            yield ids, ids % 2

    spec = tf.TensorSpec((None, None), tf.int64)
    data = tf.data.Dataset.from_generator(some, output_signature=(spec, spec))
    x = keras.Input((None,), dtype="int32")
    tags = layers.Dense(2, "softmax")(layers.Embedding(5, 4, mask_zero=True)(x))
    report = checks.preflight(compiled(x, tags, "sparse_categorical_crossentropy"), data)
    assert sound(report), str(report)
    assert report.figures["samples"] == 80


def test_inputs_alone_for_a_model_with_a_loss_of_its_own():
    x = keras.Input((6,))
    model = compiled(x, Rebuilds()([x, layers.Dense(6)(layers.Dense(4)(x))]))
    for data in (X, tf.data.Dataset.from_tensor_slices(X).batch(32)):
        report = checks.preflight(model, data)
        assert sound(report), str(report)
    tiny = checks.overfit_tiny(model, X, steps=300)
    assert tiny.passed
    assert tiny.figures["fall"] > 0.2
    assert checks.initial_loss(model, X).passed is None  # It is not known what chance gives.
    with pytest.raises(ValueError, match="y must be given"):
        checks.preflight(net(), X)


def test_a_compute_loss_of_ones_own_is_asked():
    x = keras.Input((6,))
    model = OwnLoss(x, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.05))
    assert sound(checks.preflight(model, X, Y))
    assert checks.initial_loss(model, X, Y).figures["loss"] > 0
    assert "loss" in checks.overfit_tiny(model, X, Y, steps=20).figures


def test_a_generator_is_read_for_its_steps_alone():
    read = []

    def counted():
        for batch in endless():
            read.append(len(batch[0]))
            yield batch

    report = checks.preflight(net(), counted(), steps=5)
    assert sound(report), str(report)
    assert len(read) == 5
    assert report.figures["samples"] == 160
    with pytest.raises(ValueError, match="number of batches to read from it, as steps=10"):
        checks.preflight(net(), endless())
    repeated = batches(X, Y).repeat()
    assert checks.preflight(net(), repeated, steps=4, run=False).figures["samples"] <= 160
    assert checks.overfit_tiny(net(), endless(), steps=5).figures["steps"] == 5


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"sample_weight": np.zeros(160)}, ["sample-weight"]),
        ({"class_weight": {0: 1.0, 1: -1.0}}, ["sample-weight"]),
        ({"class_weight": {0: 1.0, 1: 2.0}}, []),
        ({"sample_weight": np.linspace(0, 1, 160)}, []),
    ],
)
def test_weights_are_looked_at(options, found):
    assert errors(checks.preflight(net(), X, Y, run=False, **options)) == found


def test_weights_of_several_outputs_are_looked_at():
    x = keras.Input((6,))
    outputs = {name: layers.Dense(1, "sigmoid", name=name)(x) for name in ("a", "b")}
    model = compiled(x, outputs, "binary_crossentropy")
    y = {"a": Y, "b": Y}
    report = checks.preflight(model, X, y, sample_weight={"a": np.ones(160), "b": np.zeros(160)}, run=False)
    assert [(f.check, f.where) for f in report.findings if f.severity == "error"] == [
        ("sample-weight", "training sample weights['b']")
    ]
    assert sound(checks.preflight(model, X, y, sample_weight=np.ones(160)))
    assert checks.initial_loss(model, X, y).figures["expected"] == pytest.approx(2 * np.log(2), rel=1e-4)
    assert checks.overfit_tiny(model, X, y, steps=20).figures["steps"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(3)}, "one row a sample, 160 in all. Got shape"),
        (
            {"sample_weight": np.ones(160), "class_weight": {0: 1.0}},
            "Only one of sample_weight and class_weight",
        ),
    ],
)
def test_wrong_weights_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        checks.preflight(net(), X, Y, **options)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "binary_focal_crossentropy"])
@pytest.mark.parametrize("data", [(X, Y), (batches(X, Y),), (Sorted(),), (X.tolist(), Y.tolist())])
def test_the_first_loss_takes_what_preflight_takes(loss, data):
    model = net(loss=loss)
    report = checks.initial_loss(model, *data)
    assert report.passed, str(report)
    assert report.figures["loss"] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-3)


def test_sequences_of_one_hot_classes_are_learned_by_heart():
    x = keras.Input((4, 6))
    model = compiled(x, layers.Dense(3, "softmax")(x), "categorical_crossentropy")
    sequences = RNG.normal(size=(40, 4, 6)).astype("float32")
    y = np.eye(3)[sequences[..., :3].argmax(axis=-1)]
    report = checks.overfit_tiny(model, sequences, y)
    assert report.passed, str(report)
    assert report.figures["accuracy of steps"] > 0.9
    assert checks.initial_loss(model, sequences, y).passed


@pytest.mark.parametrize("by", ["mask", "weights"])
def test_few_samples_are_judged_without_padding_and_not_by_their_common_class(by):
    ids = np.zeros((60, 20), int)
    ids[:, :3] = RNG.integers(1, 4, (60, 3))
    tags = np.where(ids == 3, 1, 2 * (ids == 0))  # What stands on padding is not learned.
    x = keras.Input((20,), dtype="int32")
    table = layers.Embedding(4, 4, mask_zero=by == "mask")
    model = compiled(x, layers.Dense(3, "softmax")(table(x)), "sparse_categorical_crossentropy")
    weights = {"sample_weight": (ids > 0).astype("float32")} if by == "weights" else {}
    assert checks.overfit_tiny(model, ids, tags, **weights).passed
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    rare = np.zeros_like(tags)
    rare[:, 1] = 1
    model.layers[-1].bias.assign([9.0, 0.0, 0.0])  # Says the common class to everything.
    assert errors(checks.overfit_tiny(model, ids, rare, steps=1)) == ["tiny-overfit"]


def test_masks_of_class_numbers_are_classes():
    x = keras.Input((3, 3, 2))
    model = compiled(x, layers.Dense(3, "softmax")(x), "sparse_categorical_crossentropy")
    images = RNG.normal(size=(60, 3, 3, 2)).astype("float32")
    y = (images[..., 0] > 0).astype(int) + (images[..., 1] > 0)
    assert sound(checks.preflight(model, images, y))
    assert checks.initial_loss(model, images, y).figures["expected"] == pytest.approx(np.log(3), rel=1e-4)


def test_a_training_on_a_few_samples_ends_with_its_time():
    report = checks.overfit_tiny(
        net(3, "softmax", "sparse_categorical_crossentropy"), X, THREE, budget_s=1e-3
    )
    assert report.passed is None
    assert report.findings == ()
    assert "there was no time to end it" in report.unlooked[0]


def test_sorted_batches_of_a_pydataset_are_not_taken_for_shuffled():
    report = checks.preflight(net(), Sorted(), run=False)
    found = next(f for f in report.findings if f.check == "ordered-data")
    assert found.severity == "warning"
    assert "reorders batches, not the rows in them" in found.evidence


def ids_net(rows, layer=None):
    x = keras.Input((3,), dtype="int32")
    looked_up = (layer or layers.Embedding(rows, 4, name="table"))(x)
    return compiled(x, layers.Dense(1, "sigmoid")(layers.Flatten()(looked_up)), "binary_crossentropy")


@pytest.mark.parametrize(
    ("lowest", "highest", "layer", "severity", "words"),
    [
        (0, 9, None, None, ""),
        (0, 12, None, "error", "run from 0 to 12 in x, column 1, and table has 10 rows: 0 to 9 is expected"),
        (-1, 9, None, "warning", "run from -1 to 9 in x, column 1"),
        (-20, 9, None, "error", "run from -20 to 9"),
        (0, 12, layers.CategoryEncoding(10, "count", name="code"), "error", "code has 10 rows"),
        (0, 9, layers.CategoryEncoding(10, "multi_hot"), None, ""),
    ],
)
def test_numbers_that_a_table_does_not_have_are_found(lowest, highest, layer, severity, words):
    ids = RNG.integers(0, 9, (160, 3))
    ids[100, 1], ids[101, 1] = lowest, highest
    report = checks.preflight(ids_net(10, layer), ids, Y, run=severity == "error")
    found = [finding for finding in report.findings if finding.check == "index-range"]
    assert [finding.severity for finding in found] == ([] if severity is None else [severity]), str(report)
    assert report.unlooked == ()
    if found:
        assert words in found[0].evidence


class Gathers(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(10, 4), name="table")

    def call(self, x):
        return tf.gather(self.table, tf.cast(x, tf.int32))


class OneHot(layers.Layer):
    def call(self, x):
        return ops.one_hot(ops.cast(x, "int32"), 10)


@pytest.mark.parametrize(("layer", "severity"), [(Gathers(), "error"), (OneHot(), "warning")])
def test_lookups_of_layers_of_ones_own_are_seen(layer, severity):
    ids = RNG.integers(0, 9, (160, 3))
    ids[100, 1] = 12
    report = checks.preflight(ids_net(10, layer), ids, Y, run=False)
    found = [(f.severity, f.evidence) for f in report.findings if f.check == "index-range"]
    assert [kind for kind, _ in found] == [severity], str(report)
    assert "to 12 in x, column 1" in found[0][1]
    assert report.unlooked == ()
    if severity == "error":
        tiny = checks.overfit_tiny(ids_net(10), ids, Y)
        assert errors(tiny) == errors(checks.initial_loss(ids_net(10), ids, Y)) == ["index-range"]


def test_numbers_that_the_model_makes_are_found_in_a_model_that_is_not_built():
    class Positions(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(4, 2, name="positions")
            self.out = layers.Dense(1, "sigmoid")

        def call(self, x):
            steps = ops.arange(ops.shape(x)[1])
            return self.out(x + ops.sum(self.table(steps), axis=-1))

    model = Positions()
    model.compile("adam", "binary_crossentropy")
    report = checks.preflight(model, X, Y)
    assert errors(report) == ["index-range"]
    assert report.findings[0].where == "positions"


def test_the_shell_takes_inputs_and_outputs_by_name(tmp_path, capsys):
    sides = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    both = layers.Concatenate()(list(sides.values()))
    model = compiled(sides, {"kind": layers.Dense(1, "sigmoid", name="kind")(both)}, "binary_crossentropy")
    model.save(tmp_path / "model.keras")
    parts = {"x/left": X[:, :3], "x/right": X[:, 3:], "y/kind": Y}
    np.savez(tmp_path / "data.npz", **parts, sample_weight=np.ones(160))
    np.savez(tmp_path / "zero.npz", **parts, sample_weight=np.zeros(160))
    assert main([str(tmp_path / "model.keras"), str(tmp_path / "data.npz"), "--no-run"]) == 0
    assert main([str(tmp_path / "model.keras"), str(tmp_path / "zero.npz"), "--no-run"]) == 1
    assert "sample-weight" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["mask", "weights"])
def test_padding_is_counted_for_no_class(by):
    # Half of the labels that count are of class 1; with the padding, one in forty.
    ids = np.zeros((200, 40), int)
    ids[:, :2] = RNG.integers(1, 3, (200, 2))
    tags = np.where(ids == 2, 1, 0)
    x = keras.Input((40,), dtype="int32")
    table = layers.Embedding(3, 4, mask_zero=by == "mask")
    model = compiled(x, layers.Dense(2, "softmax")(table(x)), "sparse_categorical_crossentropy")
    weights = {"sample_weight": (ids > 0).astype("float32")} if by == "weights" else {}
    report = checks.preflight(model, ids, tags, run=False, **weights)
    assert report.unlooked == ()
    assert not any(finding.check == "class-imbalance" for finding in report.findings), str(report)


def test_a_model_for_one_size_of_batch_gets_batches_of_that_size():
    x = keras.Input((3, 2), batch_size=20)
    model = compiled(x, layers.Dense(1)(layers.SimpleRNN(4, stateful=True)(x)), "mse")
    series = X.reshape(160, 3, 2)
    for report in (
        checks.preflight(model, series, X[:, 0], batch_size=20, run=False),
        checks.initial_loss(model, series, X[:, 0]),
        checks.overfit_tiny(model, series, X[:, 0], steps=2),
    ):
        assert report.unlooked == ()
        assert not any(finding.check == "raises" for finding in report.findings), str(report)


class Slow(layers.Layer):
    """Takes a fifth of a second, in a graph too."""

    def call(self, x):
        waited = tf.numpy_function(lambda a: (time.sleep(0.2), np.float32(0))[1], [x], tf.float32)
        return x + tf.stop_gradient(tf.ensure_shape(waited, ()))


def test_a_budget_is_a_budget():
    x = keras.Input((6,))
    model = compiled(x, layers.Dense(1, "sigmoid")(Slow()(x)), "binary_crossentropy")
    begin = time.monotonic()
    report = checks.preflight(model, X, Y, budget_s=1.5)
    assert time.monotonic() - begin < 4.5  # Building and tracing included, on a busy machine.
    assert report.passed is None
    assert "there was no time for it; give more with budget_s" in report.unlooked[0]


def test_where_the_models_own_step_cannot_be_run_nobody_is_blamed(monkeypatch):
    def broken_rule(context):
        raise RuntimeError("no such column")

    def cannot(self):
        raise CannotLendError("an optimiser cannot be copied.")

    module = sys.modules[checks.preflight.__module__]
    monkeypatch.setattr(module, "RULES", (broken_rule, *module.RULES))
    monkeypatch.setattr(OwnTraining, "raised", cannot)
    report = checks.preflight(net(), X, Y, run=False)
    assert report.passed is None
    assert any("broken-rule" in line for line in report.unlooked)
    assert all("it is not known whose fault it is" in line for line in report.unlooked)
    assert not any("fault of keras-practice" in line for line in report.unlooked)
