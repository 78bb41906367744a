import inspect
import json
import math

import keras_tuner
import numpy as np
import pytest

from keras_practice import data, recipes
from keras_practice.tuning import Choice, Fixed, InputError, Range, Settings, Space, space, tune
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.space.dimensions import dimensions_of
from keras_practice.tuning.space.parsing import kinds_of, parse
from keras_practice.tuning.space.presets import dataset_for

IRIS, DIGITS, WAVES = data.load("iris"), data.load("digits"), data.load("waves")
SUITABLE = {"conv1d": WAVES, "rnn": WAVES, "convnet": DIGITS, "resnet": DIGITS}


def random_values(described, seed):
    """A trial as KerasTuner's random oracle would draw it."""
    hp = keras_tuner.HyperParameters()
    described.draw(hp)
    for number, parameter in enumerate(hp.space):
        hp.values[parameter.name] = parameter.random_sample(seed * 100 + number)
    return described.draw(hp)


@pytest.mark.parametrize("recipe", recipes.names())
@pytest.mark.parametrize("wide", [True, False])
def test_what_is_drawn_are_arguments_of_the_builder(recipe, wide):
    dataset = dataset_for(recipe, SUITABLE.get(recipe, IRIS))
    described = space(recipe, dataset, wide=wide)
    known = inspect.signature(recipes.get(recipe)).parameters
    kinds = {"widths": tuple, "bool": bool, "int": int, "float": float, "str": str}
    for seed in range(5):
        drawn = random_values(described, seed)
        assert 1e-5 <= drawn["learning_rate"] <= 1e-1
        for name, value in drawn.items():
            assert name in known or name in ("learning_rate", "optimizer", "batch_size")
            assert type(value) is kinds[kinds_of(recipe)[name]], name
    if wide:
        assert {"learning_rate", "optimizer", "batch_size"} < set(described.parameters)
        assert set(space(recipe, dataset, wide=False).parameters) <= {*described.parameters, "dropout"}


@pytest.mark.parametrize(
    "recipe", ["linear", "mlp", "selu_mlp", "maxout_mlp", "low_rank_mlp", "convnet", "conv1d", "autoencoder"]
)
def test_every_end_of_the_wide_space_builds(recipe):
    dataset = dataset_for(recipe, SUITABLE.get(recipe, IRIS))
    described = space(recipe, dataset)
    known = inspect.signature(recipes.get(recipe)).parameters
    ends = {name: p.ends for name, p in described.parameters.items() if name in known}
    lowest = {name: values[0] for name, values in ends.items()}
    for changed in [{}, *({name: end} for name, values in ends.items() for end in values[1:])]:
        model = recipes.get(recipe)(dataset.input_shape, dataset.task, **{**lowest, **changed})
        assert model.count_params() > 0


def test_the_space_follows_the_data():
    sizes = [space("mlp", dataset).parameters["batch_size"].values for dataset in (IRIS, DIGITS)]
    assert max(sizes[0]) == 32
    assert max(sizes[1]) == 128
    stacks = space("convnet", DIGITS).parameters["filters"].values
    assert {len(stack) for stack in stacks} == {1, 2, 3}  # 8 x 8 pixels can be halved three times.


def test_the_narrow_space_is_drawn_as_it_always_was():
    hp = keras_tuner.HyperParameters()
    space("convnet", DIGITS, wide=False, learning_rate=(1e-4, 1e-2)).draw(hp)
    filters, dropout, rate = hp.space
    assert filters.values == ["16-32-64", "8-16-32", "32-64-128"]
    assert (dropout.min_value, dropout.max_value, dropout.step) == (0.0, 0.5, 0.1)
    assert (rate.min_value, rate.max_value, rate.sampling) == (1e-4, 1e-2, "log")


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="did you mean 'mlp'"):
        space("mpl", IRIS)


