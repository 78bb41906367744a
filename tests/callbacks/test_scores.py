import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from keras_practice.callbacks import confusion_matrix, scores
from keras_practice.callbacks.confusion import confusion_figure, report_markdown
from keras_practice.callbacks.scores import best_threshold
from keras_practice.data import Task

KINDS = ("binary", "multiclass", "multilabel")
AVERAGES = ("macro", "micro", "weighted", None)


def sample(kind, classes, size, seed, rounded):
    """Labels and probabilities, some of them tied, some classes perhaps absent."""
    rng = np.random.default_rng(seed)
    if kind == "multiclass":
        y, p = rng.integers(0, classes, size), rng.dirichlet(np.ones(classes), size)
        task = Task.multiclass(classes)
    elif kind == "binary":
        y, p, task = rng.integers(0, 2, size), rng.uniform(size=(size, 1)), Task.binary()
    else:
        y, p = rng.integers(0, 2, (size, classes)), rng.uniform(size=(size, classes))
        task = Task.multilabel(classes)
    return y, np.round(p, 1) if rounded else p, task


def by_scikit_learn(y, p, task, average, threshold):
    decided = p.argmax(axis=1) if task.kind == "multiclass" else (p > threshold).astype(int)
    decided = decided[:, 0] if task.kind == "binary" else decided
    labels = None if task.kind == "multilabel" else range(task.num_classes)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        y, decided, average=average, labels=labels, zero_division=0
    )
    return {"precision": precision, "recall": recall, "f1": f1, "accuracy": np.mean(y == decided)}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(AVERAGES),
    st.integers(2, 5),
    st.integers(1, 60),
    st.integers(0, 2**31),
    st.booleans(),
    st.sampled_from([0.5, 0.3, 0.05]),
)
def test_class_scores_equal_scikit_learn(kind, average, classes, size, seed, rounded, threshold):
    y, p, task = sample(kind, classes, size, seed, rounded)
    got = scores(y, p, task, average=average, threshold=threshold)
    for name, expected in by_scikit_learn(y, p, task, average, threshold).items():
        np.testing.assert_allclose(got[name], expected, atol=1e-9, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS), st.integers(2, 4), st.integers(2, 60), st.integers(0, 2**31), st.booleans())
def test_auc_equals_scikit_learns_with_ties_too(kind, classes, size, seed, rounded):
    y, p, task = sample(kind, classes, size, seed, rounded)
    members = y[:, None] == np.arange(task.num_classes) if kind == "multiclass" else y.reshape(size, -1)
    assume(all(0 < column.sum() < size for column in members.T))
    expected = [sklearn_metrics.roc_auc_score(m, c) for m, c in zip(members.T, p.T, strict=True)]
    assert scores(y, p, task)["auc"] == pytest.approx(np.mean(expected))
    each = scores(y, p, task, average=None)["auc"]
    assert each == pytest.approx(expected * 2 if kind == "binary" else expected)


def test_the_f1_of_yes_alone():
    y, p, task = sample("binary", 2, 50, 0, False)
    expected = sklearn_metrics.f1_score(y, p[:, 0] > 0.5)
    assert scores(y, p, task, average="binary")["f1"] == pytest.approx(expected)


def test_each_label_may_have_its_own_threshold():
    y, p, task = sample("multilabel", 3, 50, 0, False)
    thresholds = [0.2, 0.5, 0.8]
    got = scores(y, p, task, threshold=thresholds)["f1"]
    assert got == pytest.approx(sklearn_metrics.f1_score(y, p > np.array(thresholds), average="macro"))


def test_coverage_is_the_share_of_sure_predictions():
    p = np.array([[0.95, 0.05], [0.2, 0.8], [0.9, 0.1], [0.01, 0.99]])
    got = scores([0, 1, 1, 1], p, Task.multiclass(2), confidence=0.9)
    assert got["coverage"] == 0.75
    assert got["coverage_accuracy"] == pytest.approx(2 / 3)


def test_coverage_of_a_sigmoid_counts_a_sure_no():
    got = scores([0, 1, 1], [[0.02], [0.97], [0.6]], Task.binary(), confidence=0.9)
    assert (got["coverage"], got["coverage_accuracy"]) == (pytest.approx(2 / 3), 1.0)


