import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from keras_practice import recipes
from keras_practice.data import Split, Task
from keras_practice.training.side_by_side import CannotStackError, Stack
from keras_practice.tuning.sweeps.learning_rate import SweepResult, learning_rate_sweep, one_by_one
from keras_practice.tuning.sweeps.rates import batches_of, built, orders_of, samples_in, tensors_of

TASK = Task.multiclass(3)
CENTRES = np.random.default_rng(5).normal(size=(3, 6))


def blobs(count, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=count)
    return (CENTRES[y] + rng.normal(size=(count, 6))).astype("float32"), y


TRAIN, VAL = blobs(75, 1), blobs(40, 2)  # 75 is no multiple of any batch size here.


def net(dropout=0.0, optimizer="adam", compile_options=None, **options):
    model = recipes.mlp((6,), TASK, (8, 5), dropout=dropout, **options)
    compile_options = {"steps_per_execution": 1, **(compile_options or {})}
    return recipes.compile_for(model, TASK, optimizer, **compile_options)


def linear(optimizer):
    return recipes.compile_for(recipes.linear((6,), TASK), TASK, optimizer, steps_per_execution=1)


def plain_fit(build, rate, epochs, batch_size, seed=0, train=TRAIN, val=VAL):
    """Keras alone, epoch by epoch on arrays in the order that the seed gives."""
    keras.utils.set_random_seed(seed)
    model = build()
    model.optimizer.learning_rate = rate
    rng = np.random.default_rng(seed)
    losses, val_losses = [], []
    for _ in range(epochs):
        order = rng.permutation(len(train[0]))
        history = model.fit(
            train[0][order],
            train[1][order],
            batch_size=batch_size,
            validation_data=val,
            shuffle=False,
            verbose=0,
        ).history
        losses += history["loss"]
        val_losses += history["val_loss"]
    return np.array(losses), np.array(val_losses)


class Decayed(keras.optimizers.AdamW):
    pass


def excluding():
    optimizer = keras.optimizers.AdamW(weight_decay=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


BUILDS = {
    "adam, clipped, with dropout, penalties and max norm": lambda: net(
        0.3, l1=1e-2, l2=1e-2, activity_l1=1e-1, max_norm=0.8
    ),
    "momentum, clipped by value": lambda: net(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, clipvalue=0.02)
    ),
    "weight decay": lambda: net(optimizer=excluding()),
}
SLOW_BUILDS = {
    name: (lambda chosen=optimizer: linear(chosen()))
    for name, optimizer in {
        "clipped together": lambda: keras.optimizers.RMSprop(global_clipnorm=0.1),
        "adamax": keras.optimizers.Adamax,
        "nadam": keras.optimizers.Nadam,
        "adagrad": keras.optimizers.Adagrad,
        "adadelta": keras.optimizers.Adadelta,
        "lion": keras.optimizers.Lion,
        "amsgrad": lambda: keras.optimizers.Adam(amsgrad=True),
        "centred": lambda: keras.optimizers.RMSprop(centered=True, momentum=0.5),
    }.items()
}


@pytest.mark.parametrize(
    "build",
    [*BUILDS.values(), *(pytest.param(build, marks=pytest.mark.slow) for build in SLOW_BUILDS.values())],
    ids=[*BUILDS, *SLOW_BUILDS],
)
def test_side_by_side_gives_what_plain_fits_give(build):
    rates = [1e-3, 3e-2]
    result = learning_rate_sweep(build, TRAIN, VAL, rates, epochs=3, batch_size=16)
    assert result.why_one_by_one == ""
    expected, val_expected = plain_fit(build, rates[1], 3, 16)
    assert np.abs(result.train_loss[1] - expected).max() < 1e-4
    assert np.abs(result.val_loss[1] - val_expected).max() < 1e-4
    assert np.ptp(result.train_loss[:, -1]) > 1e-3  # The rates do matter here.


