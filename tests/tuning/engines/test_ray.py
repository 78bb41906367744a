"""Ray: what goes to another process and comes back, and whole searches on a Ray of this machine."""

import importlib.util
import io
import json
import os
import pickle
import re
import signal
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import keras_tuner
import pytest
from rich.console import Console
from run_tables import close_to, read

from keras_practice.tuning import Settings, study
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.engines import ray as ray_engine
from keras_practice.tuning.engines.base import RemoteTrials, receive, request_of
from keras_practice.tuning.engines.chief_worker.processes import ServingError
from keras_practice.tuning.search import preparation
from keras_practice.tuning.search.recipe_search import RecipeModel

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray Tune is not installed: pip install 'keras-practice[ray]'",
)
QUICK = ["--data", "iris", "--trials", "2", "--epochs", "1"]


def files_of(out):
    """The paths of a run's files, without the numbers in the names of TensorBoard's."""
    return sorted(
        re.sub(r"tfevents.*", "tfevents", path.relative_to(out).as_posix())
        for path in out.rglob("*")
        if path.is_file()
    )


@needs_ray
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ray-address", "auto"], "An address of Ray's must come with the engine ray. Got auto."),
        (["--engine", "ray", "--workers", "0"], "workers must be a positive integer. Got 0."),
        (["--engine", "ray", "--chief", "8470"], "Ray hands the trials out by itself, without a chief. Got"),
        (
            ["--engine", "ray", "--ray-address", "ray://a:1"],
            "A Ray address must be auto or HOST:PORT, as seen on",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, *arguments, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence}")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lacks", ["ray", "ray.tune"])
def test_where_ray_is_not_installed_the_extra_is_named(lacks, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, lacks, None)
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, "--engine", "ray", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Ray Tune must be installed: pip install 'keras-practice[ray]'. Got ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(study.InputError, match="engine must be one of local, ray. Got 'dask'."):
        study.tune(Settings(data="iris"), tmp_path / "run", engine="dask")


@pytest.mark.parametrize(
    ("gpus", "at_once", "share"),
    [(0, 4, 0), (1, 1, 1), (1, 2, 0.5), (1, 3, 0.3333), (2, 2, 1), (2, 3, 0.5), (3, 4, 0.5), (8, 2, 1)],
)
def test_gpus_are_shared_evenly(gpus, at_once, share):
    found = ray_engine._share(gpus, at_once)
    assert found == share
    if gpus:
        assert gpus * int(1 / found) >= at_once  # All that are wanted run at a time.


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = dict(os.environ)
    with ray_engine._environment(ray_engine._own_cluster()):
        assert (os.environ["RAY_AUTH_TOKEN"], os.environ["RAY_AUTH_MODE"]) == ("mine", "token")
    assert dict(os.environ) == before


def test_a_cluster_that_is_not_there_is_not_waited_for():
    with socket.socket() as taken:  # And not listened on.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ServingError, match=f"A Ray cluster must be at {address}. Got Connection refused."
        ):
            ray_engine._knock(address)
    ray_engine._knock("auto")  # Ray knows.


@needs_ray
def test_processes_that_cannot_start_end_the_search_at_once(tmp_path):
    """Each trial would fail of them, and none could be run again."""
    _, tune = ray_engine._imported()
    notes = []
    suggestions = SimpleNamespace(error=None, running={"a": SimpleNamespace(trial_id="3")})
    watch = ray_engine._watch(tune, suggestions, SimpleNamespace(note=notes.append))
    error = tmp_path / "error.txt"
    trial = SimpleNamespace(trial_id="a", error_file=str(error))
    error.write_text("Failure # 1\nThe actor died unexpectedly before finishing this task.\n")
    watch.on_trial_recover(1, [], trial)
    watch.on_step_begin(1, [])
    assert notes == ["the process of trial 3 is gone; the trial is run again"]
    error.write_text(
        "Failure # 1\nThe actor died because of an error raised in its creation task, ray::X.__init__()\n"
        "  File y, line 3\nModuleNotFoundError: No module named 'keras_practice'\n"
    )
    watch.on_trial_recover(2, [], trial)
    with pytest.raises(
        ServingError, match="must start. Got ModuleNotFoundError: No module named 'keras_practice'"
    ):
        watch.on_step_begin(2, [])
    assert len(notes) == 1


def elsewhere(search, out, far):
    """Runs a search as Ray does, but for Ray: everything goes there and back as bytes."""
    model, orders = search.hypermodel, []
    trainer = RemoteTrials(RecipeModel(model.dataset, model.settings, model.objective, model.draw), far)
    while (trial := search.oracle.create_trial(f"ticket{len(orders)}")).status != "STOPPED":
        order = pickle.dumps(request_of(search, trial))
        orders.append(pickle.loads(order))
        outcome = pickle.dumps(trainer.train(pickle.loads(order)))
        receive(search, out, trial.trial_id, pickle.loads(outcome))
    return orders


