import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics

from keras_practice import data, recipes
from keras_practice.callbacks import ValidationScores, best_weights, scores, standard
from keras_practice.data import Split, Task

IRIS = data.load("iris")


class Recorder(keras.callbacks.Callback):
    """Keeps the logs that a callback further down sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))


def iris_model(**options):
    keras.utils.set_random_seed(0)
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=(8,))
    return recipes.compile_for(model, IRIS.task, **options)


def fit(model, callbacks, **options):
    return model.fit(IRIS.train.batches(32), shuffle=False, verbose=0, callbacks=callbacks, **options)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_class_scores_equal_scikit_learn(average):
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 4, size=80), rng.dirichlet(np.ones(4), size=80)
    got = scores(y, p, Task.multiclass(4), average=average)
    decided = p.argmax(axis=1)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(y, decided, average=average)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(y, decided),
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "auc": sklearn_metrics.roc_auc_score(y, p, multi_class="ovr"),
    }
    assert got == pytest.approx(expected, abs=1e-9)


def test_auc_counts_ties_by_half_as_scikit_learn_does():
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 2, size=200), rng.integers(0, 5, size=(200, 1)) / 5
    assert scores(y, p, Task.binary())["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, p))


def test_multilabel_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, size=(60, 3)), rng.uniform(size=(60, 3))
    got = scores(y, p, Task.multilabel(3))
    assert got["f1"] == pytest.approx(sklearn_metrics.f1_score(y, p > 0.5, average="macro"))
    assert got["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, p))
    assert got["accuracy"] == pytest.approx(np.mean(y == (p > 0.5)))


def test_an_output_at_every_step_counts_each_step():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, size=(6, 5)), rng.dirichlet(np.ones(3), size=(6, 5))
    assert scores(y, p, Task.multiclass(3)) == scores(y.ravel(), p.reshape(-1, 3), Task.multiclass(3))


def test_classes_that_do_not_occur():
    p = np.eye(3)[[0, 1, 1]]
    got = scores(np.array([0, 1, 1]), p, Task.multiclass(3))
    assert got["f1"] == pytest.approx(2 / 3)
    assert got["auc"] == 1.0
    assert np.isnan(scores(np.array([1, 1]), p[1:], Task.multiclass(3))["auc"])


def test_regression_scores():
    y, p = np.array([1.0, 2.0, 4.0]), np.array([[1.0], [3.0], [2.0]])
    got = scores(y, p, Task.regression())
    assert got == pytest.approx({"mae": 1.0, "rmse": np.sqrt(5 / 3), "r2": sklearn_metrics.r2_score(y, p)})


@pytest.mark.parametrize("task", [Task.binary(), Task.regression()])
def test_diverged_predictions_give_nan_and_no_crash(task):
    assert all(np.isnan(v) for v in scores([0, 1], [[np.nan], [0.5]], task).values())


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
    expected = scores(IRIS.val.y, model.predict(IRIS.val.x, verbose=0), IRIS.task)
    expected.pop("accuracy")
    assert logs == pytest.approx({f"val_{name}": value for name, value in expected.items()}, abs=1e-6)


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


def test_the_standard_set_works_for_every_kind_of_task(tmp_path):
    for name in ("iris", "breast_cancer", "diabetes"):
        dataset = data.load(name)
        model = recipes.compile_for(recipes.mlp(dataset.input_shape, dataset.task, units=(4,)), dataset.task)
        history = model.fit(
            dataset.train.batches(64),
            validation_data=dataset.val.batches(64),
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=standard(dataset.val, tmp_path / name),
        )
        expected = "val_f1" if dataset.task.is_classification else "val_r2"
        assert expected in history.history
        assert list((tmp_path / name).rglob("events.out.tfevents.*"))


def test_a_split_without_a_log_dir_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(iris_model(), standard(IRIS.val), epochs=1, validation_data=IRIS.val.batches(32))
    assert not list(tmp_path.iterdir())


def test_a_splits_own_task_can_be_overruled():
    split = Split(IRIS.val.x, (IRIS.val.y > 0).astype("float32"), Task.binary(), "val")
    assert ValidationScores(split, Task.multiclass(2)).task == Task.multiclass(2)
