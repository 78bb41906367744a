import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import keras
import keras_tuner
import numpy as np
import pytest
from run_tables import close_to, read

from keras_practice import tuning
from keras_practice.tuning import Settings, study
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.engines.chief_worker import client as session_module
from keras_practice.tuning.engines.chief_worker import messages as wire
from keras_practice.tuning.engines.chief_worker import server as serving
from keras_practice.tuning.engines.chief_worker.chief import Chief, MessageError
from keras_practice.tuning.engines.chief_worker.client import Client, LostError, RefusedError
from keras_practice.tuning.engines.chief_worker.processes import Processes, environment_of
from keras_practice.tuning.engines.chief_worker.worker import join
from keras_practice.tuning.reports.display import Display
from keras_practice.tuning.search import preparation
from keras_practice.tuning.search.random_oracle import RandomOracle

QUICK = ["--data", "iris", "--trials", "4", "--epochs", "2", "--batch-size", "32"]


def free_port():
    return wire.free_port(wire.LOOPBACK, 0)


def children_of(process):
    """Its children that live; one that was killed is listed until it is asked for."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(process)], capture_output=True, text=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in found if "Z" not in line.split()[1]]


def wait_for(what, seconds=120, pause=0.05):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(pause)
    return found


def is_gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("text", "host", "address"),
    [
        ("node1:8470", None, ("node1", 8470)),
        ("10.0.0.5:1", None, ("10.0.0.5", 1)),
        ("[::1]:8470", None, ("[::1]", 8470)),
        ("8470", "127.0.0.1", ("127.0.0.1", 8470)),
        ("0", "127.0.0.1", ("127.0.0.1", 0)),
        ("0.0.0.0:8470", "127.0.0.1", ("0.0.0.0", 8470)),
    ],
)
def test_addresses(text, host, address):
    assert wire.address_of(text, host=host) == address


@pytest.mark.parametrize(
    "text", ["", "node1", "node1:", ":8470", "node1:0", "node1:65536", "a:-1", "::1:8470", "8470"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="An address must be HOST:PORT"):
        wire.address_of(text)


def test_loopback_is_told_from_the_rest():
    assert all(map(wire.is_loopback, ("127.0.0.1", "127.1.2.3", "[::1]", "localhost")))
    assert not any(map(wire.is_loopback, ("0.0.0.0", "10.0.0.5", "[::]", "node1")))


def test_messages_come_through_with_their_files():
    message, files = {"a": [1, float("inf"), "ü\n"]}, {"x/y": b"\n\x00", "empty": b""}
    assert wire.decode(wire.encode(message, files)) == (message, files)
    assert wire.decode(wire.encode(message)) == (message, {})
    with pytest.raises(ValueError, match="as long as it says"):
        wire.decode(wire.encode(message, files)[:-1])
    with pytest.raises(ValueError, match="JSON object"):
        wire.decode(b"3")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "workers must be a positive integer. Got 0."),
        (
            ["--workers", "2", "--chief", "8470"],
            "beside a chief, each joins it. Got workers 2 and chief 8470.",
        ),
        (["--chief", "node1"], "An address must be [HOST:]PORT, such as 8470 or 10.0.0.5:8470. Got 'node1'."),
        (["--join", "node1"], "An address must be HOST:PORT, such as node1:8470. Got 'node1'."),
        (["--join", "a:1", "--trials", "3", "--out", "x"], "comes from the chief. Got --trials, --out."),
        (["--join", "a:1", "--workers", "2"], "comes from the chief. Got --workers."),
        (["--join", "a:1", "--chief", "8470"], "comes from the chief. Got --chief."),
        (["--join", "a:1", "--wait", "-1"], "wait must be a number of seconds, 0 or more. Got -1."),
        (["--chief", "192.0.2.1:8470"], "its address one of this machine. Got 192.0.2.1:8470: "),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*arguments] if "--join" in arguments else [*arguments, "--data", "iris"])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_port_in_use_is_refused(tmp_path, capsys):
    with socket.create_server((wire.LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            main([*QUICK, "--chief", str(port), "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert f"Got 127.0.0.1:{port}: Address already in use." in capsys.readouterr().err
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_space_of_ones_own_is_not_shared_out(tmp_path):
    with pytest.raises(study.InputError, match="must be searched in one process. Got 2 workers."):
        study.tune(Settings(data="iris"), tmp_path / "run", space=lambda hp: {}, workers=2)


def test_a_chief_that_is_not_there_is_waited_for_and_no_longer(capsys, monkeypatch):
    monkeypatch.setattr("keras_practice.tuning.engines.chief_worker.client._LEAST_WAIT", 0.0)
    port, start = free_port(), time.monotonic()
    with pytest.raises(SystemExit) as stop:
        main(["--join", f"127.0.0.1:{port}", "--wait", "1"])
    assert stop.value.code == 2
    assert time.monotonic() - start >= 1
    told = capsys.readouterr().err
    assert told == f"error: A chief must be there within 1 seconds. Got no answer from 127.0.0.1:{port}.\n"


class Running:
    """A chief in a thread of this process, until whose end the block waits."""

    def __init__(self, out, settings, **options):
        self.port, self.done = free_port(), None
        self._arguments = settings, out
        self._options = {"chief": str(self.port), **options}

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self):
        self.done = study.tune(*self._arguments, **self._options)


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A folder with a run on one process and one on a worker, and what those were told that do not fit."""
    folder, told = tmp_path_factory.mktemp("joined"), []
    rng = np.random.default_rng(0)
    for name in ("here", "there"):
        np.savez(folder / f"{name}.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 2)

    def refused(address, **options):
        with pytest.raises(study.InputError) as error:
            join(address, wait=20, **options)
        told.append(str(error.value))

    # The last rate diverges.
    hyperparameters = "learning_rate=choice:0.01,0.02,1e38", "optimizer=sgd", "batch_norm=false"
    settings = Settings(
        data=str(folder / "here.npz"),
        trials=3,
        epochs=2,
        keep=1,
        search="grid",
        space="none",
        set=hyperparameters,
        prune=True,
    )
    assert study.tune(settings, folder / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.RecipeSearch, "train_anew", lambda *_: pytest.fail("a model was trained again"))
        with Running(folder / "two", settings) as chief:
            address = "127.0.0.1", chief.port
            refused(address, data=str(folder / "there.npz"))
            with pytest.MonkeyPatch.context() as older:
                older.setattr(session_module, "versions", lambda: {**wire.versions(), "keras": "3.0.0"})
                refused(address)
            (folder / "here.npz").rename(folder / "moved.npz")
            refused(address)
            assert join(address, wait=20, data=str(folder / "moved.npz")) == 0
    assert chief.done
    return folder, told


def test_a_worker_finds_what_one_process_finds(joined):
    one, two = (joined[0] / name for name in ("one", "two"))
    rows = read(two)
    assert rows == close_to(read(one))
    assert [row["status"] for row in rows.values()] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert rows["2"]["reason"].startswith("diverged: the loss was not a finite number in epoch ")
    bests = [json.loads((out / "best.json").read_text()) for out in (one, two)]
    assert bests[0]["trial"] == bests[1]["trial"]
    assert bests[1]["test"] == pytest.approx(bests[0]["test"], abs=1e-5)


def test_all_that_one_process_leaves_is_there(joined):
    def left(out):
        paths = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        return sorted(re.sub(r"tfevents.*", "tfevents", path) for path in paths)

    assert left(joined[0] / "two") == left(joined[0] / "one")
    trainings = [
        json.loads((joined[0] / name / "search" / "trial_0" / "trainings.json").read_text())
        for name in ("one", "two")
    ]
    assert trainings[1][0]["history"]["loss"] == pytest.approx(trainings[0][0]["history"]["loss"], rel=1e-4)


def test_a_worker_with_other_data_or_of_another_version_is_refused(joined):
    data, version, absent = joined[1]
    assert data.startswith("Chief and worker must have the same data. Got another file ")
    assert data.endswith("there.npz.")
    assert version == (
        "Chief and worker must have the same versions. "
        f"Got keras {keras.__version__} at the chief, 3.0.0 at the worker."
    )
    assert "No such file" in absent


def test_models_come_with_the_scores_and_the_best_are_kept(joined):
    out = joined[0] / "two"
    best = json.loads((out / "best.json").read_text())["trial"]
    assert [path.parent.name for path in out.rglob("checkpoint*")] == [f"trial_{best}"]
    assert keras.models.load_model(out / "best.keras").count_params() > 0


def test_another_server_is_no_chief(monkeypatch):
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    session = Client(("127.0.0.1", port), 20.0)
    try:
        with pytest.raises(RefusedError, match="must be a chief's address. Got another server"):
            session.open()
    finally:
        session.close()
        server.stop(None).wait()


def test_an_oracle_takes_trials_back(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("x", 0, 1)
    oracle = RandomOracle(keras_tuner.Objective("loss", "min"), 9, 1, hyperparameters=space)
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "search")
    first = oracle.create_trial("a")
    assert not oracle.take_up("b", first.trial_id)  # It has not been given back.
    oracle.give_back("a")
    oracle.give_back("a")
    assert not oracle.take_up("b", None)
    assert oracle.take_up("b", first.trial_id)
    assert oracle.create_trial("b") is first
    oracle.give_back("b")
    assert oracle.create_trial("c") is first
    oracle.give_back("c")
    oracle.drop(first.trial_id)
    assert oracle.create_trial("d").trial_id == "1"


def test_a_result_counts_alone_and_not_with_that_of_a_run_that_was_broken_off(tmp_path, capsys):
    settings = Settings(data="iris", trials=1, epochs=1)
    model, _ = preparation.prepared(settings, None)
    search = study.RecipeSearch(model, tmp_path, Display(settings, "val_f1", 1))
    search.oracle.verbose = 0
    name = search.oracle.create_trial("1").trial_id
    search.oracle.update_trial(name, {"val_f1": 0.9})
    search.oracle.give_back("1")
    search.receive(name, {"status": "COMPLETED", "metrics": {"val_f1": 0.5}})
    assert search.rows()[0].score == 0.5
    assert search.ended() == 1
    assert search.oracle.create_trial("1").status == "STOPPED"  # It does not wait to be run again.


def test_a_random_search_of_ones_own_works_with_kerastuners_chief(tmp_path, monkeypatch):
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    def build(hp):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1e-1)), "mse")
        return model

    def searched(name):
        search = tuning.RandomSearch(build, "loss", 2, 3, directory=str(tmp_path), project_name=name)
        yield search
        search.search(np.ones((8, 2)), np.ones(8), epochs=1, verbose=0)
        yield search

    plain, _ = searched("plain")
    shared = searched("shared")
    chief = next(shared)
    server = grpc.server(ThreadPoolExecutor(1))
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(chief.oracle), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", str(port)), ("TUNER_ID", "worker1")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    worker, _ = searched("worker")
    server.stop(None).wait()
    assert not isinstance(worker.oracle, keras_tuner.Oracle)
    for name, trial in plain.oracle.trials.items():
        other = chief.oracle.trials[name]
        assert other.hyperparameters.values == trial.hyperparameters.values
        assert other.score == pytest.approx(trial.score, rel=1e-6)
        assert worker.trial_seed(other) == plain.trial_seed(trial)


