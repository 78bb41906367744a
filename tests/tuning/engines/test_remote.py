"""What goes to another process and comes back."""

import pickle

import keras_tuner
import pytest
from run_tables import close_to, files_of, read

from keras_practice.tuning import Settings
from keras_practice.tuning.engines.remote import RemoteTrials, receive, request_of
from keras_practice.tuning.search.preparation import prepared
from keras_practice.tuning.search.recipe_model import RecipeModel
from keras_practice.tuning.search.recipe_search import RecipeSearch

SMALL = {"data": "iris", "recipe": "linear"}


def elsewhere(search, out, far):
    """Runs a search as Ray does, but for Ray: everything goes there and back as bytes."""
    model, orders = search.hypermodel, []
    trainer = RemoteTrials(RecipeModel(model.dataset, model.settings, model.objective, model.draw), far)
    while (trial := search.oracle.create_trial(f"ticket{len(orders)}")).status != "STOPPED":
        order = pickle.dumps(request_of(search, trial))
        orders.append(pickle.loads(order))
        outcome = pickle.dumps(trainer.train(pickle.loads(order)))
        receive(search, out, trial.trial_id, pickle.loads(outcome))
    return orders


def both_ways(settings, folder, space=None):
    """The rows of a search here and of the same one elsewhere, by trial, and what was ordered."""
    rows, orders = [], []
    for name in ("here", "there"):
        model = prepared(settings, space).model
        search = RecipeSearch(model, folder / name)
        if name == "here":
            search.search(verbose=0)
        else:
            orders = elsewhere(search, folder / name, folder / "far")
        rows.append(read(folder / name))
    assert rows[1] == close_to(rows[0])
    assert files_of(folder / "there") == files_of(folder / "here")
    assert [path for path in (folder / "far").rglob("trial_*") if any(path.iterdir())] == []
    return rows[1], orders


def test_hyperbands_trials_from_elsewhere_go_on_from_those_before(tmp_path):
    settings = Settings(**SMALL, trials=4, epochs=3, space="none", search="hyperband", batch_size=32)
    _, orders = both_ways(settings, tmp_path)
    assert any(order.before for order in orders)


def test_trials_from_elsewhere_are_pruned_and_fail_as_here(tmp_path):
    rates = "learning_rate=choice:0.01,0.02,0.03,0.05,1e-6,1e38"
    settings = Settings(
        **SMALL, trials=6, epochs=2, space="none", search="grid", prune=True, set=(rates,), batch_size=32
    )
    rows, _ = both_ways(settings, tmp_path)
    statuses = [row["status"] for row in rows.values()]
    assert sorted(statuses) == [*["COMPLETED"] * 4, "FAILED", "PRUNED"]


def test_of_several_trainings_no_model_is_sent(tmp_path):
    settings = Settings(**SMALL, trials=1, epochs=1, folds=2, space="none", batch_size=32)
    rows, _ = both_ways(settings, tmp_path)
    assert rows["0"]["val_f1_std"] > 0
    assert not [name for name in files_of(tmp_path / "there") if "checkpoint" in name]


def test_a_model_that_asks_for_more_there_widens_the_space_here(tmp_path):
    def draw(hp):
        wide = hp.Choice("wide", [False, True])
        return {"l2": hp.Float("l2", 0.1, 1.0) if wide else 0.0}

    rows, _ = both_ways(Settings(**SMALL, trials=4, epochs=1), tmp_path, draw)
    assert {row["l2"] for row in rows.values()} - {"", 0.1}


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_error_that_ends_a_search_here_ends_it_from_there(where, tmp_path, monkeypatch):
    def fatal(self, *args, **kwargs):
        raise keras_tuner.errors.FatalTypeError("no model")

    monkeypatch.setattr(RecipeModel, "fit", fatal)
    settings = Settings(**SMALL, trials=2, epochs=1)
    model = prepared(settings).model
    search = RecipeSearch(model, tmp_path / "run")
    with pytest.raises(keras_tuner.errors.FatalError, match="no model"):
        search.search(verbose=0) if where == "here" else elsewhere(search, tmp_path / "run", tmp_path / "far")
