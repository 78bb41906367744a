"""Weights in files: those of Keras's own `save_weights`, whichever way they were written."""

import h5py
import keras
import numpy as np
import pytest

from keras_practice.core.variables import all_variables, read_values
from keras_practice.training.checkpoints import Checkpoints


def net(seed=0, optimizer="adam"):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.BatchNormalization()]
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dropout(0.5), keras.layers.Dense(5)])
    model = keras.Sequential([*layers, inner, keras.layers.Dense(1)])
    model.compile(optimizer, "mse", metrics=["mae"])
    x = np.random.default_rng(seed).normal(size=(9, 4))
    model.fit(x, x[:, :1], verbose=0)
    return model


def everything(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: np.asarray(item) if isinstance(item, h5py.Dataset) else 0})
        )
        attributes = dict(file.attrs)
    return found, attributes


def same_files(one, other):
    (a, of_a), (b, of_b) = everything(one), everything(other)
    return a.keys() == b.keys() and of_a == of_b and all(np.array_equal(a[name], b[name]) for name in a)


def change(model, by):
    for variable in all_variables(model):
        variable.assign(np.asarray(variable.value) + np.asarray(by).astype(variable.dtype))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_file_is_the_one_that_keras_writes(optimizer, tmp_path):
    model, checkpoints = net(optimizer=optimizer), Checkpoints()
    for turn in range(4):
        change(model, turn + 1)
        at_the_time = read_values(all_variables(model))
        model.save_weights(tmp_path / "keras.weights.h5")
        change(model, 7)  # As training that goes on.
        checkpoints.write(model, at_the_time, tmp_path / "ours.weights.h5")
        assert same_files(tmp_path / "ours.weights.h5", tmp_path / "keras.weights.h5")
    assert checkpoints._forms[model] is not None  # The last files were copies.


def test_a_file_that_was_copied_loads_into_another_model(tmp_path):
    model, checkpoints, other = net(), Checkpoints(), net(seed=1)
    for turn in range(3):
        change(model, turn + 1)
        checkpoints.write(model, read_values(all_variables(model)), tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    for ours, theirs in zip(model.variables, other.variables, strict=True):
        if "seed_generator" not in ours.path and "metric" not in ours.path:
            np.testing.assert_array_equal(ours.value, theirs.value)


def test_a_model_that_was_compiled_anew_is_written_by_keras(tmp_path):
    model, checkpoints = net(), Checkpoints()
    for _ in range(3):
        checkpoints.write(model, read_values(all_variables(model)), tmp_path / "a.weights.h5")
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    checkpoints.write(model, read_values(all_variables(model)), tmp_path / "ours.weights.h5")
    model.save_weights(tmp_path / "keras.weights.h5")
    assert same_files(tmp_path / "ours.weights.h5", tmp_path / "keras.weights.h5")


def test_a_large_model_is_written_by_keras(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_practice.training.checkpoints._LARGEST", 100)
    model, checkpoints = net(), Checkpoints()
    for _ in range(3):
        checkpoints.write(model, read_values(all_variables(model)), tmp_path / "ours.weights.h5")
    assert checkpoints._forms[model] is None
    model.save_weights(tmp_path / "keras.weights.h5")
    assert same_files(tmp_path / "ours.weights.h5", tmp_path / "keras.weights.h5")


def test_finding_the_form_leaves_the_model_as_it_was(tmp_path):
    model, checkpoints = net(), Checkpoints()
    for _ in range(2):
        before = [np.asarray(value) for value in read_values(all_variables(model))]
        checkpoints.write(model, read_values(all_variables(model)), tmp_path / "a.weights.h5")
        assert all(map(np.array_equal, map(np.asarray, read_values(all_variables(model))), before))
