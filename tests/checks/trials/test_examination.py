import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_practice import data, recipes
from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.context import context_of
from keras_practice.checks.trials.examination import behaviour
from keras_practice.core.variables import preserved

DIGITS, WINE, DIABETES = (data.load(name) for name in ("digits", "wine", "diabetes"))
X, Y = DIGITS.train.x, DIGITS.train.y
XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
ENOUGH = 120.0  # Seconds, on a machine with much else to do; far less is used.


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1)


class TimesZero(layers.Layer):
    def call(self, x):
        return x * 0.0


class SoftmaxOverBatch(layers.Layer):
    def call(self, x):
        return keras.ops.softmax(x, axis=0)


class FlippedInInference(layers.Layer):
    def call(self, x, training=False):
        return x if training else keras.ops.flip(x, axis=-1)


class ScaledInTraining(layers.Layer):
    def call(self, x, training=False):
        return (x - 5) / 3 if training else x


class DropoutTurnedRound(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dropout = layers.Dropout(0.5)

    def call(self, x, training=False):
        return self.dropout(x, training=not training)


class OwnStep(keras.Model):
    applies = True

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_weights)
        if self.applies:
            self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


class AlwaysNoise(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    def build(self, shape):
        self.seed = keras.random.SeedGenerator(1)


class Scrambled(layers.Layer):
    def call(self, x):
        return keras.ops.sin(1e5 * x)


class Raises(layers.Layer):
    def call(self, x, training=False):
        if training:
            raise TypeError("no such colour")
        return x


def net(*hidden, optimizer="adam", **head):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), *hidden, layers.Dense(10, "softmax", **head)]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def relu_net(optimizer, units=64):
    return net(layers.Dense(units, "relu"), layers.Dense(units, "relu"), optimizer=optimizer)


def deep(activation, initializer="glorot_uniform", depth=10):
    return net(*[layers.Dense(32, activation, kernel_initializer=initializer) for _ in range(depth)])


def recipe(build, dataset, **options):
    return recipes.compile_for(build(dataset.input_shape, dataset.task, **options), dataset.task)


def evaluate(model, x=X, y=Y, seconds=ENOUGH, known=()):
    with preserved(model, x if isinstance(x, dict) else x[:1]):
        return behaviour(context_of(model, x, y), time.monotonic() + seconds, known)


def errors(found):
    return [finding.check for finding in found if finding.severity == "error"]


def xor_net(units, optimizer):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(optimizer, "binary_crossentropy")
    return model


HEALTHY = {
    "mlp": lambda: (recipe(recipes.mlp, DIGITS, units=(32,)), X, Y),
    "linear": lambda: (recipe(recipes.linear, WINE), WINE.train.x, WINE.train.y),
    "selu": lambda: (recipe(recipes.selu_mlp, DIABETES, units=(32,)), DIABETES.train.x, DIABETES.train.y),
    "xor": lambda: (xor_net(2, keras.optimizers.SGD(0.1)), *XOR),
    "noise": lambda: (
        relu_net("adam", units=16),
        np.random.default_rng(0).normal(size=(1_000, 8, 8, 1)),
        np.random.default_rng(1).integers(0, 10, 1_000),
    ),
    "slow but sure": lambda: (relu_net(keras.optimizers.SGD(1e-3)), X, Y),
}
SLOW_HEALTHY = {
    "raw pixels": lambda: (relu_net("adam"), 255 * X, Y),
    "deep tanh": lambda: (deep("tanh", depth=6), X, Y),
    "convnet": lambda: (recipe(recipes.convnet, DIGITS, filters=(8, 16)), X, Y),
    "rnn": lambda: (
        recipes.compile_for(recipes.rnn((8, 8), DIGITS.task, units=(16,)), DIGITS.task),
        X[..., 0],
        Y,
    ),
    "deep relu": lambda: (deep("relu", "he_normal"), X, Y),
    "heavy dropout": lambda: (net(layers.Dense(64, "relu"), layers.Dropout(0.8)), X, Y),
    "lagging batch norm": lambda: (
        net(layers.Dense(64), layers.BatchNormalization(momentum=0.999), layers.ReLU()),
        X,
        Y,
    ),
}


@pytest.mark.parametrize(
    "name", [*HEALTHY, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW_HEALTHY]]
)
def test_a_healthy_model_has_no_error(name):
    assert errors(evaluate(*{**HEALTHY, **SLOW_HEALTHY}[name]())) == []


def too_large(model, factor):
    model.set_weights([factor * weight for weight in model.get_weights()])
    return model