def test_drawn_values_are_spread_as_the_range_says():
    described = Space({"even": Range(0.0, 0.5), "log": Range(1e-6, 1e-2, log=True), "whole": Range(1, 4)})
    drawn = [random_values(described, seed) for seed in range(300)]
    from scipy.stats import kstest

    assert kstest([d["even"] for d in drawn], "uniform", args=(0, 0.5)).pvalue > 0.001
    assert kstest(np.log10([d["log"] for d in drawn]), "uniform", args=(-6, 4)).pvalue > 0.001
    assert {d["whole"] for d in drawn} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range(1.0, 0.5), "low to high. Got 1 to 0.5."),
        (lambda: Range(0.0, math.inf), "finite"),
        (lambda: Range(0.0, 1.0, log=True), "above 0. Got 0 to 1."),
        (lambda: Choice(()), "distinct values"),
        (lambda: Choice((1, 1)), "distinct values. Got '1, 1'."),
        (lambda: Choice((1, "a")), "one kind. Got '1, a'."),
    ],
)
def test_what_cannot_be_searched_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_on_the_command_line_are_read_by_the_recipes_arguments():
    read = parse(
        [
            "dropout=0:0.5",
            "learning_rate=log:1e-5:1e-1",
            "units=choice:64-32,128",
            "batch_norm=choice:true,false",
            "l2=0",
            "activation=choice:relu,elu",
            "batch_size=8:64",
            "optimizer=sgd",
        ],
        "mlp",
    )
    assert read == {
        "dropout": Range(0.0, 0.5),
        "learning_rate": Range(1e-5, 1e-1, log=True),
        "units": Choice(((64, 32), (128,))),
        "batch_norm": Choice((True, False)),
        "l2": Fixed(0.0),
        "activation": Choice(("relu", "elu")),
        "batch_size": Range(8, 64),
        "optimizer": Fixed("sgd"),
    }
    assert parse(["units=choice:32,64"], "residual_mlp") == {"units": Choice((32, 64))}


def test_a_grid_has_even_levels_and_no_more_points_than_asked_for():
    described = Space({"dropout": Range(0.0, 0.6), "learning_rate": Range(1e-4, 1e-1, log=True)})
    grid = described.grid(16).parameters
    assert grid["dropout"] == Choice((0.0, 0.2, 0.4, 0.6))
    assert grid["learning_rate"].values == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1))
    for points in (1, 2, 7, 30):
        for large in (space("mlp", IRIS), space("convnet", DIGITS, wide=False)):
            levels = [
                len(p.ends) if isinstance(p, Choice) else 1 for p in large.grid(points).parameters.values()
            ]
            assert math.prod(levels) <= points
    assert len(space("mlp", IRIS).grid(2).parameters["learning_rate"].values) == 2


