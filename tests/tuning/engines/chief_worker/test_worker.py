import json
import re
import threading

import keras
import numpy as np
import pytest
from run_tables import close_to, read

from keras_practice.tuning import InputError, Settings, tune
from keras_practice.tuning.engines.addresses import LOOPBACK, free_port
from keras_practice.tuning.engines.chief_worker import client as client_module
from keras_practice.tuning.engines.chief_worker.messages import versions
from keras_practice.tuning.engines.chief_worker.worker import join
from keras_practice.tuning.search.recipe_search import RecipeSearch


class Running:
    """A chief in a thread of this process, until whose end the block waits."""

    def __init__(self, out, settings, **options):
        self.port, self.done = free_port(LOOPBACK, 0), None
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
        self.done = tune(*self._arguments, **self._options)


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A folder with a run on one process and one on a worker, and what those were told that do not fit."""
    folder, told = tmp_path_factory.mktemp("joined"), []
    rng = np.random.default_rng(0)
    for name in ("here", "there"):
        np.savez(folder / f"{name}.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 2)

    def refused(address, **options):
        with pytest.raises(InputError) as error:
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
    assert tune(settings, folder / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecipeSearch, "train_anew", lambda *_: pytest.fail("a model was trained again"))
        with Running(folder / "two", settings) as chief:
            address = "127.0.0.1", chief.port
            refused(address, data=str(folder / "there.npz"))
            with pytest.MonkeyPatch.context() as older:
                older.setattr(client_module, "versions", lambda: {**versions(), "keras": "3.0.0"})
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
