import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_practice.recipes.schedules import (
    cosine,
    join,
    linear_then_hold,
    one_cycle,
    scale_learning_rate,
    warmup,
)

RATES = st.floats(1e-5, 1.0)
STEPS = st.integers(1, 10_000)
ANY_STEP = st.integers(0, 30_000)


def line(start, end, steps, k):
    a = min(k / steps, 1.0)
    return (1 - a) * start + a * end


def half_wave(start, end, steps, k):
    return end + (start - end) * (1 + np.cos(np.pi * min(k / steps, 1.0))) / 2


def cycle(peak, steps, up, first, last, k):
    return line(first, peak, up, k) if k < up else half_wave(peak, last, steps - up, k - up)


def assert_rate(schedule, k, expected, scale):
    # float32 is exact to about 1e-7 of the largest rate in the formula.
    assert float(schedule(k)) == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)


@settings(deadline=None)
@given(start=RATES, end=RATES | st.just(0.0), steps=STEPS, k=ANY_STEP)
def test_linear_then_hold_is_the_formula(start, end, steps, k):
    assert_rate(linear_then_hold(start, end, steps), k, line(start, end, steps, k), max(start, end))


@settings(deadline=None)
@given(start=RATES, share=st.floats(0, 1), steps=STEPS, k=ANY_STEP)
def test_cosine_is_the_formula(start, share, steps, k):
    end = share * start
    assert_rate(cosine(start, steps, end), k, half_wave(start, end, steps, k), start)


@settings(deadline=None)
@given(peak=RATES, steps=st.integers(10, 10_000), share=st.floats(0.1, 0.9), k=ANY_STEP)
def test_one_cycle_is_the_formula(peak, steps, share, k):
    schedule = one_cycle(peak, steps, share, start_divisor=10, end_divisor=100)
    expected = cycle(peak, steps, round(share * steps), peak / 10, peak / 100, k)
    assert_rate(schedule, k, expected, peak)


def test_one_cycle_starts_peaks_and_ends_where_it_says():
    schedule = one_cycle(0.5, steps=1000)
    rates = np.array([float(schedule(k)) for k in range(0, 1001, 10)])
    assert rates[0] == pytest.approx(0.5 / 25)
    assert rates.argmax() == 30
    assert rates.max() == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 / 1e4, rel=1e-3)
    assert float(schedule(5000)) == pytest.approx(rates[-1])


@settings(deadline=None)
@given(peak=RATES, climb=st.integers(1, 500), steps=STEPS, k=ANY_STEP)
def test_warmup_climbs_and_then_follows_the_schedule_from_its_first_step(peak, climb, steps, k):
    followers = {
        "number": (peak, peak),
        "line": (linear_then_hold(peak, peak / 7, steps), line(peak, peak / 7, steps, max(k - climb, 0))),
        "cosine": (cosine(peak, steps), half_wave(peak, 0.0, steps, max(k - climb, 0))),
    }
    for schedule, followed in followers.values():
        expected = followed if k >= climb else peak * k / climb
        assert_rate(warmup(schedule, climb), k, expected, peak)


def test_a_warmed_up_schedule_can_be_warmed_up_and_can_start_above_zero():
    once = warmup(cosine(0.1, 100), 10, start=0.02)
    twice = warmup(once, 5)
    assert float(once(0)) == pytest.approx(0.02)
    assert [float(twice(k)) for k in (0, 5, 15)] == pytest.approx([0.0, 0.02, 0.1])


@settings(deadline=None)
@given(k=ANY_STEP, lengths=st.lists(st.integers(1, 5000), min_size=2, max_size=4))
def test_join_gives_each_schedule_its_own_step_count(k, lengths):
    boundaries = np.cumsum(lengths).tolist()
    parts = [
        linear_then_hold(0.1 + i, 0.05, 1000) if i % 2 else 0.2 * (i + 1) for i in range(len(lengths) + 1)
    ]
    i = int(np.searchsorted(boundaries, k, side="right"))
    own = k - ([0, *boundaries][i])
    expected = line(0.1 + i, 0.05, 1000, own) if i % 2 else 0.2 * (i + 1)
    assert_rate(join(parts, boundaries), k, expected, 5.0)


def test_a_schedule_that_is_not_defined_before_its_start_can_be_joined():
    decay = keras.optimizers.schedules.InverseTimeDecay(0.1, decay_steps=10, decay_rate=1.0)
    schedule = join([0.3, decay], [10])  # The decay's value is infinite at its step -10.
    assert [float(schedule(k)) for k in (0, 9, 10, 20)] == pytest.approx([0.3, 0.3, 0.1, 0.05])


