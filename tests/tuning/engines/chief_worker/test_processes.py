import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from processes import hearing_ctrl_c, is_gone, running, wait_for
from run_tables import close_to, read

from keras_practice.tuning.__main__ import main
from keras_practice.tuning.engines.addresses import LOOPBACK, free_port
from keras_practice.tuning.engines.chief_worker.processes import environment_of

QUICK = ["--data", "iris", "--trials", "4", "--epochs", "2", "--batch-size", "32"]


def children_of(process):
    """Its children that live; one that was killed is listed until it is asked for."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(process)], capture_output=True, text=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in found if "Z" not in line.split()[1]]


@pytest.mark.parametrize(
    ("gpus", "outer", "seen"),
    [
        (0, {}, ["-1"] * 3),
        (0, {"CUDA_VISIBLE_DEVICES": "0"}, ["-1"] * 3),
        (1, {}, [None] * 3),
        (1, {"CUDA_VISIBLE_DEVICES": "3"}, ["3"] * 3),
        (2, {}, ["0", "1", "0"]),
        (4, {}, ["0", "1", "2"]),
        (2, {"CUDA_VISIBLE_DEVICES": "5, 7"}, ["5", "7", "5"]),
        (2, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, ["GPU-a", "GPU-b", "GPU-a"]),
    ],
)
def test_each_worker_has_a_gpu_of_its_own_where_there_are_several(gpus, outer, seen):
    inner = [environment_of(number, gpus, {"HOME": "/x", **outer}) for number in (1, 2, 3)]
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in inner] == seen
    assert all(one["TF_FORCE_GPU_ALLOW_GROWTH"] == "true" and one["HOME"] == "/x" for one in inner)


def test_memory_growth_can_be_turned_off():
    assert (
        environment_of(1, 1, {"TF_FORCE_GPU_ALLOW_GROWTH": "false"})["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"
    )


def test_a_worker_that_cannot_start_ends_the_search_in_a_sentence(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, "--workers", "2", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert (
        capfd.readouterr().err == "error: A worker must start. Got ended with exit code 1: no such module\n"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_no_worker_outlives_a_chief_that_is_stopped(number, code, tmp_path, monkeypatch):
    idle = tmp_path / "python"
    idle.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid-$6\nexec sleep 600\n")
    idle.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(idle))

    def stop():
        wait_for(lambda: len(pids()) == 2, pause=0)  # The sooner it comes, the more it finds half-done.
        os.kill(os.getpid(), number)

    def pids():
        return [int(text) for file in tmp_path.glob("pid-*") if (text := file.read_text())]

    stopper = threading.Thread(target=stop)
    with hearing_ctrl_c():
        stopper.start()
        assert main([*QUICK, "--workers", "2", "--out", str(tmp_path / "run")]) == code
        stopper.join()
    assert len(pids()) == 2
    assert all(map(is_gone, pids()))


def started(*arguments):
    """The command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return running("-m", "keras_practice.tuning", *arguments, **pipes)


def ended(out):
    states = [json.loads(file.read_text()) for file in out.glob("search/trial_*/trial.json")]
    return [state["trial_id"] for state in states if state["status"] == "COMPLETED"]


def kept(out):
    """The files of the trials that have ended."""
    files = [out / "search" / f"trial_{name}" / "trial.json" for name in ended(out)]
    return {file: file.read_bytes() for file in files}


SLOW = ["--data", "iris", "--recipe", "linear", "--trials", "6", "--epochs", "3", "--repeats", "4"]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A search in one process that nobody disturbs."""
    out = tmp_path_factory.mktemp("quiet") / "run"
    assert main([*SLOW, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_workers_that_are_killed_often_and_then_their_chief_lose_nothing_that_had_ended(tmp_path, quiet):
    out, dice = tmp_path / "killed", random.Random(0)
    state = out / "search" / "oracle.json"
    with started(*SLOW, "--workers", "2", "--out", out) as chief:
        for _ in range(5):
            # Some hits find a worker at a trial, some find one that is still starting.
            wait_for(lambda: state.exists() and json.loads(state.read_text())["ongoing_trials"])
            time.sleep(dice.uniform(0, 0.5))
            os.kill(dice.choice(wait_for(lambda: children_of(chief.pid))), signal.SIGKILL)
        wait_for(lambda: len(ended(out)) >= 2)
        assert chief.poll() is None
        orphans = children_of(chief.pid)
        chief.kill()
        told = chief.communicate()[0]
    assert len(orphans) == 2
    wait_for(lambda: all(map(is_gone, orphans)), 30)
    assert "was killed; trial" in told
    before = kept(out)
    assert main([*SLOW, "--out", str(out)]) == 0
    assert all(file.read_bytes() == content for file, content in before.items())
    rows = read(out)
    assert [row["status"] for row in rows.values()] == ["COMPLETED"] * 6
    assert rows == close_to(read(quiet))
    bests = [json.loads((folder / "best.json").read_text()) for folder in (quiet, out)]
    assert bests[0]["trial"] == bests[1]["trial"]


@pytest.mark.slow
def test_a_worker_outlasts_its_chief_and_goes_on_with_the_next(tmp_path, quiet, capsys):
    out, port, before = tmp_path / "killed", str(free_port(LOOPBACK, 0)), {}
    command = [*SLOW, "--chief", port, "--out", out]
    with ExitStack() as held:
        chiefs = [held.enter_context(started(*command))]

        def restart():
            wait_for(lambda: len(ended(out)) >= 2)
            chiefs[0].kill()
            chiefs[0].communicate()
            before.update(kept(out))
            chiefs.append(held.enter_context(started(*command)))

        killer = threading.Thread(target=restart)
        killer.start()
        assert main(["--join", f"127.0.0.1:{port}", "--wait", "120"]) == 0
        killer.join()
        told = chiefs[1].communicate(timeout=60)[0]
    assert chiefs[1].returncode == 0
    assert f"resuming: {len(before)} of 6 trials were finished before" in told
    assert 2 <= len(before) < 6
    assert all(file.read_bytes() == content for file, content in before.items())
    assert read(out) == close_to(read(quiet))
    # What ran while there was no chief was not run again.
    assert "the search is over; trained here: 6" in capsys.readouterr().out