class Oracle:
    """As much of an oracle as a chief asks for: three trials."""

    def __init__(self):
        self.trials, self.waiting, self.ongoing = {}, [], {}

    def create_trial(self, tuner):
        if tuner not in self.ongoing and self.waiting:
            self.ongoing[tuner] = self.trials[self.waiting.pop()]
        elif tuner not in self.ongoing and len(self.trials) < 3:
            name = str(len(self.trials))
            self.trials[name] = self.ongoing[tuner] = Trial(name)
        return self.ongoing.get(tuner) or Trial("", "STOPPED")

    def give_back(self, tuner):
        if (trial := self.ongoing.pop(tuner, None)) is not None:
            self.waiting.append(trial.trial_id)

    def take_up(self, tuner, name):
        if name not in self.waiting:
            return False
        self.waiting.remove(name)
        self.ongoing[tuner] = self.trials[name]
        return True


class Trial:
    def __init__(self, name, status="RUNNING"):
        self.trial_id, self.status, self.message = name, status, None
        self.hyperparameters = SimpleNamespace(values={})

    def get_state(self):
        return {"trial_id": self.trial_id}


class Search:
    def __init__(self):
        self.oracle, self.results = Oracle(), []

    def ended(self):
        return sum(trial.status in ("COMPLETED", "FAILED") for trial in self.oracle.trials.values())

    def earlier(self, name):
        return []

    def receive(self, name, result):
        trial = self.oracle.trials[name]
        trial.status, trial.message = result["status"], result.get("message")
        self.oracle.ongoing = {k: v for k, v in self.oracle.ongoing.items() if v.trial_id != name}
        self.oracle.waiting = [one for one in self.oracle.waiting if one != name]
        self.results.append((name, trial.status))


