import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from matplotlib import image
from processes import hearing_ctrl_c, running
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from keras_practice import data
from keras_practice.callbacks import scores
from keras_practice.tuning import best_model
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.search.recipe_search import RecipeSearch

IRIS = data.load("iris")
SMALL = ["--data", "iris", "--recipe", "linear"]
QUICK = [*SMALL, "--trials", "3", "--epochs", "2", "--batch-size", "32"]


def read(out):
    """The rows of a run's table."""
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder."""
    out = tmp_path_factory.mktemp("runs") / "with a space"
    assert main([*QUICK, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run's folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_ends_well_and_quietly(tmp_path):
    out = tmp_path / "with a space"
    command = [sys.executable, "-m", "keras_practice.tuning", *QUICK, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("3 trials of linear on iris (90 train, 30 val, 30 test samples)")
    assert [line.split(":")[0] for line in lines[1:4]] == ["trial 1/3", "trial 2/3", "trial 3/3"]
    assert "\x1b" not in done.stdout  # Plain lines: no bar, no colours.
    assert lines[-1].startswith(f"in {out}: best.keras")


def test_everything_promised_is_there(finished):
    out = finished
    rows = read(out)
    assert len(rows) == 3
    for row in rows:
        assert 1e-5 <= float(row["learning_rate"]) <= 1e-1
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "val_f1", "val_auc", "seconds", "seed"):
            assert np.isfinite(float(row[name])), name
    ranked = [float(row["val_f1"]) for row in rows]
    assert ranked == sorted(ranked, reverse=True)
    report = (out / "report.html").read_text()
    for row in rows:
        assert f"Trial {row['trial']}: val_f1 {float(row['val_f1']):.4g}" in report
        events = event_accumulator.EventAccumulator(str(out / "tensorboard" / row["trial"])).Reload()
        assert "_hparams_/session_start_info" in events.summary_metadata
        best_score = tensor_util.make_ndarray(events.Tensors("best/val_f1")[0].tensor_proto)
        assert float(best_score) == pytest.approx(float(row["val_f1"]), rel=1e-6)
    picture = image.imread(out / "search.png")
    assert picture.shape[0] > 400
    assert picture.std() > 0
    assert len(list((out / "tensorboard").rglob("events.out.tfevents.*"))) >= 3
    best = json.loads((out / "best.json").read_text())
    assert best["trial"] == rows[0]["trial"]
    assert best["hyperparameters"]["learning_rate"] == float(rows[0]["learning_rate"])
    assert best["settings"]["seed"] == 0
    assert best["environment"]["versions"]["keras"] == keras.__version__
    assert best["environment"]["float_type"] == "float32"
    assert best["environment"]["devices"]


def test_the_best_model_loads_alone_and_scores_what_is_told(finished, monkeypatch):
    out = finished
    # As in a program that has Keras and not this package.
    for name in [name for name in sys.modules if name.partition(".")[0] == "keras_practice"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in list(keras.saving.get_custom_objects()):
        monkeypatch.delitem(keras.saving.get_custom_objects(), name)
    model = keras.models.load_model(out / "best.keras")
    best = json.loads((out / "best.json").read_text())
    for split, told in ((IRIS.test, best["test"]), (IRIS.val, best["validation"])):
        measured = scores(split.y, np.array(model(split.x)), IRIS.task)
        prefix = "" if split is IRIS.test else "val_"
        for name in ("f1", "auc", "accuracy"):
            assert measured[name] == pytest.approx(told[prefix + name], abs=1e-5)


def test_the_same_command_again_runs_and_evaluates_nothing(finished, capsys, monkeypatch):
    out = finished
    kept = (out / "best.json").read_bytes()
    monkeypatch.setattr(
        best_model, "scores", lambda *args, **kwargs: pytest.fail("the test split was looked at again")
    )
    monkeypatch.setattr(
        RecipeSearch, "run_trial", lambda *args, **kwargs: pytest.fail("a trial was run again")
    )
    assert main([*QUICK, "--out", str(out)]) == 0
    assert (out / "best.json").read_bytes() == kept
    assert "3 of 3 trials were finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (["--trials", "4"], "trials 3 there, 4 here"),
        (["--epochs", "9", "--seed", "2"], "epochs 2 there, 9 here; seed 0 there, 2 here"),
        (["--data", "wine"], "data 'iris' there, 'wine' here"),
        (["--learning-rate", "1e-4:1e-2"], r"learning_rate \[1e-05, 0.1\] there, \[0.0001, 0.01\] here"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(finished, change, difference, capsys):
    out = finished
    with pytest.raises(SystemExit, match="2"):
        main([*QUICK, *change, "--out", str(out)])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(difference, error), error
    assert (out / "best.json").exists()


def test_a_run_of_an_earlier_version_and_another_keep_go_on(finished, capsys):
    out = finished
    file = out / "settings.json"
    recorded = json.loads(file.read_text())
    earlier = ("data", "recipe", "trials", "epochs", "batch_size", "learning_rate", "objective", "data_path")
    old = {name: value for name, value in recorded.items() if name in (*earlier, "seed", "data_sha256")}
    assert len(old) < len(recorded)
    file.write_text(json.dumps(old))
    assert main([*QUICK, "--keep", "1", "--out", str(out)]) == 0
    with pytest.raises(SystemExit, match="2"):
        main([*QUICK, "--folds", "2", "--out", str(out)])
    assert "folds 1 there, 2 here" in capsys.readouterr().err
    file.write_text(json.dumps(recorded))


def test_overwrite_starts_anew_and_leaves_other_files(copied):
    (copied / "notes.txt").write_text("mine")
    first = json.loads((copied / "best.json").read_text())
    anew = [*SMALL, "--trials", "1", "--epochs", "1", "--seed", "1", "--out", str(copied), "--overwrite"]
    assert main(anew) == 0
    assert json.loads((copied / "best.json").read_text())["trial_seed"] != first["trial_seed"]
    assert len(read(copied)) == 1
    assert (copied / "notes.txt").read_text() == "mine"


def npz(path, x, y):
    np.savez(path, x=x, y=y)
    return str(path)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "digit"], "Unknown data set 'digit'; did you mean 'digits'?"),
        (["--recipe", "mpl"], "Unknown recipe 'mpl'; did you mean 'mlp'?"),
        (["--trials", "0"], "trials must be a positive integer. Got 0."),
        (["--epochs", "0"], "epochs must be a positive integer. Got 0."),
        (["--batch-size", "-3"], "batch_size must be a positive integer. Got -3."),
        (["--trials", "many"], "argument --trials: invalid int value: 'many'"),
        (["--seed", "-1"], "seed must be an integer"),
        (["--learning-rate", "1e-1:1e-5"], "low to high. Got 0.1 to 1e-05."),
        (["--learning-rate", "0:1"], "low to high. Got 0 to 1."),
        (["--learning-rate", "fast"], "must be LOW:HIGH"),
        (["--objective", "val_joy"], "better high or low"),
        (["--data", "absent.npz"], "must exist. Got absent.npz."),
        (["--data", "nan.npz"], "Features must be finite. Got NaN or infinity in 1 of 30 samples."),
        (["--data", "inf.npz"], "Features must be finite."),
        (["--data", "empty.npz"], "not be empty"),
        (["--data", "one.npz"], "at least two classes. Got only 0."),
        (["--data", "gaps.npz"], "state the kind of task"),
        (["--data", "few.npz"], "enough distinct samples"),
        (["--data", "text.npz"], "must be an .npz file"),
        (["--data-path", "nan.npz"], "digits needs none"),
        (["--out", "file"], "OUT must be a folder. Got the file file."),
        (["--out", "file/below"], "Not a directory"),
        (["--out", "foreign"], "no settings.json"),
        (["--out", "corrupt"], "cannot be read; --overwrite starts anew"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    y = np.arange(30) % 2
    npz("nan.npz", np.where(X[3, 1] == X, np.nan, X), y)
    npz("inf.npz", np.where(X[3, 1] == X, np.inf, X), y)
    npz("empty.npz", X[:0], y[:0])
    npz("one.npz", X, y * 0)
    npz("gaps.npz", X, y * 7)
    npz("few.npz", X[:3], y[:3])
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "trials.csv").write_text("kept")
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "settings.json").write_text('{"data": "di')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1, output.err
    assert sentence in output.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["oracle.json", "trial.json", "best.json"])
def test_a_damaged_earlier_run_is_refused_and_can_be_overwritten(damage, copied, capsys):
    file = next(copied.rglob(damage))
    file.write_text(file.read_text()[:20])
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, "--out", str(copied)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "cannot be read; --overwrite starts anew" in error
    assert error.count("\n") == 1
    assert main([*SMALL, "--trials", "1", "--epochs", "1", "--out", str(copied), "--overwrite"]) == 0


def stop_by(number):
    """In the place of `RecipeSearch.run_trial`: what the user, or the system, sends in the second trial."""
    run_trial = RecipeSearch.run_trial

    def stopped(self, trial, *args, **kwargs):
        if trial.trial_id == "1":
            signal.raise_signal(number)
        return run_trial(self, trial, *args, **kwargs)

    return stopped


def test_other_data_behind_the_same_name_is_told(tmp_path, monkeypatch, capsys):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(RecipeSearch, "run_trial", stopped)
    file = tmp_path / "mine.npz"
    quick = ["--data", str(file), "--trials", "1", "--epochs", "1", "--out", str(tmp_path / "run")]
    npz(file, X, np.arange(30) % 2)
    assert main(quick) == 130
    npz(file, X + 1, np.arange(30) % 2)
    with pytest.raises(SystemExit, match="2"):
        main(quick)
    assert "data_sha256" in capsys.readouterr().err


def test_when_every_trial_fails_the_exit_code_is_1_and_the_reason_is_told(tmp_path, monkeypatch, capsys):
    def fail(self, trial, *args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(RecipeSearch, "run_trial", fail)
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == 1
    assert "Every trial failed; 3 of 3 with: RuntimeError: no memory" in capsys.readouterr().out
    assert "RuntimeError: no memory" in (tmp_path / "run" / "trials.csv").read_text()


def test_a_regression_is_judged_by_its_loss(tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", "diabetes", "--recipe", "linear", "--trials", "2", "--epochs", "2"]
    assert main([*arguments, "--out", str(out)]) == 0
    best = json.loads((out / "best.json").read_text())
    assert (best["objective"], best["direction"]) == ("val_loss", "min")
    assert set(best["test"]) == {"mae", "rmse", "r2"}


@pytest.mark.parametrize(("objective", "name"), [("val_coverage", "iris"), ("val_rmse", "diabetes")])
def test_the_best_trial_is_the_best_by_the_objective(objective, name, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", name, "--recipe", "linear", "--trials", "2", "--epochs", "2"]
    arguments += ["--learning-rate", "1e-4:1e-2"]
    assert main([*arguments, "--objective", objective, "--out", str(out)]) == 0
    rows = read(out)
    values = [float(row[objective]) for row in rows]
    assert values == sorted(values, reverse=objective == "val_coverage")
    best = json.loads((out / "best.json").read_text())
    assert best["validation"][objective] == values[0]


def test_a_grid_has_every_combination_once_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, "--epochs", "1", "--search", "grid", "--trials", "5"]
    arguments += ["--set", "l2=choice:0,0.5", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(RecipeSearch, "run_trial", stop_by(signal.SIGINT))
        assert main(arguments) == 130
    assert main(arguments) == 0
    assert "resuming: 1 of 4 trials" in capsys.readouterr().out
    rows = read(tmp_path / "run")
    points = {(float(row["l2"]), float(row["learning_rate"])) for row in rows}
    assert len(rows) == 4
    assert points == {(penalty, rate) for penalty in (0.0, 0.5) for rate in (1e-5, 1e-1)}


def test_hyperband_gives_the_best_more_epochs_and_repeats_what_they_had(tmp_path):
    out = tmp_path / "run"
    arguments = [*SMALL, "--search", "hyperband", "--trials", "6", "--epochs", "3"]
    assert main([*arguments, "--out", str(out)]) == 0
    rows = {row["trial"]: row for row in read(out)}
    assert [rows[str(number)]["epochs"] for number in range(6)] == ["1"] * 3 + ["3"] * 3
    best_of_first = max((rows[str(number)] for number in range(3)), key=lambda row: float(row["val_f1"]))
    grown = [
        rows[str(n)] for n in range(3, 6) if rows[str(n)]["learning_rate"] == best_of_first["learning_rate"]
    ]
    assert len(grown) == 1

    def history(number):
        trainings = json.loads((out / "search" / f"trial_{number}" / "trainings.json").read_text())
        return trainings[0]["history"]["loss"]

    short, long = history(best_of_first["trial"]), history(grown[0]["trial"])
    assert len(long) > len(short) == 1
    assert long[0] == pytest.approx(short[0], rel=1e-5)


FAREWELL = "Stopped. Finished trials are kept in {}; the same command goes on from there."


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(number, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(RecipeSearch, "run_trial", stop_by(number))
    before = signal.getsignal(number)
    with hearing_ctrl_c():
        assert main([*QUICK, "--out", str(tmp_path / "run")]) == code
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err.strip() == FAREWELL.format(tmp_path / "run")
    assert [row["status"] for row in read(tmp_path / "run")] == ["COMPLETED"]


@pytest.mark.slow
def test_a_stopped_process_ends_at_once_and_keeps_its_trials(tmp_path):
    out = tmp_path / "run"
    command = ["-u", "-m", "keras_practice.tuning", *SMALL, "--trials", "500", "--epochs", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with running(*command, "--out", out, **pipes) as child:
        for line in child.stdout:
            if line.startswith("trial 1/500"):
                break
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=60)
    assert child.returncode == 130, error
    assert error.strip() == FAREWELL.format(out)
    assert len(read(out)) >= 1


def test_help_names_every_option_and_does_not_wait_for_tensorflow():
    program = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("keras_practice.tuning", run_name="__main__")
except SystemExit:
    print("tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("False\n")
    for option in (
        "--data",
        "--recipe",
        "--trials",
        "--epochs",
        "--batch-size",
        "--seed",
        "--search",
        "--space",
        "--set",
        "--objective",
        "--folds",
        "--repeats",
        "--prune",
        "--keep",
        "--out",
        "--overwrite",
    ):
        assert option in done.stdout
