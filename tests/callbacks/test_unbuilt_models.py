"""Callbacks on models that have no variables before their first step, or none to train."""

import warnings

import keras
import numpy as np
import pytest

from keras_practice import callbacks
from keras_practice.data import Task

# Keras says so of these with callbacks or without: a layer is not used, or numbers are asked for.
pytestmark = pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer:UserWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "softmax")
        self.unused = keras.layers.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))


class AsksForNumbers(Subclassed):
    """Cannot be built from the shapes of a batch."""

    def call(self, x):
        return super().call(x * float(np.sign(1.0 + np.abs(x.numpy()).sum())))


def sequential():
    return keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "softmax")])


def nested():
    return keras.Sequential([keras.Sequential([keras.layers.Dense(4)]), keras.layers.Dense(2, "softmax")])


def trained(build, listed=(), x=X, epochs=1, **options):
    keras.utils.set_random_seed(0)
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy", **options)
    model.fit(x, Y, batch_size=20, epochs=epochs, verbose=0, callbacks=list(listed))
    return model


@pytest.mark.parametrize("build", [sequential, nested, Subclassed])
def test_a_model_is_watched_from_its_first_step_and_trains_as_without(build):
    monitor, guard = callbacks.TrainingMonitor(every=1), callbacks.StopOnExplosion()
    model = trained(build, [monitor, guard])
    assert list(monitor.history["step"]) == [0, 1]
    assert [name for name in monitor.history if name.startswith("update_ratio/")]
    assert not guard.exploded
    for weight, other in zip(model.weights, trained(build).weights, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_a_second_fit_is_watched_too():
    monitor = callbacks.TrainingMonitor(every=1)
    model = trained(sequential, [monitor])
    model.fit(X, Y, batch_size=10, verbose=0, callbacks=[monitor])
    assert list(monitor.history["step"]) == [2, 3, 4, 5]
    assert "train_step" not in vars(model)


def test_what_cannot_be_built_from_shapes_is_watched_after_its_first_step(tmp_path):
    monitor = callbacks.TrainingMonitor(every=1)
    listed = callbacks.standard(
        (X, Y), tmp_path, Task.multiclass(2), monitor=monitor, resumable=False, best_weights=False
    )
    trained(
        AsksForNumbers,
        [one for one in listed if not isinstance(one, callbacks.ValidationScores)],
        run_eagerly=True,
    )
    assert list(monitor.history["step"]) == [1]
    with pytest.raises(ValueError, match="cannot be built from the shapes of a batch"):
        trained(AsksForNumbers, [callbacks.resumable(tmp_path / "a.npz")], run_eagerly=True)


def test_after_an_explosion_in_the_first_step_the_first_weights_are_back():
    said = []
    guard = callbacks.StopOnExplosion(sink=said.append)
    model = trained(sequential, [guard], x=np.where(X > 9.0, X, np.nan))
    assert guard.exploded
    assert len(said) == 1
    keras.utils.set_random_seed(0)
    fresh = sequential()
    fresh(X[:1])
    for weight, other in zip(model.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(weight, other)


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_a_fit_of_an_unbuilt_model_goes_on_where_it_was_interrupted(tmp_path):
    said = []

    def resumable():
        return callbacks.resumable(tmp_path / "a.npz", sink=said.append)

    with pytest.raises(KeyboardInterrupt):
        trained(sequential, [resumable(), Stop()], epochs=3)
    resumed = trained(sequential, [resumable()], epochs=3)
    assert [words.partition(" from ")[0] for words in said] == ["Going on at epoch 3"]
    for weight, other in zip(resumed.weights, trained(sequential, epochs=3).weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-6)


def test_a_model_with_nothing_to_train_is_let_be():
    def frozen():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, "softmax")])
        model.trainable = False
        return model

    monitor = callbacks.TrainingMonitor(every=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model does not have any trainable weights", UserWarning)
        trained(frozen, [monitor, callbacks.StopOnExplosion()])
    assert monitor.history == {}
