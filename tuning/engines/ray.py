"""The engine whose trials are trained by Ray, on this machine or on a cluster.

The process that was started keeps everything: the folder of the results and its lock, the
choice of trials, table, display, report and best model. Ray Tune asks it for a trial
whenever one can be trained, and has it trained by a process of its own, on any machine of
the cluster, which does what a search without Ray does. It needs no folder in common with
the search: what it writes comes back with the scores.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from keras_practice.core.arguments import check_positive_integer
from keras_practice.tuning.engines import ray_cluster
from keras_practice.tuning.engines.addresses import address_of
from keras_practice.tuning.engines.base import Engine, EngineError
from keras_practice.tuning.engines.remote import RemoteTrials, TrialResult, receive, request_of
from keras_practice.tuning.progress import Progress
from keras_practice.tuning.search.recipe_model import RecipeModel
from keras_practice.tuning.search.recipe_search import RecipeSearch

# A trial is trained again after so many losses of its process.
_RETRIES = 1


@dataclass(frozen=True)
class OnRay(Engine):
    """Ray: each trial on a core, with its share of a GPU.

    Attributes:
        workers: Trials at a time, each on a core. Defaults to `None`, as many as there are cores.
        address: Address of a cluster that this machine is part of: `"auto"` or `"host:port"`.
            Defaults to `None`: a Ray of this machine alone is started, and ended with the search.
    """

    workers: int | None = None
    address: str | None = None

    trains_elsewhere = True

    def __str__(self) -> str:
        return "Ray on this machine" if self.address is None else f"Ray at {self.address}"

    def run(self, search: RecipeSearch, folder: Path, progress: Progress, total: int) -> None:
        """Runs the trials that are left on Ray; returns when all have ended.

        Args:
            search: The search.
            folder: Folder of its results.
            progress: What hears how far it is.
            total: Number of trials, if no space ends before.

        Raises:
            EngineError: If there is no cluster at the address, or its processes cannot start.
        """
        left = total - search.ended()
        if left <= 0:
            return
        with ray_cluster.started(self.address, min(left, self.workers or os.cpu_count() or 1)):
            ray, tune = ray_cluster.imported()
            cluster = ray.cluster_resources()
            at_once = min(left, self.workers or max(1, int(cluster.get("CPU", 1))))
            gpu = 0.0 if ray_cluster.hides_gpus() else ray_cluster.share_of(cluster.get("GPU", 0), at_once)
            with_gpu = f" with {gpu:g} of a GPU" if gpu else ""
            several = "trials" if at_once > 1 else "trial"
            progress.note(f"{self}: {at_once} {several} at a time, each on a core{with_gpu}")
            _run(ray, tune, search, folder, progress, at_once, gpu)


def engine(workers: int | None = None, chief: str | None = None, address: str | None = None) -> Engine:
    """What `--engine ray` asks for.

    Args:
        workers: Trials at a time. Defaults to `None`, as many as there are cores.
        chief: An address to hand trials out at, which Ray has no use for.
        address: Address of a cluster. Defaults to `None`, a Ray of this machine alone.

    Raises:
        ValueError: If it is wrong, or Ray is not installed.
    """
    if workers is not None:
        workers = check_positive_integer("workers", workers)
    if chief is not None:
        raise ValueError(f"Ray hands the trials out by itself, without a chief. Got chief {chief}.")
    if address is not None and "://" in address:
        # Behind one of Ray's clients, Ray Tune would have the search run on the cluster.
        raise ValueError(
            f"A Ray address must be auto or HOST:PORT, as seen on a machine of the cluster. Got {address}."
        )
    if address not in (None, "auto"):
        address_of(str(address))
    with ray_cluster.environment({} if address else ray_cluster.own_cluster()):
        ray_cluster.imported()
    return OnRay(workers, address)


def _run(
    ray: Any, tune: Any, search: RecipeSearch, folder: Path, progress: Progress, at_once: int, gpu: float
) -> None:
    model = search.hypermodel
    post = ray.remote(num_cpus=0)(_post_class()).remote()
    suggestions = _suggestions(ray, tune, search, folder, post)
    parts = model.dataset, model.settings, model.objective, model.draw
    with tempfile.TemporaryDirectory(prefix="ray-tune-") as storage, contextlib.ExitStack() as held:
        held.callback(ray.kill, post)
        # Not `tune.Tuner`, which pickles the suggestions, and with them the search.
        tune.run(
            tune.with_parameters(_trainable_class(ray, tune), parts=parts, post=post),
            name="search",
            search_alg=suggestions,
            num_samples=-1,  # The suggestions end by themselves.
            max_concurrent_trials=at_once,
            resources_per_trial={"cpu": 1, "gpu": gpu},
            reuse_actors=True,
            max_failures=_RETRIES,
            raise_on_failed_trial=False,
            storage_path=storage,
            callbacks=[_watch(tune, suggestions, progress)],
            trial_name_creator=_ticket,
            trial_dirname_creator=_ticket,
            verbose=0,
        )
    if suggestions.error is not None:
        raise suggestions.error


def _suggestions(ray: Any, tune: Any, search: RecipeSearch, folder: Path, post: Any) -> Any:
    """The search as Ray Tune sees it, which knows a trial by a ticket of its own making.

    The class is made here since its base is not there without Ray; so are those below.
    """

    class Suggestions(tune.search.Searcher):
        def __init__(self) -> None:
            super().__init__()
            self.running: dict[str, Trial] = {}
            self.error: Exception | None = None

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            trial = search.oracle.create_trial(trial_id)
            if trial.status == TrialStatus.STOPPED:
                return str(self.FINISHED)
            if trial.status == TrialStatus.IDLE:
                return None
            self.running[trial_id] = trial
            ray.get(post.leave_request.remote(trial_id, pickle.dumps(request_of(search, trial))))
            return {"trial": trial.trial_id, **trial.hyperparameters.values}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            name = self.running.pop(trial_id).trial_id
            try:
                found = ray.get(post.take_result.remote(trial_id))
                came = pickle.loads(found) if found else _lost()
                receive(search, folder, name, came)
            except Exception as raised:
                # Ray Tune would take it for the trial's.
                self.error = raised

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the search keeps its own state."""

    return Suggestions()


