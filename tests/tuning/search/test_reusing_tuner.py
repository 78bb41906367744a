import keras
import keras_tuner
import pytest
from shared import reused

from keras_practice import data, recipes
from keras_practice.tuning.search.reusing_tuner import ReusingTuner

IRIS = data.load("iris")
FIT = {
    "x": IRIS.train.x,
    "y": IRIS.train.y,
    "validation_data": (IRIS.val.x, IRIS.val.y),
    "epochs": 2,
    "verbose": 0,
}


@pytest.fixture(scope="module", autouse=True)
def shared_graphs():
    """Each search begins without any graph, as what it shares is looked at."""


def build(hp):
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=(4,), dropout=0.1)
    rate = hp.Choice("learning_rate", [1e-3, 1e-2, 3e-2])
    return recipes.compile_for(model, IRIS.task, learning_rate=rate)


@reused
def plain():
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=(4,), dropout=0.1)
    return recipes.compile_for(model, IRIS.task, steps_per_execution=1)


def plain_losses(hp, seed):
    """The validation losses of Keras's own `fit`, from what a model of this seed begins with."""
    model = plain()
    keras.utils.set_random_seed(seed)
    built = build(hp)
    for variable, first in zip(model.variables, built.variables, strict=True):
        variable.assign(first)
    model.optimizer.learning_rate = float(built.optimizer.learning_rate)
    return model.fit(**FIT).history["val_loss"]


@pytest.mark.parametrize("kind", ["RandomSearchOracle", "GridSearchOracle", "BayesianOptimizationOracle"])
def test_trials_of_any_oracle_share_graphs_and_score_what_plain_fit_does(kind, tmp_path):
    objective = keras_tuner.Objective("val_loss", "min")
    oracle = getattr(keras_tuner.oracles, kind)(objective=objective, max_trials=3, seed=1)
    oracle.verbose = 0
    tuner = ReusingTuner(oracle, build, directory=str(tmp_path), project_name="search")
    traced = []
    end = tuner.on_trial_end
    tuner.on_trial_end = lambda trial: (end(trial), traced.append(tuner._cache.has_models()))
    tuner.search(**FIT)
    assert traced == [True] * 3
    assert [trial.status for trial in oracle.trials.values()] == ["COMPLETED"] * 3
    for trial in oracle.trials.values():
        losses = plain_losses(trial.hyperparameters, tuner.trial_seed(trial))
        assert trial.score == pytest.approx(min(losses), rel=1e-4)
        assert trial.metrics.get_best_value("best_epoch") == 1 + losses.index(min(losses))