def both_ways(settings, folder, space=None):
    """The rows of a search here and of the same one elsewhere, by trial, and what was ordered."""
    rows, orders = [], []
    for name in ("here", "there"):
        model, _ = preparation.prepared(settings, space)
        unseen = study.Display(settings, "val_f1", settings.trials, Console(file=io.StringIO()))
        search = study.RecipeSearch(model, folder / name, unseen)
        if name == "here":
            search.search(verbose=0)
        else:
            orders = elsewhere(search, folder / name, folder / "far")
        rows.append(read(folder / name))
    assert rows[1] == close_to(rows[0])
    assert files_of(folder / "there") == files_of(folder / "here")
    assert [path for path in (folder / "far").rglob("trial_*") if any(path.iterdir())] == []
    return rows[1], orders


def test_hyperbands_trials_from_elsewhere_go_on_from_those_before(tmp_path):
    settings = Settings(data="iris", trials=4, epochs=3, space="none", search="hyperband", batch_size=32)
    _, orders = both_ways(settings, tmp_path)
    assert any(order.before for order in orders)


def test_trials_from_elsewhere_are_pruned_and_fail_as_here(tmp_path):
    rates = "learning_rate=choice:0.01,0.02,0.03,0.05,1e-6,1e30"
    settings = Settings(
        data="iris", trials=6, epochs=2, space="none", search="grid", prune=True, set=(rates,), batch_size=32
    )
    rows, _ = both_ways(settings, tmp_path)
    statuses = [row["status"] for row in rows.values()]
    assert sorted(statuses) == [*["COMPLETED"] * 4, "FAILED", "PRUNED"]


@pytest.mark.slow
def test_of_several_trainings_no_model_is_sent(tmp_path):
    settings = Settings(data="iris", trials=1, epochs=1, folds=2, space="none", batch_size=32)
    rows, _ = both_ways(settings, tmp_path)
    assert rows["0"]["val_f1_std"] > 0
    assert not [name for name in files_of(tmp_path / "there") if "checkpoint" in name]


@pytest.mark.slow
def test_a_model_that_asks_for_more_there_widens_the_space_here(tmp_path):
    def draw(hp):
        wide = hp.Choice("wide", [False, True])
        return {"units": (hp.Int("units", 5, 50),) if wide else (4,), "dropout": 0.0}

    rows, _ = both_ways(Settings(data="iris", trials=4, epochs=1), tmp_path, draw)
    assert {row["units"] for row in rows.values()} - {"", 5.0}


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_error_that_ends_a_search_here_ends_it_from_there(where, tmp_path, monkeypatch):
    def fatal(self, *args, **kwargs):
        raise keras_tuner.errors.FatalTypeError("no model")

    monkeypatch.setattr(RecipeModel, "fit", fatal)
    settings = Settings(data="iris", trials=2, epochs=1)
    model, _ = preparation.prepared(settings, None)
    search = study.RecipeSearch(model, tmp_path / "run", study.Display(settings, "val_f1", 2))
    with pytest.raises(keras_tuner.errors.FatalError, match="no model"):
        search.search(verbose=0) if where == "here" else elsewhere(search, tmp_path / "run", tmp_path / "far")


RATES = [0.01, 0.02, 0.03, 0.06, 0.04, 1e30]


def space_with_faults(mark, deadly, losses):
    """A space one of whose rates kills its process, so many times, and another of whose rates is an error."""
    here = os.getpid()

    def draw(hp):
        rate = hp.Choice("learning_rate", RATES)
        if rate == deadly and os.getpid() != here:
            with open(mark, "a+") as file:
                file.seek(0)
                if len(file.read()) < losses:
                    file.write("x")
                    file.flush()
                    os.kill(os.getpid(), 9)
        if rate == 0.04:
            raise RuntimeError("no such rate\nat all")
        return {"learning_rate": rate, "dropout": 0.0, "units": (8,)}

    return draw


def ray_folders():
    return {path for path in Path("/tmp").glob("ray-*") if path.is_dir()}


