import functools
import importlib
import logging
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.callbacks import scores
from keras_practice.training.tracing import quiet_tracing
from keras_practice.tuning.search.oracles import derive_seed
from keras_practice.tuning.staged import Staged, Step, overfits, staged, train_step
from keras_practice.tuning.staged_figure import staged_figure

# The room gives the function of that name.
module = importlib.import_module("keras_practice.tuning.staged")
IRIS, DIGITS, WAVES = data.load("iris"), data.load("digits"), data.load("waves")


def trainable(recipe, dataset, arguments):
    model = recipes.get(recipe)(dataset.input_shape, dataset.task, **arguments)
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def answering(outcome):
    """In the place of a training: parameters as they are, and figures that follow from the arguments."""

    def train(build, dataset, arguments, rate, epochs, batch_size, seed):
        parameters = module._trainable(build(arguments))
        figures = {
            "train_loss": 0.5,
            "val_loss": 0.6,
            "train_score": 0.9,
            "val_score": 0.8,
            "overfits": False,
        }
        return Step("", arguments, rate, parameters, **{**figures, **outcome(arguments, rate)})

    return train


def run(monkeypatch, outcome, dataset=IRIS, recipe="mlp", **options):
    monkeypatch.setattr(module, "train_step", answering(outcome))
    return staged(dataset, recipe, **options)


@pytest.mark.parametrize(
    ("recipe", "dataset"), [("mlp", IRIS), ("mlp", DIGITS), ("convnet", DIGITS), ("rnn", WAVES)]
)
def test_it_starts_with_slightly_more_weights_than_samples(recipe, dataset, monkeypatch):
    found = run(monkeypatch, lambda arguments, rate: {"overfits": True}, dataset, recipe)
    first = found.steps[0]
    widths = next(name for name, value in first.arguments.items() if isinstance(value, tuple))
    assert first.stage == "capacity"
    assert first.parameters > len(dataset.train)
    narrower = {**first.arguments, widths: tuple(max(1, width - 1) for width in first.arguments[widths])}
    assert trainable(recipe, dataset, narrower) <= len(dataset.train) or first.arguments[widths][0] == 1
    assert first.arguments["dropout"] == 0
    assert not first.arguments.get("batch_norm", False)


def lecture(arguments, rate):
    """Rate 0.01 learns best; without batch norm 24 units overfit, with it 48; dropout 0.3 is best."""
    width, normed, dropout = arguments["units"][0], arguments["batch_norm"], arguments["dropout"]
    return {
        "train_loss": abs(math.log10(rate) + 2),
        "overfits": width >= (48 if normed else 24) and not dropout,
        "val_score": 0.7 + 0.001 * width + 0.05 * normed + (0.05 - abs(dropout - 0.3)) * bool(dropout),
    }


def test_the_stages_come_in_the_order_of_the_lecture(monkeypatch):
    found = run(monkeypatch, lecture)
    stages = list(dict.fromkeys(step.stage for step in found.steps))
    assert stages == ["capacity", "rate", "grow", "batch norm", "grow again", "dropout"]
    kept = [step for step in found.steps if step.kept]
    start = kept[0].arguments["units"]
    assert [step.stage for step in kept].count("rate") == 1
    assert kept[1].learning_rate == 0.01
    assert {step.learning_rate for step in kept[1:]} == {0.01}
    grown = [step.arguments["units"] for step in found.steps if step.stage == "grow"]
    assert grown == [tuple(2 ** (n + 1) * width for width in start) for n in range(len(grown))]
    assert grown[-1][0] >= 24 > grown[-2][0]
    again = [step for step in found.steps if step.stage in ("batch norm", "grow again")]
    assert all(step.arguments["batch_norm"] for step in again)
    assert again[0].arguments["units"] == grown[-1]
    assert again[-1].overfits
    assert not again[-2].overfits
    dropped = [step for step in found.steps if step.stage == "dropout"]
    assert [step.arguments["dropout"] for step in dropped] == [0.1, 0.2, 0.3, 0.5]
    assert found.best is found.steps[[step.label for step in found.steps].index("dropout 0.3")]
    assert {step.arguments["units"] for step in dropped} == {again[-1].arguments["units"]}


