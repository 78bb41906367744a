import dataclasses
import math
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from keras_practice import data, recipes
from keras_practice.data import Task
from keras_practice.tuning.sweeps.learning_rate import learning_rate_sweep
from keras_practice.tuning.sweeps.range_test import RangeResult, learning_rate_range
from keras_practice.tuning.sweeps.rules import halve_or_double, magnitudes

TASK = Task.multiclass(4)
CENTRES = np.random.default_rng(5).normal(size=(4, 8))


def blobs(count=400, seed=1):
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=count)
    return (CENTRES[y] + 0.7 * rng.normal(size=(count, 8))).astype("float32"), y


X, Y = blobs()


def net(optimizer="adam", name="mlp", shape=(8,), task=TASK, seed=0, **options):
    keras.utils.set_random_seed(seed)
    model = getattr(recipes, name)(shape, task, **options)
    return recipes.compile_for(model, task, optimizer, steps_per_execution=1)


CASES = {
    "mlp, Adam": lambda: (net(), (X, Y)),
    "mlp, SGD": lambda: (net("sgd", dropout=0.0, batch_norm=False), (X, Y)),
    "linear, RMSprop": lambda: (net("rmsprop", "linear"), (X, Y)),
}


def digits_of(name, shape):
    digits = data.load("digits")
    return net("adam", name, shape, digits.task), (digits.train.x.reshape(-1, *shape), digits.train.y)


def split_of(name):
    dataset = data.load(name)
    return net("adam", shape=dataset.input_shape, task=dataset.task), dataset.train


SLOW_CASES = {
    "convnet": lambda: digits_of("convnet", (8, 8, 1)),
    "rnn": lambda: digits_of("rnn", (8, 8)),
    "regression": lambda: split_of("diabetes"),
    "binary": lambda: split_of("breast_cancer"),
    "residual": lambda: (net("adam", "residual_mlp", depth=10), (X, Y)),
}


def trained_loss(model, x, y, rate, epochs=4):
    """Training loss after a plain fit; the model is left trained."""
    model.optimizer.learning_rate = rate
    return float(model.fit(x, y, epochs=epochs, batch_size=32, verbose=0).history["loss"][-1])


@pytest.mark.parametrize(
    "case",
    [*CASES.values(), *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES.values())],
    ids=[*CASES, *SLOW_CASES],
)
def test_the_range_holds_rates_that_train_well(case):
    model, train = case()
    result = learning_rate_range(model, train)
    assert result.usable, result.reason
    assert result.low < result.suggestion < result.high
    assert result.high < 1e3 * result.low
    x, y = (train.x, train.y) if hasattr(train, "x") else train
    start = model.get_weights()
    losses = {}
    # Far below and far above it, next to nothing is learned in the same time.
    for rate in (result.low / 100, result.low, result.suggestion, result.high, result.high * 1000):
        model.set_weights(start)
        for variable in model.optimizer.variables:
            variable.assign(tf.zeros(variable.shape, variable.dtype))
        losses[rate] = trained_loss(model, x, y, rate)
    below, low, suggestion, high, above = losses.values()
    best = min(low, suggestion, high)
    assert suggestion < best + 0.3 * (below - best)
    assert not min(below, above) < suggestion


SWEPT = {
    "digits, Adam": ("digits", "mlp", "adam"),
    "digits, SGD": ("digits", "mlp", "sgd"),
    "digits, SELU, RMSprop": ("digits", "selu_mlp", "rmsprop"),
    "diabetes": ("diabetes", "mlp", "adam"),
    "wine": ("wine", "mlp", "adam"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "name", "optimizer"), SWEPT.values(), ids=SWEPT)
def test_the_range_holds_the_best_rates_of_a_sweep(dataset, name, optimizer):
    """Of what the best of 40 rates learns in 8 epochs, rates in the range learn nine tenths and more."""
    samples = data.load(dataset)

    def build():
        return net(optimizer, name, samples.input_shape, samples.task)

    result = learning_rate_range(build(), samples.train)
    sweep = learning_rate_sweep(build, samples.train, samples.val, 40, epochs=8)
    final = np.where(sweep.exploded, np.inf, sweep.val_loss[:, -1])
    inside = (sweep.rates >= result.low) & (sweep.rates <= result.high)
    nearest = np.abs(np.log(sweep.rates / result.suggestion)).argmin()
    worth = sweep.untrained - final.min()
    assert final[inside].min() < final.min() + 0.1 * worth
    assert final[nearest] < final.min() + 0.2 * worth


