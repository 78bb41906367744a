import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import running

from keras_practice import training
from keras_practice.training.workers import Workers

module = importlib.import_module("keras_practice.training.workers")
SCRIPT = Path(__file__).with_name("workers_run.py")


@pytest.fixture
def run():
    """The script of the processes, as a module."""
    spec = importlib.util.spec_from_file_location("workers_run", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def codes_of(scenario, folder, count=2, limit=120):
    """Runs the script in as many processes on free ports; returns their codes, and fails where one hangs."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    with ExitStack() as held:
        processes = []
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
            errors = held.enter_context((folder / f"{index}.txt").open("w"))
            started = running(
                SCRIPT, scenario, folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )
            processes.append(held.enter_context(started))
        end = time.monotonic() + limit
        try:
            return [process.wait(max(0.1, end - time.monotonic())) for process in processes]
        except subprocess.TimeoutExpired:
            texts = [(folder / f"{index}.txt").read_text()[-2000:] for index in range(count)]
            pytest.fail("A process hangs:\n" + "\n".join(texts))


def seen_in(folder, count=2):
    results = []
    for rank in range(count):
        with np.load(folder / f"{rank}.npz") as file:
            results.append(dict(file))
    return results


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes saw, the second of which ends by SIGTERM; made once."""
    folder = tmp_path_factory.mktemp("pair")
    codes = codes_of("behaviours", folder)
    assert codes == [0, -15], (folder / "0.txt").read_text()[-3000:]
    return seen_in(folder)


def same(first, second, prefix):
    keys = [key for key in first if key.startswith(prefix)]
    assert keys
    for key in keys:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


@pytest.mark.slow
def test_two_processes_end_where_one_with_the_joint_batch_ends(pair, run):
    same(*pair, "joint")
    model = run.plain(seed=1)
    history = model.fit(
        run.TRAIN.batches(32), validation_data=run.VAL, epochs=run.EPOCHS, verbose=0, shuffle=False
    ).history
    for index, weights in enumerate(model.get_weights()):
        np.testing.assert_allclose(pair[0][f"joint weights {index}"], weights, atol=1e-4)
    for name in ("val_loss", "val_accuracy"):
        np.testing.assert_allclose(pair[0][f"joint {name}"], history[name], atol=1e-4)
    # 11 of 203 samples, which both processes take, count twice in the training metrics.
    np.testing.assert_allclose(pair[0]["joint loss"], history["loss"], atol=0.03)
    assert not np.allclose(model.get_weights()[0], run.plain(seed=1).get_weights()[0], atol=0.05)


@pytest.mark.slow
def test_the_decisions_are_the_same_everywhere(pair):
    first, second = pair
    same(first, second, "early")  # With batch-norm statistics, though each saw other samples.
    assert 14 <= first["early steps"] < 30 * 7
    assert first["early steps"] % 7 == 0


@pytest.mark.slow
def test_batch_norm_statistics_are_those_of_all_workers_on_average(pair, run):
    halves = run.X[:16], run.X[16:32]
    for seen in pair:
        means = np.mean([half.mean(axis=0) for half in halves], axis=0)
        variances = np.mean([half.var(axis=0) for half in halves], axis=0)
        np.testing.assert_allclose(seen["moving mean"], 0.01 * means, atol=1e-6)
        np.testing.assert_allclose(seen["moving variance"], 0.99 + 0.01 * variances, atol=1e-6)


@pytest.mark.slow
def test_each_worker_drops_units_of_its_own(pair):
    first, second = pair
    assert first["seed within"][0] != second["seed within"][0]
    assert first["seed within"][1] == second["seed within"][1] == 1
    same(first, second, "seed after")
    assert first["seed after"][0] == first["seed within"][0]


@pytest.mark.slow
def test_a_wish_to_stop_within_an_epoch_stops_all_after_the_same_step(pair):
    first, second = pair
    assert first["follower stops"] == second["follower stops"] == 4
    same(first, second, "follower weights")
    assert first["chief stops"] == second["chief stops"] == 10
    assert first["chief left"] == second["chief left"] == 0.0


@pytest.mark.slow
def test_another_order_of_the_data_is_refused(pair):
    for seen in pair:
        assert "must draw the same batches in the same order" in str(seen["disorder"])


@pytest.mark.slow
def test_another_epoch_is_refused(pair):
    for seen in pair:
        assert "Got the epochs [1, 3] of workers 0 and on" in str(seen["other epoch"])


@pytest.mark.slow
def test_afterwards_the_model_is_its_own_processs(pair):
    assert pair[0]["alone moved"] > 0
    assert "alone moved" not in pair[1]


@pytest.mark.slow
def test_after_a_kill_the_others_end_and_all_go_on_where_they_were(pair, tmp_path):
    for scenario, victim in (("second dies", 1), ("first dies", 0)):
        codes = codes_of(scenario, tmp_path, limit=90)
        assert codes[victim] == -9
        assert codes[1 - victim] > 0, "The other worker must end with an error."
        assert (tmp_path / "resume.npz").exists()
    assert codes_of("goes on", tmp_path) == [0, 0]
    first, second = seen_in(tmp_path)
    same(first, second, "whole weights")
    for key, weights in pair[0].items():
        if key.startswith("whole weights"):
            np.testing.assert_allclose(first[key], weights, atol=1e-4, err_msg=key)
    assert not list(tmp_path.glob("resume*"))


@pytest.mark.slow
def test_who_waits_in_vain_ends(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
    code = (
        "from keras_practice import training\n"
        f"training.workers(['127.0.0.1:{ports[0]}', '127.0.0.1:{ports[1]}'], 0, timeout=3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Timeout (0:00:03)!" in done.stderr


def test_the_shares_make_up_the_batch_in_order():
    x, y = np.arange(14.0).reshape(7, 2), np.arange(7)
    batches = tf.data.Dataset.from_tensor_slices(({"a": x}, y)).batch(4)
    shares = [list(Workers(rank, 2).share(batches)) for rank in range(2)]
    assert [len(each) for each in shares] == [2, 2] == [len(Workers(0, 2).share(batches)), len(batches)]
    joined = np.concatenate([share[0][1] for share in shares])
    np.testing.assert_array_equal(joined, y[:4])
    np.testing.assert_array_equal(shares[1][0][0]["a"], x[2:4])
    for share in shares:  # 3 rows cannot be split in two.
        np.testing.assert_array_equal(share[1][1], y[4:])


def test_a_share_of_inputs_alone_is_inputs_alone():
    batches = tf.data.Dataset.from_tensor_slices(np.arange(8.0)).batch(4)
    np.testing.assert_array_equal(next(iter(Workers(1, 2).share(batches))), [2.0, 3.0])


def test_one_process_is_plain_keras(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(module, "_joined", [])
    group = training.workers()
    assert (group.rank, group.size, group.chief) == (0, 1, True)
    assert training.workers() is group
    batches = tf.data.Dataset.range(3)
    assert group.share(batches) is batches
    assert group.file(tmp_path / "a.npz") == tmp_path / "a.npz"
    given = [keras.callbacks.History(), keras.callbacks.TerminateOnNaN()]
    assert training.lockstep(group, given[:1], given[1:]) == given
    assert group.sums([np.array([1, 2])])[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}, 1),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, "task": {"type": "worker", "index": 0}}, 1),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, "task": {"type": "chief", "index": 0}}, 0),
    ],
)
def test_tf_config_is_read(task, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert module._place(None, None) == (["a:1", "b:2"], expected)


def test_slurm_is_asked(tmp_path, monkeypatch):
    scontrol = tmp_path / "scontrol"
    # What Slurm's own command prints for node[2,10]; sorted by name, node10 would come first.
    scontrol.write_text('#!/bin/sh\ntest "$*" = "show hostnames node[2,10]" && printf "node2\\nnode10\\n"\n')
    scontrol.chmod(0o755)
    settings = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[2,10]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_JOB_ID": "5007",
        "SLURM_PROCID": "2",
    }
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert module._place(None, None) == (["node2:20028", "node2:20029", "node10:20028"], 2)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[2,10]")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "1(x2)")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert module._place(None, None) == (["node2:20028", "node10:20028"], 1)


def test_a_model_under_a_strategy_is_refused():
    mirrored = SimpleNamespace(distribute_strategy=SimpleNamespace(num_replicas_in_sync=2))
    first, *_ = training.lockstep(Workers(0, 2))
    first.set_model(mirrored)
    with pytest.raises(ValueError, match=r"outside of any tf\.distribute strategy.*Got 2 replicas"):
        first.on_train_begin()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"addresses": ["a:1"]}, "must be given together"),
        ({"addresses": ["a:1", "a:1"], "rank": 0}, "must differ"),
        ({"addresses": ["a:1", "b:1"], "rank": 2}, r"must be in \[0, 2\)"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"communication": "pigeons"}, "communication must be"),
    ],
)
def test_wrong_arguments_are_refused(given, rule):
    with pytest.raises(ValueError, match=rule):
        training.workers(**given)