def test_what_never_overfits_ends_all_the_same(monkeypatch):
    found = run(monkeypatch, lambda arguments, rate: {}, growths=2)
    assert [step.stage for step in found.steps].count("grow") == 2
    assert [step.stage for step in found.steps].count("grow again") == 2
    assert "does not overfit after 2 doublings" in found.notes[2]
    assert found.notes[-1] == "dropout: no share is better than none"


def test_a_recipe_without_batch_norm_goes_without_that_stage(monkeypatch):
    found = run(monkeypatch, lambda arguments, rate: {"overfits": True}, recipe="selu_mlp")
    assert "batch norm" not in {step.stage for step in found.steps}
    assert "batch norm: selu_mlp has none" in found.notes


def test_a_rate_at_the_end_of_those_tried_is_told(monkeypatch):
    found = run(monkeypatch, lambda arguments, rate: {"train_loss": -rate}, growths=1)
    assert found.notes[1] == (
        "rate: 0.1 brings the training loss lowest, at an end of those tried: try further ones"
    )
    with pytest.raises(ValueError, match="rates must hold one at which training does not diverge. Got 9.0"):
        run(monkeypatch, lambda arguments, rate: {"train_loss": math.inf}, rates=(9.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "linear"}, "recipe must be one with widths and dropout, such as 'mlp'. Got 'linear'."),
        ({"recipe": "mpl"}, "did you mean 'mlp'"),
        ({"rates": ()}, "rates must be at least one positive number"),
        ({"rates": (-1,)}, "rates must be at least one positive number"),
        ({"dropouts": (1.0,)}, r"dropouts must be in \(0, 1\)"),
        ({"growths": 0}, "growths must be an integer of at least 1. Got 0."),
        ({"epochs": 1}, "epochs must be an integer of at least 2. Got 1."),
    ],
)
def test_wrong_arguments_are_refused_before_any_training(options, message, monkeypatch):
    monkeypatch.setattr(module, "train_step", lambda *args: pytest.fail("something was trained"))
    with pytest.raises(ValueError, match=message):
        staged(IRIS, **options)


@pytest.mark.parametrize(
    ("train", "val", "verdict"),
    [
        ([1.0, 0.5, 0.3, 0.2, 0.1, 0.05], [1.1, 0.6, 0.5, 0.5, 0.6, 0.7], True),
        ([1.0, 0.5, 0.3, 0.2, 0.1, 0.05], [1.1, 0.6, 0.5, 0.45, 0.4, 0.4], False),  # Still falling.
        ([1.0, 0.9, 0.9, 0.9, 0.9, 0.9], [1.1, 0.6, 0.5, 0.5, 0.6, 0.7], False),  # It does not even fit.
        ([1.0, 0.5, 0.3, 0.2, 0.1, 0.05], [1.1, 0.6, 0.5, 0.5, 0.51, 0.51], False),  # Hardly rises.
        ([1.0, math.nan], [1.1, math.nan], False),
        ([1.0, 0.5, 0.3, 0.2, 0.1, 0.05] * 2, [1.0, *[0.5] * 10, 0.6], False),  # One epoch that jumps.
    ],
)
def test_overfitting_is_a_rise_of_the_validation_loss(train, val, verdict):
    assert overfits(train, val) is verdict