def both_ways(build, train, val, rates, epochs=2, batch_size=16):
    """The same sweep by `Stack` and by `one_by_one`, without the first rate."""
    rows, held = samples_in("train", train), samples_in("val", val)
    orders, tried = orders_of(len(rows), epochs, 0), np.array([1e-9, *rates])
    ways = []
    for stacked in (True, False):
        keras.utils.set_random_seed(0)
        model, samples, held_samples = built(build, rows), tensors_of(rows), tensors_of(held)
        if stacked:
            losses = Stack(model, tried, samples, held_samples).train(orders, batch_size)
        else:
            batches = batches_of(held_samples, tf.range(len(held)), 32)
            losses = one_by_one(model, tried, samples, batches, orders, batch_size)
        ways.append([loss[1:] for loss in losses])
    return ways


SEQUENCES = np.random.default_rng(0).normal(size=(48, 5, 2)).astype("float32")
RECIPES = {
    "linear": ((6,), {}),
    "mlp": ((6,), {"dropout": 0.4}),
    "residual_mlp": ((6,), {"depth": 6, "units": 8, "dropout": 0.3}),
    "selu_mlp": ((6,), {"units": (8, 5), "dropout": 0.1}),
    "maxout_mlp": ((6,), {"units": (8, 5)}),
    "low_rank_mlp": ((6,), {"units": (16, 16), "rank": 2}),
    "rnn": ((5, 2), {"units": (4,)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_both_ways_are_the_same_for_every_recipe_that_stacks(name):
    shape, options = RECIPES[name]
    train = (SEQUENCES, (SEQUENCES.sum(axis=(1, 2)) > 0).astype(int)) if name == "rnn" else TRAIN

    def build():
        return recipes.compile_for(getattr(recipes, name)(shape, TASK, **options), TASK)

    stacked, alone = both_ways(build, train, train, [1e-3, 1e-2])
    assert np.abs(stacked[0] - alone[0]).max() < 1e-4
    assert np.abs(stacked[1] - alone[1]).max() < 1e-4


def test_what_overflows_in_one_copy_stays_there():
    def build():
        return net(0.2, optimizer=keras.optimizers.SGD(0.01))

    quiet = learning_rate_sweep(build, TRAIN, VAL, [1e-3, 1e-2, 1e-1], epochs=3)
    noisy = learning_rate_sweep(build, TRAIN, VAL, [1e-3, 1e-2, 1e-1, 1e30, 1e38], epochs=3)
    assert not np.isfinite(noisy.train_loss[3:, -1]).any()
    assert np.isfinite(quiet.train_loss).all()
    assert np.allclose(noisy.train_loss[:3], quiet.train_loss, rtol=0, atol=1e-6)
    assert np.allclose(noisy.val_loss[:3], quiet.val_loss, rtol=0, atol=1e-6)
    assert noisy.exploded[3:].all()
    assert noisy.untrained == pytest.approx(quiet.untrained, abs=1e-6)


def images():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=30)
    return (rng.normal(size=(30, 8, 8, 1)) + y[:, None, None, None]).astype("float32"), y


def test_a_convolutional_net_runs_one_after_another_without_a_word(caplog, capfd):
    def build():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(2, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3, "softmax"),
            ]
        )
        return recipes.compile_for(model, TASK)

    samples = images()
    result = learning_rate_sweep(build, samples, samples, [1e-3, 1e-2], epochs=2, batch_size=8)
    assert "Conv2D" in result.why_one_by_one
    assert "pfor" not in caplog.text + capfd.readouterr().err
    expected = plain_fit(build, 1e-2, 2, 8, train=samples, val=samples)
    assert np.allclose(result.train_loss[1], expected[0], atol=1e-6)
    assert np.allclose(result.val_loss[1], expected[1], atol=1e-6)


