"""Whole searches on a Ray of this machine."""

import importlib.util
import json
import os
import signal
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
from processes import hearing_ctrl_c
from run_tables import close_to, files_of, read

from keras_practice.tuning import Settings, tune
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.engines import ray as ray_engine
from keras_practice.tuning.engines import ray_cluster
from keras_practice.tuning.engines.base import EngineError
from keras_practice.tuning.reports.display import Display

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray Tune is not installed: pip install 'keras-practice[ray]'",
)


QUICK = ["--data", "iris", "--trials", "2", "--epochs", "1"]


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


@needs_ray
def test_processes_that_cannot_start_end_the_search_at_once(tmp_path):
    """Each trial would fail of them, and none could be run again."""
    _, ray_tune = ray_cluster.imported()
    notes = []
    suggestions = SimpleNamespace(error=None, running={"a": SimpleNamespace(trial_id="3")})
    watch = ray_engine._watch(ray_tune, suggestions, SimpleNamespace(note=notes.append))
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
        EngineError, match="must start. Got ModuleNotFoundError: No module named 'keras_practice'"
    ):
        watch.on_step_begin(2, [])
    assert len(notes) == 1


RATES = [0.01, 0.02, 0.03, 0.06, 0.04, 1e38]


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
        return {"learning_rate": rate, "l2": 0.0}

    return draw


def ray_folders():
    return {path for path in Path("/tmp").glob("ray-*") if path.is_dir()}


@needs_ray
@pytest.mark.slow
def test_a_search_on_ray_is_the_search_here(tmp_path, capfd, monkeypatch):
    settings = Settings(data="iris", recipe="linear", trials=6, epochs=3, keep=2)
    space = space_with_faults(tmp_path / "mark", 0.02, 1)
    assert tune(settings, tmp_path / "here", space=space)
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
    assert tune(settings, tmp_path / "there", space=space, engine="ray", workers=2)
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
    settings = Settings(data="iris", recipe="linear", trials=5, epochs=3)
    space = space_with_faults(tmp_path / "mark", 0.06, 2)
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert tune(settings, whole, space=space)
    deadly = next(name for name, row in read(whole).items() if row["learning_rate"] == 0.06)
    show, folders = Display.trial, ray_folders()

    def interrupting(self, row, rows):
        show(self, row, rows)
        if row.trial == deadly:  # A moment later, when others wait for Ray.
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(Display, "trial", interrupting)
    with hearing_ctrl_c(), pytest.raises(KeyboardInterrupt):
        tune(settings, out, space=space, engine="ray", workers=1)
    assert not __import__("ray").is_initialized()
    assert ray_folders() == folders
    rows, expected = read(out), read(whole)
    assert rows[deadly]["status"] == "FAILED"
    assert rows[deadly]["reason"] == (
        "its process was lost 2 times, as happens where memory runs out or a machine fails"
    )
    assert 2 < len(rows) < len(expected)
    kept = {name: (out / "search" / f"trial_{name}" / "trial.json").read_bytes() for name in rows}

    monkeypatch.setattr(Display, "trial", show)
    capfd.readouterr()
    assert tune(settings, out, space=space)  # Here: whoever has begun it, anyone goes on with it.
    assert "trials were finished before" in capfd.readouterr().out
    ended = {name for name, row in rows.items() if row["status"] != "RUNNING"}
    assert all((out / "search" / f"trial_{name}" / "trial.json").read_bytes() == kept[name] for name in ended)
    assert read(out) == close_to(expected | {deadly: read(out)[deadly]})
