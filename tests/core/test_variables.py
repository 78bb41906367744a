import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice.core.variables import (
    all_variables,
    assign,
    assign_unchecked,
    preserved,
    read_values,
    restored,
    snapshot,
)

X, Y = np.ones((8, 3), np.float32), np.arange(8, dtype=np.float32)[:, None]


def model():
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    network.compile(keras.optimizers.Adam(0.1), "mse")
    return network


def numbers(variables):
    return [np.array(variable.numpy()) for variable in variables]


def assert_equal(variables, values):
    for variable, value in zip(variables, values, strict=True):
        assert variable.numpy().dtype == value.dtype
        np.testing.assert_array_equal(variable.numpy(), value)


def test_all_variables_are_the_models_and_then_the_optimizers():
    network = model()
    network.optimizer.build(network.trainable_variables)
    found = all_variables(network)
    assert found == [*network.variables, *network.optimizer.variables]
    names = [variable.name for variable in found]
    assert {"kernel", "moving_mean", "seed_generator_state", "iteration", "learning_rate"} <= set(names)


def test_a_model_that_is_not_compiled_has_no_optimizers_variables():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    assert all_variables(network) == network.variables


def test_a_snapshot_brings_everything_back_to_the_bit_as_often_as_wanted():
    network = model()
    network.fit(X, Y, verbose=0)
    start, before = snapshot(all_variables(network)), numbers(all_variables(network))
    for _ in range(2):
        network.fit(X, Y, epochs=2, verbose=0)
        assert not start.holds()
        start.restore()
        assert start.holds()
        assert_equal(all_variables(network), before)


def test_a_snapshot_is_a_copy():
    variable = tf.Variable([1.0, 2.0])
    before = snapshot([variable])
    variable.scatter_nd_update([[0]], [5.0])
    assert not before.holds()
    before.restore()
    assert variable.numpy().tolist() == [1.0, 2.0]


def test_variables_are_restored_after_an_error_too():
    variable = keras.Variable([1.0])

    def fail():
        with restored([variable]):
            variable.assign([2.0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert variable.numpy() == 1.0


def test_a_models_variables_and_the_random_state_are_lent_and_given_back():
    network = model()
    before, python, legacy = numbers(network.variables), random.getstate(), np.random.get_state()[1].tolist()
    with preserved(network, X) as lent:
        assert lent is network
        network(X, training=True)
        random.random()
        np.random.rand()
        assign(network.trainable_variables, [np.zeros(v.shape) for v in network.trainable_variables])
    assert_equal(network.variables, before)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == legacy


def test_a_model_that_waits_for_its_input_is_built():
    network = keras.Sequential([keras.layers.Dense(1)])
    with preserved(network, X):
        assert network.built


@pytest.mark.parametrize("kind", [keras.Variable, tf.Variable])
@pytest.mark.parametrize("put", [assign, assign_unchecked])
def test_each_variable_gets_its_value(put, kind):
    variables = [kind([1.0, 2.0]), kind(np.array([3], np.int64), dtype="int64")]
    put(variables, [np.array([5.0, 6.0], np.float32), tf.constant([7], tf.int64)])
    assert_equal(variables, [np.array([5.0, 6.0], np.float32), np.array([7])])
    with pytest.raises(ValueError, match="zip"):
        put(variables, [np.zeros(2, np.float32)])


@pytest.mark.parametrize("kind", [keras.Variable, tf.Variable])
def test_values_that_were_read_stay_when_the_variable_changes(kind):
    variable = kind([1.0, 2.0])
    (value,) = read_values([variable])
    assign_unchecked([variable], [tf.constant([8.0, 9.0])])
    assert value.numpy().tolist() == [1.0, 2.0]