class Own(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class Counting(keras.layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1)
        return x


def own_step():
    inputs = keras.Input((6,))
    return recipes.compile_for(Own(inputs, keras.layers.Dense(3, "softmax")(inputs)), TASK)


def counting():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(Counting()(inputs)))
    return recipes.compile_for(model, TASK)


ALONE = {
    "a train_step of its own": (own_step, "train_step"),
    "an optimizer that sees whole arrays": (lambda: net(optimizer=keras.optimizers.Lamb()), "Lamb"),
    "an optimizer that adds to the rate": (lambda: net(optimizer=keras.optimizers.Ftrl()), "Ftrl"),
    "an optimizer of the user's own": (lambda: net(optimizer=Decayed()), "Decayed"),
    "an average of the weights": (lambda: net(optimizer=keras.optimizers.Adam(use_ema=True)), "use_ema"),
    "a counter": (counting, "count"),
    "eager": (lambda: net(compile_options={"run_eagerly": True}), "eagerly"),
}


@pytest.mark.parametrize(("build", "reason"), ALONE.values(), ids=ALONE)
def test_what_does_not_stack_is_refused_with_the_reason(build, reason):
    rows = samples_in("train", TRAIN)
    samples = tensors_of(rows)
    with pytest.raises(CannotStackError, match=reason):
        Stack(built(build, rows), np.array([0.1]), samples, samples)


@pytest.mark.parametrize(
    "name",
    ["an optimizer that sees whole arrays", pytest.param("a train_step of its own", marks=pytest.mark.slow)],
)
def test_what_does_not_stack_gives_what_plain_fits_give(name):
    build, _ = ALONE[name]
    result = learning_rate_sweep(build, TRAIN, VAL, [1e-2], epochs=2, batch_size=16)
    assert result.why_one_by_one
    expected = plain_fit(build, 1e-2, 2, 16)
    assert np.allclose(result.train_loss[0], expected[0], atol=1e-6)
    assert np.allclose(result.val_loss[0], expected[1], atol=1e-6)


@pytest.mark.slow
def test_a_schedule_gives_way_to_the_rate_both_ways():
    def build():
        schedule = keras.optimizers.schedules.CosineDecay(10.0, 3)
        return net(optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0))

    stacked, alone = both_ways(build, TRAIN, VAL, [1e-2])
    expected = plain_fit(net, 1e-2, 2, 16)[0]
    assert np.abs(stacked[0][0] - expected).max() < 1e-4
    assert np.abs(stacked[0] - alone[0]).max() < 1e-4


@pytest.mark.slow
def test_mixed_precision_runs_one_after_another():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        result = learning_rate_sweep(net, TRAIN, VAL, [1e-3, 3e-2], epochs=2)
    finally:
        keras.config.set_dtype_policy(policy)
    assert "LossScaleOptimizer" in result.why_one_by_one
    assert result.train_loss[1, -1] < result.train_loss[0, -1] - 0.01


def test_a_sweep_learns_and_repeats_from_its_seed():
    def build():
        return recipes.compile_for(recipes.mlp((6,), TASK, (8,)), TASK)

    split = Split(*blobs(150, 3), TASK)
    first, again = (learning_rate_sweep(build, split, VAL, 6, epochs=8, seed=1) for _ in range(2))
    assert np.array_equal(first.train_loss, again.train_loss, equal_nan=True)
    assert np.allclose(np.log10(first.rates), [-5, -3.8, -2.6, -1.4, -0.2, 1])
    assert first.best in (first.rates[2], first.rates[3])
    assert first.val_loss[first.rates == first.best, -1] < 0.8 * first.untrained
    other = learning_rate_sweep(build, split, VAL, [1e-3], epochs=1, seed=2)
    assert other.untrained != first.untrained


def course(finals, untrained=2.0, val=None):
    train = np.column_stack([np.full(len(finals), untrained), finals])
    val = train if val is None else np.column_stack([train[:, 0], val])
    return SweepResult(np.geomspace(1e-3, 1e-3 * 10 ** (len(finals) - 1), len(finals)), train, val, untrained)


