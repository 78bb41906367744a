import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_practice.data import Task


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 1, 0], Task.binary(class_frequencies=(0.5, 0.5))),
        ([[0], [1], [1], [1]], Task.binary(class_frequencies=(0.25, 0.75))),
        ([0.0, 1.0], Task.binary(class_frequencies=(0.5, 0.5))),
        ([True, False], Task.binary(class_frequencies=(0.5, 0.5))),
        ([0, 1, 2, 2], Task.multiclass(3, class_frequencies=(0.25, 0.25, 0.5))),
        ([[1, 0, 0], [0, 1, 0]], Task.multiclass(3, class_frequencies=(0.5, 0.5, 0.0), one_hot=True)),
        ([[1, 1, 0], [0, 1, 0]], Task.multilabel(3, class_frequencies=(0.5, 1.0, 0.0))),
        ([0.5, 1.5, 2.0], Task.regression()),
        ([[0.5, 1.5], [2.0, 1.0]], Task.regression(2)),
        ([[[0.5, 1.5], [2.0, 1.0]]], Task.regression(2)),
    ],
)
def test_infer_reads_the_task_off_the_labels(labels, expected):
    assert Task.infer(np.array(labels)) == expected


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([], None, "must have shape"),
        (3, None, "must have shape"),
        ([0.0, float("nan")], None, "must be finite"),
        (["a", "b"], None, "must be numbers"),
        ([0, 0, 0], None, "at least two classes"),
        ([3, 7, 9], None, "state the kind"),
        ([0, 2], None, "state the kind"),
        ([-1, 1], None, "state the kind"),
        ([0, 0], "binary", "at least two classes"),
        ([0, 1, 2], "binary", "must be 0 or 1. Got 2"),
        ([0.5, 1.0], "multiclass", "must be 0 or 1. Got 0.5"),
        ([0, 1], "ranking", "kind must be one of"),
    ],
)
def test_infer_refuses_labels_in_one_sentence(labels, kind, message):
    with pytest.raises(ValueError, match=message) as error:
        Task.infer(np.array(labels), kind)
    assert "\n" not in str(error.value)


def test_kind_settles_what_integers_mean():
    assert Task.infer(np.array([3, 7, 9]), "regression") == Task.regression()
    assert Task.infer(np.array([0, 2]), "multiclass").outputs == 3


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Task.binary(), [0, 2]),
        (Task.multiclass(3), [0, 3]),
        (Task.multiclass(3), [0, -1]),
        (Task.multiclass(3), [0.5, 1]),
        (Task.multiclass(3, one_hot=True), [0, 1]),
        (Task.multiclass(2, one_hot=True), [[1, 1], [0, 1]]),
        (Task.multilabel(2), [[0, 2], [1, 1]]),
        (Task.multilabel(2), [[0, 1, 1]]),
        (Task.regression(2), [1.0, 2.0]),
    ],
)
def test_check_refuses_labels_of_another_task(task, labels):
    with pytest.raises(ValueError, match="must"):
        task.check(np.array(labels))


def test_check_accepts_absent_classes():
    Task.multiclass(5).check(np.array([0, 1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task.multiclass(1), "at least 2 outputs"),
        (lambda: Task.regression(0), "at least 1 outputs"),
        (lambda: Task.multiclass(True), "must be an integer"),
        (lambda: Task.multiclass(3, class_names=("a", "b")), "one entry for each"),
        (lambda: Task("binary", 2), "one output"),
        (lambda: Task("sorting", 2), "kind must be one of"),
    ],
)
def test_impossible_tasks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60))
def test_class_counts_equal_a_plain_count(labels):
    labels = np.array(labels)
    one_hot = np.eye(5)[labels]
    expected = [int(np.sum(labels == c)) for c in range(5)]
    assert Task.multiclass(5).class_counts(labels).tolist() == expected
    assert Task.multiclass(5, one_hot=True).class_counts(one_hot).tolist() == expected
    assert Task.multiclass(5, one_hot=True).class_indices(one_hot).tolist() == labels.tolist()
