"""How the next trial is chosen: KerasTuner's oracles, made to repeat exactly and to outlive a kill."""

from __future__ import annotations

import hashlib
import math
import warnings
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning

from keras_practice.core.files import replacing
from keras_practice.core.private_api.keras_tuner import oracle_path, trial_path, waiting_trials

_MAX_COLLISIONS = 20


class RandomOracle(keras_tuner.oracles.RandomSearchOracle):
    """Draws each trial from the search's seed and the trial's number alone.

    So a search that is killed and resumed draws what the undisturbed one would
    have drawn, and one hyperparameter's values do not depend on which others
    there are. Its files are replaced whole.

    Source:
        A25; Bergstra and Bengio 2012, "Random search for hyper-parameter optimization".
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a new trial, or the end of the search when the space holds nothing new."""
        tried = {_key(trial.hyperparameters.values) for trial in self.trials.values()}
        space = self.get_space().space
        for attempt in range(_MAX_COLLISIONS):
            drawn = keras_tuner.HyperParameters()
            for parameter in space:
                drawn.merge([parameter])
                if drawn.is_active(parameter):
                    seed = derive_seed(self.seed, trial_id, parameter.name, attempt)
                    drawn.values[parameter.name] = parameter.random_sample(seed)
            if _key(drawn.values) not in tried:
                return {"status": TrialStatus.RUNNING, "values": drawn.values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def reload(self) -> None:
        """Reloads a search; trials that were running when it was killed are run again."""
        super().reload()
        # The trials' own files are written first: they are right where the oracle's lags behind.
        ended = {TrialStatus.COMPLETED, TrialStatus.FAILED}
        waiting_trials(self)[:] = [
            name for name, trial in sorted(self.trials.items(), reverse=True) if trial.status not in ended
        ]
        for name, trial in sorted(self.trials.items()):
            if name not in self.start_order:
                self.start_order.append(name)
            if trial.status in ended and name not in self.end_order:
                self.end_order.append(name)

    def release(self, tuner_id: str) -> None:
        """Takes the trial of a tuner that is gone; the next one to ask is given it."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            waiting_trials(self).append(trial.trial_id)

    def claim(self, tuner_id: str, trial_id: str | None) -> bool:
        """Gives a tuner this very trial, if it waits to be run again."""
        waiting = waiting_trials(self)
        if trial_id not in waiting:
            return False
        waiting.remove(trial_id)
        self.ongoing_trials[tuner_id] = self.trials[trial_id]
        return True

    def discard(self, trial_id: str) -> None:
        """Has a trial that has a result not run again."""
        waiting_trials(self)[:] = [name for name in waiting_trials(self) if name != trial_id]

    def save(self) -> None:
        """Saves the oracle's state."""
        with replacing(oracle_path(self)) as beside:
            super(keras_tuner.Oracle, self).save(str(beside))

    def _save_trial(self, trial: Trial) -> None:
        with replacing(trial_path(self, trial.trial_id)) as beside:
            trial.save(str(beside))


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


def oracle_for(
    search: str, objective: keras_tuner.Objective, *, trials: int, epochs: int, seed: int
) -> keras_tuner.Oracle:
    """The oracle of a way to search, in which no number of failed trials ends the search.

    Args:
        search: `"random"`, `"grid"`, `"hyperband"` or `"bayesian"`.
        objective: The score that trials are judged by.
        trials: Most trials.
        epochs: Most epochs of a trial.
        seed: Fixes the trials.
    """
    options: dict[str, Any] = {
        "objective": objective,
        "max_trials": trials,
        "seed": oracle_seed(seed),
        "max_retries_per_trial": 0,
        "max_consecutive_failed_trials": trials + 1,  # One bad region must not end the search.
    }
    if search == "hyperband":
        return HyperbandOracle(max_epochs=epochs, **options)
    kinds = {"random": RandomOracle, "grid": GridOracle, "bayesian": BayesianOracle}
    return kinds[search](**options)


def oracle_seed(seed: int) -> int:
    """The seed of a search's oracle, never 0, which KerasTuner takes for none."""
    return 1 + derive_seed("search", seed)


def derive_seed(*parts: Any) -> int:
    """A seed below 2**31 that follows from the parts, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _key(values: dict[str, Any]) -> str:
    return repr(sorted(values.items()))