class Line:
    """A worker's end of a stream, without the network."""

    def __init__(self, chief, own=None, process=1, trial=None):
        self._gone, self.chief = lambda: None, chief
        message = {
            "versions": wire.versions(),
            "host": "node1",
            "own": own,
            "process": process,
            "trial": trial,
        }
        self._stream = chief.join(message, self)
        self.number = next(self._stream)["worker"]

    def add_callback(self, callback):
        self._gone = callback
        return True

    def hang_up(self):
        self._gone()
        return list(self._stream)

    def create(self):
        return self.chief.create({"worker": self.number}, {})

    def report(self, name, status="COMPLETED", files=()):
        result = {"status": status}
        message = {"worker": self.number, "trial": name, "result": result, "fatal": ""}
        return self.chief.report(message, dict(files))

    def trial(self):
        return self.create()["order"]["trial"]["trial_id"]


@pytest.fixture
def chief(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_practice.tuning.engines.chief_worker.chief._PATIENCE", 0.01)
    notes = []
    display = SimpleNamespace(note=notes.append, epoch=notes.append)
    chief = Chief(Search(), tmp_path, display, 3, {}, Processes(0))
    chief.search, chief.notes = chief._search, notes
    return chief


def test_a_trial_whose_worker_is_gone_goes_to_the_next(chief):
    one, two = Line(chief), Line(chief)
    assert (one.trial(), two.trial()) == ("0", "1")
    assert one.trial() == "0"  # An answer that was lost on the way is given again.
    one.hang_up()
    assert "worker 1 on node1 is gone; trial 0 is run again" in chief.notes
    two.report("1")
    assert two.trial() == "0"
    two.report("0")
    assert two.trial() == "2"
    assert not chief.is_done(0)
    two.report("2")
    assert chief.is_done(0)
    assert chief.search.results == [("1", "COMPLETED"), ("0", "COMPLETED"), ("2", "COMPLETED")]
    assert two.hang_up() == [{"over": True}]


def test_nobody_is_sent_home_while_a_trial_may_come_back(chief):
    one, two = Line(chief), Line(chief)
    for name in ("0", "1"):
        assert one.trial() == name
        one.report(name)
    assert one.trial() == "2"
    assert two.create() == {"idle": True}
    one.hang_up()
    assert two.trial() == "2"
    two.report("2")
    assert two.create() == {"over": True}


def test_while_a_death_is_looked_into_the_search_is_not_over(chief, monkeypatch):
    one, two = Line(chief, own=1), Line(chief)
    assert one.trial() == "0"
    for name in ("1", "2"):
        assert two.trial() == name
        two.report(name)
    answers = []

    def ended(self, process):
        answers.extend([one.create(), two.create()])
        return "killed", "was killed"

    monkeypatch.setattr(Processes, "ended", ended)
    one.hang_up()
    assert answers == [{"unknown": True}, {"idle": True}]
    assert two.trial() == "0"


def test_one_that_was_thought_gone_has_still_trained_well(chief):
    one, two = Line(chief), Line(chief)
    one.trial()
    one.hang_up()
    assert two.trial() == "0"
    one.report("0", "FAILED")  # That may have been its own fault.
    assert chief.search.results == []
    one.report("0")
    two.report("0", "FAILED")  # A trial has one result, the first.
    two.report("0")
    assert chief.search.results == [("0", "COMPLETED")]
    assert one.create() == {"unknown": True}
    assert chief.progress({"worker": two.number, "trial": "0", "epochs": 1}, {}) == {"wanted": False}
    assert chief.progress({"worker": two.number, "trial": two.trial(), "epochs": 1}, {}) == {"wanted": True}


def test_a_worker_goes_on_with_its_trial_after_the_chief_was_away(chief):
    first = Line(chief)
    assert first.trial() == "0"
    first.hang_up()
    again = Line(chief, trial="0")
    assert Line(chief).trial() == "1"
    again.report("0", "FAILED")
    assert chief.search.results == [("0", "FAILED")]


@pytest.mark.parametrize(
    ("death", "most", "reason"),
    [
        (("killed", "was killed"), 20, "its worker was killed, 20 times"),
        (("fault", "ended with SIGSEGV"), 2, "its worker ended with SIGSEGV, 2 times"),
        (("lost", "does not answer"), 3, "its worker does not answer, 3 times"),
    ],
)
def test_a_trial_that_takes_its_worker_with_it_again_and_again_fails(chief, monkeypatch, death, most, reason):
    monkeypatch.setattr(Processes, "ended", lambda self, process: death)
    for time_ in range(most):
        assert not chief.search.results
        line = Line(chief, own=1)
        assert line.trial() == "0", time_
        line.hang_up()
    assert chief.search.results == [("0", "FAILED")]
    assert chief.search.oracle.trials["0"].message == reason
    assert Line(chief).trial() == "1"


def test_a_kill_counts_as_a_fault_where_memory_ran_out(chief, monkeypatch):
    kills = iter(range(100))
    monkeypatch.setattr("keras_practice.tuning.engines.chief_worker.chief._memory_kills", lambda: next(kills))
    monkeypatch.setattr(Processes, "ended", lambda self, process: ("killed", "was killed"))
    for _ in range(2):
        line = Line(chief, own=1)
        line.trial()
        line.hang_up()
    assert chief.search.oracle.trials["0"].message == "its worker was killed as memory ran out, 2 times"


def test_one_that_leaves_is_not_counted(chief):
    for _ in range(5):
        line = Line(chief)
        assert line.trial() == "0"
        chief.leave({"worker": line.number}, {})
        line.hang_up()
    assert chief.search.results == []
    assert chief.notes[-1] == "worker 5 on node1 has left; trial 0 is run again"


def test_files_keep_to_their_trials_folders(chief, tmp_path):
    line = Line(chief)
    line.trial()
    for path in (
        "search/trial_1/x",
        "search/trial_0/../../x",
        "/search/trial_0/x",
        "best.json",
        "tensorboard/1/x",
    ):
        with pytest.raises(MessageError, match="in a folder of its trial's"):
            line.report("0", files={path: b"x"})
    assert list(tmp_path.iterdir()) == []
    line.report("0", files={"search/trial_0/x": b"1", "tensorboard/0/train/y": b"2"})
    assert (tmp_path / "search" / "trial_0" / "x").read_bytes() == b"1"
    assert (tmp_path / "tensorboard" / "0" / "train" / "y").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("create", {}),
        ("create", {"worker": 3}),
        ("report", {"worker": "1", "trial": "0"}),
        ("report", {"worker": "1", "trial": "0", "result": {"status": "RUNNING"}}),
        ("progress", {"worker": "1"}),
        ("leave", {"worker": []}),
    ],
)
def test_a_stranger_does_no_harm(chief, method, message):
    with pytest.raises(MessageError):
        getattr(chief, method)(message, {})
    assert not chief.is_done(0)


