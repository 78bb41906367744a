import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from processes import wait_for

from keras_practice.tuning.engines.addresses import LOOPBACK
from keras_practice.tuning.engines.chief_worker.chief import Chief, MessageError
from keras_practice.tuning.engines.chief_worker.client import Client, LostError, RefusedError
from keras_practice.tuning.engines.chief_worker.messages import versions
from keras_practice.tuning.engines.chief_worker.processes import Processes
from keras_practice.tuning.engines.chief_worker.server import _refusing, answering


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

    def release(self, tuner):
        if (trial := self.ongoing.pop(tuner, None)) is not None:
            self.waiting.append(trial.trial_id)

    def claim(self, tuner, name):
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
            "versions": versions(),
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
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(client.reason))
    try:
        with answering(chief, LOOPBACK, 0) as port:
            client = Client(("127.0.0.1", port), 1.0)
            assert client.open() == {}
            order = client.ask("create")["order"]
            assert order["trial"] == {"trial_id": "0"}
            chief.stop()
        with pytest.raises(LostError):
            client.ask("report", trial="0", result={"status": "COMPLETED"}, fatal="")
        wait_for(lambda: told, 10)
    finally:
        signal.signal(signal.SIGTERM, before)
        client.close()
    assert told == [f"The chief at 127.0.0.1:{port} has not come back within 1 seconds."]


def test_a_chief_learns_at_once_that_a_worker_is_gone(chief):
    with answering(chief, LOOPBACK, 0) as port:
        client = Client(("127.0.0.1", port), 20.0)
        client.open()
        client.ask("create")
        client.close()
        wait_for(lambda: chief.notes[1:], 10)
        assert chief.notes[1].endswith(" is gone; trial 0 is run again")
        chief.stop()


def test_another_search_at_the_same_port_is_not_gone_on_with(chief):
    chief._facts = {"settings": 1}
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with answering(chief, LOOPBACK, 0) as port:
            client = Client(("127.0.0.1", port), 20.0)
            client.open()
            client.ask("create")
            chief.stop()
        other = Chief(Search(), Path("unused"), chief._progress, 3, {"settings": 2}, Processes(0))
        with answering(other, LOOPBACK, port):
            with pytest.raises(LostError):
                client.ask("create")
            other.stop()
    finally:
        signal.signal(signal.SIGTERM, before)
        client.close()
    assert client.reason == f"The chief at 127.0.0.1:{port} must go on with the same search. Got another one."


def test_what_a_chief_cannot_write_ends_the_search(chief, monkeypatch):
    def full(self, name, result):
        raise OSError("No space left on device")

    monkeypatch.setattr(Search, "receive", full)
    context = SimpleNamespace(code=lambda: None, abort=lambda code, text: None)
    line = Line(chief)
    line.trial()
    with _refusing(chief, context):
        line.report("0")
    assert chief.is_done(0)
    assert str(chief.error) == "No space left on device"
    assert line.hang_up() == []  # No word of a good end: a chief that is mended goes on.


def test_another_server_is_no_chief(monkeypatch):
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = Client(("127.0.0.1", port), 20.0)
    try:
        with pytest.raises(RefusedError, match="must be a chief's address. Got another server"):
            client.open()
    finally:
        client.close()
        server.stop(None).wait()