def test_a_steps_figures_are_those_of_plain_keras():
    arguments = {"units": (12, 6), "dropout": 0.3, "l2": 1e-3}
    step = train_step(
        lambda values: recipes.mlp(IRIS.input_shape, IRIS.task, **values), IRIS, arguments, 0.02, 2, 16, 5
    )
    keras.utils.set_random_seed(derive_seed(5, "staged"))
    model = recipes.mlp(IRIS.input_shape, IRIS.task, **arguments)
    recipes.compile_for(model, IRIS.task, learning_rate=0.02, steps_per_execution=1)
    stop = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)
    model.fit(
        IRIS.train.batches(16, seed=5),
        validation_data=IRIS.val.batches(256),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[stop],
    )
    for split, loss, score in (
        (IRIS.train, step.train_loss, step.train_score),
        (IRIS.val, step.val_loss, step.val_score),
    ):
        p = np.asarray(model(split.x, training=False), dtype=np.float64)
        assert loss == pytest.approx(-np.log(p[np.arange(len(p)), split.y]).mean(), abs=1e-4)
        assert score == pytest.approx(scores(split.y, p, IRIS.task)["f1"], abs=1e-6)
    assert step.parameters == trainable("mlp", IRIS, arguments)


@pytest.fixture(scope="module")
def eager():
    """Has models run without graphs, which take longer to trace than a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "compile_for", functools.partial(recipes.compile_for, run_eagerly=True))
        yield


@pytest.fixture(scope="module")
def whole(eager):
    """A real run of the protocol, as small as may be."""
    return staged(IRIS, rates=(1e-2, 3e-3), dropouts=(0.2,), growths=1, epochs=2, batch_size=90)


def test_a_real_run_repeats_and_reads_well(whole, eager):
    assert [step.stage for step in whole.steps][:3] == ["capacity", "rate", "rate"]
    text = str(whole).splitlines()
    assert text[0] == "mlp on iris, 90 training samples; * is where it went on"
    assert text[1].split() == "step parameters rate train loss val loss train f1 val f1 overfits".split()
    assert len(text) == 2 + len(whole.steps) + len(whole.notes) + 1
    assert text[-1].startswith(f"best: recipes.mlp(..., units={whole.best.arguments['units']}")
    assert max(len(line) for line in text) < 140
    again = train_step(
        lambda values: recipes.mlp(IRIS.input_shape, IRIS.task, **values),
        IRIS,
        whole.steps[0].arguments,
        1e-3,
        2,
        90,
        0,
    )
    assert again.val_loss == pytest.approx(whole.steps[0].val_loss, rel=1e-5)


def test_a_run_of_many_models_says_nothing_of_tracing():
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = tf.get_logger()
    logger.addHandler(handler)
    try:
        with quiet_tracing():
            logger.warning("5 out of the last 5 calls to f triggered tf.function retracing.")
            logger.warning("something else")
        logger.warning("6 out of the last 6 calls to f triggered tf.function retracing.")
    finally:
        logger.removeHandler(handler)
    assert [text[:4] for text in heard] == ["some", "6 ou"]


def test_the_result_is_frozen(whole):
    with pytest.raises(AttributeError):
        whole.best.kept = False


def test_the_picture_shows_every_step(whole, tmp_path):
    diverged = Step("rate", {"units": (4,)}, 9.0, 100, math.inf, math.inf, math.nan, math.nan, False)
    found = Staged("mlp", "a $set$", 90, "f1", (*whole.steps, diverged), whole.notes)
    figure = staged_figure(found)
    size, loss, score = figure.axes
    assert [text.get_text() for text in size.get_yticklabels()] == [step.label for step in found.steps]
    bold = [text.get_fontweight() == "bold" for text in size.get_yticklabels()]
    assert bold == [step.kept for step in found.steps]
    points = score.collections[-1].get_offsets()  # Validation.
    measured = [step.val_score for step in whole.steps]
    assert list(points[: len(measured), 0]) == pytest.approx(measured)
    figure.savefig(tmp_path / "staged.png")
    assert loss.get_xlabel() == "loss"


def test_regression_is_judged_by_r2(eager):
    diabetes = data.load("diabetes")
    step = train_step(
        lambda values: recipes.mlp(diabetes.input_shape, diabetes.task, **values),
        diabetes,
        {"units": (8,), "dropout": 0.0},
        1e-2,
        2,
        32,
        0,
    )
    assert step.val_score <= 1
    assert math.isfinite(step.val_loss)
