"""The command `keras-practice`, its old doors, and what may be imported without waiting for TensorFlow."""

import importlib
import runpy
import subprocess
import sys
import warnings

import pytest

import keras_practice
from keras_practice import cli

COMMANDS = ("tune", "check", "doctor", "gpu-check")
HEAVY = ("tensorflow", "keras", "keras_tuner", "matplotlib", "sklearn", "jinja2")


def run(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)


def loaded_by(program):
    """Which heavy packages a program loads that this package's names may not need."""
    program = f"import sys\n{program}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_help_lists_every_command(capsys):
    for arguments in ([], ["-h"], ["--help"]):
        assert cli.main(arguments) == 0
        page = capsys.readouterr().out
        assert page.startswith("usage: keras-practice COMMAND")
        for name in COMMANDS:
            assert f"\n  {name} " in page


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{keras_practice.__version__}\n"


@pytest.mark.parametrize(("given", "hint"), [("tuen", "; did you mean tune?"), ("xyzzy", "")])
def test_an_unknown_command_is_refused_with_the_nearest_one(given, hint, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([given])
    assert stop.value.code == 2
    words = capsys.readouterr().err
    assert words.startswith("error: The command must be one of tune, check, doctor, gpu-check")
    assert words.endswith(f". Got {given!r}{hint}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_that_waits_for_nothing(name):
    program = f"""
from keras_practice.cli import main
try:
    main([{name!r}, "--help"])
except SystemExit as stop:
    assert stop.code == 0
"""
    assert loaded_by(program) == "[]"
    done = run("keras_practice", name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: keras-practice {name} ")
    assert "exit code: " in " ".join(done.stdout.lower().split())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_refuses_an_unknown_option_in_a_sentence(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, *(["m.keras", "d.npz"] if name == "check" else []), "--no-such-option"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --no-such-option\n"


def test_the_gpu_check_refuses_no_steps(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["gpu-check", "--steps", "0"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: steps must be a positive integer. Got 0.\n"


@pytest.mark.parametrize(
    ("module", "name"), [("keras_practice.tuning", "tune"), ("keras_practice.checks", "check")]
)
def test_the_rooms_own_doors_stay(module, name):
    done = run(module, "--help")
    assert done.returncode == 0
    assert done.stdout == run("keras_practice", name, "--help").stdout


def test_the_old_door_of_the_doctor_names_the_new_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras_practice.recipes", "--devices", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("keras_practice.recipes", run_name="__main__")
    assert stop.value.code == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: keras-practice doctor ")
    assert "python -m keras_practice.recipes --devices is now keras-practice doctor.\n" in said.err


def test_importing_the_package_and_looking_around_loads_nothing():
    assert loaded_by("import keras_practice as kp; assert 'recipes' in dir(kp); kp.__version__") == "[]"
    assert loaded_by("import keras_practice as kp; kp.data, kp.training, kp.checks, kp.tuning") == "[]"


def test_a_room_is_found_by_its_name_and_others_are_not():
    assert keras_practice.recipes is importlib.import_module("keras_practice.recipes")
    with pytest.raises(AttributeError, match="has no attribute 'kitchen'"):
        keras_practice.kitchen  # noqa: B018


# Every public name of 0.1.0's first layout, by room.
NAMES = {
    "data": "Dataset Registry Scaling Split Task from_arrays load names",
    "recipes": (
        "Calibration Device LayerScale NONE Regularization Workers alexnet autoencoder calibrate "
        "compile_for compile_multi_task conv1d conv_block convnet cosine decoder dense_block device "
        "encoder get googlenet head initializer_for join lenet5 linear linear_then_hold loss_for "
        "low_rank_mlp maxout_block maxout_mlp metrics_for mlp multi_task names one_cycle optimizer "
        "residual_block residual_dense_block residual_mlp resnet rnn scale_learning_rate selu_mlp warmup "
        "workers"
    ),
    "callbacks": (
        "F1Score Line LiveReport Panel StopOnExplosion StopOnTarget TimeBudget TrainingMonitor "
        "ValidationScores best_weights confusion_matrix direction environment lockstep resumable scores "
        "standard"
    ),
    "checks": (
        "CheckFailedError Finding Ladder LearningCurve Mistakes Report Rung diagnose initial_loss "
        "learning_curve overfit_tiny preflight simplify worst_mistakes"
    ),
    "tuning": (
        "BatchSizeResult Choice Fixed InputError MedianPruning RandomSearch Range RangeResult RateSearch "
        "Settings Space Staged Step SweepResult batch_size_sweep cross_validation halve_or_double "
        "learning_rate_range learning_rate_sweep magnitudes search_figure space staged staged_figure "
        "tune"
    ),
}
MOVED = {
    "recipes.Device": "training.Device",
    "recipes.Workers": "training.Workers",
    "recipes.device": "training.device",
    "recipes.workers": "training.workers",
    "callbacks.Line": "rendering.Line",
    "callbacks.Panel": "rendering.Panel",
    "callbacks.lockstep": "training.lockstep",
    "checks.Ladder": "checks.SimplificationResult",
    "checks.Rung": "checks.Stage",
}


def attribute(path):
    room, name = path.split(".")
    return getattr(importlib.import_module(f"keras_practice.{room}"), name)


@pytest.mark.parametrize(
    "path",
    [f"{room}.{name}" for room, names in NAMES.items() for name in names.split()],
)
def test_every_public_name_is_found_where_it_was(path):
    room, name = path.split(".")
    namespace = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        # As in a fresh program: a moved name that was asked for is kept in its old room.
        if path in MOVED:
            vars(importlib.import_module(f"keras_practice.{room}")).pop(name, None)
        exec(f"from keras_practice.{room} import {name}", namespace)
    assert [(warning.category, path in str(warning.message)) for warning in told] == (
        [(DeprecationWarning, True)] if path in MOVED else []
    )
    assert namespace[name] is attribute(MOVED.get(path, path))
    if path in MOVED:
        assert f" is now keras_practice.{MOVED[path]};" in str(told[0].message)


def test_names_that_moved_are_not_listed_where_they_were():
    for path in MOVED:
        room, name = path.split(".")
        assert name not in importlib.import_module(f"keras_practice.{room}").__all__