def _watch(tune: Any, suggestions: Any, progress: Progress) -> Any:
    """What hears of everything that goes wrong."""

    class Watch(tune.Callback):
        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if suggestions.error is not None:
                raise suggestions.error

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            told = Path(trial.error_file).read_text().strip() if trial.error_file else ""
            if "in its creation task" in told:
                suggestions.error = EngineError(f"A process of Ray's must start. Got {told.splitlines()[-1]}")
                return
            name = suggestions.running[trial.trial_id].trial_id
            progress.note(f"the process of trial {name} is gone; the trial is run again")

    return Watch()


def _lost() -> TrialResult:
    """The result of a trial of which nothing has come back."""
    told = f"its process was lost {_RETRIES + 1} times, as happens where memory runs out or a machine fails"
    return TrialResult({"status": TrialStatus.FAILED, "message": told})


def _trainable_class(ray: Any, tune: Any) -> Any:
    """What a process of Ray's does; it gets the class as it is here."""

    class RecipeTrial(tune.Trainable):
        def setup(self, config: dict[str, Any], parts: tuple[Any, ...], post: Any) -> None:
            # Else the first trial takes all of the GPU's memory.
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
            self._post = post
            self._folder = tempfile.mkdtemp(dir=self.logdir)
            self._trials = RemoteTrials(RecipeModel(*parts), Path(self._folder))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            """The process goes on to another trial."""
            return True

        def step(self) -> dict[str, Any]:
            request = ray.get(self._post.request.remote(self.trial_id))
            came = self._trials.train(pickle.loads(request))
            ray.get(self._post.leave_result.remote(self.trial_id, pickle.dumps(came)))
            return {"done": True}

        def cleanup(self) -> None:
            shutil.rmtree(self._folder, ignore_errors=True)

    return RecipeTrial


def _post_class() -> Any:
    """Where requests and results wait: in a process of Ray's that outlives those that train.

    It knows nothing but bytes, so that it has no need of TensorFlow.
    """

    class Post:
        def __init__(self) -> None:
            self._requests: dict[str, bytes] = {}
            self._results: dict[str, bytes] = {}

        def leave_request(self, ticket: str, request: bytes) -> None:
            self._requests[ticket] = request

        def request(self, ticket: str) -> bytes:
            return self._requests[ticket]

        def leave_result(self, ticket: str, result: bytes) -> None:
            self._results[ticket] = result

        def take_result(self, ticket: str) -> bytes | None:
            del self._requests[ticket]
            return self._results.pop(ticket, None)

    return Post


def _ticket(trial: Any) -> str:
    return str(trial.trial_id)
