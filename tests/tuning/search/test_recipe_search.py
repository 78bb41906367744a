import csv
import json
import statistics
from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.engine.trial import Trial
from shared import reused

from keras_practice import data, recipes
from keras_practice.callbacks import ValidationScores
from keras_practice.tuning import Settings, tune
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.records import Training, reason_of, rows_of
from keras_practice.tuning.search import recipe_model
from keras_practice.tuning.search.folds import cross_validation
from keras_practice.tuning.search.preparation import prepared
from keras_practice.tuning.search.pruning import MedianPruning
from keras_practice.tuning.search.recipe_model import RecipeModel
from keras_practice.tuning.search.recipe_search import RecipeSearch

IRIS, DIABETES, WAVES = data.load("iris"), data.load("diabetes"), data.load("waves")
SMALL = ["--data", "iris", "--recipe", "linear"]


def read(out):
    """The rows of a run's table."""
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def raw(dataset, split):
    return dataset.scaling.invert(split.x)


@pytest.mark.parametrize("dataset", [IRIS, DIABETES, WAVES])
def test_every_sample_is_validated_on_once(dataset):
    folds = cross_validation(dataset, 4, seed=1)
    everything = np.concatenate([raw(dataset, dataset.train), raw(dataset, dataset.val)])
    held = np.concatenate([raw(fold, fold.val) for fold in folds])
    order = [np.lexsort(rows.reshape(len(rows), -1).T.round(4)) for rows in (everything, held)]
    np.testing.assert_allclose(held[order[1]], everything[order[0]], atol=1e-3)
    for fold in folds:
        assert len(fold.train) + len(fold.val) == len(everything)
        rows = [{row.tobytes() for row in split.x} for split in (fold.train, fold.val)]
        assert not rows[0] & rows[1]
        np.testing.assert_allclose(raw(fold, fold.test), raw(dataset, dataset.test), atol=1e-3)
        assert (fold.train.role, fold.val.role, fold.task) == ("train", "val", dataset.task)


