import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from keras_practice.callbacks import F1Score
from keras_practice.data import Task

AVERAGES = (None, "micro", "macro", "weighted")


def reference(truth, decided, labels, average, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Classes that do not occur.
        return f1_score(
            truth, decided, labels=labels, average=average, sample_weight=weights, zero_division=0
        )


def measured(metric, y, p, weights, batch):
    for start in range(0, len(y), batch):
        part = slice(start, start + batch)
        metric.update_state(y[part], p[part], None if weights is None else weights[part])
    return np.asarray(metric.result())


cases = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["binary", "multiclass", "one-hot", "multilabel"]),
        "classes": st.integers(2, 6),
        "present": st.integers(1, 6),
        "samples": st.integers(1, 70),
        "batch": st.integers(1, 70),
        "average": st.sampled_from(AVERAGES),
        "weighted": st.booleans(),
        "stated": st.booleans(),
        "column": st.booleans(),
        "threshold": st.sampled_from([0.3, 0.5, 0.9]),
        "seed": st.integers(0, 10_000),
    }
)


@settings(max_examples=150, deadline=None)
@given(cases)
def test_f1_equals_scikit_learn(case):
    rng = np.random.default_rng(case["seed"])
    n, classes, kind = case["samples"], case["classes"], case["kind"]
    weights = rng.uniform(0, 3, size=n) if case["weighted"] else None
    present = min(case["present"], classes)  # The others are empty classes.
    if kind == "binary":
        task, labels = Task.binary(), [0, 1]
        y = rng.integers(0, 2, size=n) * int(present > 1)
        p = rng.uniform(size=(n, 1)).astype("float32")
        truth, decided = y, (p[:, 0] > case["threshold"]).astype(int)
    elif kind == "multilabel":
        task, labels = Task.multilabel(classes), None
        y = (rng.uniform(size=(n, classes)) < 0.4).astype(int)
        y[:, present:] = 0
        y[0, :2] = 1  # Not one-hot by chance, so that it can be told without a task.
        p = rng.uniform(size=(n, classes)).astype("float32")
        truth, decided = y, (p > case["threshold"]).astype(int)
    else:
        labels = list(range(classes))
        truth = rng.integers(0, present, size=n)
        p = rng.dirichlet(np.ones(classes), size=n).astype("float32")
        decided = p.argmax(axis=1)
        y = np.eye(classes, dtype=int)[truth] if kind == "one-hot" else truth
        task = Task.multiclass(classes, one_hot=kind == "one-hot")
    if y.ndim == 1 and case["column"]:
        y = y[:, None]
    metric = F1Score(task if case["stated"] else None, case["average"], case["threshold"])
    got = measured(metric, y, p, weights, case["batch"])
    np.testing.assert_allclose(got, reference(truth, decided, labels, case["average"], weights), atol=1e-6)


def test_the_positive_class_alone():
    y, p = np.array([0, 1, 1, 0, 1]), np.array([[0.9], [0.8], [0.2], [0.1], [0.7]])
    metric = F1Score(average="binary")
    metric.update_state(y, p)
    assert float(metric.result()) == pytest.approx(f1_score(y, p[:, 0] > 0.5))


@pytest.mark.parametrize(
    ("y", "p"),
    [
        (np.array([0, 1, 2]), np.eye(3)),
        (np.array([[0], [1], [2]]), np.eye(3)),
        (np.array([[0], [1]]), np.array([[0.1], [0.9]])),
        (np.array([0, 1]), np.array([0.1, 0.9])),
        (np.array([[[0], [1]], [[2], [0]]]), np.eye(3)[[[0, 1], [2, 0]]]),
    ],
    ids=["1-D integers", "column of integers", "one sigmoid", "flat sigmoid", "time steps"],
)
def test_perfect_predictions_give_one(y, p):
    metric = F1Score()
    metric.update_state(y, p)
    assert float(metric.result()) == 1.0


def test_no_samples_give_zero_and_reset_forgets():
    metric = F1Score(Task.binary())
    assert float(metric.result()) == 0.0
    metric.update_state([1, 0], [[0.1], [0.9]])
    metric.reset_state()
    metric.update_state([1, 0], [[0.9], [0.1]])
    assert float(metric.result()) == 1.0


def test_counting_goes_on_past_the_end_of_float32():
    metric = F1Score(Task.binary(), average="binary")
    metric.update_state([1], [[0.9]], [2.0**25])
    for _ in range(2):
        metric.update_state([1], [[0.1]], [1.0])
    hits, missed = 2.0**25, 2.0
    counts = np.asarray(metric.variables[0])
    assert counts[2, 1] == hits + missed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: F1Score(average="mean"), "average must be one of"),
        (lambda: F1Score(threshold=1.5), r"threshold must be in \(0, 1\). Got 1.5"),
        (lambda: F1Score(Task.regression()), "classification task. Got regression"),
        (lambda: F1Score(Task.multiclass(3), average="binary"), "yes/no task"),
        (lambda: F1Score(average="binary").update_state([0, 1], np.eye(2)), "one sigmoid"),
        (lambda: F1Score(Task.multiclass(3)).update_state([0, 1], np.eye(2)), "3 column"),
        (lambda: F1Score(Task.multilabel(2)).update_state([0, 1], np.eye(2)), "must have 2 columns"),
    ],
)
def test_misuse_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("task", [None, Task.multiclass(3, class_names=("a", "b", "c"))])
def test_it_trains_saves_and_loads_with_a_model(task, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(30, 2)).astype("float32"), np.arange(30) % 3
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    metrics = [F1Score(task), F1Score(task, average=None, name="each")]
    model.compile(loss="sparse_categorical_crossentropy", metrics=metrics)
    model.fit(x, y, batch_size=7, verbose=0)
    scores = model.evaluate(x, y, batch_size=7, verbose=0, return_dict=True)
    decided = model.predict(x, verbose=0).argmax(axis=1)
    assert scores["f1"] == pytest.approx(f1_score(y, decided, average="macro"), abs=1e-6)
    np.testing.assert_allclose(scores["each"], f1_score(y, decided, average=None), atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True)["f1"] == pytest.approx(scores["f1"], abs=1e-6)


def test_configuration_survives():
    task = Task.multiclass(3, class_names=("a", "b", "c"), class_frequencies=(0.2, 0.3, 0.5))
    metric = F1Score(task, average="weighted", threshold=0.4, name="mine")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert (again.task, again.average, again.threshold, again.name) == (task, "weighted", 0.4, "mine")