def test_a_worker_whose_chief_stays_away_ends(chief, monkeypatch):
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(session.reason))
    try:
        with serving._served(chief, serving.Serving()) as port:
            session = Client(("127.0.0.1", port), 1.0)
            assert session.open() == {}
            order = session.ask("create")["order"]
            assert order["trial"] == {"trial_id": "0"}
            chief.stop()
        with pytest.raises(LostError):
            session.ask("report", trial="0", result={"status": "COMPLETED"}, fatal="")
        wait_for(lambda: told, 10)
    finally:
        signal.signal(signal.SIGTERM, before)
        session.close()
    assert told == [f"The chief at 127.0.0.1:{port} has not come back within 1 seconds."]


def test_a_chief_learns_at_once_that_a_worker_is_gone(chief):
    with serving._served(chief, serving.Serving()) as port:
        session = Client(("127.0.0.1", port), 20.0)
        session.open()
        session.ask("create")
        session.close()
        wait_for(lambda: chief.notes[1:], 10)
        assert chief.notes[1].endswith(" is gone; trial 0 is run again")
        chief.stop()


def test_another_search_at_the_same_port_is_not_gone_on_with(chief):
    chief._facts = {"settings": 1}
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with serving._served(chief, serving.Serving()) as port:
            session = Client(("127.0.0.1", port), 20.0)
            session.open()
            session.ask("create")
            chief.stop()
        other = Chief(Search(), Path("unused"), chief._display, 3, {"settings": 2}, Processes(0))
        with serving._served(other, serving.Serving(port=port)):
            with pytest.raises(LostError):
                session.ask("create")
            other.stop()
    finally:
        signal.signal(signal.SIGTERM, before)
        session.close()
    assert (
        session.reason == f"The chief at 127.0.0.1:{port} must go on with the same search. Got another one."
    )


