"""A search whose trials are trained by Ray, on this machine or on a cluster.

The process that was started keeps everything: the folder of the results and its lock, the
choice of trials, table, display, report and best model. Ray Tune asks it for a trial
whenever one can be trained, and has it trained by a process of its own, on any machine of
the cluster, which does what a search without Ray does. It needs no folder in common with
the search: what it writes comes back with the scores.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import pickle
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_practice.core.arguments import check_positive_integer
from keras_practice.tuning.engines.base import RemoteTrials, TrialResult, receive, request_of
from keras_practice.tuning.engines.chief_worker.messages import address_of
from keras_practice.tuning.engines.chief_worker.processes import ServingError
from keras_practice.tuning.reports.display import Display
from keras_practice.tuning.search.recipe_search import RecipeModel, RecipeSearch

# A trial is trained again after so many losses of its process.
_RETRIES = 1
_PATIENCE = 10.0  # Seconds.

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The old one is silent where it is told to be.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Files that nobody reads.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C ends the search as it does without Ray.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A process that is given no GPU sees none; Ray warns where it is not told whether.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


@dataclass(frozen=True)
class OnRay:
    """How a search is run on Ray.

    Attributes:
        workers: Trials at a time, each on a core. Defaults to `None`, as many as there are cores.
        address: Address of a cluster that this machine is part of: `"auto"` or `"host:port"`.
            Defaults to `None`: a Ray of this machine alone is started, and ended with the search.
    """

    workers: int | None = None
    address: str | None = None

    def __str__(self) -> str:
        return "Ray on this machine" if self.address is None else f"Ray at {self.address}"


def on_ray(workers: int | None = None, address: str | None = None, chief: str | None = None) -> OnRay:
    """What `--engine ray` asks for.

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
    with _environment({} if address else _own_cluster()):
        _imported()
    return OnRay(workers, address)


def search_on_ray(search: RecipeSearch, out: Path, display: Display, how: OnRay, total: int) -> None:
    """Runs the trials that are left on Ray; returns when all have ended.

    A trial's scores do not depend on where it is trained. Which trials Hyperband and the
    Bayesian search choose, and where one is pruned, depends on those that have ended by then.

    Args:
        search: The search.
        out: Folder of its results.
        display: What shows how far it is.
        how: How it is run.
        total: Number of trials, if no space ends before.

    Raises:
        ServingError: If there is no cluster at the address, or its processes cannot start.
    """
    left = total - search.ended()
    if left <= 0:
        return
    with _started(how.address, min(left, how.workers or os.cpu_count() or 1)):
        ray, tune = _imported()
        cluster = ray.cluster_resources()
        at_once = min(left, how.workers or max(1, int(cluster.get("CPU", 1))))
        gpu = 0.0 if _hides_gpus() else _share(cluster.get("GPU", 0), at_once)
        with_gpu = f" with {gpu:g} of a GPU" if gpu else ""
        several = "trials" if at_once > 1 else "trial"
        display.note(f"{how}: {at_once} {several} at a time, each on a core{with_gpu}")
        search.oracle.verbose = 0
        _run(ray, tune, search, out, display, at_once, gpu)


def _run(
    ray: Any, tune: Any, search: RecipeSearch, out: Path, display: Display, at_once: int, gpu: float
) -> None:
    model = search.hypermodel
    post = ray.remote(num_cpus=0)(_post_class()).remote()
    suggestions = _suggestions(ray, tune, search, out, post)
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
            callbacks=[_watch(tune, suggestions, display)],
            trial_name_creator=_ticket,
            trial_dirname_creator=_ticket,
            verbose=0,
        )
    if suggestions.error is not None:
        raise suggestions.error


