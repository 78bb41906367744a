import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import keras
import pytest
from processes import running
from shared import blank_pictures

from keras_practice import data, recipes
from keras_practice.callbacks import (
    LiveReport,
    StopOnExplosion,
    TrainingMonitor,
    ValidationScores,
    standard,
)

IRIS = data.load("iris")
ALL = {
    "scores": "ValidationScores",
    "monitor": "TrainingMonitor",
    "nan_guard": "StopOnExplosion",
    "best_weights": "EarlyStopping",
    "tensorboard": "TensorBoard",
    "resumable": "Resumable",
    "report": "LiveReport",
}


def kinds(callbacks):
    """The public kind of each callback, of those that are private classes too."""
    known = (ValidationScores, TrainingMonitor, StopOnExplosion, LiveReport)
    known += (keras.callbacks.EarlyStopping, keras.callbacks.TensorBoard)
    return [
        next((kind.__name__ for kind in known if isinstance(c, kind)), type(c).__name__.strip("_"))
        for c in callbacks
    ]


def fit(dataset, callbacks, epochs=1):
    keras.utils.set_random_seed(0)
    model = recipes.linear(dataset.input_shape, dataset.task)
    recipes.compile_for(model, dataset.task, steps_per_execution=1)
    return model.fit(
        dataset.train.batches(32),
        validation_data=dataset.val.batches(32),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


def test_what_is_in_it(tmp_path):
    assert kinds(standard(IRIS.val, tmp_path)) == list(ALL.values())
    assert kinds(standard(IRIS.val)) == list(ALL.values())[:4]


@pytest.mark.parametrize("name", ALL)
def test_each_can_be_left_out_or_replaced(name, tmp_path):
    assert kinds(standard(IRIS.val, tmp_path, **{name: False})) == [k for n, k in ALL.items() if n != name]
    mine = keras.callbacks.Callback()
    replaced = standard(IRIS.val, tmp_path, **{name: mine})
    assert replaced[list(ALL).index(name)] is mine
    assert len(replaced) == len(ALL)
    with pytest.raises(ValueError, match=f"{name} must be True, False or a callback. Got 'yes'"):
        standard(IRIS.val, tmp_path, **{name: "yes"})


def test_one_of_ones_own_needs_no_folder(tmp_path):
    report = LiveReport(tmp_path / "elsewhere")
    assert standard(IRIS.val, report=report)[-1] is report


@pytest.mark.parametrize("name", ["iris", "breast_cancer", "diabetes"])
def test_it_works_for_every_kind_of_task(name, tmp_path):
    dataset = data.load(name)
    with blank_pictures():
        history = fit(dataset, standard(dataset.val, tmp_path / "run"))
    expected = "val_f1" if dataset.task.is_classification else "val_r2"
    assert expected in history.history
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"train", "validation", "monitor", "scores", "report.html", "report.png"}


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(IRIS, standard(IRIS.val))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tensorboard_shows_the_histograms(tmp_path):
    digits = data.load("digits")
    keras.utils.set_random_seed(0)
    model = recipes.convnet((8, 8, 1), digits.task, filters=(4, 8))
    recipes.compile_for(model, digits.task)
    x = digits.train.x.reshape(-1, 8, 8, 1)
    val = (digits.val.x.reshape(-1, 8, 8, 1), digits.val.y)
    monitor = TrainingMonitor(20, tmp_path)
    callbacks = standard(val, tmp_path, digits.task, monitor=monitor)
    model.fit(x, digits.train.y, validation_data=val, epochs=3, verbose=0, callbacks=callbacks)
    # As `make tensorboard` starts it, on a free port.
    command = ["-m", "tensorboard.main", "--logdir", tmp_path]
    command += ["--host", "127.0.0.1", "--port", "0"]
    with running(*command, stderr=subprocess.PIPE, text=True) as process:
        lines = iter(process.stderr.readline, "")
        address = next(found[0] for line in lines if (found := re.findall(r"http://127\.0\.0\.1:\d+/", line)))

        def ask(path):
            with urllib.request.urlopen(address + path) as answer:
                return json.load(answer)

        assert {"train", "validation", "scores", "monitor"} <= set(ask("data/runs"))
        tags = ask("data/plugin/histograms/tags")["monitor"]
        for kind in ("weights/", "gradients/", "activations/"):
            assert [tag for tag in tags if tag.startswith(kind)]
        tag = next(tag for tag in tags if tag.startswith("gradients/") and "conv" in tag)
        place = f"run=monitor&tag={urllib.parse.quote(tag, safe='')}"
        shown = ask(f"data/plugin/histograms/histograms?{place}")
        assert [step for _, step, _ in shown] == monitor.history["step"].tolist()
        counts = sum(count for _, _, count in shown[-1][2])
        assert counts == pytest.approx(monitor.histograms[tag][-1][2:].sum())
        pictures = ask("data/plugin/images/tags")
        assert "confusion" in pictures["scores"]
        assert "first_filters" in pictures["monitor"]
        process.terminate()  # A kill would leave its note for other TensorBoards.
        process.wait(60)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_tensorboard_is_for_this_machine_alone():
    root = Path(__file__).parents[2]
    said = subprocess.run(
        ["make", "-n", "tensorboard", "LOGS=my runs"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    command = [line for line in said.splitlines() if "tensorboard" in line][-1]
    assert "--host 127.0.0.1" in command
    assert "--bind_all" not in command
