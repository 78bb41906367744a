import pytest

from keras_practice.tuning import Choice, Settings, Space
from keras_practice.tuning.search.preparation import prepared


@pytest.mark.parametrize(
    ("objective", "data", "way"),
    [
        *((f"val_{score}", "iris", "max") for score in ("f1", "precision", "recall", "auc", "accuracy")),
        *((f"val_coverage{more}", "iris", "max") for more in ("", "_accuracy")),
        *((name, "iris", "min") for name in ("val_loss", "loss")),
        ("val_r2", "diabetes", "max"),
        *((f"val_{score}", "diabetes", "min") for score in ("mae", "rmse", "loss")),
    ],
)
def test_any_score_of_the_callbacks_is_an_objective(objective, data, way):
    found = prepared(Settings(data=data, recipe="linear", objective=objective)).model.objective
    assert (found.name, found.direction) == (objective, way)


def test_a_space_of_ones_own_is_part_of_what_makes_it_this_search():
    settings = Settings(data="iris", recipe="linear")
    plain = prepared(settings).identity()
    assert plain == settings.as_json() | {"data_sha256": None}
    space = Space({"l2": Choice((0.0, 0.1))})
    assert prepared(settings, space).identity() == plain | {"own_space": "l2 one of 0, 0.1"}


@pytest.mark.parametrize(("search", "total"), [("random", 7), ("grid", 6)])
def test_a_grid_has_as_many_trials_as_points(search, total):
    space = Space({"l2": Choice((0.0, 0.1)), "learning_rate": Choice((0.1, 0.01, 0.001))})
    found = prepared(Settings(data="iris", recipe="linear", search=search, trials=7), space)
    assert found.total == total
