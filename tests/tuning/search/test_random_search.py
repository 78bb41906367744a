import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import keras
import keras_tuner
import numpy as np
import pytest
from processes import running, wait_for
from shared import reused

from keras_practice import data, recipes
from keras_practice.callbacks import F1Score
from keras_practice.tuning import RandomSearch

IRIS = data.load("iris")


def build(hp):
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=(4,), dropout=0.0)
    rate = hp.Float("learning_rate", 1e-5, 1e-1, sampling="log")
    return recipes.compile_for(model, IRIS.task, learning_rate=rate, metrics=["accuracy", F1Score(IRIS.task)])


@reused
def plain():
    return build(keras_tuner.HyperParameters())


def search_in(folder, build=build, objective="val_f1", trials=3, seed=0, **options):
    return RandomSearch(
        build, objective, trials, seed, directory=str(folder), project_name="search", **options
    )


def run(search, epochs=2):
    search.search(
        IRIS.train.x, IRIS.train.y, validation_data=(IRIS.val.x, IRIS.val.y), epochs=epochs, verbose=0
    )
    return search


def results(search):
    return {
        name: (trial.hyperparameters.values, trial.score, trial.metrics.get_best_value("val_loss"))
        for name, trial in search.oracle.trials.items()
    }


@pytest.mark.parametrize("objective", ["val_f1", "val_f1_score", "val_auc", "val_accuracy"])
def test_scores_that_go_up_are_maximised(objective, tmp_path):
    search = search_in(tmp_path, objective=objective)
    assert search.oracle.objective.direction == "max"


def test_the_best_trial_is_the_best(tmp_path):
    search = run(search_in(tmp_path, trials=4))
    scores = [trial.score for trial in search.oracle.trials.values()]
    assert search.oracle.get_best_trials()[0].score == max(scores)
    assert len(set(scores)) > 1


def named(name):
    def build(hp):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=[F1Score(name=name)])
        hp.Float("learning_rate", 1e-5, 1e-1)
        return model

    return build


def test_a_metric_with_a_name_of_its_own_is_looked_up_in_the_model(tmp_path):
    assert search_in(tmp_path, named("quality"), "val_quality").oracle.objective.direction == "max"


def test_automatic_names_are_the_same_in_every_trial(tmp_path):
    """Models of other shapes, which no trial shares, each with a metric and layers that Keras names."""
    names = []

    def build(hp):
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(hp.Int("units", 2, 9), "relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
        model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.AUC()])
        names.append([layer.name for layer in model.layers])
        return model

    search = search_in(tmp_path, build, keras_tuner.Objective("val_auc", "max"))
    y = (IRIS.train.y == 0).astype("float32")[:, None]
    search.search(IRIS.train.x, y, validation_data=(IRIS.train.x, y), batch_size=90, verbose=0)
    assert [trial.status for trial in search.oracle.trials.values()] == ["COMPLETED"] * 3
    assert names[-3:] == [["input_layer", "dense", "dense_1"]] * 3


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("val_quality", "better high or low"),
        (keras_tuner.Objective("val_f1", "min"), "val_f1 is better high. Got direction 'min'"),
        (3, "objective must be"),
    ],
)
def test_a_direction_is_never_guessed(objective, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        search_in(tmp_path, objective=objective)


def test_a_stated_direction_serves_an_unknown_score(tmp_path):
    search = search_in(tmp_path, objective=keras_tuner.Objective("val_quality", "max"))
    assert search.oracle.objective.direction == "max"


@pytest.mark.parametrize("trials", [0, -1, 1.5])
def test_a_wrong_number_of_trials_is_refused(trials, tmp_path):
    with pytest.raises(ValueError, match="max_trials must be a positive integer"):
        search_in(tmp_path, trials=trials)


def test_a_search_repeats(tmp_path):
    first, again = (results(run(search_in(tmp_path / name, seed=5))) for name in "ab")
    other = results(run(search_in(tmp_path / "c", seed=6)))
    assert first == again
    assert first != other


def test_the_logarithm_of_the_learning_rate_is_drawn_evenly(tmp_path):
    search = search_in(tmp_path, trials=400)
    for _ in range(400):
        trial = search.oracle.create_trial("tuner0")
        search.oracle.ongoing_trials.clear()
    logs = np.log10([t.hyperparameters.get("learning_rate") for t in search.oracle.trials.values()])
    assert trial.trial_id == "399"
    assert logs.min() >= -5
    assert logs.max() <= -1
    from scipy.stats import kstest

    assert kstest(logs, "uniform", args=(-5, 4)).pvalue > 0.01


def test_a_trials_figures_are_those_of_its_best_epoch(tmp_path):
    search = run(search_in(tmp_path, trials=2), epochs=4)
    for trial in search.oracle.trials.values():
        model = plain()
        keras.utils.set_random_seed(search.trial_seed(trial))
        first = build(trial.hyperparameters)
        model.set_weights(first.get_weights())
        model.optimizer.learning_rate = float(first.optimizer.learning_rate)
        history = model.fit(
            IRIS.train.x, IRIS.train.y, validation_data=(IRIS.val.x, IRIS.val.y), epochs=4, verbose=0
        ).history
        best = int(np.argmax(history["val_f1"]))
        assert trial.score == pytest.approx(history["val_f1"][best], abs=1e-6)
        assert trial.metrics.get_best_value("val_loss") == pytest.approx(history["val_loss"][best], abs=1e-5)
        assert trial.metrics.get_best_value("best_epoch") == best + 1
        assert trial.metrics.get_best_value("seconds") > 0


def test_a_finished_space_ends_the_search(tmp_path):
    def build(hp):
        hp.Choice("units", [4, 8])
        return named("f1")(keras_tuner.HyperParameters())

    search = run(search_in(tmp_path, build, trials=10), epochs=1)
    assert sorted(t.hyperparameters.get("units") for t in search.oracle.trials.values()) == [4, 8]


def test_floats_and_several_executions_work_as_in_kerastuner(tmp_path):
    class Black(RandomSearch):
        def run_trial(self, trial, *args, **kwargs):
            return (trial.hyperparameters.Float("x", -1, 1)) ** 2

    search = Black(
        objective=None, max_trials=5, seed=0, directory=str(tmp_path), project_name="a", hypermodel=None
    )
    search.search()
    best = search.get_best_hyperparameters()[0].get("x")
    assert abs(best) == min(abs(t.hyperparameters.get("x")) for t in search.oracle.trials.values())
    twice = run(search_in(tmp_path, trials=1, executions_per_trial=2), epochs=1)
    assert 0 <= next(iter(twice.oracle.trials.values())).score <= 1


def test_a_diverged_trial_is_failed_and_the_search_goes_on(tmp_path):
    class Nan(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp)

        def fit(self, hp, model, *args, **kwargs):
            if hp.get("learning_rate") < 1e-3:
                return {"val_f1": math.nan}
            return {"val_f1": 0.5}

    search = run(search_in(tmp_path, Nan(), trials=6, max_consecutive_failed_trials=9))
    statuses = {t.status for t in search.oracle.trials.values()}
    assert statuses == {"COMPLETED", "FAILED"}


def test_a_stopped_search_ends_as_the_undisturbed_one(tmp_path):
    whole = results(run(search_in(tmp_path / "whole", trials=4)))

    class Stop(Exception):
        pass

    class Stopped(RandomSearch):
        def on_epoch_end(self, trial, model, epoch, logs=None):
            if trial.trial_id == "2":
                raise KeyboardInterrupt

    options = {"directory": str(tmp_path), "project_name": "halves"}
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(build, "val_f1", 4, 0, **options))
    before = (tmp_path / "halves" / "trial_1" / "trial.json").read_bytes()
    ran = []

    class Resumed(RandomSearch):
        def run_trial(self, trial, *args, **kwargs):
            ran.append(trial.trial_id)
            return super().run_trial(trial, *args, **kwargs)

    resumed = run(Resumed(build, "val_f1", 4, 0, **options))
    assert ran == ["2", "3"]
    assert results(resumed) == whole
    assert (tmp_path / "halves" / "trial_1" / "trial.json").read_bytes() == before


