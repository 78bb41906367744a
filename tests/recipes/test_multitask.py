"""Multi-task nets: one trunk, and for each head the loss, metrics and weight of its task."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_practice.data import Task
from keras_practice.recipes.dense import mlp
from keras_practice.recipes.multitask import compile_multi_task, multi_task
from keras_practice.recipes.recurrent import rnn

TASKS = {"smiles": Task.binary(), "age": Task.regression(2), "name": Task.multiclass(3)}


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def trunk():
    return mlp((4,), Task.multiclass(5), units=(6,), dropout=0.0)


def people(number=11):
    rng = np.random.default_rng(0)
    labels = {
        "smiles": rng.integers(0, 2, number),
        "age": rng.normal(size=(number, 2)).astype("float32"),
        "name": rng.integers(0, 3, number),
    }
    return rng.normal(size=(number, 4)).astype("float32"), labels


def test_each_task_has_a_head_that_suits_it():
    model = multi_task(trunk(), TASKS)
    x, _ = people()
    outputs = {key: np.array(value) for key, value in model(10 * x).items()}
    assert {key: value.shape for key, value in outputs.items()} == {
        "smiles": (11, 1),
        "age": (11, 2),
        "name": (11, 3),
    }
    np.testing.assert_allclose(outputs["name"].sum(axis=1), 1, atol=1e-5)
    assert 0 <= outputs["smiles"].min() <= outputs["smiles"].max() <= 1
    assert outputs["age"].min() < 0


def test_a_recipe_loses_its_own_head_and_shares_its_weights():
    single = trunk()
    model = multi_task(single, TASKS)
    assert [layer.name for layer in model.layers if layer.name.startswith("output")] == []
    features = model.get_layer("age_dense").input
    assert features.shape == (None, 6)
    assert model.get_layer("block1_dense") is single.get_layer("block1_dense")


def test_any_other_model_is_a_trunk_as_it_is():
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(7, name="output")])
    model = multi_task(plain, {"age": Task.regression()})
    assert model.get_layer("age_dense").input.shape == (None, 7)
    assert model(people()[0])["age"].shape == (11, 1)


def test_heads_may_be_at_every_step():
    steps = rnn((None, 4), Task.binary(), units=(3,), every_step=True)
    model = multi_task(steps, {"tag": Task.multiclass(3), "level": Task.regression()})
    assert model(np.zeros((2, 5, 4), "float32"))["tag"].shape == (2, 5, 3)


def test_losses_metrics_and_weights_are_those_of_the_tasks():
    x, y = people()
    model = compile_multi_task(multi_task(trunk(), TASKS), TASKS, {"age": 0.25, "name": 3})
    results = model.evaluate(x, y, batch_size=11, verbose=0, return_dict=True)
    outputs = {key: np.array(value, "float64") for key, value in model(x).items()}
    smiles = outputs["smiles"][:, 0]
    binary = -np.mean(np.where(y["smiles"] == 1, np.log(smiles), np.log(1 - smiles)))
    squares = np.mean(np.square(outputs["age"] - y["age"]))
    classes = -np.mean(np.log(outputs["name"][np.arange(11), y["name"]]))
    assert results["loss"] == pytest.approx(binary + 0.25 * squares + 3 * classes, rel=1e-4)
    assert results["smiles_accuracy"] == pytest.approx(np.mean((smiles > 0.5) == y["smiles"]))
    assert results["age_mae"] == pytest.approx(np.abs(outputs["age"] - y["age"]).mean(), rel=1e-4)
    assert results["name_accuracy"] == pytest.approx(np.mean(outputs["name"].argmax(1) == y["name"]))


def test_trains_saves_and_loads_with_a_dictionary_of_labels(tmp_path):
    x, y = people()
    model = compile_multi_task(multi_task(trunk(), TASKS), TASKS, learning_rate=1e-2)
    assert model.optimizer.clipnorm == 1.0
    before = [np.array(v) for v in model.trainable_variables]
    history = model.fit(x, y, batch_size=4, epochs=8, validation_data=(x, y), verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert "val_name_accuracy" in history
    assert all(np.abs(b - a).max() > 0 for a, b in zip(before, model.trainable_variables, strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for key, value in model(x).items():
        np.testing.assert_allclose(loaded(x)[key], value, atol=1e-6)


def test_the_trunk_learns_from_every_head():
    x, y = people()
    kernels = {}
    for key in ("smiles", "age"):
        keras.utils.set_random_seed(0)
        model = multi_task(trunk(), TASKS)
        weights = {other: 1.0 if other == key else 1e-12 for other in TASKS}
        compile_multi_task(model, TASKS, weights, "sgd", learning_rate=0.1)
        start = np.array(model.get_layer("block1_dense").kernel)
        model.train_on_batch(x, y)
        kernels[key] = np.array(model.get_layer("block1_dense").kernel) - start
        assert np.abs(kernels[key]).max() > 1e-5
    assert np.abs(kernels["smiles"] - kernels["age"]).max() > 1e-5


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({}, "tasks must map at least one name to a Task"),
        ([Task.binary()], "tasks must map at least one name to a Task"),
        ({"age": "regression"}, "Got 'regression' for 'age'"),
        ({1: Task.binary()}, "A task's name must be a string without a slash. Got 1"),
        ({"a/b": Task.binary()}, "A task's name must be a string without a slash"),
        ({"block1": Task.binary()}, "no layer of the trunk has. Got 'block1'"),
        ({"block1_relu": Task.binary()}, "no layer of the trunk has. Got 'block1_relu'"),
    ],
)
def test_wrong_tasks_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        multi_task(trunk(), tasks)


def test_a_trunk_with_several_outputs_is_refused():
    with pytest.raises(ValueError, match="trunk must have one output, the features. Got 3"):
        multi_task(multi_task(trunk(), TASKS), {"other": Task.binary()})


@pytest.mark.parametrize(
    ("tasks", "weights", "message"),
    [
        ({"smiles": Task.binary()}, None, "The tasks must be those of the model"),
        ({**TASKS, "age": Task.regression(3)}, None, "The tasks must be those of the model"),
        (TASKS, {"ages": 1.0}, "one of the tasks smiles, age, name. Got 'ages'"),
        (TASKS, {"age": 0.0}, "The weight of age must be a positive number. Got 0.0"),
    ],
)
def test_wrong_compilation_is_refused(tasks, weights, message):
    with pytest.raises(ValueError, match=message):
        compile_multi_task(multi_task(trunk(), TASKS), tasks, weights)


def test_a_single_output_cannot_be_compiled_for_many_tasks():
    with pytest.raises(ValueError, match="The tasks must be those of the model"):
        compile_multi_task(trunk(), TASKS)
