import numpy as np
import pytest

from keras_practice.callbacks.symptoms import symptoms

NAN = float("nan")


def figures(samples=12, **changed):
    """A healthy history of two layers, with some figures changed: one value, or one a sample."""
    healthy = {
        "gradient_norm": 1.0,
        "gradient_norm/first": 0.5,
        "gradient_norm/last": 0.8,
        "update_ratio": 1e-3,
        "update_ratio/first": 1e-3,
        "update_ratio/last": 1e-3,
        "dead/first": 0.1,
        "saturated/gate": 0.2,
        "clipped": 0.0,
        "norm_to_clip": 1.0,
        "seconds_per_step": 0.05,
        "input_wait": 0.05,
    }
    values = {**healthy, **changed}
    lists = {
        name: [value] * samples
        if np.isscalar(value)
        else [healthy.get(name, NAN)] * (samples - len(value)) + value
        for name, value in values.items()
    }
    return {"step": [50.0 * i for i in range(samples)], **lists}


def names(history):
    return [name for name, _ in symptoms(history)]


def test_healthy_figures_say_nothing():
    assert names(figures()) == []
    assert names(figures(1)) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"gradient_norm": [NAN, float("inf"), NAN]}, "gradient-not-finite"),
        ({"gradient_norm": [150.0]}, "exploding-gradient"),
        ({"dead/first": [0.6, 0.7, 0.9]}, "dead-units"),
        ({"saturated/gate": [0.6, 0.7, 0.9]}, "saturated-units"),
        ({"update_ratio": [0.2, 0.2, 0.2]}, "large-updates"),
        ({"gradient_norm/first": [1e-6, 1e-6, 1e-6]}, "vanishing-gradient"),
        ({"clipped": [1.0] * 7}, "clipping-most-steps"),
        ({"input_wait": [0.5, 0.5, 0.5]}, "waiting-for-input"),
    ],
)
def test_each_symptom_by_itself(changed, expected):
    assert names(figures(**changed)) == [expected]


def test_a_step_too_small_is_seen_at_the_start_only():
    assert names(figures(3, update_ratio=1e-8)) == ["small-updates"]
    assert names(figures(12, update_ratio=1e-8)) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"gradient_norm": [NAN]},  # Mixed precision looks for its scale.
        {"gradient_norm": [50.0]},
        {"gradient_norm": [0.001, 0.5]},  # Small once, then as usual.
        {"dead/first": [0.6, 0.4, 0.9]},
        {"dead/first": [0.6, NAN, 0.9]},
        {"saturated/gate": [0.9, 0.9, NAN]},
        {"update_ratio": [0.2, 0.01, 0.2]},
        {"gradient_norm/first": [1e-6, NAN, 1e-6]},
        {"gradient_norm/first": [1e-6, 1e-6, 1e-6], "gradient_norm/last": [0.0, 0.0, 0.0]},
        {"clipped": [1.0] * 5},
        {"clipped": NAN},
        {"input_wait": [0.5, 0.5, 0.1]},
        {"input_wait": [0.5, 0.5, 0.5], "seconds_per_step": 0.002},
        {"input_wait": NAN},
    ],
)
def test_what_is_no_symptom(changed):
    assert names(figures(**changed)) == []


def test_too_few_samples_are_no_evidence():
    assert (
        names(figures(2, **{"dead/first": 0.9, "update_ratio": 0.5, "clipped": 1.0, "input_wait": 0.9})) == []
    )


def test_the_words_name_the_step_the_layer_and_the_figure():
    ((_, words),) = symptoms(figures(**{"dead/first": 0.75, "dead/other": 0.2}))
    assert words.startswith("step 550: at least 75% of the units of 'first' are dead")


def test_the_limit_that_is_suggested_clips_one_step_in_ten():
    norms = [float(i) for i in range(1, 13)]
    ((_, words),) = symptoms(figures(clipped=1.0, norm_to_clip=norms))
    assert f"a limit of {np.percentile(norms, 90):.2g} would" in words
