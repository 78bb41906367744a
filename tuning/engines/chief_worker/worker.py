"""A worker of a search: joins its chief, and trains one trial after another for it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_practice.core.errors import InputError
from keras_practice.training.tracing import quiet_tracing
from keras_practice.tuning.engines.chief_worker.client import Client, LostError, RefusedError
from keras_practice.tuning.engines.remote import RemoteTrials, TrialRequest
from keras_practice.tuning.search.preparation import fingerprint, prepared
from keras_practice.tuning.search.recipe_model import RecipeModel
from keras_practice.tuning.search.reusing_tuner import one_model_after_another
from keras_practice.tuning.settings import Settings

_SECONDS_A_WORD = 0.5  # Between two words of a trial's progress.
# What gRPC takes in one message, with room to spare; a model beyond that is trained anew by the chief.
_MAX_BYTES = 2**30


def join(
    address: tuple[str, int],
    *,
    wait: float = 600.0,
    data: str | None = None,
    data_path: str | None = None,
    number: int | None = None,
) -> int:
    """Trains trials for a chief until the search is over.

    What is searched comes from the chief, and all that a trial has written goes to
    it, so that the two need no folder in common.

    Args:
        address: Host and port of the chief.
        wait: Seconds that the chief is waited for, at first and whenever it is
            gone. Defaults to `600.0`.
        data: Where a data file of your own is here. Defaults to `None`, where the
            chief has it.
        data_path: Likewise the local file of `mnist` and the like.
        number: Which of the chief's own processes this is. Defaults to `None`, none.

    Returns:
        The exit code: 0 when the search is over, 1 when the chief stays away.

    Raises:
        InputError: If the chief cannot be reached or will not have this worker, or
            the data are not the same.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # The GPU may be shared.
    client = Client(address, wait if number is None else 0.0, number)
    count = 0
    try:
        model = _model(client.open(), data, data_path)
        _say(f"joined {client.place}: {model.settings.recipe} on {model.dataset.name}")
        with tempfile.TemporaryDirectory(prefix="keras-practice-") as folder:
            count = _work(client, model, Path(folder))
    except RefusedError as error:
        raise InputError(str(error)) from error
    except (LostError, SystemExit):
        if not client.reason:
            raise
    finally:
        client.leave()
        client.close()
    if client.reason:
        _say(client.reason, sys.stderr)
        return 1
    _say(f"the search is over; trained here: {count}")
    return 0


def _model(facts: Mapping[str, Any], data: str | None, data_path: str | None) -> RecipeModel:
    """The recipe that the chief searches over, on the same data."""
    given = facts["settings"]
    settings = Settings(**{**given, "learning_rate": tuple(given["learning_rate"])})
    if data is not None:
        settings = replace(settings, data=data)
    if data_path is not None:
        settings = replace(settings, data_path=data_path)
    try:
        if (here := fingerprint(settings)) != facts["data_sha256"]:
            raise ValueError(
                "Chief and worker must have the same data. "
                + (f"Got another file {settings.data_path or settings.data}." if here else "Got no file.")
            )
        return prepared(settings).model
    except (ValueError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from error


def _work(client: Client, model: RecipeModel, folder: Path) -> int:
    """Trains what the chief hands out; returns how many trials that were."""
    count = 0
    with warnings.catch_warnings(), quiet_tracing(), one_model_after_another():
        # Keras loads weights before it has the optimiser's variables, which are not needed.
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        trials = _Trials(model, folder, client)
        while not (answer := client.ask("create")).get("over"):
            if "order" not in answer:
                continue  # There was none to be had yet.
            client.trial = answer["order"]["trial"]["trial_id"]
            try:
                came = trials.train(TrialRequest(**answer["order"]))
            except _Unwanted:
                continue
            files = dict(came.files)
            while sum(map(len, files.values())) > _MAX_BYTES:
                del files[max(files, key=lambda path: len(files[path]))]
            client.ask("report", files, trial=client.trial, result=came.result, fatal=came.fatal)
            client.trial = None
            count += 1
    return count


class _Unwanted(BaseException):
    """A trial that another worker has finished in the meantime; nothing that a trial may take for its own."""


class _Trials(RemoteTrials):
    """Trials whose progress the chief hears of."""

    def __init__(self, model: RecipeModel, folder: Path, client: Client) -> None:
        super().__init__(model, folder)
        self._client, self._last = client, 0.0

    def on_epoch_end(self, trial: Any, model: Any, epoch: int, logs: Any = None) -> None:
        """Says that an epoch has ended, and hears whether the trial is still wanted."""
        super().on_epoch_end(trial, model, epoch, logs=logs)
        now = time.monotonic()
        if now - self._last < _SECONDS_A_WORD:
            return
        self._last = now
        done = self._part * self._settings.epochs + epoch + 1
        if self._client.tell("progress", trial=trial.trial_id, epochs=done).get("wanted") is False:
            raise _Unwanted


def _say(text: str, file: Any = None) -> None:
    print(text, file=file or sys.stdout, flush=True)
