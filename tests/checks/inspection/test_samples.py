import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice.checks.inspection.batches import MAX_ROWS
from keras_practice.checks.inspection.samples import samples_of

X = np.arange(24, dtype="float32").reshape(12, 2)
Y = np.arange(12)


def numbered(count, *, shuffle=False, seed=None, batch=4):
    dataset = tf.data.Dataset.range(count).map(lambda i: (tf.cast(i, tf.float32), i))
    return (dataset.shuffle(count, seed=seed) if shuffle else dataset).batch(batch)


class Numbers(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def order(dataset):
    return np.concatenate([batch[1].numpy() for batch in dataset]).tolist()


def test_arrays_are_taken_as_they_are():
    rows = samples_of(X, Y)
    assert rows.x is X
    assert rows.y is Y
    assert (len(rows), rows.total, rows.complete, rows.shuffled) == (12, 12, True, None)
    assert list(rows.inputs) == ["x"]


@pytest.mark.parametrize(
    ("x", "names"),
    [
        ([X, X[:, :1]], ["x[0]", "x[1]"]),
        ({"left": X, "right": X}, ["left", "right"]),
        ([[1.0], [2.0]], ["x"]),
    ],
)
def test_several_inputs_have_names(x, names):
    assert list(samples_of(x, Y if len(names) > 1 else Y[:2]).inputs) == names


@pytest.mark.parametrize("batches", [numbered(12), Numbers()], ids=["tf.data", "PyDataset"])
def test_data_sets_give_their_samples(batches):
    rows = samples_of(batches, None)
    assert rows.y.tolist() == list(range(12))
    assert (rows.total, rows.complete) == (12, True)


def test_a_large_data_set_is_read_in_all_its_parts():
    rows = samples_of(numbered(40_000, batch=50), None)
    assert MAX_ROWS <= len(rows) < MAX_ROWS + 500
    assert rows.y[0] == 0
    assert rows.y[-1] > 36_000
    assert (rows.total, rows.complete, rows.shuffled) == (40_000, False, False)


def test_a_data_set_without_an_end_is_read_in_part():
    rows = samples_of(numbered(12).repeat(), None)
    assert len(rows) == MAX_ROWS
    assert (rows.total, rows.complete) == (None, False)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_shuffled_data_set_goes_on_as_if_it_had_not_been_read(seed):
    orders = []
    for read in (False, True):
        tf.random.set_seed(1)
        dataset = numbered(12, shuffle=True, seed=seed)
        if read:
            rows = samples_of(dataset, None)
            assert sorted(rows.y.tolist()) == list(range(12))
            assert rows.shuffled
        orders.append([order(dataset), order(dataset)])
    assert orders[0] == orders[1]


def test_sample_weights_come_along():
    weights = np.linspace(0, 1, 12)
    assert samples_of(X, Y, weights).weight is weights
    batches = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(5)
    np.testing.assert_allclose(samples_of(batches, None).weight, weights)


def test_rows_may_be_chosen():
    rows = samples_of({"a": X}, Y).spread(5, seed=1)
    assert len(rows) == 5
    assert not rows.complete
    assert np.all(np.diff(rows.y) > 0)
    np.testing.assert_array_equal(rows.x["a"], X[rows.y])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:3], "one row a sample each, and at least one. Got 12 and 3"),
        (X[:0], Y[:0], "at least one. Got 0 and 0"),
        (X, None, "y must be given"),
        (numbered(4), Y, "brings its labels itself"),
        (iter([(X, Y)]), None, "which can be read twice"),
        (numbered(4).take(0), None, "at least one batch"),
        (numbered(4).unbatch(), None, "must give batches"),
        (tf.data.Dataset.range(4).batch(2), None, r"must give \(inputs, labels\)"),
    ],
)
def test_what_cannot_be_read_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        samples_of(x, y)
