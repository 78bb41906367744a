import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from shared import reused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_practice import data, recipes
from keras_practice.callbacks import ValidationScores, best_weights, scores
from keras_practice.data import Split, Task

IRIS = data.load("iris")


class Recorder(keras.callbacks.Callback):
    """Keeps the logs that a callback further down sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))


@reused
def iris_model(learning_rate=1e-3):
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=(8,))
    return recipes.compile_for(model, IRIS.task, learning_rate=learning_rate, steps_per_execution=1)


def fit(model, callbacks, **options):
    return model.fit(IRIS.train.batches(32), shuffle=False, verbose=0, callbacks=callbacks, **options)


@pytest.mark.parametrize("place", ["first", "last"])
def test_scores_are_there_before_others_look_whatever_the_order(place):
    recorder, ours = Recorder(), ValidationScores(IRIS.val)
    callbacks = [ours, recorder] if place == "first" else [recorder, keras.callbacks.TerminateOnNaN(), ours]
    history = fit(iris_model(), callbacks, epochs=2, validation_data=IRIS.val.batches(32))
    for logs in recorder.seen:
        assert {"val_loss", "val_f1", "val_precision", "val_recall", "val_auc"} <= set(logs)
    assert len(history.history["val_f1"]) == 2


def test_early_stopping_before_it_in_the_list_can_monitor_f1():
    model = iris_model(learning_rate=1e-2)
    stopper = best_weights("val_f1", patience=2)
    history = fit(model, [stopper, ValidationScores(IRIS.val)], epochs=40)
    assert len(history.history["val_f1"]) < 40
    predictions = model.predict(IRIS.val.x, verbose=0)
    assert scores(IRIS.val.y, predictions, IRIS.task)["f1"] == pytest.approx(max(history.history["val_f1"]))


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        part = slice(10 * i, 10 * (i + 1))
        return IRIS.val.x[part], IRIS.val.y[part]


@pytest.mark.parametrize(
    "val",
    [
        IRIS.val,
        (IRIS.val.x, IRIS.val.y),
        IRIS.val.batches(7),
        tf.data.Dataset.from_tensor_slices((IRIS.val.x, IRIS.val.y)).batch(9),
        Pairs(),
    ],
    ids=["split", "arrays", "batches", "tf.data", "PyDataset"],
)
def test_any_form_of_validation_set_gives_the_same_scores(val):
    model = iris_model()
    logs = {}
    callback = ValidationScores(val)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, logs)
    callback.on_train_end()
    expected = scores(IRIS.val.y, model.predict(IRIS.val.x, verbose=0), IRIS.task)
    expected.pop("accuracy")
    assert logs == pytest.approx(
        {f"val_{name}": value for name, value in expected.items()}, abs=1e-6, nan_ok=True
    )


def test_two_fits_and_two_models_in_a_row():
    callback = ValidationScores(IRIS.val)
    for seed in (1, 2):
        model = iris_model()
        keras.utils.set_random_seed(seed)
        history = fit(model, [callback], epochs=1)
        expected = scores(IRIS.val.y, model.predict(IRIS.val.x, verbose=0), IRIS.task)["f1"]
        assert history.history["val_f1"] == pytest.approx([expected])


def test_copies_share_the_data():
    callback = ValidationScores(IRIS.val)
    assert copy.deepcopy(callback)._val.x is callback._val.x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValidationScores(IRIS.val, average=None), "average must be one of"),
        (lambda: ValidationScores(IRIS.val, threshold=0), "threshold must be"),
        (lambda: ValidationScores(IRIS.val, threshold="high"), "threshold must be"),
        (lambda: ValidationScores(IRIS.val, threshold="best"), "is for sigmoids"),
        (lambda: ValidationScores(IRIS.val, every=0), "every must be a positive integer"),
        (lambda: ValidationScores(IRIS.val, confidence=0.0), "confidence must be"),
        (lambda: ValidationScores(IRIS.val, scores=("f2",)), "scores must be among f1, precision"),
        (lambda: ValidationScores(IRIS.val, scores=()), "scores must be among"),
        (lambda: ValidationScores(IRIS.val, scores=("r2",)), "scores must be among"),
        (lambda: ValidationScores(IRIS.val, average="binary"), "yes/no"),
        (lambda: ValidationScores(IRIS.val, Task.binary()), "must be 0 or 1"),
        (lambda: ValidationScores(3), "val must be a Split"),
        (lambda: ValidationScores([]), "at least one batch"),
        (lambda: ValidationScores((np.zeros((0, 2)), np.zeros(0))), "at least one sample"),
        (lambda: ValidationScores((np.zeros((2, 2)), np.zeros(3))), "one row a sample"),
    ],
)
def test_a_wrong_validation_set_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_splits_own_task_can_be_overruled():
    split = Split(IRIS.val.x, (IRIS.val.y > 0).astype("float32"), Task.binary(), "val")
    assert ValidationScores(split, Task.multiclass(2)).task == Task.multiclass(2)


@keras.saving.register_keras_serializable(package="tests")
class Counting(keras.layers.Layer):
    """Counts the samples that go through it outside training."""

    def build(self, shape):
        self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if not training:
            self.seen.assign_add(keras.ops.shape(x)[0])
        return x


@reused
def counting_model(**options):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, activation="softmax")(Counting(name="counter")(inputs))
    model = keras.Model(inputs, x)
    return recipes.compile_for(model, IRIS.task, **options)


def validated(validation_data, epochs=2, **options):
    """How often each epoch of a fit looked at the whole set; its scores are checked to be exact."""
    model = counting_model(**options)
    counter = model.get_layer("counter")
    callback = ValidationScores(IRIS.val)
    predicted = []

    class Check(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            before = counter.seen.numpy()
            p = self.model.predict(IRIS.val.x, verbose=0)
            predicted.append((scores(IRIS.val.y, p, IRIS.task)["auc"], logs["val_auc"]))
            counter.seen.assign(before)

    first = counter.seen.numpy()
    fit(model, [callback, Check()], epochs=epochs, validation_data=validation_data)
    assert all(ours == pytest.approx(expected, abs=1e-9) for expected, ours in predicted)
    return (counter.seen.numpy() - first - 1) / epochs / len(IRIS.val)


@pytest.mark.parametrize(
    "options", [{}, {"steps_per_execution": 1}, {"jit_compile": True}, {"run_eagerly": True}], ids=str
)
def test_keras_and_the_scores_share_one_pass(options):
    assert validated(IRIS.val.batches(8), **options) == pytest.approx(1.0, abs=0.02)


def test_arrays_share_the_pass_too():
    assert validated((IRIS.val.x, IRIS.val.y), steps_per_execution=1) == pytest.approx(1.0, abs=0.02)


def test_without_validation_data_there_is_one_pass():
    assert validated(None, steps_per_execution=1) == pytest.approx(1.0, abs=0.02)


def perturbed(x, y):
    return x + 0.1, y


@pytest.mark.parametrize(
    "other",
    [
        IRIS.val.batches(8, shuffle=True),
        IRIS.val.batches(8).map(perturbed),
        IRIS.val.batches(8).take(2),
        IRIS.val.batches(8).concatenate(IRIS.val.batches(8)),
        IRIS.test.batches(8),
    ],
    ids=["shuffled", "perturbed", "too few", "too many", "another set"],
)
def test_other_validation_data_leave_the_scores_right(other):
    assert validated(other, steps_per_execution=1) > 1.2


def test_other_data_may_be_evaluated_afterwards():
    model = iris_model()
    fit(model, [ValidationScores(IRIS.val)], epochs=1, validation_data=IRIS.val.batches(8))
    assert "test_step" not in vars(model)
    assert np.isfinite(model.evaluate(IRIS.test.x, IRIS.test.y, verbose=0)[0])


def test_history_holds_every_class():
    callback = ValidationScores(IRIS.val)
    model = iris_model()
    history = fit(model, [callback], epochs=2)
    each = scores(IRIS.val.y, model.predict(IRIS.val.x, verbose=0), IRIS.task, average=None)
    for name in ("f1", "precision", "recall", "auc"):
        last = [callback.history[f"val_{name}/{label}"][-1] for label in IRIS.task.class_names]
        assert last == pytest.approx(each[name].tolist(), abs=1e-6)
        assert callback.history[f"val_{name}"] == history.history[f"val_{name}"]
    assert callback.history["epoch"] == [0, 1]
    assert not [name for name in history.history if "/" in name]


def test_only_the_scores_that_were_asked_for():
    history = fit(iris_model(), [ValidationScores(IRIS.val, scores=("recall", "coverage"))], epochs=1)
    ours = {name for name in history.history if name.startswith("val_")}
    assert ours == {"val_recall", "val_coverage", "val_coverage_accuracy"}


def test_scoring_every_second_epoch():
    callback = ValidationScores(IRIS.val, every=2)
    recorder = Recorder()
    fit(iris_model(), [callback, recorder], epochs=5)
    assert ["val_f1" in logs for logs in recorder.seen] == [False, True, False, True, False]
    assert callback.history["epoch"] == [1, 3]


def test_the_best_threshold_of_a_sigmoid():
    cancer = data.load("breast_cancer")
    keras.utils.set_random_seed(0)
    model = recipes.compile_for(recipes.linear(cancer.input_shape, cancer.task), cancer.task)
    callbacks = [ValidationScores(cancer.val, threshold=t, average="binary") for t in (0.5, "best")]
    model.fit(cancer.train.x, cancer.train.y, epochs=2, verbose=0, callbacks=callbacks)
    fixed, best = (callback.history["val_f1"][-1] for callback in callbacks)
    threshold = callbacks[1].history["val_threshold"][-1]
    p = model.predict(cancer.val.x, verbose=0)
    assert best == pytest.approx(
        scores(cancer.val.y, p, cancer.task, average="binary", threshold=threshold)["f1"]
    )
    assert best > fixed
    assert "val_threshold" not in callbacks[0].history


def test_each_label_has_a_best_threshold_of_its_own():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype("float32")
    y = (x[:, :3] > [0, 1, -1]).astype("float32")
    task = Task.multilabel(3, ("a", "b", "c"))
    model = recipes.compile_for(recipes.linear((4,), task), task)
    callback = ValidationScores((x, y), task, threshold="best")
    model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    thresholds = [callback.history[f"val_threshold/{label}"][0] for label in "abc"]
    got = scores(y, model.predict(x, verbose=0), task, threshold=thresholds)["f1"]
    assert got == pytest.approx(callback.history["val_f1"][0])
    assert len(set(thresholds)) == 3


def test_tensorboard_gets_the_confusion_matrix_and_the_report(tmp_path):
    fit(iris_model(), [ValidationScores(IRIS.val, log_dir=tmp_path)], epochs=6)
    events = EventAccumulator(str(tmp_path / "scores"), {"tensors": 0}).Reload()
    pictured = [event.step for event in events.Tensors("confusion")]
    assert pictured == [event.step for event in events.Tensors("report")] == [0, 1, 3, 5]
    text = tf.make_ndarray(events.Tensors("report")[0].tensor_proto).item().decode()
    assert all(name in text for name in IRIS.task.class_names)
    scored = events.Tensors(f"val_f1/{IRIS.task.class_names[0]}")
    assert [event.step for event in scored] == list(range(6))
    picture = tf.io.decode_png(tf.make_ndarray(events.Tensors("confusion")[0].tensor_proto)[2])
    assert picture.shape[0] > 300


def test_a_model_of_several_outputs_is_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])
    model.compile("sgd", ["mse", "mse"])
    with pytest.raises(ValueError, match="must have one output"):
        model.fit(IRIS.train.x, [IRIS.train.y] * 2, verbose=0, callbacks=[ValidationScores(IRIS.val)])
