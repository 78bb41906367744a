"""What KerasTuner keeps to itself.

Its tuners and oracles are made to be subclassed, but the steps of a trial and the places of
their files have no public names. KerasTuner is not imported here: whoever has a tuner has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def callbacks_of_execution(tuner: Any, callbacks: Any, trial: Any, execution: int) -> list[Any]:
    """Copies of callbacks for one execution of a trial, TensorBoard's writing to a folder of its own.

    KerasTuner does so within `run_trial`, in which all of a trial's executions are one.
    """
    found: list[Any] = tuner._deepcopy_callbacks(callbacks)
    tuner._configure_tensorboard_dir(found, trial, execution)
    return found


def built_model(tuner: Any, values: Any) -> Any:
    """The hypermodel's model for some values, without the `clear_session` of KerasTuner's own trials."""
    return tuner._build_hypermodel(values)


def weights_path(tuner: Any, trial_id: str) -> Path:
    """Where a tuner looks for the weights of a trial's best epoch."""
    return Path(tuner._get_checkpoint_fname(trial_id))


def build_config_path(tuner: Any, trial_id: str) -> Path:
    """Where a tuner looks for the shapes that a trial's model was built with."""
    return Path(tuner._get_build_config_fname(trial_id))


def tuner_path(tuner: Any) -> Path:
    """Where a tuner's own state lies."""
    return Path(tuner._get_tuner_fname())


def oracle_path(oracle: Any) -> Path:
    """Where an oracle's state lies."""
    return Path(oracle._get_oracle_fname())


def trial_path(oracle: Any, trial_id: str) -> Path:
    """Where an oracle looks for a trial."""
    return Path(oracle._get_trial_dir(trial_id)) / "trial.json"


def waiting_trials(oracle: Any) -> list[str]:
    """The live list of trials that an oracle has run again, those at its end first.

    KerasTuner puts failed trials there, and has no way to put one that nobody runs any more.
    """
    found: list[str] = oracle._retry_queue
    return found