DEAD = keras.initializers.Constant(-50.0)
HUGE_PENALTY = keras.regularizers.L2(100.0)
FAULTY = {
    "dead-units": lambda: net(layers.Dense(32, "relu", bias_initializer=DEAD)),
    "ignores-input": lambda: net(layers.Dense(32, "relu"), TimesZero()),
    "batch-leak": lambda: net(layers.Dense(32, "relu"), layers.Dense(10), SoftmaxOverBatch()),
    "learning-rate-high": lambda: relu_net(keras.optimizers.SGD(100.0)),
    "learning-rate-low": lambda: relu_net(keras.optimizers.SGD(1e-6)),
    "raises": lambda: net(Raises()),
}
SLOW_FAULTY = {
    "exploding-gradient": lambda: too_large(deep("relu", "he_normal"), 5.0),
    "vanishing-gradient": lambda: deep("sigmoid"),
    "optimizer-config": lambda: relu_net(keras.optimizers.AdamW(1e-3, weight_decay=500.0)),
    "tiny-overfit": lambda: net(
        layers.Dense(32, "tanh", kernel_regularizer=HUGE_PENALTY), kernel_regularizer=HUGE_PENALTY
    ),
    "train-eval-gap": lambda: net(layers.Dense(32, "relu"), FlippedInInference()),
}


@pytest.mark.parametrize(
    "name", [*FAULTY, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FAULTY]]
)
def test_a_fault_is_found_by_its_name(name):
    found = evaluate({**FAULTY, **SLOW_FAULTY}[name]())
    assert name in errors(found), found
    assert found == sorted(found, key=lambda f: f.severity != "error")


def suspicion(check):
    return Finding(check, "warning", "somewhere", "this was seen.", "a cause.", "a fix.", "A53")


def test_a_training_that_fails_bears_a_suspicion_out():
    model = net(layers.Dense(32, "relu", kernel_regularizer=HUGE_PENALTY), kernel_regularizer=HUGE_PENALTY)
    found = evaluate(model, known=[suspicion("over-regularized"), suspicion("leakage")])
    (confirmed,) = [finding for finding in found if finding.where == "somewhere"]
    assert (confirmed.check, confirmed.severity) == ("over-regularized", "error")
    assert confirmed.evidence.startswith("this was seen. A short training bears it out: after 300 steps")


@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD(100.0)], ids=["learns", "rate too high"])
def test_a_suspicion_stays_one_where_the_model_learns_or_another_cause_is_shown(optimizer):
    found = evaluate(relu_net(optimizer), known=[suspicion("dropout-rate")])
    assert all(finding.where != "somewhere" for finding in found)


def test_what_is_learned_by_heart_alone_bears_out_that_the_inputs_tell_nothing():
    y = np.random.default_rng(0).permutation(Y)
    wide = net(layers.Dense(512, "relu"), optimizer=keras.optimizers.Adam(3e-3))
    assert errors(evaluate(wide, X, y)) == []
    found = evaluate(wide, X, y, known=[suspicion("uninformative-input")])
    assert errors(found) == ["uninformative-input"]
    assert "others" in found[0].evidence
    assert errors(evaluate(wide, X, Y, known=[suspicion("uninformative-input")])) == []


def test_dropout_in_inference_alone_is_an_error():
    found = evaluate(net(layers.Dense(32, "relu"), DropoutTurnedRound()))
    assert "train-eval-gap" in errors(found)


@pytest.mark.parametrize("applies", [True, False])
def test_a_training_step_that_changes_nothing_is_told(applies):
    x = keras.Input((8, 8, 1))
    model = OwnStep(x, layers.Dense(10, "softmax")(layers.Flatten()(x)))
    model.applies = applies
    model.compile("adam", "sparse_categorical_crossentropy")
    theirs, before = model.optimizer, [np.array(v.numpy()) for v in model.variables]
    assert errors(evaluate(model)) == ([] if applies else ["loss-stuck"])
    assert model.optimizer is theirs
    assert not theirs.built
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_a_rate_that_kills_units_is_the_cause_of_their_death():
    model = net(layers.Dense(128, "relu"), layers.Dense(16, "relu"), optimizer=keras.optimizers.Adam(0.1))
    found = evaluate(model, known=[suspicion("learning-rate-high")])
    assert "dead-units" in [finding.check for finding in found]
    assert [f.where for f in found if f.severity == "error"] == ["somewhere"]


def test_beside_tiny_targets_no_gradient_explodes():
    model = recipe(recipes.mlp, DIABETES, units=(32,))
    x, y = DIABETES.train.x, 1e-6 * DIABETES.train.y
    assert errors(evaluate(model, x, y)) == ["exploding-gradient"]
    found = evaluate(model, x, y, known=[suspicion("target-scale")])
    assert "exploding-gradient" not in errors(found)


