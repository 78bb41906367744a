"""A trial's seed without TensorFlow's forgetting: the same draws as after Keras's own `set_random_seed`."""

import random

import keras
import numpy as np
import tensorflow as tf

from keras_practice.training.seeding import set_random_seed


def draws():
    """One of everything that is random, eager and in a new graph."""
    shuffled = tf.function(lambda: tf.random.shuffle(tf.range(20)), autograph=False)
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    dropped = keras.layers.Dropout(0.5)(np.ones((4, 5), "float32"), training=True)
    return [
        random.random(),
        np.random.rand(),
        tf.random.normal((2,)).numpy(),
        tf.random.uniform((2,)).numpy(),
        shuffled().numpy(),
        layer.kernel.numpy(),
        np.asarray(dropped),
    ]


def test_the_draws_are_those_of_keras():
    set_random_seed(987_654)
    ours = draws()
    keras.utils.set_random_seed(987_654)
    for one, other in zip(ours, draws(), strict=True):
        np.testing.assert_array_equal(one, other)
    set_random_seed(987_655)
    assert not np.array_equal(draws()[2], ours[2])


def test_tensorflow_keeps_what_it_has_prepared(monkeypatch):
    """This rests on private attributes of TensorFlow's; without them it would be right, but slow."""
    calls = []
    monkeypatch.setattr(tf.random, "set_seed", calls.append)
    set_random_seed(987_656)
    assert calls == []
    assert tf.random.set_seed.__name__ == "append"  # Put back as it was.


def test_another_version_of_tensorflow_forgets_and_is_right(monkeypatch):
    calls = []
    monkeypatch.setattr(tf.random, "set_seed", calls.append)
    monkeypatch.setattr(
        "keras_practice.core.private_api.tensorflow.context.context",
        lambda: object.__new__(type("C", (), {})),
    )
    set_random_seed(5)
    assert calls == [5]
