import os
import signal
import subprocess
import threading
from contextlib import contextmanager

import pytest
from processes import running

from keras_practice.tuning import output_folder as lock
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.output_folder import locked

QUICK = ["--data", "iris", "--trials", "1", "--epochs", "1"]
HOLDER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holding(folder):
    """Another process that holds the folder's lock."""
    with running("-c", HOLDER, folder, lock.__file__, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        yield child


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match=f"Only one search at a time .* process {os.getpid()}.$"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):  # The first has let go, and the second has left nothing locked.
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failure_inside_lets_go(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_folders_are_locked_apart(tmp_path):
    (tmp_path / "other").mkdir()
    with locked(tmp_path), locked(tmp_path / "other"):
        assert (tmp_path / lock.NAME).read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_two_searches_in_one_folder_are_told_apart(more, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "settings.json").write_text("kept")
    with holding(out) as child, pytest.raises(SystemExit) as stop:
        main([*QUICK, *more, "--out", str(out)])
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert f"in use by process {child.pid}." in output.err
    assert (out / "settings.json").read_text() == "kept"


def test_the_lock_of_a_killed_process_is_stale(tmp_path):
    with holding(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
    assert (tmp_path / lock.NAME).read_text() == f"{child.pid}\n"  # What it left has no power.
    with locked(tmp_path):
        assert (tmp_path / lock.NAME).read_text() == f"{os.getpid()}\n"


def test_a_file_that_is_removed_while_it_is_being_locked_counts_for_nothing(tmp_path, monkeypatch):
    """A holder that ends between another's opening the file and locking it."""
    real, removed = lock.fcntl.flock, []

    def flock(file, how):
        if not removed:
            removed.append(True)
            (tmp_path / lock.NAME).unlink()
        real(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(tmp_path), pytest.raises(ValueError, match="Only one search"), locked(tmp_path):
        pass


def test_of_many_at_once_one_gets_it(tmp_path):
    held, most, guard = [0], [0], threading.Lock()

    def work():
        for _ in range(50):
            try:
                with locked(tmp_path):
                    with guard:
                        held[0] += 1
                        most[0] = max(most[0], held[0])
                    with guard:
                        held[0] -= 1
            except ValueError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_a_file_system_without_locks_is_not_locked(tmp_path, monkeypatch):
    def unsupported(file, how):
        raise OSError(lock.errno.ENOTSUP, "not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_no_lock_behind(tmp_path):
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / lock.NAME).exists()