def test_the_accuracy_of_no_sample_is_undefined():
    got = scores([0, 1], [[0.5], [0.5]], Task.binary())
    assert got["coverage"] == 0.0
    assert np.isnan(got["coverage_accuracy"])


def test_an_output_at_every_step_counts_each_step():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, size=(6, 5)), rng.dirichlet(np.ones(3), size=(6, 5))
    whole = scores(y, p, Task.multiclass(3), confidence=0.4)
    assert whole == scores(y.ravel(), p.reshape(-1, 3), Task.multiclass(3), confidence=0.4)


def test_the_auc_of_a_class_that_does_not_occur_is_left_out():
    p = np.eye(3)[[0, 1, 1]]
    assert scores(np.array([0, 1, 1]), p, Task.multiclass(3))["auc"] == 1.0
    assert np.isnan(scores(np.array([1, 1]), p[1:], Task.multiclass(3))["auc"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 30), st.integers(0, 2**31), st.booleans())
def test_regression_scores_equal_scikit_learn(outputs, size, seed, constant):
    rng = np.random.default_rng(seed)
    y, p = rng.normal(size=(size, outputs)), rng.normal(size=(size, outputs))
    if constant:
        y[:, 0] = 1.0
    got = scores(y, p, Task.regression(outputs))
    assert got["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(y, p))
    assert got["rmse"] == pytest.approx(np.sqrt(sklearn_metrics.mean_squared_error(y, p)))
    assert got["r2"] == pytest.approx(sklearn_metrics.r2_score(y, p, multioutput="variance_weighted"))


@pytest.mark.parametrize("task", [Task.binary(), Task.regression()])
@pytest.mark.parametrize("average", ["macro", None])
def test_diverged_predictions_give_nan_and_no_crash(task, average):
    for value in scores([0, 1], [[np.nan], [0.5]], task, average=average).values():
        assert np.all(np.isnan(value))


@pytest.mark.parametrize("average", ["binary", "macro", "micro"])
def test_the_best_threshold_beats_every_other_one(average):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    p = np.round(np.clip(rng.normal(0.3 + 0.2 * y, 0.15), 0, 1), 2)
    best = best_threshold(y, p, average)
    f1 = {
        t: sklearn_metrics.f1_score(y, p > t, average=average)
        for t in (best, *np.linspace(0.001, 0.999, 999))
    }
    assert f1[best] == pytest.approx(max(f1.values()))


@pytest.mark.parametrize(
    ("y", "p", "expected"),
    [
        ([0, 1], [0.2, 0.4], 0.3),
        ([1, 1], [0.2, 0.4], 0.1),
        ([0, 0], [0.2, 0.4], 0.7),
        ([0, 1], [0.0, 1.0], 0.5),
        ([0, 1], [np.nan, 1.0], 0.5),
    ],
)
def test_best_threshold_by_hand(y, p, expected):
    assert best_threshold(y, p) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_the_confusion_matrix_equals_scikit_learns(kind):
    y, p, task = sample(kind, 4, 60, 0, False)
    decided = p.argmax(axis=1) if kind == "multiclass" else p[:, 0] > 0.5
    expected = sklearn_metrics.confusion_matrix(y, decided, labels=range(task.num_classes))
    np.testing.assert_array_equal(confusion_matrix(y, p, task), expected)


def test_several_labels_have_no_confusion_matrix():
    with pytest.raises(ValueError, match="exclude each other"):
        confusion_matrix([[0, 1]], [[0.1, 0.9]], Task.multilabel(2))


def test_the_confusion_picture_names_every_class_as_it_is():
    names = ("<b>", "$x_1$", "a very long name of a class", "4")
    counts = np.arange(16).reshape(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = confusion_figure(counts, Task.multiclass(4, names))
        figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["<b>", r"\$x_1\$", "a very long nam…", "4"]
    assert {text.get_text() for text in figure.axes[0].texts} == {str(n) for n in range(1, 16)}


def test_the_report_by_class_shows_the_weakest_first_and_escapes_names():
    each = {name: np.array([0.9, 0.1]) for name in ("precision", "recall", "f1", "auc")}
    table = report_markdown(each, Task.multiclass(2, ("good", "<script>|")))
    rows = table.splitlines()[2:]
    assert rows[0] == "| &#60;script&#62;&#124; | 0.100 | 0.100 | 0.100 | 0.100 |"
    assert rows[1].startswith("| good | 0.900 ")