@pytest.mark.parametrize("lost", ["seed_state", "ongoing"])
def test_an_oracle_file_that_lags_behind_the_trials_is_mended(lost, tmp_path):
    """A kill between two writes leaves the oracle's file one step behind."""
    run(search_in(tmp_path, trials=2))
    file = tmp_path / "search" / "oracle.json"
    state = json.loads(file.read_text())
    if lost == "ongoing":  # As if killed after the trial's file and before the oracle's.
        state["ongoing_trials"] = {"tuner0": "1"}
        state["end_order"].remove("1")
    else:
        state["start_order"].remove("1")
        state["end_order"].remove("1")
    file.write_text(json.dumps(state))
    search = search_in(tmp_path, trials=2)
    assert search.oracle.create_trial("tuner0").status == "STOPPED"
    assert sorted(search.oracle.end_order) == ["0", "1"]


def test_a_random_search_of_ones_own_works_with_kerastuners_chief(tmp_path, monkeypatch):
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    def build(hp):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1e-1)), "mse")
        return model

    def searched(name):
        search = RandomSearch(build, "loss", 2, 3, directory=str(tmp_path), project_name=name)
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


PROGRAM = """
import sys
from keras_practice import data, recipes
from keras_practice.tuning import Settings, tune
tune(Settings(data="iris", recipe="linear", trials=6, epochs=3, batch_size=32), sys.argv[1])
"""


def ready(folder, done, child):
    """Asks whether there are more trials than were done, or the process is at its end."""
    return lambda: len(list(folder.rglob("trial.json"))) > done or child.poll() is not None


@pytest.mark.slow
def test_a_run_killed_at_random_points_resumes(tmp_path):
    """`kill -9` at several points; the end equals that of an undisturbed run."""
    import csv
    import time

    def rows(folder):
        with (folder / "trials.csv").open() as file:
            table = sorted(csv.DictReader(file), key=lambda row: row["trial"])
        return [{k: v for k, v in row.items() if k != "seconds"} for row in table]

    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(whole)], check=True, env=environment, capture_output=True
    )
    rng = np.random.default_rng(0)
    for _ in range(3):
        done = len(list(killed.rglob("trial.json")))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with running("-c", PROGRAM, killed, env=environment, **quiet) as child:
            wait_for(ready(killed, done, child), pause=0.02)
            time.sleep(rng.uniform(0, 1.0))
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(killed)], check=True, env=environment, capture_output=True
    )
    assert rows(killed) == rows(whole)
    one, other = (json.loads((folder / "best.json").read_text()) for folder in (killed, whole))
    assert one["test"] == pytest.approx(other["test"])
    assert not [path for path in Path(killed).rglob("*") if ".part" in path.name]
