import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_practice import checks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 6)).astype("float32")
Y = X[:, :1].copy()


class OwnStep(keras.Model):
    """A model without a compiled loss, trained by its own step."""

    def __init__(self, loss=None):
        super().__init__()
        self.out = layers.Dense(1)
        self.own_loss = loss or (lambda y, p: ops.mean((y - p) ** 2))
        self.calls = 0

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        x, y = data
        self.calls += 1
        with tf.GradientTape() as tape:
            loss = self.own_loss(y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(
            [
                ops.zeros_like(v) if g is None else g
                for g, v in zip(gradients, self.trainable_variables, strict=True)
            ],
            self.trainable_variables,
        )
        return {"loss": loss}


class Adversaries(keras.Model):
    """Two nets with an optimiser each, and no call."""

    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([keras.Input((2,)), layers.Dense(6)])
        self.judge = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
        self.tracker = keras.metrics.Mean(name="judge_loss")

    def compile(self, optimizers):
        super().compile()
        self.optimizers = optimizers

    def train_step(self, x):
        made = self.maker(tf.random.normal((ops.shape(x)[0], 2)))
        for net, sign, optimizer in (
            (self.judge, 1, self.optimizers["judge"]),
            (self.maker, -1, self.optimizers["maker"]),
        ):
            with tf.GradientTape() as tape:
                made = self.maker(tf.random.normal((ops.shape(x)[0], 2)))
                loss = sign * (
                    ops.mean(ops.softplus(-self.judge(x))) + ops.mean(ops.softplus(self.judge(made)))
                )
            weights = net.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
        self.tracker.update_state(loss)
        return {"judge_loss": self.tracker.result(), "maker_loss": loss}


class Uncopied(keras.optimizers.SGD):
    def get_config(self):
        raise NotImplementedError


def own(loss=None, optimizer="sgd"):
    keras.utils.set_random_seed(0)
    model = OwnStep(loss)
    model.compile(optimizer, run_eagerly=False)
    return model


def found(report):
    return [(finding.check, finding.severity) for finding in report.findings if finding.severity == "error"]


def test_a_model_is_trained_by_its_own_step_and_put_back():
    model = own()
    model(X[:1])
    before = [np.array(v) for v in model.variables]
    report = checks.preflight(model, X, Y)
    assert report.passed, str(report)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))
    assert not model.optimizer.built
    assert model.calls == 0


def test_what_an_eager_step_writes_down_is_taken_back():
    class Writes(OwnStep):
        def train_step(self, data):
            self.seen.append(len(data[0]))
            return super().train_step(data)

    model = Writes()
    model.seen = [1]
    model.compile("sgd", run_eagerly=True)
    assert found(checks.preflight(model, X, Y, budget_s=3.0)) == []
    assert list(model.seen) == [1]


@pytest.mark.parametrize(
    ("loss", "optimizer", "check"),
    [
        (lambda y, p: ops.mean(y) / 0.0 + ops.mean(p), "sgd", "loss-diverges"),
        (lambda y, p: ops.mean((y - p) ** 2), keras.optimizers.SGD(30.0), "loss-diverges"),
        (lambda y, p: ops.mean((y - ops.stop_gradient(p)) ** 2), "sgd", "loss-stuck"),
        (lambda y, p: ops.mean((y - p) ** 2), keras.optimizers.SGD(1e-7), "learning-rate-low"),
        (lambda y, p: ops.matmul(y, p), "sgd", "raises"),
    ],
)
def test_what_is_wrong_with_a_step_of_ones_own_is_found(loss, optimizer, check):
    report = checks.preflight(own(loss, optimizer), X, Y)
    assert report.passed is False
    names = [name for name, _ in found(report)]
    assert check in names or (check == "learning-rate-low" and "loss-stuck" in names), str(report)


def test_optimizers_in_a_dictionary_are_lent_and_a_model_that_cannot_be_called_has_not_passed():
    model = Adversaries()
    theirs = {name: keras.optimizers.Adam() for name in ("judge", "maker")}
    model.compile(theirs)
    before = [np.array(v) for v in model.variables]
    report = checks.preflight(model, X)
    assert report.passed is None
    assert str(report).startswith("Not looked at: layers and outputs: the model cannot be called")
    assert found(report) == []
    assert not any(optimizer.built for optimizer in theirs.values())
    assert model.optimizers["judge"] is theirs["judge"]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))


def test_a_step_that_cannot_be_run_without_a_change_has_not_passed():
    report = checks.preflight(own(optimizer=Uncopied()), X, Y)
    assert report.passed is None
    assert report.unlooked[0].startswith("train_step: it was not run, since Uncopied cannot be made anew")


def test_few_samples_are_learned_by_the_models_own_step():
    report = checks.overfit_tiny(own(optimizer=keras.optimizers.Adam(0.05)), X, Y)
    assert report.passed, str(report)
    assert report.figures["r2"] > 0.95
    first = checks.initial_loss(own(), X, Y)
    assert first.passed is None
    assert first.figures["loss"] > 0