def _suggestions(ray: Any, tune: Any, search: RecipeSearch, out: Path, post: Any) -> Any:
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
            ray.get(post.leave_order.remote(trial_id, pickle.dumps(request_of(search, trial))))
            return {"trial": trial.trial_id, **trial.hyperparameters.values}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            name = self.running.pop(trial_id).trial_id
            try:
                found = ray.get(post.take_outcome.remote(trial_id))
                outcome = pickle.loads(found) if found else _lost()
                receive(search, out, name, outcome)
            except Exception as raised:
                # Ray Tune would take it for the trial's.
                self.error = raised

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the search keeps its own state."""

    return Suggestions()


def _watch(tune: Any, suggestions: Any, display: Display) -> Any:
    """What hears of everything that goes wrong."""

    class Watch(tune.Callback):
        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if suggestions.error is not None:
                raise suggestions.error

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            told = Path(trial.error_file).read_text().strip() if trial.error_file else ""
            if "in its creation task" in told:
                suggestions.error = ServingError(
                    f"A process of Ray's must start. Got {told.splitlines()[-1]}"
                )
                return
            name = suggestions.running[trial.trial_id].trial_id
            display.note(f"the process of trial {name} is gone; the trial is run again")

    return Watch()


def _lost() -> TrialResult:
    """The outcome of a trial of which nothing has come back."""
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
            order = ray.get(self._post.order.remote(self.trial_id))
            outcome = self._trials.train(pickle.loads(order))
            ray.get(self._post.leave_outcome.remote(self.trial_id, pickle.dumps(outcome)))
            return {"done": True}

        def cleanup(self) -> None:
            shutil.rmtree(self._folder, ignore_errors=True)

    return RecipeTrial


def _post_class() -> Any:
    """Where orders and outcomes wait: in a process of Ray's that outlives those that train.

    It knows nothing but bytes, so that it has no need of TensorFlow.
    """

    class Post:
        def __init__(self) -> None:
            self._orders: dict[str, bytes] = {}
            self._outcomes: dict[str, bytes] = {}

        def leave_order(self, ticket: str, order: bytes) -> None:
            self._orders[ticket] = order

        def order(self, ticket: str) -> bytes:
            return self._orders[ticket]

        def leave_outcome(self, ticket: str, outcome: bytes) -> None:
            self._outcomes[ticket] = outcome

        def take_outcome(self, ticket: str) -> bytes | None:
            del self._orders[ticket]
            return self._outcomes.pop(ticket, None)

    return Post


def _ticket(trial: Any) -> str:
    return str(trial.trial_id)


def _share(gpus: float, at_once: int) -> float:
    """What a trial gets of a GPU, the same for all at a time."""
    return math.floor(10_000 / math.ceil(at_once / gpus)) / 10_000 if gpus else 0.0


def _hides_gpus() -> bool:
    """Whether this program was told to leave its GPUs alone."""
    return len(tf.config.get_visible_devices("GPU")) < len(tf.config.list_physical_devices("GPU"))


def _imported() -> tuple[Any, Any]:
    try:
        import ray
        from ray import tune
    except ImportError as error:
        raise ValueError(
            f"Ray Tune must be installed: pip install 'keras-practice[ray]'. Got {error}."
        ) from error
    return ray, tune


@contextlib.contextmanager
def _started(address: str | None, cores: int) -> Iterator[None]:
    """Ray while the block runs; that of a program which has one already is left as it is.

    A Ray of this machine alone listens on the loopback interface alone, sends no statistics,
    and takes its files with it.
    """
    with _environment(_ENVIRONMENT | ({} if address else _own_cluster())), contextlib.ExitStack() as held:
        ray, _ = _imported()
        if not ray.is_initialized():
            where: dict[str, Any] = {"address": address}
            if address is None:
                folder = held.enter_context(_short_folder())
                where = {"num_cpus": cores, "include_dashboard": False, "_temp_dir": folder}
            else:
                _knock(address)
            held.enter_context(_quiet(ray))
            handler = signal.getsignal(signal.SIGTERM)
            held.callback(_end_by, handler)
            held.callback(ray.shutdown)
            try:
                ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **where)
            except Exception as error:  # Ray raises half a dozen kinds.
                told = " ".join(str(error).split())
                raise ServingError(
                    f"Ray must start here, or run at the address given. Got {type(error).__name__}: {told}"
                ) from error
            _end_by(handler)
        yield


def _knock(address: str) -> None:
    """Refuses at once where nobody answers: Ray tries for minutes.

    Raises:
        ServingError: If nobody does.
    """
    if address == "auto":
        return
    try:
        socket.create_connection(address_of(address), _PATIENCE).close()
    except OSError as error:
        raise ServingError(f"A Ray cluster must be at {address}. Got {error.strerror or error}.") from None


def _end_by(handler: Any) -> None:
    """Has this program end at a SIGTERM as it did before: Ray has it abort."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _own_cluster() -> dict[str, str]:
    """Settings for a Ray that nobody else can use: looked at as it is imported, and as it starts."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
        # Else Ray writes one into the home folder.
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN", _token()),
    }


@functools.cache
def _token() -> str:
    return secrets.token_hex(32)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    # Ray sets the last two by itself.
    before = {name: os.environ.get(name) for name in (*values, "PYTHONBREAKPOINT", "RAY_CLIENT_MODE")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """A folder for Ray's files; sockets are among them, whose paths may have a hundred letters."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Holds back what Ray says of processes that die, whatever it was told; the search says it itself."""
    worker = ray._private.worker
    name = "print_to_stdstream"
    printing = getattr(worker, name, None)
    setattr(worker, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(worker, name, printing)
