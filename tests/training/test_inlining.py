"""Steps that are put into a loop: only where they compute the same bits, and then with the same effects."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice.training.batches import DeviceArrays, Epoch, batches_of
from keras_practice.training.epoch_function import EpochFunction
from keras_practice.training.inlining import inlined

RNG = np.random.default_rng(0)


def dense(inputs=8, units=6):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((inputs,)), keras.layers.Dense(units), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dropout(0.3), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def batches(inputs=8, rows=77, size=16):
    x = RNG.normal(size=(rows, inputs)).astype("float32")
    return batches_of(DeviceArrays().get((x, RNG.integers(0, 3, rows))), size, shuffle=False)


def state(model):
    return [np.asarray(variable.value) for variable in [*model.variables, *model.optimizer.variables]]


def theirs(model, given):
    """The logs of plain Keras's epoch."""
    history = model.fit(*given.data, batch_size=16, shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}


# For 6 samples TensorFlow has other kernels in a function than in a loop, at least in some versions.
@pytest.mark.parametrize("rows", [80, 70])
def test_small_steps_are_put_into_the_loop_and_leave_the_bits_of_keras(rows):
    ours, plain, given = dense(), dense(), batches(rows=rows)
    function = EpochFunction(ours, "train", [], inline=True)
    for _ in range(2):
        logs = function(Epoch([given], whole=True))
        expected = theirs(plain, given)
        assert all(map(np.array_equal, state(ours), state(plain)))
        assert {name: float(value) for name, value in logs.items()} == pytest.approx(expected)
    assert function._same[next(iter(function._puts)), 16]


def test_trying_a_step_leaves_the_model_as_it_was():
    model, given = dense(), batches()
    function = EpochFunction(model, "train", [], inline=True)
    before = state(model)
    assert function._put(given, tf.zeros(0, tf.float64), True)[1] >= 4
    assert all(map(np.array_equal, state(model), before))


def test_another_size_of_batches_is_tried_anew():
    function = EpochFunction(dense(), "train", [], inline=True)
    for size in (16, 20):
        function(Epoch([batches(rows=80, size=size)], whole=True))
    assert [size for _, size in function._same] == [16, 20]


def test_a_step_that_leaves_other_bits_is_called(monkeypatch):
    model = dense()
    function = EpochFunction(model, "train", [], inline=True)

    def off(step):
        put, weight = inlined(step), model.trainable_variables[0].value

        def shifted(*tensors):
            with tf.control_dependencies(put(*tensors)):
                return [weight.assign_add(tf.fill(weight.shape, 1e-6)).op]

        return shifted

    monkeypatch.setattr("keras_practice.training.epoch_function.inlined", off)
    given, plain = batches(), dense()
    function(Epoch([given], whole=True))
    assert [*function._same.values()] == [False]
    theirs(plain, given)
    assert all(map(np.array_equal, state(model), state(plain)))


def test_the_loop_of_a_recurrent_layer_is_put_in():
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.LSTM(3), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = RNG.normal(size=(64, 4, 2)).astype("float32"), RNG.integers(0, 3, 64)
    function = EpochFunction(model, "train", [], inline=True)
    function(Epoch([batches_of(DeviceArrays().get((x, y)), 16, shuffle=False)], whole=True))
    assert list(function._same.values()) == [True]


def test_a_step_that_chooses_is_called():
    def step(x):
        tf.cond(tf.reduce_sum(x) > 0.0, lambda: tf.print(x), tf.no_op)

    with tf.experimental.function_executor_type("SINGLE_THREADED_EXECUTOR"):
        function = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((None,)))
    assert inlined(function) is None


def test_convolutions_are_called():
    def step(x):
        tf.nn.conv2d(x, tf.ones((3, 3, 1, 2)), 1, "SAME")

    function = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((None, 8, 8, 1)))
    assert inlined(function) is None


def test_what_is_put_in_twice_runs_twice():
    count = tf.Variable(0.0)

    def step(x):
        count.assign_add(tf.reduce_sum(x * (tf.ones(3) + tf.zeros(3))))

    function = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((None,)))
    put = inlined(function)

    @tf.function(autograph=False)
    def twice(x):
        for _ in range(2):
            with tf.control_dependencies(put(x)):
                x = tf.identity(x)

    twice(tf.ones(3))
    assert float(count) == 6.0
