"""KerasTuner's other ways to choose the next trial, made to resume as the random one does."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus
from sklearn.exceptions import ConvergenceWarning

from keras_practice.tuning.search.random_oracle import RandomOracle


class BayesianOracle(RandomOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process, after random trials that are those of the random search.

    Source:
        Snoek, Larochelle and Adams 2012, "Practical Bayesian optimization of machine learning algorithms".
    """

    def __init__(self, **options: Any) -> None:
        keras_tuner.oracles.BayesianOptimizationOracle.__init__(self, **options)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a new trial, or the end of the search when the space holds nothing new."""
        completed = sum(trial.status == TrialStatus.COMPLETED for trial in self.trials.values())
        if completed < max(3, len(self.get_space().space)):
            return super().populate_space(trial_id)
        with warnings.catch_warnings():
            # A process of few trials often ends at a bound of its kernel, which is no news to the user.
            warnings.simplefilter("ignore", ConvergenceWarning)
            proposed: dict[str, Any] = keras_tuner.oracles.BayesianOptimizationOracle.populate_space(
                self, trial_id
            )
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        # Where all is choices, the process may propose again what it has seen.
        return super().populate_space(trial_id) if proposed["values"] in tried else proposed


class HyperbandOracle(RandomOracle, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband, begun again until there have been `max_trials` trials.

    Args:
        max_trials: Most trials.
        max_epochs: Epochs of a trial that goes through all rounds.
        **options: As in `keras_tuner.oracles.HyperbandOracle`.

    Source:
        Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter optimization".
    """

    def __init__(self, *, max_trials: int, max_epochs: int, **options: Any) -> None:
        keras_tuner.oracles.HyperbandOracle.__init__(
            self, max_epochs=max_epochs, hyperband_iterations=max_trials, **options
        )
        self.max_trials = max_trials

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a new trial, with the epochs that it is given."""
        found: dict[str, Any] = keras_tuner.oracles.HyperbandOracle.populate_space(self, trial_id)
        return found


class GridOracle(RandomOracle):
    """All combinations of choices, the last one's values changing first.

    KerasTuner's own ends when it is resumed, since its place in the grid is not
    saved; here the trial's number is the place.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The combination of the trial's number, or the end of the search."""
        space = self.get_space().space
        sizes = [len(parameter.values) for parameter in space]
        place, values = int(trial_id), dict[str, Any]()
        if place >= math.prod(sizes):
            return {"status": TrialStatus.STOPPED, "values": None}
        for parameter, size in zip(reversed(space), reversed(sizes), strict=True):
            place, at = divmod(place, size)
            values[parameter.name] = parameter.values[at]
        ordered = {parameter.name: values[parameter.name] for parameter in space}
        return {"status": TrialStatus.RUNNING, "values": ordered}


def oracle_for(search: str, like: keras_tuner.Oracle, epochs: int) -> keras_tuner.Oracle:
    """The oracle of a way to search, with all that another one was given.

    Args:
        search: `"random"`, `"grid"`, `"hyperband"` or `"bayesian"`.
        like: A fresh oracle, whose objective, seed and limits it takes over.
        epochs: Most epochs of a trial.
    """
    if search == "random":
        return like
    options = {
        "objective": like.objective,
        "max_trials": like.max_trials,
        "seed": like.seed,
        "max_retries_per_trial": like.max_retries_per_trial,
        "max_consecutive_failed_trials": like.max_consecutive_failed_trials,
    }
    if search == "hyperband":
        return HyperbandOracle(max_epochs=epochs, **options)
    return BayesianOracle(**options) if search == "bayesian" else GridOracle(**options)


class OracleChooser(keras_tuner.Tuner):
    """Stands between a tuner with an oracle of its own and KerasTuner's, and puts another in its place."""

    def __init__(self, oracle: Any, hypermodel: Any = None, *, strategy: str, epochs: int, **kwargs: Any):
        super().__init__(oracle_for(strategy, oracle, epochs), hypermodel, **kwargs)
