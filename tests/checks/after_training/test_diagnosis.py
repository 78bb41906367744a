import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_practice import data, recipes
from keras_practice.checks.after_training.diagnosis import diagnose
from keras_practice.data import Task


def falling(epochs, floor=0.1, half=8.0, height=2.0, noise=0.01, seed=0):
    """An exponential fall to a floor, `half` times in the run, with noise."""
    e = np.arange(epochs)
    jitter = noise * np.random.default_rng(seed).normal(size=epochs)
    return floor + height * np.exp(-e * half / epochs) + jitter


def names(**history):
    return [f.check for f in diagnose({k: list(map(float, v)) for k, v in history.items()}).findings]


def severities(**history):
    report = diagnose({k: list(map(float, v)) for k, v in history.items()})
    return {f.check: f.severity for f in report.findings}


E30 = np.arange(30)
HEALTHY = {
    "to the end": {"loss": falling(30), "val_loss": falling(30, 0.2, seed=1)},
    "short": {"loss": falling(8), "val_loss": falling(8, 0.2, seed=1)},
    "long": {"loss": falling(200), "val_loss": falling(200, 0.2, seed=1)},
    "dropout keeps the training loss up": {
        "loss": falling(12, 0.5),
        "val_loss": falling(12, 0.2, seed=1),
    },
    "no validation": {"loss": falling(12)},
    "no noise at all": {"loss": falling(30, noise=0), "val_loss": falling(30, 0.2, noise=0)},
    "a late start": {"loss": 2.3 / (1 + np.exp((E30 - 12) / 2)) + 0.1},
    "a warm-up": {
        "loss": np.concatenate([[2.3, 2.6, 2.9], falling(20)]),
        "learning_rate": np.concatenate([[1e-4, 1e-3, 1e-2], np.full(20, 1e-2)]),
    },
    "a power law": {"loss": 3 * (E30 + 1.0) ** -0.7, "val_loss": 3.2 * (E30 + 1.0) ** -0.7},
    "a little past the best epoch": {
        "loss": falling(30, half=6),
        "val_loss": falling(30, 0.2, 6, seed=1) + 0.002 * np.maximum(0, E30 - 22),
    },
    "a huge first validation loss": {
        "loss": falling(20),
        "val_loss": np.concatenate([[30.0], falling(19, 0.2, seed=1)]),
    },
    "a loss below zero": {"loss": falling(30) - 5, "val_loss": falling(30, 0.2, seed=1) - 5},
}


@pytest.mark.parametrize("history", HEALTHY.values(), ids=HEALTHY)
def test_healthy_curves_raise_no_alarm(history):
    assert set(severities(**history).values()) <= {"info"}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({"loss": [2.3, 1.9, np.nan, np.nan]}, "loss-diverges"),
        ({"loss": [np.nan] * 3}, "loss-diverges"),
        ({"loss": falling(8), "val_loss": [*falling(7), np.inf]}, "loss-diverges"),
        ({"loss": 2.3 * 1.3 ** np.arange(10)}, "loss-diverges"),
        ({"loss": np.concatenate([falling(10), 0.2 + 0.3 * np.arange(8)])}, "loss-diverges"),
        ({"loss": np.concatenate([[2.3, 5.0, 3.0], falling(17)])}, "learning-rate-high"),
        ({"loss": falling(20) + 0.6 * (-1.0) ** np.arange(20)}, "learning-rate-high"),
        ({"loss": falling(20) + 1.9 * (np.arange(20) == 12)}, "learning-rate-high"),
        ({"loss": 2.3 - 0.01 * np.arange(10)}, "learning-rate-low"),
        ({"loss": 2.3 - 0.03 * E30 + 0.01 * np.random.default_rng(0).normal(size=30)}, "learning-rate-low"),
        ({"loss": 2.3 + 0.01 * np.random.default_rng(0).normal(size=30)}, "plateau"),
        ({"loss": np.full(6, 0.693)}, "plateau"),
        ({"loss": np.concatenate([[2.4], np.full(9, 2.303)])}, "plateau"),
        ({"loss": falling(30), "val_loss": falling(30, 0.4, seed=1) + 0.03 * E30}, "overfitting"),
        (
            {
                "loss": falling(30),
                "val_loss": falling(30) + np.abs(np.random.default_rng(0).normal(size=30)),
            },
            "noisy-curve",
        ),
        ({"loss": falling(20, half=2), "val_loss": falling(20, 0.2, 2, seed=1)}, "still-improving"),
        ({"loss": falling(20, 0.02), "val_loss": falling(20, 0.9, seed=1)}, "high-variance"),
        ({"loss": [2.3, 1.2]}, "too-few-epochs"),
    ],
)
def test_each_fault_by_itself(history, expected):
    found = names(**history)
    assert expected in found
    assert set(found) <= {expected, "high-variance"}


