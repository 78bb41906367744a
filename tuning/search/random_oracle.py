"""KerasTuner's random oracle, made to repeat exactly and to outlive a kill."""

from __future__ import annotations

import hashlib
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_practice.core.files import replacing

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
        self._retry_queue = [
            name for name, trial in sorted(self.trials.items(), reverse=True) if trial.status not in ended
        ]
        for name, trial in sorted(self.trials.items()):
            if name not in self.start_order:
                self.start_order.append(name)
            if trial.status in ended and name not in self.end_order:
                self.end_order.append(name)

    def give_back(self, tuner_id: str) -> None:
        """Takes the trial of a tuner that is gone; the next one to ask is given it."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self._retry_queue.append(trial.trial_id)

    def take_up(self, tuner_id: str, trial_id: str | None) -> bool:
        """Gives a tuner this very trial, if it waits to be run again."""
        if trial_id not in self._retry_queue:
            return False
        self._retry_queue.remove(trial_id)
        self.ongoing_trials[tuner_id] = self.trials[trial_id]
        return True

    def drop(self, trial_id: str) -> None:
        """Has a trial that has a result not run again."""
        self._retry_queue = [name for name in self._retry_queue if name != trial_id]

    def save(self) -> None:
        """Saves the oracle's state."""
        with replacing(self._get_oracle_fname()) as beside:
            super(keras_tuner.Oracle, self).save(str(beside))

    def _save_trial(self, trial: Trial) -> None:
        with replacing(f"{self._get_trial_dir(trial.trial_id)}/trial.json") as beside:
            trial.save(str(beside))


def derive_seed(*parts: Any) -> int:
    """A seed below 2**31 that follows from the parts, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _key(values: dict[str, Any]) -> str:
    return repr(sorted(values.items()))
