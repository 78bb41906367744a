import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from keras_practice import recipes
from keras_practice.data import Split, Task
from keras_practice.tuning.sweeps import batch_size as batch_sizes
from keras_practice.tuning.sweeps.batch_size import batch_size_sweep
from keras_practice.tuning.sweeps.batch_size_results import BatchSizeCurve, BatchSizeResult

TASK = Task.multiclass(3)
CENTRES = np.random.default_rng(5).normal(size=(3, 6))


def blobs(count, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=count)
    return (CENTRES[y] + rng.normal(size=(count, 6))).astype("float32"), y


TRAIN, VAL = Split(*blobs(150, 1), TASK), blobs(60, 2)


def net(optimizer="adam", learning_rate=1e-2, task=TASK, run_eagerly=True, **options):
    """A net whose few steps are not worth a graph."""
    model = recipes.linear((6,), task)
    return recipes.compile_for(model, task, optimizer, learning_rate, run_eagerly=run_eagerly, **options)


def traced(learning_rate=1e-2):
    return net(learning_rate=learning_rate, run_eagerly=False, steps_per_execution=1)


class Hungry(keras.layers.Layer):
    """Wants more memory than a machine can address for batches above a size."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def call(self, x):
        count = tf.where(tf.shape(x, tf.int64)[0] > self.most, tf.constant(2**45, tf.int64), 1)
        return x + 0 * tf.reduce_max(tf.fill([count], x[0, 0]))


def hungry(most):
    def build():
        inputs = keras.Input((6,))
        return recipes.compile_for(
            keras.Model(inputs, keras.layers.Dense(3, "softmax")(Hungry(most)(inputs))),
            TASK,
            steps_per_execution=1,
        )

    return build


class Limited(keras.Model):
    """Says that it has no memory, as TensorFlow and numpy say it, for batches above a size."""

    most, error = 70, MemoryError

    def fit(self, x, **options):
        if int(next(iter(x))[0].shape[0]) > self.most:
            raise self.error
        return super().fit(x, **options)


def limited(size, failure=MemoryError):
    def build():
        class Model(Limited):
            most, error = size, failure

        inputs = keras.Input((6,))
        model = Model(inputs, keras.layers.Dense(3, "softmax")(inputs))
        return recipes.compile_for(model, TASK, run_eagerly=True)

    return build


EXHAUSTED = tf.errors.ResourceExhaustedError(None, None, "OOM")


@pytest.mark.parametrize(
    ("build", "sizes", "largest", "too_large", "trained"),
    [
        (limited(70), [16, 32], 64, 128, [16, 32]),
        (limited(20, EXHAUSTED), [16, 32, 64], 16, 32, [16]),
        (limited(1000), [64], 150, None, [64]),
        pytest.param(hungry(70), [16, 32], 64, 128, [16, 32], marks=pytest.mark.slow),
    ],
    ids=["beyond the sizes", "among the sizes", "all of the data", "a true lack of memory"],
)
def test_the_largest_batch_that_fits_is_found_by_doubling(build, sizes, largest, too_large, trained):
    result = batch_size_sweep(build, TRAIN, (VAL[0][:20], VAL[1][:20]), sizes, epochs=1)
    assert (result.largest, result.too_large) == (largest, too_large)
    assert [curve.size for curve in result.curves] == trained
    assert f"{largest}" in str(result)


def test_no_size_that_fits_is_an_error():
    with pytest.raises(MemoryError, match="Not even a batch of 16"):
        batch_size_sweep(limited(10), TRAIN, VAL, [16, 32], epochs=1)


def test_without_a_probe_larger_batches_are_left_alone():
    result = batch_size_sweep(limited(70), TRAIN, VAL, [16, 32], epochs=1, probe=False)
    assert (result.largest, result.too_large) == (32, None)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(ZeroDivisionError):
        batch_size_sweep(limited(10, ZeroDivisionError), TRAIN, VAL, [16], epochs=1)


def test_each_size_is_a_plain_fit_from_the_same_start_at_the_scaled_rate():
    result = batch_size_sweep(traced, TRAIN, VAL, [16, 64], rule="linear", epochs=3, probe=False, seed=4)
    assert result.score == "val_accuracy"
    assert result.direction == "max"
    for curve, rate in zip(result.curves, (0.5e-2, 2e-2), strict=True):
        assert curve.learning_rate == pytest.approx(rate)
        keras.utils.set_random_seed(4)
        model, rng = net(learning_rate=rate), np.random.default_rng(4)
        scores = [model.evaluate(*VAL, verbose=0, return_dict=True)["accuracy"]]
        for _ in range(3):
            order = rng.permutation(len(TRAIN))
            history = model.fit(
                TRAIN.x[order],
                TRAIN.y[order],
                batch_size=curve.size,
                validation_data=VAL,
                shuffle=False,
                verbose=0,
            ).history
            scores += history["val_accuracy"]
        assert curve.scores == pytest.approx(np.array(scores), abs=1e-6)
    assert result.curves[0].scores[-1] != result.curves[1].scores[-1]


@pytest.mark.parametrize(("rule", "rate"), [("linear", 2.0), ("sqrt", math.sqrt(2)), (None, 1.0)])
def test_the_rate_follows_the_size_by_the_rule(rule, rate):
    result = batch_size_sweep(net, TRAIN, VAL, [128], rule=rule, base=64, epochs=1, probe=False)
    assert result.curves[0].learning_rate == pytest.approx(1e-2 * rate)


def test_validation_and_tracing_take_no_time(monkeypatch):
    """A clock that moves by one second each time it is read shows what is between the readings."""
    now = iter(range(1000))
    monkeypatch.setattr(batch_sizes.time, "perf_counter", lambda: float(next(now)))
    result = batch_size_sweep(net, TRAIN, VAL, [64], epochs=4, probe=False)
    # Read at the start and at the end of each epoch's training alone.
    assert result.curves[0].seconds.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_training_ends_when_its_seconds_are_spent(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(batch_sizes.time, "perf_counter", lambda: float(next(now)))
    result = batch_size_sweep(net, TRAIN, VAL, [64], seconds=2.5, probe=False)
    assert result.curves[0].seconds.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_regression_is_judged_by_its_loss():
    task = Task.regression(1)
    samples = (TRAIN.x, TRAIN.x[:, :1])
    result = batch_size_sweep(lambda: net(task=task), samples, samples, [32], epochs=2, probe=False)
    assert (result.score, result.direction) == ("val_loss", "min")
    assert result.curves[0].scores[-1] <= result.target < result.curves[0].scores[0]
    other = batch_size_sweep(
        lambda: net(task=task), samples, samples, [32], epochs=1, probe=False, score="val_mae", target=0.0
    )
    assert (other.score, other.target) == ("val_mae", 0.0)
    assert other.sweet_spot is None


def test_the_usual_sizes_are_powers_of_two_as_far_as_there_are_samples():
    assert batch_sizes._check_sizes(None, 10_000) == [16, 32, 64, 128, 256]
    assert batch_sizes._check_sizes(None, 100) == [16, 32, 64]
    assert batch_sizes._check_sizes(None, 9) == [9]
    assert batch_sizes._check_sizes([64, 16, 16], 100) == [16, 64]


def result_of(courses, direction="max", target=0.9, **options):
    curves = tuple(BatchSizeCurve(size, 1e-3, *course) for size, course in courses.items())
    score = "val_accuracy" if direction == "max" else "val_loss"
    return BatchSizeResult(curves, score, direction, target, max(courses), **options)


def test_the_sweet_spot_is_the_size_that_reaches_the_target_first():
    result = result_of(
        {
            16: ([0, 4, 8], [0.1, 0.95, 0.99]),
            32: ([0, 2, 4], [0.1, 0.8, 0.9]),
            64: ([0, 1, 2, 3], [0.1, 0.5, 0.91, 0.8]),
            128: ([0, 0.5, 1], [0.1, 0.2, 0.3]),
        }
    )
    assert result.times == {16: 4.0, 32: 4.0, 64: 2.0, 128: math.inf}
    assert result.sweet_spot == 64
    assert "Sweet spot: 64" in str(result)
    assert "not reached" in str(result)
    low = result_of({16: ([0, 1, 2], [2, 1, 0.4]), 32: ([0, 0.5, 1.5], [2, 1.5, 0.5])}, "min", 0.5)
    assert low.times == {16: 2.0, 32: 1.5}
    assert low.sweet_spot == 32


def test_a_tie_goes_to_the_size_that_needs_less_memory():
    courses = {16: ([0, 1.04], [0.1, 0.95]), 32: ([0, 1.0], [0.1, 0.95]), 64: ([0, 1.2], [0.1, 1.0])}
    assert result_of(courses).sweet_spot == 16
    courses[16] = ([0, 1.06], [0.1, 0.95])
    assert result_of(courses).sweet_spot == 32


def test_the_default_target_is_most_of_the_way_to_the_best():
    up = [
        BatchSizeCurve(16, 1e-3, [0, 1], [0.1, 0.9]),
        BatchSizeCurve(32, 1e-3, [0, 1, 2], [0.1, 1.1, np.nan]),
    ]
    assert batch_sizes._default_target(up, 1) == pytest.approx(0.1 + 0.95 * 1.0)
    down = [BatchSizeCurve(16, 1e-3, [0, 1, 2], [2.0, 1.0, 1.5])]
    assert batch_sizes._default_target(down, -1) == pytest.approx(1.05)


def test_a_result_is_drawn_speaks_and_cannot_be_changed():
    result = result_of(
        {16: ([0, 1, 2], [0.1, 0.95, 0.96]), 64: ([0, 0.5, 1], [0.1, 0.2, np.nan])}, too_large=128
    )
    whole = result.figure()
    assert isinstance(whole, Figure)
    scores, times = (part.axes[0] for part in whole.subfigs[2:])
    assert len(scores.get_lines()) == 3
    assert times.get_xscale() == "log"
    assert "sweet spot 16" in {text.get_text() for text in times.texts}
    whole.canvas.draw()
    assert repr(result) == "BatchSizeResult(16, 64: sweet_spot=16, largest=64)"
    assert "64; 128 does not" in str(result)
    none = result_of({16: ([0, 1], [0.1, np.nan])}, target=2.0)
    assert "No size reaches 2" in str(none)
    none.figure().canvas.draw()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.target = 0.0
    with pytest.raises(ValueError, match="looks"):
        BatchSizeCurve(16, 1e-3, [0, 1], [1.0])


def scheduled():
    return net(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 100)), 1e-3)


def test_a_schedule_is_left_as_it_is_without_a_rule():
    result = batch_size_sweep(scheduled, TRAIN, VAL, [64], rule=None, epochs=1, probe=False)
    assert result.curves[0].learning_rate == pytest.approx(1e-2)


WRONG = {
    "size": ({"sizes": [0]}, "Each of sizes must be a positive integer. Got 0."),
    "size above the data": ({"sizes": [16, 200]}, "at most the 150 training samples. Got 200."),
    "no size": ({"sizes": []}, "at least one batch size"),
    "rule": ({"rule": "inverse"}, "rule must be 'linear', 'sqrt' or None. Got 'inverse'."),
    "base": ({"base": 0}, "base must be a positive integer. Got 0."),
    "seconds": ({"seconds": -1.0}, "seconds must be a positive number. Got -1.0."),
    "score": ({"score": "val_f1"}, "score must be one of val_"),
    "schedule": ({"build": scheduled}, "pass rule=None"),
    "data": ({"train": None}, "train must be a data.Split or a pair"),
    "not compiled": ({"build": lambda: recipes.linear((6,), TASK)}, "compiled model"),
}


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_in_one_sentence(changes, words):
    arguments = {"build": net, "train": TRAIN, "val": VAL, "sizes": [32], "epochs": 1, **changes}
    with pytest.raises(ValueError, match=words):
        batch_size_sweep(**arguments)