def test_what_a_chief_cannot_write_ends_the_search(chief, monkeypatch):
    def full(self, name, result):
        raise OSError("No space left on device")

    monkeypatch.setattr(Search, "receive", full)
    context = SimpleNamespace(code=lambda: None, abort=lambda code, text: None)
    line = Line(chief)
    line.trial()
    with serving._refusing(chief, context):
        line.report("0")
    assert chief.is_done(0)
    assert str(chief.error) == "No space left on device"
    assert line.hang_up() == []  # No word of a good end: a chief that is mended goes on.


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
    # A shell has what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stopper.start()
        assert main([*QUICK, "--workers", "2", "--out", str(tmp_path / "run")]) == code
        stopper.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(pids()) == 2
    assert all(map(is_gone, pids()))


def started(*arguments):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "keras_practice.tuning", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(out):
    states = [json.loads(file.read_text()) for file in out.glob("search/trial_*/trial.json")]
    return [state["trial_id"] for state in states if state["status"] == "COMPLETED"]


def kept(out):
    """The files of the trials that have ended."""
    files = [out / "search" / f"trial_{name}" / "trial.json" for name in ended(out)]
    return {file: file.read_bytes() for file in files}


SLOW = ["--data", "iris", "--trials", "6", "--epochs", "3", "--repeats", "4"]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A search in one process that nobody disturbs."""
    out = tmp_path_factory.mktemp("quiet") / "run"
    assert main([*SLOW, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_workers_that_are_killed_ten_times_and_then_their_chief_lose_nothing_that_had_ended(tmp_path, quiet):
    out, dice, orphans = tmp_path / "killed", random.Random(0), []
    chief = started(*SLOW, "--workers", "2", "--out", str(out))
    state = out / "search" / "oracle.json"
    try:
        for _ in range(10):
            # Some hits find a worker at a trial, some find one that is still starting.
            wait_for(lambda: state.exists() and json.loads(state.read_text())["ongoing_trials"])
            time.sleep(dice.uniform(0, 0.5))
            os.kill(dice.choice(wait_for(lambda: children_of(chief.pid))), signal.SIGKILL)
        wait_for(lambda: len(ended(out)) >= 2)
        assert chief.poll() is None
        orphans = children_of(chief.pid)
    finally:
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
    out, port, before = tmp_path / "killed", str(free_port()), {}
    chiefs = [started(*SLOW, "--chief", port, "--out", str(out))]

    def restart():
        wait_for(lambda: len(ended(out)) >= 2)
        chiefs[0].kill()
        chiefs[0].communicate()
        before.update(kept(out))
        chiefs.append(started(*SLOW, "--chief", port, "--out", str(out)))

    killer = threading.Thread(target=restart)
    killer.start()
    try:
        assert main(["--join", f"127.0.0.1:{port}", "--wait", "120"]) == 0
        killer.join()
        told = chiefs[1].communicate(timeout=60)[0]
    finally:
        for chief in chiefs:
            chief.kill()
    assert chiefs[1].returncode == 0
    assert f"resuming: {len(before)} of 6 trials were finished before" in told
    assert 2 <= len(before) < 6
    assert all(file.read_bytes() == content for file, content in before.items())
    assert read(out) == close_to(read(quiet))
    # What ran while there was no chief was not run again.
    assert "the search is over; trained here: 6" in capsys.readouterr().out