@needs_ray
@pytest.mark.slow
def test_a_search_on_ray_is_the_search_here(tmp_path, capfd, monkeypatch):
    settings = Settings(data="iris", trials=6, epochs=3, keep=2)
    space = space_with_faults(tmp_path / "mark", 0.02, 1)
    assert study.tune(settings, tmp_path / "here", space=space)
    seen, run = {}, ray_engine._run

    def watched(ray, *args):
        seen["address"] = ray.get_runtime_context().gcs_address
        seen["cpus"] = ray.cluster_resources()["CPU"]
        seen["end"] = signal.getsignal(signal.SIGTERM)
        seen["reachable"] = reachable(int(seen["address"].rpartition(":")[2]))
        run(ray, *args)

    monkeypatch.setattr(ray_engine, "_run", watched)
    end = signal.getsignal(signal.SIGTERM)
    folders, environment, home = ray_folders(), dict(os.environ), (Path.home() / ".ray").exists()
    capfd.readouterr()
    assert study.tune(settings, tmp_path / "there", space=space, engine="ray", workers=2)
    output = capfd.readouterr()
    assert (tmp_path / "mark").read_text() == "x"
    rows = read(tmp_path / "there")
    assert rows == close_to(read(tmp_path / "here"))
    assert sorted(row["reason"] for row in rows.values()) == [
        *[""] * 4,
        "RuntimeError: no such rate",
        "diverged: the loss was not a finite number in epoch 1",
    ]
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    one, other = (json.loads((tmp_path / name / "best.json").read_text()) for name in ("here", "there"))
    assert (one["trial"], one["hyperparameters"]) == (other["trial"], other["hyperparameters"])
    assert other["test"] == pytest.approx(one["test"], abs=1e-5)
    assert keras.models.load_model(tmp_path / "there" / "best.keras").count_params() > 0

    lines = output.out.splitlines()
    assert lines[1] == "Ray on this machine: 2 trials at a time, each on a core"
    lost = next(name for name, row in rows.items() if row["learning_rate"] == 0.02)
    assert f"the process of trial {lost} is gone; the trial is run again" in lines
    assert len([line for line in lines if line.startswith("trial ")]) == 6
    assert lines[2].startswith(("trial 1/6", "the process of trial"))
    assert output.err == ""
    assert "raylet" not in output.out

    assert seen["address"].startswith("127.0.0.1:")
    assert seen["cpus"] == 2
    assert seen["end"] == signal.getsignal(signal.SIGTERM) == end
    assert seen["reachable"] in ([], ["127.0.0.1"])
    assert not __import__("ray").is_initialized()
    assert ray_folders() == folders
    assert dict(os.environ) | {"TF_FORCE_GPU_ALLOW_GROWTH": ""} == environment | {
        "TF_FORCE_GPU_ALLOW_GROWTH": ""
    }
    assert (Path.home() / ".ray").exists() == home


def reachable(port):
    """The machine's addresses at which the port can be reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))  # Nothing is sent.
            own = probe.getsockname()[0]
        except OSError:
            own = "127.0.0.1"
    found = []
    for host in {own, "127.0.0.1"}:
        with socket.socket() as line:
            line.settimeout(5)
            if line.connect_ex((host, port)) == 0:
                found.append(host)
    return found


@needs_ray
@pytest.mark.slow
def test_a_search_on_ray_that_is_interrupted_goes_on(tmp_path, monkeypatch, capfd):
    settings = Settings(data="iris", trials=5, epochs=3)
    space = space_with_faults(tmp_path / "mark", 0.06, 2)
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert study.tune(settings, whole, space=space)
    deadly = next(name for name, row in read(whole).items() if row["learning_rate"] == 0.06)
    show, folders = study.Display.trial, ray_folders()

    def interrupting(self, row, rows):
        show(self, row, rows)
        if row.trial == deadly:  # A moment later, when others wait for Ray.
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(study.Display, "trial", interrupting)
    with pytest.raises(KeyboardInterrupt):
        study.tune(settings, out, space=space, engine="ray", workers=1)
    assert not __import__("ray").is_initialized()
    assert ray_folders() == folders
    rows, expected = read(out), read(whole)
    assert rows[deadly]["status"] == "FAILED"
    assert rows[deadly]["reason"] == (
        "its process was lost 2 times, as happens where memory runs out or a machine fails"
    )
    assert 2 < len(rows) < len(expected)
    kept = {name: (out / "search" / f"trial_{name}" / "trial.json").read_bytes() for name in rows}

    monkeypatch.setattr(study.Display, "trial", show)
    capfd.readouterr()
    assert study.tune(settings, out, space=space)  # Here: whoever has begun it, anyone goes on with it.
    assert "trials were finished before" in capfd.readouterr().out
    ended = {name for name, row in rows.items() if row["status"] != "RUNNING"}
    assert all((out / "search" / f"trial_{name}" / "trial.json").read_bytes() == kept[name] for name in ended)
    assert read(out) == close_to(expected | {deadly: read(out)[deadly]})