NOISE = {
    "noise": lambda: (net(name="linear"), (X, np.random.default_rng(0).permutation(Y))),
    "inputs that say nothing": lambda: (net("sgd", "linear"), (np.ones_like(X), Y)),
    "an optimizer that does not move": lambda: (
        net(keras.optimizers.Adam(clipvalue=1e-12, epsilon=1.0), "linear"),
        (X, Y),
    ),
}


def broken():
    model = net(name="linear")
    model.set_weights([weights * np.nan for weights in model.get_weights()])
    return model, (X, Y)


def exploding():
    task = Task.regression(1)
    y = (1e30 * X[:, 0]).astype("float32")
    return net("sgd", "linear", task=task), (X, y)


UNUSABLE = {**NOISE, "weights that are NaN": broken, "a loss that overflows": exploding}


@pytest.mark.parametrize("case", UNUSABLE.values(), ids=UNUSABLE)
def test_where_nothing_is_learned_there_is_no_usable_range(case):
    result = learning_rate_range(*case(), steps=100)
    assert not result.usable
    assert result.low is result.high is result.suggestion is None
    assert str(result).startswith("No usable range: ")
    assert "usable=False" in repr(result)
    result.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits", "diabetes"])
def test_noise_has_no_usable_range_whatever_the_data(name, seed):
    dataset = data.load(name)
    y = np.random.default_rng(seed).permutation(dataset.train.y)
    model = net(shape=dataset.input_shape, task=dataset.task, seed=seed)
    assert not learning_rate_range(model, (dataset.train.x, y), seed=seed).usable
    assert learning_rate_range(model, dataset.train, seed=seed).usable