def test_the_most_severe_comes_first_and_errors_fail():
    report = diagnose({"loss": [2.0, 1.0, float("nan")]})
    assert report.findings[0].severity == "error"
    assert not report.passed
    assert "from epoch 3 on" in report.findings[0].evidence


def test_the_best_epoch_is_named():
    history = {"loss": falling(30), "val_loss": falling(30, 0.4, noise=0) + 0.03 * E30}
    best = int(np.argmin(history["val_loss"])) + 1
    report = diagnose(history)
    (finding,) = [f for f in report.findings if f.check == "overfitting"]
    assert f"in epoch {best}," in finding.evidence
    assert report.figures["best_epoch"] == best
    assert report.figures["val_rise"] > 0.1


def test_surer_but_no_worse_decisions_are_only_a_hint():
    history = {
        "loss": falling(30),
        "val_loss": falling(30, 0.4, seed=1) + 0.05 * E30,
        "val_accuracy": 0.9 + 0.002 * E30,
    }
    assert severities(**history)["overfitting"] == "info"
    history["val_accuracy"] = 0.95 - 0.002 * E30
    assert severities(**history)["overfitting"] == "warning"


def test_validation_every_third_epoch_is_placed_right():
    loss = falling(30)
    rising = falling(30, 0.4, noise=0) + 0.04 * E30
    report = diagnose({"loss": list(loss), "val_loss": list(rising[2::3])})
    best = 3 * (int(np.argmin(rising[2::3])) + 1)
    assert report.figures["best_epoch"] == best
    assert "overfitting" in [f.check for f in report.findings]


def test_a_rate_that_has_run_down_ends_the_training():
    history = {"loss": falling(20, half=2), "learning_rate": np.geomspace(1e-2, 1e-5, 20)}
    assert "still-improving" not in names(**history)


shapes = st.sampled_from(
    [
        {"loss": falling(30), "val_loss": falling(30, 0.2, seed=1)},
        {"loss": falling(30), "val_loss": falling(30, 0.4, seed=1) + 0.03 * E30},
        {"loss": falling(20) + 0.6 * (-1.0) ** np.arange(20)},
        {"loss": 2.3 - 0.03 * E30},
        {"loss": falling(20, half=2), "val_loss": falling(20, 0.2, 2, seed=1)},
        {"loss": 2.3 + 0.01 * np.random.default_rng(0).normal(size=30)},
    ]
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.floats(1e-6, 1e6))
def test_the_scale_of_the_loss_does_not_matter(history, scale):
    scaled = {name: scale * np.asarray(values) for name, values in history.items()}
    assert severities(**scaled) == severities(**history)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            {"loss": falling(30), "val_loss": falling(30, 0.4, seed=1) + 0.03 * E30},
            {"loss": np.concatenate([[2.3, 5.0, 3.0], falling(17)])},
            {"loss": falling(20, half=2), "val_loss": falling(20, 0.2, 2, seed=1)},
        ]
    ),
    st.floats(0, 50),
)
def test_neither_does_its_zero_where_shape_is_judged(history, shift):
    moved = {name: np.asarray(values) + shift for name, values in history.items()}
    assert {k for k in severities(**moved) if k != "plateau"} == set(severities(**history))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=12),
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=0, max_size=12),
)
def test_any_curve_gives_a_report(loss, val_loss):
    report = diagnose({"loss": loss, "val_loss": val_loss[: len(loss)]})
    assert str(report)
    assert report.passed or report.findings[0].check == "loss-diverges"


DIGITS = data.load("digits")


def model(dataset=DIGITS, dropout=0.0, units=(32,), **options):
    keras.utils.set_random_seed(0)
    return recipes.compile_for(
        recipes.mlp(dataset.input_shape, dataset.task, units=units, dropout=dropout), dataset.task, **options
    )


