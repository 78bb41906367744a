import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.callbacks import StopOnExplosion

RNG = np.random.default_rng(0)
X = RNG.normal(size=(640, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def linear(rate, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="line")])
    model.compile(
        keras.optimizers.Adam(rate) if options.pop("adam", False) else keras.optimizers.SGD(rate),
        "mse",
        **options,
    )
    return model


def fit(model, x=X, y=Y, epochs=5, **options):
    words = []
    guard = StopOnExplosion(sink=words.append, **options)
    history = model.fit(x, y, epochs=epochs, batch_size=32, shuffle=False, verbose=0, callbacks=[guard])
    return guard, words, history


@pytest.mark.parametrize(
    "options", [{}, {"steps_per_execution": 32}, {"jit_compile": True}, {"run_eagerly": True}]
)
def test_a_diverging_training_ends_with_good_weights(options):
    model = linear(3.0, **options)
    start = model.get_weights()
    guard, words, history = fit(model)
    assert guard.exploded
    assert guard.first_layer == "line"
    assert 8 <= guard.step <= 20
    assert len(history.epoch) <= 3
    for ours, theirs in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(words) == 1
    assert words[0].startswith(
        f"Training exploded at step {guard.step}: the gradient of 'line' was the largest"
    )


def test_a_healthy_training_is_left_alone():
    plain, watched = linear(0.01), linear(0.01)
    plain.fit(X, Y, epochs=5, batch_size=32, shuffle=False, verbose=0)
    guard, words, _ = fit(watched)
    assert not guard.exploded
    assert (guard.step, guard.first_layer, words) == (None, None, [])
    for ours, theirs in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert "train_step" not in vars(watched)


def test_the_last_good_weights_are_those_of_the_last_look():
    spoiled = X.copy()
    spoiled[32 * 7] = np.nan
    model, reference = linear(0.01), linear(0.01)
    reference.fit(X[: 32 * 6], Y[: 32 * 6], batch_size=32, shuffle=False, verbose=0)
    guard, words, _ = fit(model, spoiled, every=3)
    assert (guard.step, guard.first_layer) == (8, "the input")
    assert "the input of that step was not finite" in words[0]
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_layer_whose_output_went_first_is_named():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, activation="relu", name="fine")(inputs)
    x = keras.layers.Activation("exponential", name="culprit")(x)
    x = keras.layers.BatchNormalization(name="statistics")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    spoiled = X.copy()
    spoiled[500] = 1e3
    guard, _, _ = fit(model, spoiled)
    assert (guard.step, guard.first_layer) == (16, "culprit")
    # Batch-norm statistics had met infinity too.
    assert all(np.all(np.isfinite(weights)) for weights in model.get_weights())


def test_the_gradient_nearest_the_output_went_first():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="early")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="late")(x))

    def broken(y, p):
        return tf.sqrt(tf.nn.relu(-tf.abs(p))) + (p - y) ** 2

    model.compile(keras.optimizers.SGD(0.01), broken)
    guard, words, _ = fit(model, X, Y)
    assert (guard.step, guard.first_layer) == (1, "late")  # The derivative of a root at zero.
    assert "the gradient of 'late' was the first that was not finite" in words[0]


def test_the_optimizer_can_go_on():
    spoiled = X.copy()
    spoiled[0] = np.nan
    model = linear(0.01, adam=True)
    guard, _, _ = fit(model, spoiled)
    assert guard.exploded
    assert all(np.all(np.isfinite(v.numpy())) for v in model.optimizer.variables)
    guard, _, history = fit(model)
    assert not guard.exploded
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_exploded_weights_are_not_validated():
    spoiled = X.copy()
    spoiled[32 * 2] = np.nan
    model = linear(0.01)
    guard = StopOnExplosion(every=1000, sink=lambda words: None)
    history = model.fit(
        spoiled, Y, validation_data=(X, Y), batch_size=32, shuffle=False, verbose=0, callbacks=[guard]
    )
    assert guard.exploded
    assert np.isfinite(history.history["val_loss"][-1])


def test_mixed_precision_looks_for_its_scale_undisturbed():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1, dtype="float32")]
        )
        model.compile(keras.optimizers.SGD(1e-7), "mse")
        scale = float(model.optimizer.initial_scale)
        guard, _, _ = fit(model, 30 * X, 900 * Y, epochs=2)
        skipped = float(model.optimizer.dynamic_scale) < scale
    finally:
        keras.config.set_dtype_policy(policy)
    assert skipped  # Some gradients did overflow.
    assert not guard.exploded


def test_digits_at_a_high_rate_are_no_explosion():
    digits = data.load("digits")
    keras.utils.set_random_seed(0)
    model = recipes.compile_for(recipes.mlp(digits.input_shape, digits.task), digits.task, learning_rate=1e-2)
    words = []
    model.fit(
        digits.train.batches(64),
        epochs=12,
        shuffle=False,
        verbose=0,
        callbacks=[StopOnExplosion(sink=words.append)],
    )
    assert words == []


def test_two_fits():
    guard = StopOnExplosion(sink=lambda words: None)
    for rate, expected in ((3.0, True), (0.01, False), (3.0, True)):
        linear(rate).fit(X, Y, batch_size=32, epochs=3, verbose=0, callbacks=[guard])
        assert guard.exploded is expected


@pytest.mark.parametrize(
    ("options", "message"),
    [({"factor": 1.0}, "above 1"), ({"factor": np.inf}, "above 1"), ({"every": 0}, "every must be")],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StopOnExplosion(**options)