def state(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return (
        [np.array(variable.numpy()) for variable in variables],
        random.getstate(),
        np.random.get_state()[1].tolist(),
        float(tf.random.uniform(())),
    )


def test_nothing_is_changed_bit_for_bit():
    seen = []
    for evaluate in (False, True):
        model = net(dropout=0.5, units=(8,))
        model.fit(X[:64], Y[:64], verbose=0)
        rate = model.optimizer.learning_rate
        config = model.get_compile_config()
        if evaluate:
            before = [np.array(variable.numpy()) for variable in model.variables]
            learning_rate_range(model, (X, Y), steps=50, seeds=2)
            after = [np.array(variable.numpy()) for variable in model.variables]
            assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert model.optimizer.learning_rate is rate
        assert model.get_compile_config() == config
        found = state(model)
        # What comes next is the same too: dropout masks and the optimizer's momenta.
        losses = model.fit(X[:64], Y[:64], epochs=2, shuffle=False, verbose=0).history["loss"]
        seen.append((found, losses))
    (quiet, quiet_losses), (looked, looked_losses) = seen
    assert all(np.array_equal(a, b) for a, b in zip(quiet[0], looked[0], strict=True))
    assert quiet[1:] == looked[1:]
    assert quiet_losses == looked_losses


class Restless(keras.layers.Layer):
    """Changes something whenever it is called or traced, in inference too."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1)
        return x * (1 + 0 * np.random.random() + 0 * random.random())


def test_a_layer_that_changes_in_inference_is_put_back_too():
    model = keras.Sequential([keras.Input((8,)), Restless(), keras.layers.Dense(4, "softmax")])
    recipes.compile_for(model, TASK)
    before = state(model)
    learning_rate_range(model, (X, Y), steps=50, seeds=2)
    after = state(model)
    assert all(np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1:3] == after[1:3]


def test_it_repeats_from_its_seed():
    first, again, other = (
        learning_rate_range(net(units=(8,)), (X, Y), steps=50, seeds=2, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.losses, again.losses, equal_nan=True)
    assert np.array_equal(first.control, again.control, equal_nan=True)
    assert not np.array_equal(first.losses, other.losses, equal_nan=True)


STEPS = np.geomspace(1e-7, 10, 161)  # 20 steps a decade.


def curve(drop_at=1e-3, rise_at=0.3, high=2.0, depth=1.5):
    """A loss that falls around one rate and runs away from another, both in the logarithm."""
    d = np.log10(STEPS)
    fall = depth / (1 + np.exp(-(d - np.log10(drop_at)) / 0.25))
    return high - fall + np.where(d > np.log10(rise_at), (d - np.log10(rise_at)) * 8, 0.0)


def ramp(rows, control=None):
    noise = np.random.default_rng(0).normal(scale=0.02, size=(len(rows), len(STEPS)))
    control = np.full(len(STEPS), 2.0) if control is None else control
    return RangeResult(STEPS, np.array(rows) + noise, control + noise[::-1])


def test_the_suggestion_is_where_the_loss_falls_most_for_the_logarithm_of_the_rate():
    result = ramp([curve()] * 3)
    # By the linear rate the slope is steepest where the logistic curve begins: 0.25 < 1 / ln(10).
    by_linear = STEPS[np.argmin(np.gradient(curve(), STEPS))]
    assert by_linear < 0.6e-3
    assert result.suggestion == pytest.approx(1e-3, rel=0.3)
    # A tenth and nine tenths of a logistic curve lie ln(9) of its widths away, and smoothing widens it.
    assert result.low == pytest.approx(10 ** (-3 - 0.25 * math.log(9)), rel=0.5)
    assert result.high == pytest.approx(10 ** (-3 + 0.25 * math.log(9)), rel=0.5)


def test_the_range_is_what_all_seeds_agree_on():
    one, two = ramp([curve(1e-3)] * 2), ramp([curve(3e-3)] * 2)
    both = ramp([curve(1e-3), curve(3e-3)])
    assert both.low == pytest.approx(two.low, rel=0.15)
    assert both.high == pytest.approx(one.high, rel=0.15)
    assert both.low <= both.suggestion <= both.high
    apart = ramp([curve(1e-5), curve(1e-2)])
    assert "agree on no rate" in str(apart)


def test_a_loss_that_overflows_late_keeps_its_range():
    rows = np.array([curve()] * 3)
    rows[:, STEPS > 1.0] = np.nan
    assert ramp(rows).high == pytest.approx(ramp([curve()] * 3).high, rel=0.1)


def test_what_is_learned_with_shuffled_labels_too_does_not_count():
    assert ramp([curve()] * 3).usable
    result = ramp([curve()] * 3, control=curve(depth=1.49))
    assert not result.usable
    assert "shuffled" in result.reason


def test_a_range_speaks_is_drawn_and_cannot_be_changed():
    result = ramp([curve()] * 3)
    assert f"start with {result.suggestion:.3g} (3 seeds, 161 steps each)" in str(result)
    assert repr(result).startswith(f"RangeResult(low={result.low:.3g}")
    whole = result.figure()
    assert isinstance(whole, Figure)
    loss, slope = (part.axes[0] for part in whole.subfigs[2:])
    assert loss.get_xscale() == slope.get_xscale() == "log"
    assert f"suggestion {result.suggestion:.2g}" in {text.get_text() for text in loss.texts}
    whole.canvas.draw()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.losses = None
    with pytest.raises(ValueError, match="seeds, steps"):
        RangeResult(STEPS, np.ones((2, 3)), np.ones((2, 3)))


class Own(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def own_step():
    inputs = keras.Input((8,))
    return recipes.compile_for(Own(inputs, keras.layers.Dense(4, "softmax")(inputs)), TASK)


WRONG = {
    "lowest": ({"lowest": 0.0}, "lowest must be a positive number. Got 0.0."),
    "order": ({"lowest": 1.0, "highest": 0.1}, "lowest must be below highest. Got 1.0 and 0.1."),
    "steps": ({"steps": 10}, "steps must be at least 50. Got 10."),
    "one seed": ({"seeds": 1}, "seeds must be at least 2. Got 1."),
    "batch size": ({"batch_size": 0}, "batch_size must be a positive integer. Got 0."),
    "data": ({"train": 3}, "train must be a data.Split or a pair"),
    "not compiled": ({"model": recipes.linear((8,), TASK)}, "must be compiled"),
    "own step": ({"model": own_step()}, "train_step"),
}


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_in_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        learning_rate_range(**{"model": net(name="linear"), "train": (X, Y), **changes})


def test_halve_or_double_goes_the_better_way_to_the_end():
    up = halve_or_double(lambda rate: abs(math.log2(rate / 0.009)))
    assert up.rates == (0.001, 0.002, 0.004, 0.008, 0.016)
    assert up.choice == 0.008
    down = halve_or_double(lambda rate: -abs(math.log2(rate / 3e-4)), direction="max")
    assert down.rates == (0.001, 0.002, 0.0005, 0.00025, 0.000125)
    assert down.choice == 0.00025
    here = halve_or_double(lambda rate: abs(math.log2(rate / 0.001)))
    assert (here.choice, here.rates) == (0.001, (0.001, 0.002, 0.0005))


def test_halve_or_double_leaves_rates_that_explode():
    search = halve_or_double(lambda rate: math.nan if rate > 1e-4 else rate + 1e-3)
    assert all(later == earlier / 2 for earlier, later in zip(search.rates, search.rates[1:], strict=False))
    assert search.choice == search.rates[-1]
    assert len(search.rates) == 12
    assert search.largest_stable == 0.001 / 16
    none = halve_or_double(lambda rate: math.inf, most=4)
    assert (none.choice, none.largest_stable, len(none.rates)) == (None, None, 4)
    assert str(none).endswith("every rate explodes")
    flat = halve_or_double(lambda rate: 1.0)
    assert (flat.choice, len(flat.rates)) == (0.001, 3)


@pytest.mark.parametrize(
    ("limit", "rates", "stable"),
    [
        (0.5, (1.0, 0.1), 0.1),
        (0.05, (1.0, 0.1, 0.01), 0.01),
        (5.0, (1.0, 10.0), 1.0),
        (200.0, (1.0, 10.0, 100.0, 1000.0), 100.0),
        (1e-30, tuple(10.0**-i for i in range(6)), None),
        (1e30, tuple(10.0**i for i in range(6)), 1e5),
    ],
)
def test_magnitudes_halves_the_largest_rate_that_does_not_explode(limit, rates, stable):
    search = magnitudes(lambda rate: 0.3 if rate < limit else math.inf, most=6)
    assert search.rates == pytest.approx(rates)
    assert search.largest_stable == stable
    assert search.choice == (None if stable is None else stable / 2)


def test_the_rules_find_the_rate_of_a_quadratic():
    """Gradient descent on x^2 converges for rates below 1, and is fastest at 0.5."""

    def evaluate(rate):
        x = 1.0
        for _ in range(50):
            x -= rate * 2 * x
        return x * x if abs(x) <= 1.0 else math.inf

    assert magnitudes(evaluate).largest_stable == 1.0
    assert magnitudes(evaluate).choice == 0.5
    search = halve_or_double(evaluate)
    assert 0.25 < search.choice < 0.75


def test_a_search_is_drawn_and_cannot_be_changed():
    search = magnitudes(lambda rate: rate if rate < 0.05 else math.nan)
    whole = search.figure()
    axes = whole.subfigs[1].axes[0]
    assert axes.get_xscale() == "log"
    assert "choice 0.005" in {text.get_text() for text in axes.texts}
    whole.canvas.draw()
    assert "explodes" in str(search)
    with pytest.raises(dataclasses.FrozenInstanceError):
        search.choice = 1.0
    magnitudes(lambda rate: math.nan, most=3).figure().canvas.draw()


@pytest.mark.parametrize("rule", [halve_or_double, magnitudes])
def test_a_wrong_start_is_refused(rule):
    with pytest.raises(ValueError, match="start must be a positive number. Got -1."):
        rule(lambda rate: 0.0, -1.0)
    with pytest.raises(ValueError, match="most must be a positive integer. Got 0."):
        rule(lambda rate: 0.0, most=0)


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="direction must be 'min' or 'max'. Got 'up'."):
        halve_or_double(lambda rate: 0.0, direction="up")
