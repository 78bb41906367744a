import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_practice.checks.inspection.samples import samples_of
from keras_practice.checks.trials.train_loop import TensorSamples, TrainLoop, copied_optimizer, own_optimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4))
Y = X[:, :1].copy()
ORDER = np.arange(64).reshape(4, 16)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def net(optimizer, **options):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, **options)])
    model.compile(optimizer, "mse")
    return model


def loop_of(model, x=X, y=Y, **options):
    return TrainLoop(TensorSamples(model, samples_of(x, y)), *own_optimizer(model), **options)


class Unused(layers.Layer):
    """A layer with one kernel on the path to the loss, and one beside it."""

    def build(self, shape):
        self.used = self.add_weight(name="used", shape=(4, 1), initializer="ones")
        self.unused = self.add_weight(name="unused", shape=(4, 1), initializer="ones")

    def call(self, x):
        return x @ self.used


@pytest.mark.parametrize("eager", [False, True])
def test_weights_without_a_gradient_do_not_move_and_their_norm_is_zero(eager):
    model = keras.Sequential([keras.Input((4,)), Unused()])
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=1.0), "mse", run_eagerly=eager)
    curve = loop_of(model).run(ORDER)
    (layer,) = model.layers
    assert np.all(layer.used.numpy() != 1)
    np.testing.assert_array_equal(layer.unused.numpy(), np.ones((4, 1)))
    assert curve.gradients.shape == (4, 2)
    assert np.all(curve.gradients[:, 0] > 0)
    assert np.all(curve.gradients[:, 1] == 0)


def test_the_same_weights_come_out_as_of_fit_where_some_have_no_gradient():
    ends = []
    for ours in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), Unused()])
        model.compile(keras.optimizers.AdamW(0.1, weight_decay=1.0), "mse")
        if ours:
            loop_of(model).run(ORDER)
        else:
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                model.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    for theirs, own in zip(*ends, strict=True):
        np.testing.assert_allclose(theirs, own, rtol=1e-5)


def test_a_model_without_any_trainable_weight_keeps_its_loss():
    model = net("adam")
    model.trainable = False
    curve = loop_of(model).run(np.tile(ORDER[:1], (3, 1)))
    assert curve.finite
    assert len(set(curve.losses.tolist())) == 1
    assert curve.gradients.shape == (3, 0)


def test_a_factor_of_zero_changes_nothing_and_factors_may_differ_from_step_to_step():
    model = net(keras.optimizers.SGD(0.1))
    before = model.get_weights()
    loop = loop_of(model)
    loop.run(ORDER, 0.0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    same = np.tile(ORDER[:1], (4, 1))
    losses = loop.run(same, np.array([0.0, 0.0, 1.0, 1.0])).losses
    assert losses[0] == losses[1] == losses[2] > losses[3]
    assert loop.rate(0.5) == pytest.approx(0.05)


def test_labels_may_come_from_other_rows():
    model = net(keras.optimizers.SGD(0.1))
    other = ORDER[:, ::-1]
    losses = loop_of(model).run(ORDER, 0.0, labels=other).losses
    pairs = zip(ORDER, other, strict=True)
    expected = [float(np.mean((model.predict(X[a], verbose=0) - Y[b]) ** 2)) for a, b in pairs]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_run_begins_with_a_fresh_optimizer_unless_it_goes_on():
    steps = []
    for fresh in (True, False):
        model = net(keras.optimizers.SGD(0.01, momentum=0.9))
        start, loop = model.get_weights(), loop_of(model)
        whole = loop.run(ORDER).losses
        model.set_weights(start)
        halves = [loop.run(ORDER[:2]).losses, loop.run(ORDER[2:], fresh=fresh).losses]
        steps.append(np.allclose(whole, np.concatenate(halves), rtol=1e-5))
    assert steps == [False, True]


def test_penalties_are_told_apart():
    model = net("sgd", kernel_regularizer=keras.regularizers.L2(1.0))
    penalty = float(np.sum(model.get_weights()[0] ** 2))
    curve = loop_of(model).run(ORDER[:1], 0.0)
    assert curve.penalized[0] - curve.losses[0] == pytest.approx(penalty, rel=1e-4)


@pytest.mark.parametrize(("gradient_ends", "steps"), [(True, 1), (False, 3)])
def test_a_gradient_that_is_not_finite_ends_a_run_if_asked_to(gradient_ends, steps):
    class Overflows(layers.Layer):
        def build(self, shape):
            self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

        @staticmethod
        @tf.custom_gradient
        def same(x):
            return tf.identity(x), lambda upstream: tf.fill(tf.shape(x), np.float32(np.inf))

        def call(self, x):
            return x + self.same(tf.convert_to_tensor(self.bias))

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1), Overflows()])
    model.compile(keras.optimizers.SGD(0.1, clipvalue=0.5), "mse")
    curve = loop_of(model, gradient_ends=gradient_ends).run(ORDER[:3])
    assert len(curve.losses) == steps
    assert not curve.finite
    assert np.isinf(curve.end)


def test_a_loss_is_scaled_where_the_optimizer_takes_it_scaled():
    plain = net(keras.optimizers.SGD(0.1))
    scaled = net(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    scaled.set_weights(plain.get_weights())
    one, other = (loop_of(model).run(ORDER) for model in (plain, scaled))
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
    np.testing.assert_allclose(one.gradients, other.gradients, rtol=1e-3)


def test_an_optimizer_that_cannot_be_copied_is_refused_in_words():
    class Odd(keras.optimizers.SGD):
        def __init__(self, needed, **options):
            super().__init__(**options)

    model = net(Odd(1))
    assert own_optimizer(model) is None
    with pytest.raises(ValueError, match=r"must be one that can be copied\. Got Odd"):
        copied_optimizer(model)
