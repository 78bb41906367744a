import socket
import time

import pytest

from keras_practice.tuning import InputError, Settings, tune
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.engines.addresses import LOOPBACK, free_port

QUICK = ["--data", "iris", "--trials", "4", "--epochs", "2", "--batch-size", "32"]


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
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            main([*QUICK, "--chief", str(port), "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert f"Got 127.0.0.1:{port}: Address already in use." in capsys.readouterr().err
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_space_of_ones_own_is_not_shared_out(tmp_path):
    with pytest.raises(InputError, match="must be searched in one process. Got 2 workers."):
        tune(Settings(data="iris"), tmp_path / "run", space=lambda hp: {}, workers=2)


def test_a_chief_that_is_not_there_is_waited_for_and_no_longer(capsys, monkeypatch):
    monkeypatch.setattr("keras_practice.tuning.engines.chief_worker.client._LEAST_WAIT", 0.0)
    port, start = free_port(LOOPBACK, 0), time.monotonic()
    with pytest.raises(SystemExit) as stop:
        main(["--join", f"127.0.0.1:{port}", "--wait", "1"])
    assert stop.value.code == 2
    assert time.monotonic() - start >= 1
    told = capsys.readouterr().err
    assert told == f"error: A chief must be there within 1 seconds. Got no answer from 127.0.0.1:{port}.\n"