def test_axes_know_their_ends():
    hp = keras_tuner.HyperParameters()
    Space(
        {"a": Range(1e-4, 1e-2, log=True), "b": Choice((32, 8)), "c": Choice((True, False)), "d": Fixed(1)}
    ).draw(hp)
    rate, size, switch = dimensions_of(hp.space)
    assert [rate.place(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [text for _, text in rate.ticks()] == ["0.0001", "0.001", "0.01"]
    assert size.values == (8, 32)
    assert size.ordered
    assert not switch.ordered


QUICK = ["--data", "iris", "--trials", "1", "--epochs", "1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "dropout"], "--set must be NAME=VALUE"),
        (["--set", "=1"], "--set must be NAME=VALUE"),
        (["--set", "dropuot=0.1"], "Unknown hyperparameter 'dropuot' of mlp; did you mean 'dropout'?"),
        (["--set", "dropout=0.1", "--set", "dropout=0.2"], "must be set once. Got dropout twice."),
        (["--set", "dropout=0.5:0"], "low to high. Got 0.5 to 0."),
        (["--set", "dropout=log:0:0.5"], "above 0. Got 0 to 0.5."),
        (["--set", "dropout=much"], "dropout must be a number. Got 'much'."),
        (["--set", "dropout=0:nan"], "dropout must be a number. Got 'nan'."),
        (["--set", "dropout=1:2:3"], "A range must be LOW:HIGH"),
        (["--set", "dropout=0:1.5"], "dropout must be in [0, 1). Got 1.5."),
        (["--set", "units=64:128"], "widths joined by '-', such as 128-64, and has no range."),
        (["--set", "units=choice:64,0"], "positive integer. Got 0."),
        (["--set", "units=choice:64,64"], "distinct values"),
        (["--set", "units=choice:"], "units must be widths"),
        (["--set", "batch_norm=perhaps"], "batch_norm must be true or false. Got 'perhaps'."),
        (["--set", "batch_size=1.5"], "batch_size must be an integer. Got '1.5'."),
        (["--set", "batch_size=0:4"], "batch_size must be a positive integer. Got 0."),
        (["--set", "optimizer=adm"], "Unknown optimizer 'adm'; did you mean 'adam'?"),
        (["--set", "activation=<b>"], "activation must be a word"),
        (["--set", "learning_rate=0:1"], "learning_rate must be a positive number. Got 0.0."),
        (
            ["--learning-rate", "1e-3:1e-2", "--set", "learning_rate=0.1"],
            "learning_rate must be set once. Got 0.001 to 0.01 beside fixed at 0.1.",
        ),
        (["--space", "huge"], "argument --space: invalid choice: 'huge'"),
        (["--search", "clever"], "argument --search: invalid choice: 'clever'"),
        (["--folds", "0"], "folds must be a positive integer. Got 0."),
        (["--folds", "90"], "There must be a distinct sample of the rarest class for each fold."),
        (["--keep", "0"], "keep must be a positive integer. Got 0."),
        (["--objective", "val_mae"], "objective must be among val_loss, val_accuracy"),
        (["--objective", "f1"], "objective must be among val_loss, val_accuracy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_spaces_get_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, *arguments, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1, output.err
    assert sentence in output.err
    assert not list(tmp_path.iterdir())


def test_what_is_set_is_searched_and_kept_with_the_result(tmp_path, capsys):
    out = tmp_path / "run"
    own = ["--space", "none", "--set", "units=choice:8-4,6", "--set", "dropout=0", "--set", "batch_size=30"]
    assert main([*QUICK, *own, "--set", "optimizer=choice:sgd,adam", "--out", str(out)]) == 0
    best = json.loads((out / "best.json").read_text())
    told = "The best learning rate" in capsys.readouterr().out
    assert told == (not 1.6e-5 <= best["hyperparameters"]["learning_rate"] <= 6.3e-2)
    assert set(best["hyperparameters"]) == {"learning_rate", "units", "optimizer"}
    assert best["hyperparameters"]["units"] in ("8-4", "6")
    assert best["fixed"] == {"dropout": 0.0, "batch_size": 30}
    import keras

    model = keras.models.load_model(out / "best.keras")
    widths = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert "-".join(map(str, widths[:-1])) == best["hyperparameters"]["units"]
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)
    assert type(model.optimizer).__name__.lower() == best["hyperparameters"]["optimizer"]


def small(hp):
    return {"units": (hp.Int("width", 3, 6),), "dropout": 0.0, "batch_size": 45}


def test_a_function_is_a_space(tmp_path):
    settings = Settings(data="iris", trials=1, epochs=1)
    assert tune(settings, tmp_path / "run", space=small)
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert set(best["hyperparameters"]) == {"width", "learning_rate"}
    with pytest.raises(InputError, match="own_space"):
        tune(settings, tmp_path / "run")
    with pytest.raises(InputError, match="among units, .*Got unitz"):
        tune(settings, tmp_path / "other", space=lambda hp: {"unitz": 3})
    with pytest.raises(InputError, match="A grid must be of a described space"):
        tune(Settings(data="iris", search="grid"), tmp_path / "other", space=small)
    assert not (tmp_path / "other").exists()
