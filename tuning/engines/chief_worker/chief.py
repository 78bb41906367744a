"""The chief of a search: hands its trials out to workers, and takes their results."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import grpc  # type: ignore[import-untyped]
from keras_tuner.engine.trial import TrialStatus

from keras_practice.tuning.engines.chief_worker.messages import different, versions
from keras_practice.tuning.engines.chief_worker.processes import KILLED, Processes
from keras_practice.tuning.engines.remote import TrialResult, receive, request_of
from keras_practice.tuning.progress import Progress
from keras_practice.tuning.search.recipe_search import RecipeSearch

# How often a trial may take its worker with it before it counts as failed. Where somebody kills workers
# at random the trial is not to blame; where nobody knows, every loss may cost a machine.
_MOST = {"fault": 2, "lost": 3, "killed": 20}
_PATIENCE = 20.0  # Seconds that a worker is kept waiting for a trial before it has to ask again.
_LONGEST_HOST = 64
_RESULTS = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class MessageError(Exception):
    """A message that no worker of this version sends."""


@dataclass
class _Worker:
    """One that holds its stream open."""

    host: str
    own: int | None  # Which of the chief's own it is.
    process: int
    wake: threading.Event = field(default_factory=threading.Event)
    trial: str | None = None
    epochs: int = 0
    memory_kills: int = 0
    leaving: bool = False
    gone: bool = False

    def name(self, number: str) -> str:
        """How the user is told of it."""
        return f"worker {number} on {self.host}" if self.own is None else f"worker {self.own}"


class Chief:
    """Answers workers; everything that they ask for is a method with the same name.

    Args:
        search: The search.
        folder: Folder of the results.
        progress: What hears how far it is.
        total: Number of trials, if no space ends before.
        facts: What workers are told when they join.
        processes: Those that the chief has started itself.

    Attributes:
        error: What has ended the search before its time.
    """

    def __init__(
        self,
        search: RecipeSearch,
        folder: Path,
        progress: Progress,
        total: int,
        facts: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        self._search, self._folder, self._progress, self._total = search, folder, progress, total
        self._processes = processes
        self._facts, self._versions = dict(facts), versions()
        self._numbers = map(str, itertools.count(1))
        self._workers: dict[str, _Worker] = {}
        self._deaths: Counter[tuple[str, str]] = Counter()
        # One at a time: the oracle, the table and the display are not made for threads.
        self._turn = threading.Condition()
        self._over, self._done = False, threading.Event()
        self.error: BaseException | None = None

    def is_done(self, seconds: float) -> bool:
        """Whether all trials have ended, or an error has ended the search; waits for that so long."""
        return self._done.wait(seconds)

    def join(self, message: Mapping[str, Any], context: grpc.ServicerContext) -> Iterator[dict[str, Any]]:
        """Tells a worker of the search, and then of its end; the stream lasts as long as the worker."""
        theirs = message.get("versions")
        if differences := different(self._versions, theirs if isinstance(theirs, dict) else {}):
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Chief and worker must have the same versions. Got {differences}.",
            )
        host = "".join(filter(str.isprintable, _text(message, "host")))[:_LONGEST_HOST]
        own, process = message.get("own"), message.get("process")
        if not isinstance(process, int) or not isinstance(own, int | None):
            raise MessageError(f"A process must have a number. Got {process!r}, {own!r}.")
        worker = _Worker(host, own, process)
        if not context.add_callback(worker.wake.set):
            return  # It is gone already.
        with self._turn:
            number = next(self._numbers)
            self._workers[number] = worker
            if self._search.oracle.claim(number, message.get("trial")):
                worker.trial = message["trial"]  # It went on with it while the chief was away.
            worker.memory_kills = _memory_kills()
            if worker.own is None:
                self._progress.note(f"{worker.name(number)} has joined")
            else:
                self._processes.joined(worker.process)
            if self._done.is_set():
                worker.wake.set()
        try:
            yield {**self._facts, "worker": number}
            worker.wake.wait()
            if self._over:
                yield {"over": True}
        finally:
            self._lose(number)

    def create(self, message: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        """A trial to run; or that there is none yet, or none any more."""
        number = _text(message, "worker")
        with self._turn:
            worker = self._workers.get(number)
            if worker is None or worker.gone:
                return {"unknown": True}
            trial = self._search.oracle.create_trial(number)
            if trial.status != TrialStatus.RUNNING:
                if trial.status == TrialStatus.STOPPED and not any(
                    other.trial for other in self._workers.values()
                ):
                    self._end()
                else:
                    # The trial of another may yet come back, or hyperband's next round begin.
                    self._turn.wait(_PATIENCE)
                return {"over": True} if self._over else {"idle": True}
            worker.trial, worker.epochs, worker.memory_kills = trial.trial_id, 0, _memory_kills()
            return {"order": asdict(request_of(self._search, trial))}

    def progress(self, message: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        """Takes note of how many epochs of a trial are done; says whether its result is still wanted."""
        name, epochs = _text(message, "trial"), message.get("epochs")
        with self._turn:
            worker = self._workers.get(_text(message, "worker"))
            if worker is not None and worker.trial == name and isinstance(epochs, int):
                worker.epochs = epochs
                self._progress.epoch(sum(other.epochs for other in self._workers.values()) - 1)
            return {"wanted": self._is_open(name)}

    def report(self, message: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        """Takes a trial's result, unless it has one: then both are the same."""
        result, name = message.get("result"), _text(message, "trial")
        if not isinstance(result, dict) or result.get("status") not in _RESULTS:
            raise MessageError(f"A result must have one of the states {', '.join(_RESULTS)}.")
        if strange := [path for path in files if not _is_of(name, path)]:
            raise MessageError(f"A file must be in a folder of its trial's. Got {', '.join(strange)}.")
        with self._turn:
            worker = self._workers.get(_text(message, "worker"))
            own = worker is not None and worker.trial == name
            # One that was thought lost has still trained well; its failures may be its own.
            if self._is_open(name) and (own or result["status"] == TrialStatus.COMPLETED):
                self._take(name, TrialResult(result, files, _text(message, "fatal")))
        return {}

    def leave(self, message: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        """Says that a worker goes of its own accord."""
        with self._turn:
            if (worker := self._workers.get(_text(message, "worker"))) is not None:
                worker.leaving = True
                worker.wake.set()
        return {}

    def fail(self, error: BaseException) -> None:
        """Ends the search with an error of the chief's own."""
        with self._turn:
            self.error = self.error or error
            self._hang_up()

    def stop(self) -> None:
        """Hangs up, without a word of an end where there is none: the search may go on later."""
        with self._turn:
            self._hang_up()

    def _take(self, name: str, came: TrialResult) -> None:
        receive(self._search, self._folder, name, came)
        for worker in self._workers.values():
            if worker.trial == name:
                worker.trial, worker.epochs = None, 0
        if self._search.ended() >= self._total:
            self._end()
        self._turn.notify_all()

    def _end(self) -> None:
        self._over = True
        self._hang_up()

    def _hang_up(self) -> None:
        self._done.set()
        self._turn.notify_all()
        for worker in self._workers.values():
            worker.wake.set()

    def _is_open(self, name: str) -> bool:
        trial = self._search.oracle.trials.get(name)
        return trial is not None and trial.status not in _RESULTS

    def _lose(self, number: str) -> None:
        """Takes back the trial of a worker that is gone."""
        worker = self._workers[number]
        worker.gone, kind, what = True, "lost", "is gone"
        # Its trial stays with it meanwhile, lest the search be taken for done.
        if worker.own is not None and not self._done.is_set():
            kind, what = self._processes.ended(worker.process)
            if kind == KILLED and _memory_kills() > worker.memory_kills:
                kind, what = "fault", "was killed as memory ran out"
        with self._turn:
            del self._workers[number]
            if self._done.is_set():
                return
            self._search.oracle.release(number)
            again = ""
            if worker.trial is not None and self._is_open(worker.trial):
                if not worker.leaving:
                    self._deaths[worker.trial, kind] += 1
                if (times := self._deaths[worker.trial, kind]) >= _MOST[kind]:
                    reason = f"its worker {what}, {times} times"
                    self._take(worker.trial, TrialResult({"status": TrialStatus.FAILED, "message": reason}))
                else:
                    again = f"; trial {worker.trial} is run again"
            if worker.leaving:
                what = "has left"
            self._progress.note(f"{worker.name(number)} {what}{again}")
            self._turn.notify_all()


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise MessageError(f"A message must hold the text {name!r}. Got {value!r}.")
    return value


def _memory_kills() -> int:
    """How many processes Linux has killed on this machine as memory ran out."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _is_of(trial: str, path: str) -> bool:
    """Whether a file belongs into one of the trial's own folders, and does not lead out of them."""
    folders = (("search", f"trial_{trial}"), ("tensorboard", trial))
    parts = PurePosixPath(path).parts
    return len(parts) > 2 and parts[:2] in folders and ".." not in parts and "\\" not in path