SCHEDULES = {
    "linear_then_hold": linear_then_hold(0.1, 0.01, 40),
    "cosine": cosine(0.1, 40),
    "one_cycle": one_cycle(0.1, 40),
    "warmup": warmup(cosine(0.1, 40), 10),
    "join": join([0.2, linear_then_hold(0.1, 0.01, 20), warmup(cosine(0.1, 9), 4)], [5, 30]),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("jit", [False, True])
def test_schedules_are_the_same_in_a_graph_on_an_int64_step(schedule, jit):
    compiled = tf.function(schedule, jit_compile=jit)
    for k in (0, 3, 12, 30, 31, 1000):
        rate = compiled(tf.constant(k, tf.int64))
        assert rate.dtype == tf.float32
        assert float(rate) == pytest.approx(float(schedule(k)), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_model_compiled_with_a_schedule_trains_and_loads(schedule, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.fit(np.ones((12, 3)), np.ones(12), batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 3
    assert float(loaded.optimizer.learning_rate) == pytest.approx(float(schedule(3)), rel=1e-6)
    loaded.fit(np.ones((12, 3)), np.ones(12), batch_size=4, verbose=0)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(float(schedule(6)), rel=1e-6)


@pytest.mark.slow
def test_all_but_join_load_in_a_program_that_has_keras_alone(tmp_path):
    for name, schedule in SCHEDULES.items():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(schedule), "mse")
        model.save(tmp_path / f"{name}.keras")
    program = f"""
import keras, sys
for name in {list(SCHEDULES)}:
    path = r"{tmp_path}/" + name + ".keras"
    try:
        print(name, float(keras.models.load_model(path).optimizer.learning_rate) >= 0)
    except TypeError as error:
        print(name, "JoinedSchedule" in str(error), len(keras.models.load_model(path, compile=False).weights))
assert not any(module.startswith("keras_practice.") for module in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    printed = {words[0]: words[1:] for words in map(str.split, done.stdout.strip().splitlines())}
    assert printed.pop("join") == ["True", "2"]
    assert printed == {name: ["True"] for name in SCHEDULES if name != "join"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("linear", 0.4), ("sqrt", 0.2), ("inverse", 0.025)],
)
def test_the_learning_rate_follows_the_batch_size(rule, expected):
    assert scale_learning_rate(0.1, 256, 1024, rule) == pytest.approx(expected)
    assert scale_learning_rate(expected, 1024, 256, rule) == pytest.approx(0.1)


def test_the_learning_rate_is_multiplied_by_default():
    assert scale_learning_rate(0.1, 32, 64) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: linear_then_hold(-0.1, 0.01, 10), "start must be zero or a positive number. Got -0.1."),
        (lambda: linear_then_hold(0.1, float("nan"), 10), "end must be"),
        (lambda: linear_then_hold(0.1, 0.01, 0), "steps must be a positive integer. Got 0."),
        (lambda: cosine(0.0, 10), "start must be a positive number"),
        (lambda: cosine(0.1, 10, end=0.2), "end must be at most start, 0.1"),
        (lambda: one_cycle(0.1, 1), "at least one of the steps on each side"),
        (lambda: one_cycle(0.1, 10, warmup_share=1.0), r"warmup_share must be in \[0, 1\)"),
        (lambda: one_cycle(0.1, 10, end_divisor=0.5), "end_divisor must be at least 1. Got 0.5."),
        (lambda: warmup("fast", 10), "schedule must be a Keras schedule or a positive number. Got 'fast'."),
        (lambda: warmup(0.1, 10.0), "steps must be a positive integer"),
        (lambda: join([], []), "schedules must be a sequence of at least one"),
        (lambda: join(cosine(0.1, 5), []), "schedules must be a sequence"),
        (lambda: join([0.1, -0.1], [5]), "Each of schedules must be a positive number"),
        (lambda: join([0.1, 0.2], [5, 6]), "one step fewer than the 2 schedules"),
        (lambda: join([0.1, 0.2, 0.3], [5, 5]), r"boundaries must rise. Got \[5, 5\]."),
        (lambda: scale_learning_rate(0.1, 0, 64), "batch_from must be a positive integer"),
        (lambda: scale_learning_rate(0.1, 32, 64, "cube"), "rule must be one of linear, sqrt, inverse"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