def trained(learning_rate=3e-3, optimizer="adam", epochs=12, y=None, **options):
    net = model(optimizer=optimizer, learning_rate=learning_rate, **options)
    train, val = DIGITS.train, DIGITS.val
    history = net.fit(
        train.x,
        train.y if y is None else y,
        validation_data=(val.x, val.y),
        batch_size=64,
        epochs=epochs,
        verbose=0,
    )
    return net, history


def test_a_good_training_passes_with_its_errors_measured():
    net, history = trained(dropout=0.3)
    before = [np.array(w) for w in net.get_weights()]
    report = diagnose(history, net, DIGITS)
    assert all(f.severity == "info" for f in report.findings), str(report)
    assert report.figures["train_error"] < 0.05
    assert report.figures["val_error"] < 0.12
    assert report.figures["chance_error"] == pytest.approx(0.9, abs=0.02)
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_a_rate_that_is_too_low_is_seen_in_a_real_training():
    net, history = trained(1e-4, "sgd", epochs=8)
    assert diagnose(history, net, DIGITS).findings, str(history.history["loss"])
    assert "learning-rate-low" in [f.check for f in diagnose(history).findings]


def test_a_rate_that_is_too_high_is_seen_in_a_real_training():
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    net.compile(keras.optimizers.Adam(3.0), "sparse_categorical_crossentropy")
    x, y = DIGITS.train.x, DIGITS.train.y
    history = net.fit(x, y, validation_data=(DIGITS.val.x, DIGITS.val.y), epochs=8, batch_size=64, verbose=0)
    found = [f.check for f in diagnose(history, net, DIGITS).findings]
    assert {"learning-rate-high", "loss-diverges", "plateau"} & set(found)
    assert "high-bias" in found


def test_an_untrained_model_is_at_chance():
    report = diagnose({"loss": [2.3] * 5}, model(), (DIGITS.train, (DIGITS.val.x, DIGITS.val.y)))
    by_name = {f.check: f for f in report.findings}
    assert by_name["high-bias"].severity in ("error", "warning")
    assert "high-variance" not in by_name


class Knows(keras.layers.Layer):
    """Puts out its inputs as they are."""

    def call(self, x):
        return x


def knowing():
    net = keras.Sequential([keras.Input((4,)), Knows()])
    net.compile(loss="sparse_categorical_crossentropy")
    return net


def answers(right, count=400, seed=0):
    """Inputs that are a model's answers, a share of which is right, and the labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=count)
    said = np.where(np.arange(count) < right * count, y, (y + 1) % 4)
    return np.eye(4, dtype="float32")[said], y


@pytest.mark.parametrize(
    ("train", "val", "target", "expected"),
    [
        (0.99, 0.97, None, {}),
        (0.99, 0.6, None, {"high-variance": "warning"}),
        (0.55, 0.52, None, {"high-bias": "info"}),
        (0.24, 0.25, None, {"high-bias": "error"}),
        (0.9, 0.88, 0.02, {"high-bias": "warning"}),
        (0.99, 0.9, 0.02, {"high-variance": "warning"}),
        (0.99, 0.985, 0.02, {}),
    ],
)
def test_bias_and_variance_are_told_apart(train, val, target, expected):
    report = diagnose(
        {"loss": falling(30)},
        knowing(),
        (answers(train), answers(val, seed=1)),
        task=Task.multiclass(4),
        target=target,
    )
    assert {f.check: f.severity for f in report.findings} == expected


def test_the_training_set_alone_is_enough_for_the_bias():
    report = diagnose({"loss": falling(30)}, knowing(), (answers(0.2), None))
    assert report.findings[0].check == "high-bias"
    assert "val_error" not in report.figures
    assert diagnose({"loss": falling(30)}, knowing(), answers(0.2)).figures == report.figures


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diagnose({"accuracy": [1.0]}), "must hold a loss"),
        (lambda: diagnose({"loss": []}), "must hold a loss"),
        (lambda: diagnose([1.0, 0.5]), "must be what fit returns"),
        (lambda: diagnose({"loss": [1.0]}, data=DIGITS), "given together"),
        (lambda: diagnose({"loss": [1.0]}, knowing(), 3), "data.Dataset or a pair"),
        (lambda: diagnose({"loss": [1.0]}, target=0), "target must be a positive number"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