def test_features_are_scaled_by_each_folds_training_samples():
    for fold in cross_validation(IRIS, 3):
        np.testing.assert_allclose(fold.train.x.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(fold.train.x.std(axis=0), 1, atol=1e-4)
        assert abs(fold.val.x.mean(axis=0)).max() > 1e-3
    digits = data.load("digits")
    assert cross_validation(digits, 3)[0].train.x.max() == 1  # Images keep their range.
    rebuilt = data.load("wine").rebuilding_input()
    for fold in cross_validation(rebuilt, 3):
        np.testing.assert_array_equal(fold.train.x, fold.train.y)


def test_classes_keep_their_shares_and_identical_samples_stay_together():
    for fold in cross_validation(IRIS, 5):
        counts = np.bincount(fold.val.y, minlength=3)
        assert counts.max() - counts.min() <= 2
    x = np.repeat(np.random.default_rng(0).normal(size=(40, 3)), 3, axis=0)
    dataset = data.from_arrays(x, np.arange(120) // 3 % 2, seed=0)
    for fold in cross_validation(dataset, 4):
        assert not {row.tobytes() for row in fold.train.x} & {row.tobytes() for row in fold.val.x}


@pytest.mark.parametrize("limit", [0, 2**26])
def test_folds_of_large_data_are_not_all_kept(limit, monkeypatch):
    monkeypatch.setattr(recipe_model, "_MAX_BYTES", limit)
    objective = keras_tuner.Objective("val_f1", "max")
    model = RecipeModel(IRIS, Settings(data="iris", folds=3), objective, lambda hp: {})
    reference = cross_validation(IRIS, 3, seed=0)
    for number in (0, 1, 2, 0):
        np.testing.assert_array_equal(model.fold(number).val.x, reference[number].val.x)
    assert len(model._folds) == (3 if limit else 1)


@pytest.mark.parametrize("folds", [1, 0, 2.0, True])
def test_a_wrong_number_of_folds_is_refused(folds):
    with pytest.raises(ValueError, match="folds must be an integer of at least 2"):
        cross_validation(IRIS, folds)


def test_several_trainings_are_told_with_mean_and_deviation(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*SMALL, "--trials", "2", "--epochs", "2", "--folds", "2", "--repeats", "2", "--set", "l2=0"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert "mean of 2 folds x 2 repeats" in capsys.readouterr().out
    rows, best = read(out), json.loads((out / "best.json").read_text())
    for row in rows:
        trainings = json.loads((out / "search" / f"trial_{row['trial']}" / "trainings.json").read_text())
        assert [(t["fold"], t["repeat"]) for t in trainings] == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert len({t["seed"] for t in trainings}) == 4
        scores = [t["score"] for t in trainings]
        assert float(row["val_f1"]) == pytest.approx(statistics.mean(scores))
        assert float(row["val_f1_std"]) == pytest.approx(statistics.stdev(scores))
    assert float(rows[0]["val_f1"]) >= float(rows[1]["val_f1"])
    assert best["validation"]["val_f1"] == pytest.approx(float(rows[0]["val_f1"]))
    assert best["validation_std"]["val_f1"] == pytest.approx(float(rows[0]["val_f1_std"]))
    assert best["trainings"] == 4
    assert " ± " in (out / "report.html").read_text()
    assert not list(out.rglob("checkpoint*")) or best["trainings"] == 4

    # One of the trainings again, by Keras alone.
    trial = json.loads((out / "search" / f"trial_{rows[0]['trial']}" / "trainings.json").read_text())[2]
    again, _ = fitted(cross_validation(IRIS, 2, seed=0)[1], rows[0], trial["seed"])
    assert again["val_f1"] == pytest.approx(trial["history"]["val_f1"], abs=1e-6)
    assert again["loss"] == pytest.approx(trial["history"]["loss"], rel=1e-4)

    # The model that is kept is one more training, from the trial's own seed, on the splits as they are.
    history, model = fitted(IRIS, rows[0], best["trial_seed"], best_epoch=True)
    assert best["final_validation"]["val_f1"] == pytest.approx(max(history["val_f1"]), abs=1e-6)
    kept = keras.models.load_model(out / "best.keras")(IRIS.test.x)
    np.testing.assert_allclose(kept, model(IRIS.test.x), atol=1e-4)


@reused
def linear():
    return recipes.compile_for(recipes.linear(IRIS.input_shape, IRIS.task), IRIS.task)


def fitted(dataset, row, seed, best_epoch=False):
    """A trial's training in plain Keras; with the best epoch's weights on request."""
    model = linear()
    keras.utils.set_random_seed(seed)
    # What is traced is no matter here: a model of the trial's own gives its initial weights.
    model.set_weights(recipes.linear(IRIS.input_shape, IRIS.task).get_weights())
    model.optimizer.learning_rate = float(row["learning_rate"])
    callbacks = [ValidationScores(dataset.val, scores=("f1",))]
    if best_epoch:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_f1", mode="max", patience=9, restore_best_weights=True)
        )
    history = model.fit(
        dataset.train.batches(64, seed=0),
        validation_data=dataset.val.batches(256),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    ).history
    return history, model


def test_a_result_counts_alone_and_not_with_that_of_a_run_that_was_broken_off(tmp_path):
    settings = Settings(data="iris", trials=1, epochs=1)
    search = RecipeSearch(prepared(settings).model, tmp_path)
    name = search.oracle.create_trial("1").trial_id
    search.oracle.update_trial(name, {"val_f1": 0.9})
    search.oracle.release("1")
    search.receive(name, {"status": "COMPLETED", "metrics": {"val_f1": 0.5}})
    assert search.rows()[0].score == 0.5
    assert search.ended() == 1
    assert search.oracle.create_trial("1").status == "STOPPED"  # It does not wait to be run again.


class Heard:
    """Progress that takes notes."""

    def __init__(self):
        self.epochs, self.trials = [], []

    def epoch(self, epoch):
        self.epochs.append(epoch)

    def trial(self, row, rows):
        self.trials.append((row.trial, row.status, len(rows)))

    def note(self, text):
        raise AssertionError


def test_a_search_tells_of_every_epoch_and_trial_and_needs_no_console(tmp_path, capsys):
    settings = Settings(data="iris", recipe="linear", trials=2, epochs=2, folds=2)
    heard = Heard()
    RecipeSearch(prepared(settings).model, tmp_path / "heard", heard).search(verbose=0)
    assert heard.epochs == [0, 1, 2, 3] * 2
    assert heard.trials == [("0", "COMPLETED", 1), ("1", "COMPLETED", 2)]
    RecipeSearch(prepared(settings).model, tmp_path / "unheard").search(verbose=0)
    assert capsys.readouterr().out == ""


def test_a_trial_that_diverges_or_runs_out_of_memory_fails_and_the_search_goes_on(tmp_path, capsys):
    def space(hp):
        kind = hp.Choice("kind", ["well", "wild", "large", "wrong"])
        if kind == "large":
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n\tmore of it")
        if kind == "wrong":
            raise KeyError("units")
        return {"learning_rate": 1e38 if kind == "wild" else 0.01, "optimizer": "sgd"}

    out = tmp_path / "run"
    assert tune(Settings(data="iris", recipe="linear", trials=4, epochs=2), out, space=space)
    rows = {row["kind"]: row for row in read(out)}
    assert {kind: row["status"] for kind, row in rows.items()} == {
        "well": "COMPLETED",
        "wild": "FAILED",
        "large": "FAILED",
        "wrong": "FAILED",
    }
    assert rows["wild"]["reason"] == "diverged: the loss was not a finite number in epoch 1"
    assert rows["large"]["reason"] == "out of memory, ResourceExhaustedError: OOM when allocating"
    assert rows["wrong"]["reason"] == "KeyError: 'units'"
    history = json.loads((out / "search" / f"trial_{rows['wild']['trial']}" / "trainings.json").read_text())
    assert len(history[0]["history"]["loss"]) == 1  # It was not trained further.
    assert "3 of 4 trials failed" in (out / "report.html").read_text()


def test_a_trial_that_kills_the_process_again_and_again_fails(tmp_path, monkeypatch):
    out, arguments = tmp_path / "run", [*SMALL, "--trials", "2", "--epochs", "1"]
    fit = RecipeModel.fit

    def stopped(self, hp, model, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(RecipeModel, "fit", stopped)
    assert main([*arguments, "--out", str(out)]) == 130
    starts = out / "search" / "trial_0" / "starts"
    assert not starts.exists()  # Ctrl-C is not a kill.
    starts.write_text("2")

    def marked(self, hp, model, *args, **kwargs):
        assert (out / "search" / "trial_1" / "starts").read_text() == "1"
        return fit(self, hp, model, *args, **kwargs)

    monkeypatch.setattr(RecipeModel, "fit", marked)
    assert main([*arguments, "--out", str(out)]) == 0
    done, killed = read(out)
    assert (done["status"], killed["status"]) == ("COMPLETED", "FAILED")
    assert killed["reason"] == "the process was killed 2 times while it ran, as happens where memory runs out"
    assert not list(out.rglob("starts"))


def test_a_best_model_that_was_removed_is_trained_again(tmp_path):
    out, arguments = tmp_path / "run", [*SMALL, "--trials", "1", "--epochs", "1"]
    assert main([*arguments, "--out", str(out)]) == 0
    before = json.loads((out / "best.json").read_text())
    for file in [*out.rglob("checkpoint*"), out / "best.json", out / "best.keras"]:
        file.unlink()
    assert main([*arguments, "--out", str(out)]) == 0
    assert json.loads((out / "best.json").read_text())["test"] == pytest.approx(before["test"], abs=1e-6)


def test_when_all_diverge_the_exit_code_is_1(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*SMALL, "--trials", "2", "--epochs", "1", "--set", "learning_rate=1e38"]
    arguments += ["--set", "optimizer=sgd", "--set", "l2=choice:0.1,0.2"]
    assert main([*arguments, "--out", str(out)]) == 1
    assert "Every trial failed; 2 of 2 with: diverged: the loss" in capsys.readouterr().out
    assert "2 times: diverged" in (out / "report.html").read_text()
    assert not (out / "best.keras").exists()


class Ended:
    def __init__(self, message):
        self.message = message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (None, "the objective was not a number"),
        ("Traceback:\n  File\nValueError: units must be\n", "ValueError: units must be"),
        ("Traceback:\nMemoryError\n", "out of memory, MemoryError"),
        (
            "x\nnumpy._core._exceptions._ArrayMemoryError: Unable to allocate 3 GiB\n",
            "out of memory, _ArrayMemoryError: Unable to allocate 3 GiB",
        ),
        (
            "a.ResourceExhaustedError: OOM in\n\nDetected at node x\n\t [[{{node x}}]]\nHint: if you want",
            "out of memory, ResourceExhaustedError: OOM in",
        ),
        ("a\nkeras_tuner.src.errors.FailedTrialError: diverged: the loss\n", "diverged: the loss"),
        ("something else", "something else"),
        ("KeyError: 1\n\nDuring handling of it:\nTypeError: the second\n", "TypeError: the second"),
    ],
)
def test_the_reason_is_one_line(message, reason):
    assert reason_of(Ended(message)) == reason


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_best_come_first_and_pruned_ones_after_all_that_were_not(direction):
    def ended(number, status, score):
        trial = Trial(keras_tuner.HyperParameters(), str(number), status)
        trial.score = score
        return trial

    trials = [ended(0, "COMPLETED", 0.5), ended(1, "FAILED", None), ended(2, "COMPLETED", 0.9)]
    trials += [ended(3, "COMPLETED", 0.95), ended(4, "RUNNING", None), ended(5, "COMPLETED", 0.05)]
    oracle = SimpleNamespace(
        trials={trial.trial_id: trial for trial in trials}, objective=keras_tuner.Objective("x", direction)
    )
    pruned = Training(1, 1, 0, 0.5, {}, "pruned after epoch 2")
    rows = rows_of(oracle, dict.fromkeys(oracle.trials, 0), {name: [pruned] for name in ("3", "5")})
    assert [row.trial for row in rows] == (
        ["2", "0", "3", "5", "1", "4"] if direction == "max" else ["0", "2", "5", "3", "1", "4"]
    )
    assert [row.status for row in rows[2:4]] == ["PRUNED"] * 2
    assert rows[2].reason == "pruned after epoch 2"


def test_the_disk_holds_the_best_models_alone(tmp_path):
    out = tmp_path / "run"
    assert main([*SMALL, "--trials", "4", "--epochs", "1", "--keep", "2", "--out", str(out)]) == 0
    kept = {path.parent.name.removeprefix("trial_") for path in out.rglob("checkpoint*")}
    assert kept == {row["trial"] for row in read(out)[:2]}
    assert keras.models.load_model(out / "best.keras").count_params() > 0


class Model:
    stop_training = False


def stops(callback, values):
    """After which epoch, from 1, the callback ends a training with these values; `None` if it does not."""
    model = Model()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_f1": value})
        if model.stop_training:
            return epoch + 1
    return None


EARLIER = [[0.5, 0.6, 0.7], [0.4, 0.5, 0.6], [0.3, 0.4, 0.5]]


@pytest.mark.parametrize(
    ("mode", "values", "options", "end"),
    [
        ("max", [0.1, 0.49, 0.9], {}, 2),
        ("max", [0.1, 0.5, 0.6], {}, None),  # Equal to the median is not worse.
        ("max", [0.1, 0.1, 0.1], {"warmup_epochs": 0}, 1),
        ("max", [0.1, 0.1, 0.1], {"warmup_epochs": 2}, 3),
        ("max", [0.1, 0.1, 0.1], {"warmup_trials": 4}, None),
        ("min", [0.1, 0.1, 0.1], {}, None),
        ("min", [0.1, 0.51, 0.1], {}, 2),
        ("max", [0.9, float("nan"), 0.9], {}, 2),
        ("max", [0.9, 0.9, 0.9, 0.0], {}, None),  # Nobody got so far.
    ],
)
def test_a_training_below_the_median_is_ended(mode, values, options, end):
    callback = MedianPruning("val_f1", mode, EARLIER, **{"warmup_trials": 3, **options})
    assert stops(callback, values) == end
    assert bool(callback.reason) == (end is not None)
    assert callback.stopped_epoch == (0 if end is None else end - 1)
    assert stops(callback, [0.9] * 2 if mode == "max" else [0.0] * 2) is None  # A second fit begins anew.
    assert callback.reason == ""


def test_a_pruned_training_says_why():
    callback = MedianPruning("val_f1", "max", EARLIER, warmup_trials=2)
    stops(callback, [0.1, 0.25])
    assert callback.reason == (
        "pruned after epoch 2: val_f1 0.25 was below the median 0.5 of 3 earlier trials"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "up"}, "mode must be"),
        ({"warmup_trials": 0}, "warmup_trials must be an integer of at least 1. Got 0."),
        ({"warmup_epochs": -1}, "warmup_epochs must be an integer of at least 0. Got -1."),
    ],
)
def test_wrong_pruning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MedianPruning(**{"monitor": "val_f1", "mode": "max", "earlier": [], **options})


def test_a_search_ends_trials_that_fall_behind(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*SMALL, "--trials", "6", "--epochs", "4", "--batch-size", "16", "--prune"]
    # The last two are the slowest: a grid goes through them in this order.
    arguments += ["--search", "grid", "--space", "none"]
    arguments += ["--set", "learning_rate=choice:0.01,0.02,0.03,0.05,1e-6,1e-7"]
    assert main([*arguments, "--out", str(out)]) == 0
    rows = read(out)
    assert [row["status"] for row in rows] == ["COMPLETED"] * 4 + ["PRUNED"] * 2
    assert {row["trial"] for row in rows[4:]} == {"4", "5"}
    for row in rows[4:]:
        assert row["reason"].startswith("pruned after epoch 2: val_f1")
        trainings = json.loads((out / "search" / f"trial_{row['trial']}" / "trainings.json").read_text())
        assert len(trainings[0]["history"]["val_f1"]) == 2
    assert "2 pruned" in (out / "report.html").read_text()