def test_a_layer_that_scales_in_training_alone_is_told_where_inference_is_not_all_lost():
    x = (3 * DIABETES.train.x + 5).astype("float32")
    model = keras.Sequential(
        [keras.Input((10,)), ScaledInTraining(), layers.Dense(32, "tanh"), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    assert "train-eval-gap" in errors(evaluate(model, x, DIABETES.train.y))


@pytest.mark.parametrize(("units", "expected"), [(2, ["capacity"]), (32, [])])
def test_too_few_units_for_what_has_to_be_told_apart(units, expected):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    far = rng.uniform(0.1, 1, 900)
    angle = 2 * np.pi * (2 * far + y / 3)
    x = np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1).astype("float32") * 2
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    assert errors(evaluate(model, x, y)) == expected


def test_a_symptom_is_not_reported_beside_its_cause():
    assert errors(evaluate(FAULTY["learning-rate-high"]())) == ["learning-rate-high"]


@pytest.mark.parametrize(("factor", "severity"), [(1.0, None), (2.2, "info"), (4.0, "warning")])
def test_a_start_above_chance_that_is_made_up_for_is_no_error(factor, severity):
    found = evaluate(too_large(relu_net("adam"), factor))
    assert [f.severity for f in found if f.check == "initial-loss"] == ([severity] if severity else [])
    assert all("2.3 (knowing nothing)" in f.evidence for f in found)


def test_a_single_layer_where_no_straight_line_will_do():
    x, y = np.concatenate([XOR[0]] * 50), np.concatenate([XOR[1]] * 50)
    x = x + np.random.default_rng(0).normal(scale=0.05, size=x.shape).astype("float32")
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    assert errors(evaluate(model, x, y)) == ["capacity"]


def test_what_is_expected_of_the_first_loss_follows_from_the_class_frequencies():
    y = (Y == 0).astype(int)
    frequency = y.mean()
    entropy = -(frequency * np.log(frequency) + (1 - frequency) * np.log(1 - frequency))
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    found = evaluate(too_large(model, 30.0), X, y)
    (evidence,) = [finding.evidence for finding in found if finding.check == "initial-loss"]
    assert "0.693 (knowing nothing)" in evidence
    assert float(evidence.split(" to ")[1].split()[0]) == pytest.approx(entropy, abs=0.05)


def test_nan_in_the_inputs_is_told_at_once():
    found = evaluate(relu_net("adam"), np.where(X > 0.99, np.nan, X))
    # Some processors' ReLU makes 0 of NaN: then the first loss is finite, and the weights are not.
    assert [f.severity for f in found] == ["error"]
    assert found[0].check in ("initial-loss", "loss-diverges")


def test_a_trained_model_is_not_blamed_for_what_it_knows():
    model = relu_net(keras.optimizers.Adam(1e-2))
    model.fit(X, Y, epochs=5, verbose=0)
    assert evaluate(model) == []


def test_outputs_that_change_from_call_to_call_are_a_warning():
    found = evaluate(net(layers.Dense(32, "relu"), AlwaysNoise()))
    assert [(f.check, f.severity) for f in found] == [("train-eval-gap", "warning")]


@pytest.mark.slow
def test_a_loss_that_grows_at_every_rate_diverges():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    assert errors(evaluate(model, 1e6 * x, x.sum(axis=1))) == ["initial-loss", "loss-diverges"]


@pytest.mark.slow
def test_scrambled_inputs_leave_the_loss_stuck():
    x = X + np.random.default_rng(0).normal(0, 0.01, X.shape).astype(np.float32)
    few = layers.Dense(8, trainable=False)  # Room for a few samples by heart, not for all.
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), Scrambled(), few])
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    assert errors(evaluate(model, x, Y)) == ["loss-stuck"]


def test_several_inputs_and_outputs_and_weights_are_left_alone():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(16, "relu")(layers.Concatenate()([a, b]))
    outputs = {
        "kind": layers.Dense(1, "sigmoid", name="kind")(hidden),
        "size": layers.Dense(1, name="size")(hidden),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile(keras.optimizers.Adam(1e-2), {"kind": "binary_crossentropy", "size": "mse"})
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(300, 4)), "b": rng.normal(size=(300, 3))}
    y = {"kind": (x["a"][:, :1] > 0).astype(int), "size": x["b"].sum(axis=1, keepdims=True)}
    model.train_on_batch(x, y)
    before = [
        np.array(v.numpy()) for v in [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    ]
    assert errors(evaluate(model, x, y)) == []
    after = [v.numpy() for v in [*model.variables, *model.optimizer.variables, *model.metrics_variables]]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_time_only_the_start_is_looked_at():
    assert errors(evaluate(SLOW_FAULTY["vanishing-gradient"](), seconds=0.0)) == []
    assert errors(evaluate(FAULTY["batch-leak"](), seconds=0.0)) == ["batch-leak"]
