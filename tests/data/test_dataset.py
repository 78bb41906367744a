import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_practice import data
from keras_practice.data import Scaling, Task

OFFLINE = ("digits", "iris", "wine", "breast_cancer", "diabetes", "hastie", "xor", "spirals", "waves")


def rows(split):
    return {row.tobytes() for row in split.x.reshape(len(split), -1)}


@pytest.mark.parametrize("name", OFFLINE)
def test_every_offline_set_loads_whole_and_apart(name):
    dataset = data.load(name)
    train, val, test = dataset.train, dataset.val, dataset.test
    total = len(train) + len(val) + len(test)
    assert len(val) / total == pytest.approx(0.2, abs=0.02)
    assert len(test) / total == pytest.approx(0.2, abs=0.02)
    assert not rows(train) & rows(val)
    assert not rows(train) & rows(test)
    assert not rows(val) & rows(test)
    for split in (train, val, test):
        assert split.x.dtype == np.float32
        assert np.all(np.isfinite(split.x))
        dataset.task.check(split.y)
    if dataset.task.is_classification:
        for split in (val, test):
            shares = dataset.task.class_counts(split.y) / len(split)
            np.testing.assert_allclose(shares, dataset.task.class_frequencies, atol=0.06)
        assert len(dataset.task.class_names) == dataset.task.num_classes


@pytest.mark.parametrize("name", ["wine", "hastie"])
def test_features_are_standardised_by_the_training_split_alone(name):
    dataset = data.load(name)
    np.testing.assert_allclose(dataset.train.x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(dataset.train.x.std(axis=0), 1, atol=1e-5)
    assert np.abs(dataset.val.x.mean(axis=0)).max() > 1e-4  # Not by their own statistics.


def test_images_lie_between_zero_and_one():
    digits = data.load("digits")
    assert digits.input_shape == (8, 8, 1)
    assert (digits.train.x.min(), digits.train.x.max()) == (0.0, 1.0)


def test_scaling_takes_new_data_alike_and_back():
    diabetes = data.load("diabetes")
    original = diabetes.scaling.invert(diabetes.train.x)
    np.testing.assert_allclose(diabetes.scaling.apply(original), diabetes.train.x, atol=1e-5)
    assert diabetes.target_scaling is not None
    targets = diabetes.target_scaling.invert(diabetes.train.y)
    assert targets.min() >= 25 - 1e-3
    assert targets.max() <= 346 + 1e-3


def test_a_constant_feature_becomes_zero():
    x = np.full((4, 1), 0.1)
    np.testing.assert_array_equal(Scaling.fit(x, "standard").apply(x), np.zeros((4, 1)))


def test_seed_fixes_the_split():
    first, again, other = (data.load("iris", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert rows(first.test) != rows(other.test)


@settings(max_examples=25, deadline=None)
@given(
    distinct=st.integers(30, 80),
    copies=st.integers(1, 4),
    classes=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
def test_identical_samples_stay_together(distinct, copies, classes, seed):
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(distinct, 2)), copies, axis=0)
    y = np.repeat(np.arange(distinct) % classes, copies)
    order = rng.permutation(len(x))
    dataset = data.from_arrays(x[order], y[order], seed=seed)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == len(x)
    assert not rows(dataset.train) & (rows(dataset.val) | rows(dataset.test))
    assert not rows(dataset.val) & rows(dataset.test)


def test_a_test_set_of_its_own_is_kept_and_left_out_of_training():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    dataset = data.from_arrays(x, y, test_data=(x[:5], y[:5]), scale="none")
    np.testing.assert_allclose(dataset.test.x, x[:5], rtol=1e-6)
    assert len(dataset.train) + len(dataset.val) == 35
    assert not rows(dataset.test) & rows(dataset.train)


X = np.random.default_rng(0).normal(size=(30, 2))
Y = np.arange(30) % 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.where(X[3, 1] == X, np.nan, X), Y), "must be finite. Got NaN or infinity in 1 of 30"),
        ((np.where(X[3, 1] == X, np.inf, X), Y), "must be finite"),
        ((X[:0], Y[:0]), "not be empty"),
        ((X, Y[:-1]), "one row a sample each. Got 30 and 29"),
        ((X, np.zeros(30, int)), "at least two classes"),
        ((X.astype(str), Y), "must be numbers"),
        ((X[:, 0], Y), "must have shape"),
        ((X, np.ones(30) * 2.5), "must vary"),
        ((X[:3], np.array([0, 1, 1])), "enough distinct samples"),
    ],
)
def test_arrays_that_cannot_be_learned_from_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_arrays(*arguments)
    assert "\n" not in str(error.value)


def test_labels_that_do_not_fit_the_task_are_refused():
    with pytest.raises(ValueError, match="must be 0 or 1. Got 2"):
        data.from_arrays(X, np.arange(30) % 3, task=Task.binary())


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"val": 0.0}, "val must be in"),
        ({"test": 1.0}, "test must be in"),
        ({"val": 0.5, "test": 0.5}, "below 1"),
        ({"val": 0.001}, "enough distinct samples"),
    ],
)
def test_a_split_left_empty_is_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(X, Y, **shares)


def test_batches_shuffle_the_training_split_alone():
    iris = data.load("iris")

    def labels(split, **options):
        return np.concatenate([y for _, y in split.batches(16, **options)])

    assert len(iris.train.batches(16)) == int(np.ceil(len(iris.train) / 16))
    np.testing.assert_array_equal(labels(iris.val), iris.val.y)
    np.testing.assert_array_equal(labels(iris.train, shuffle=False), iris.train.y)
    assert not np.array_equal(labels(iris.train), iris.train.y)
    np.testing.assert_array_equal(np.sort(labels(iris.train)), np.sort(iris.train.y))


def test_each_epoch_has_an_order_of_its_own_that_the_seed_fixes():
    train = data.load("iris").train

    def two_epochs(seed):
        batches = train.batches(16, seed=seed)
        return [np.concatenate([x for x, _ in batches]) for _ in range(2)]

    first, second = two_epochs(1)
    again, _ = two_epochs(1)
    other, _ = two_epochs(2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_batches_keep_samples_and_labels_together():
    train = data.load("iris").train
    label = {row.tobytes(): y for row, y in zip(train.x, train.y, strict=True)}
    for x, y in train.batches(7):
        assert [label[row.tobytes()] for row in np.asarray(x)] == np.asarray(y).tolist()


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_wrong_batch_size_is_refused(batch_size):
    with pytest.raises(ValueError, match="positive integer"):
        data.load("iris").train.batches(batch_size)


def test_a_split_is_shared_by_copies():
    split = data.load("iris").train
    assert copy.deepcopy(split) is split


def test_a_dataset_says_what_it_is():
    assert repr(data.load("iris")) == "Dataset(iris: 90 train, 30 val, 30 test, input (4,), multiclass(3))"