RESULTS = {
    "overflow": ([1.9, 1.0, 0.5, np.nan], 1e-1, 1e-1),
    "jumps about at a height": ([1.9, 0.2, 0.9, 1.5, 1.8], 1e-1, 1e-2),
    "above the start": ([1.0, 7.0], 1e-3, 1e-3),
    "overflow in the middle": ([1.5, np.inf, 0.1], 1e-3, 1e-1),
    "none explodes": ([1.9, 1.5, 1.0], 1e-1, 1e-1),
    "little is learned": ([2.01, 2.0, 1.9], 1e-1, 1e-1),
    "all explode": ([np.nan, np.inf], None, None),
    "the lowest is too high already": ([2.5, 3.5], None, None),
}


@pytest.mark.parametrize(("finals", "stable", "best"), RESULTS.values(), ids=RESULTS)
def test_the_choices_are_those_of_the_lecture_and_of_the_validation_loss(finals, stable, best):
    result = course(finals)
    assert result.largest_stable == (None if stable is None else pytest.approx(stable))
    assert result.choice == (None if stable is None else pytest.approx(stable / 2))
    assert result.best == (None if best is None else pytest.approx(best))


def test_the_best_is_chosen_by_validation_and_not_by_training():
    result = course([1.5, 0.5, 0.1], val=[1.4, 0.6, 0.9])
    assert result.best == pytest.approx(1e-2)
    assert result.largest_stable == pytest.approx(1e-1)


def test_a_result_speaks_and_cannot_be_changed():
    result = course([1.9, 0.2, 1.9, np.nan])
    text = str(result)
    assert text.count("explodes") == 2
    assert "Best by validation: 0.01." in text
    assert "Half of the largest stable rate (0.01): 0.005." in text
    assert repr(result).startswith("SweepResult(4 rates from 0.001 to 1, 2 epochs: best=0.01")
    assert "below 0.001" in str(course([np.nan, np.nan]))
    assert "end of the range" in str(course([1.9, 0.2]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.untrained = 0.0
    with pytest.raises(ValueError, match="copies, epochs"):
        SweepResult([0.1, 0.2], np.ones((3, 2)), np.ones((3, 2)), 1.0)


@pytest.mark.parametrize("finals", [[1.9, 0.2, 1.9, np.nan], [np.nan, np.nan], [0.5]], ids=str)
def test_the_figure_marks_the_choices(finals):
    result = course(finals)
    whole = result.figure()
    assert isinstance(whole, Figure)
    axes = [part.axes[0] for part in whole.subfigs[3:]]
    assert axes[0].get_xscale() == "log"
    marked = {text.get_text() for text in axes[0].texts if text.get_text()[0] in "bc"}
    expected = {"best 0.01", "choice 0.005"} if len(finals) == 4 else {"best 0.001", "choice 0.0005"}
    assert marked == (expected if result.best else set())
    assert len(axes[1].get_lines()) == len(axes[2].get_lines()) == len(finals)
    whole.canvas.draw()


WRONG = {
    "a rate of zero": ({"rates": [0.1, 0.0]}, "rates must be positive. Got 0."),
    "no rate": ({"rates": []}, "at least one learning rate"),
    "no number of rates": ({"rates": 0}, "rates must be a positive integer. Got 0."),
    "epochs": ({"epochs": 0}, "epochs must be a positive integer. Got 0."),
    "batch size": ({"batch_size": 1.5}, "batch_size must be a positive integer. Got 1.5."),
    "data": ({"val": 3}, "val must be a data.Split or a pair"),
    "not compiled": ({"build": lambda: recipes.mlp((6,), TASK)}, "compiled model"),
}


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_in_one_sentence(changes, words):
    arguments = {"build": net, "train": TRAIN, "val": VAL, "rates": [0.1], "epochs": 1, **changes}
    with pytest.raises(ValueError, match=words):
        learning_rate_sweep(**arguments)
