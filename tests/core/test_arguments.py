"""An integer is an integer in every room: Python's and NumPy's are welcome, nothing else is."""

import json

import keras
import numpy as np
import pytest
from keras_tuner import HyperParameters

from keras_practice import callbacks, checks, recipes, tuning
from keras_practice.core.arguments import check_integer, check_positive_integer
from keras_practice.data import Task, from_arrays, load
from keras_practice.rendering.figures import figure
from keras_practice.tuning.engine_choice import chosen_engine

X, Y = np.eye(8, 3, dtype=np.float32), np.arange(8, dtype=np.float32)[:, None]
DATA = from_arrays(X, Y, task=Task.regression(1), seed=0)
TWO = Task.multiclass(2)


def model():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    return network


def random_search(n):
    return tuning.RandomSearch(
        lambda hp: model(), objective="val_loss", max_trials=n, hyperparameters=HyperParameters()
    )


def pruning(**options):
    return tuning.MedianPruning("val_loss", "min", [], **options)


# Where the work itself takes long, another argument is wrong, and is refused after the integer.
CALLS = {
    "figure columns": lambda n: figure([], columns=n),
    "batches": lambda n: list(DATA.train.batches(n)),
    "monitor every": lambda n: callbacks.TrainingMonitor(every=n),
    "explosion every": lambda n: callbacks.StopOnExplosion(every=n),
    "scores every": lambda n: callbacks.ValidationScores(DATA.val, every=n),
    "patience": lambda n: callbacks.best_weights("val_loss", patience=n),
    "preflight batch_size": lambda n: checks.preflight(model(), X, Y, batch_size=n, budget_s=0),
    "overfit_tiny n": lambda n: checks.overfit_tiny(model(), X, Y[:3], n=n),
    "overfit_tiny steps": lambda n: checks.overfit_tiny(model(), X, Y[:3], steps=n),
    "learning_curve epochs": lambda n: checks.learning_curve(model, DATA.train, DATA.val, sizes=[], epochs=n),
    "learning_curve batch_size": lambda n: checks.learning_curve(
        model, DATA.train, DATA.val, sizes=[], batch_size=n
    ),
    "learning_curve repeats": lambda n: checks.learning_curve(
        model, DATA.train, DATA.val, sizes=[], repeats=n
    ),
    "worst_mistakes k": lambda n: checks.worst_mistakes(model(), (X, Y[:3]), k=n),
    "max_trials": random_search,
    "workers": lambda n: chosen_engine("local", workers=n),
    "workers on Ray": lambda n: chosen_engine("ray", workers=n),
    **{
        f"settings {field}": lambda n, field=field: tuning.Settings("wine", "mlp", **{field: n})
        for field in ("trials", "epochs", "batch_size", "folds", "repeats", "keep")
    },
    "halve_or_double most": lambda n: tuning.halve_or_double(abs, most=n),
    "magnitudes most": lambda n: tuning.magnitudes(abs, most=n),
    "sweep epochs": lambda n: tuning.learning_rate_sweep(model, DATA.train, DATA.val, [], epochs=n),
    "sweep batch_size": lambda n: tuning.learning_rate_sweep(model, DATA.train, DATA.val, [], batch_size=n),
    "range batch_size": lambda n: tuning.learning_rate_range(keras.Sequential(), DATA.train, batch_size=n),
    "batch sizes": lambda n: tuning.batch_size_sweep(model, DATA.train, DATA.val, [n], base=n, seconds=0),
    "rate steps": lambda n: recipes.linear_then_hold(0.1, 0.01, n),
    "warmup steps": lambda n: recipes.warmup(0.1, n),
    "batch_from": lambda n: recipes.scale_learning_rate(0.1, n, 64),
    "mlp units": lambda n: recipes.mlp((3,), TWO, units=(n,)),
    "mlp shape": lambda n: recipes.mlp((n,), TWO, units=(2,)),
    "residual units": lambda n: recipes.residual_mlp((3,), TWO, units=n, depth=4),
    "rank": lambda n: recipes.low_rank_mlp((3,), TWO, units=(4,), rank=n),
    "pieces": lambda n: recipes.maxout_mlp((3,), TWO, units=(2,), pieces=n),
    "filters": lambda n: recipes.convnet((8, 8, 1), TWO, filters=(n,)),
    "kernel_size": lambda n: recipes.conv1d((9, 4), TWO, filters=(2,), kernel_size=n),
    "vocabulary": lambda n: recipes.rnn((5,), TWO, vocabulary=n, units=(2,)),
    "code": lambda n: recipes.autoencoder((3,), Task.regression(3), code=n),
    "max_iterations": lambda n: recipes.calibrate(model(), X[:0], max_iterations=n),
}


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # KerasTuner makes a folder where it stands.


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_numpy_integer_is_an_integer(call):
    result, refusal = None, ""
    try:
        result = call(np.int64(3))
    except ValueError as error:
        refusal = str(error)
    assert "integer" not in refusal
    if isinstance(result, keras.Model):  # Layers keep what they were given, and write it as JSON.
        assert keras.models.model_from_json(result.to_json()).count_params() == result.count_params()


@pytest.mark.parametrize("wrong", [True, 0, -1, 2.5, 3.0, "3", None], ids=repr)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_no_positive_integer_is_refused_in_one_sentence(call, wrong, request):
    if wrong is None and request.node.callspec.id.split("-")[0] in OPTIONAL:
        return
    with pytest.raises(ValueError, match=r"must be a positive integer\. Got ") as refused:
        call(wrong)
    assert str(refused.value).endswith(f" Got {wrong!r}.")


OPTIONAL = ("workers", "workers on Ray", "learning_curve epochs", "vocabulary")


def test_settings_with_numpy_integers_can_be_written_as_json():
    settings = tuning.Settings("wine", "mlp", trials=np.int64(3), seed=np.int32(7))
    assert settings == tuning.Settings("wine", "mlp", trials=3, seed=7)
    assert json.loads(json.dumps(settings.as_json()))["seed"] == 7


@pytest.mark.parametrize("wrong", [True, -1, 2.5, "3"], ids=repr)
def test_seeds_are_integers(wrong):
    for call in (lambda: load("xor", seed=wrong), lambda: tuning.Settings("wine", "mlp", seed=wrong)):
        with pytest.raises(ValueError, match="seed must be an integer from 0 to"):
            call()


@pytest.mark.parametrize("wrong", [True, 1.0, "2"], ids=repr)
def test_outputs_of_a_task_are_an_integer(wrong):
    with pytest.raises(ValueError, match="outputs must be an integer"):
        Task("regression", wrong)
    assert Task("regression", np.int64(2)).outputs == 2


@pytest.mark.parametrize(
    ("call", "least"),
    [
        (lambda n: pruning(warmup_trials=n), 1),
        (lambda n: pruning(warmup_epochs=n), 0),
        (lambda n: tuning.cross_validation(load("iris"), n), 2),
        (lambda n: tuning.staged(load("iris"), growths=n), 1),
    ],
)
def test_other_bounds_say_which(call, least):
    for wrong in (True, least - 1, least + 0.5, str(least)):
        with pytest.raises(ValueError, match=f"must be an integer of at least {least}. Got "):
            call(wrong)


def test_what_is_checked_comes_back_as_pythons_own():
    for value in (check_positive_integer("n", np.int64(3)), check_integer("n", np.uint8(3), least=0)):
        assert value == 3
        assert type(value) is int
