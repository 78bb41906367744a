"""The engine of this program: one process, or a chief that hands trials out to workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keras_practice.core.arguments import check_positive_integer
from keras_practice.tuning.engines.addresses import LOOPBACK, address_of, is_loopback
from keras_practice.tuning.engines.base import Engine
from keras_practice.tuning.engines.chief_worker.chief import Chief
from keras_practice.tuning.engines.chief_worker.processes import Processes
from keras_practice.tuning.engines.chief_worker.server import answering
from keras_practice.tuning.engines.in_process import InProcess
from keras_practice.tuning.progress import Progress
from keras_practice.tuning.search.preparation import fingerprint
from keras_practice.tuning.search.recipe_search import RecipeSearch


@dataclass(frozen=True)
class ChiefAndWorkers(Engine):
    """A chief in this process, and workers that train: processes of its own, or such as join from anywhere.

    Attributes:
        workers: Worker processes that the chief starts and watches. Defaults to
            `0`: it waits for such as join.
        host: What the chief listens on. Defaults to `"127.0.0.1"`, this machine alone.
        port: Its port. Defaults to `0`, any free one.
    """

    workers: int = 0
    host: str = LOOPBACK
    port: int = 0

    trains_elsewhere = True
    takes_any_space = False  # Workers are told the settings, and make the space of them.

    def __str__(self) -> str:
        return f"{self.workers} workers" if self.workers else f"a chief on {self.host}:{self.port}"

    def run(self, search: RecipeSearch, folder: Path, progress: Progress, total: int) -> None:
        """Runs the trials that are left on workers; returns when all have ended.

        Args:
            search: The search.
            folder: Folder of its results.
            progress: What hears how far it is.
            total: Number of trials, if no space ends before.

        Raises:
            EngineError: If the port cannot be had, or workers cannot start.
        """
        left = total - search.ended()
        if left <= 0:
            return
        settings = search.hypermodel.settings
        facts = {"settings": settings.as_json(), "data_sha256": fingerprint(settings)}
        processes = Processes(min(self.workers, left))
        chief = Chief(search, folder, progress, total, facts, processes)
        with answering(chief, self.host, self.port) as port:
            if self.workers:
                several = "worker processes" if processes.count > 1 else "worker process"
                progress.note(f"{processes.count} {several} on this machine")
            else:
                if not is_loopback(self.host):
                    progress.note(
                        f"whoever reaches {self.host}:{port} can take part: nothing is asked or encrypted"
                    )
                progress.note(f"workers join by: python -m keras_practice.tuning --join {self.host}:{port}")
            try:
                processes.start(port)
                while not chief.is_done(0.2):
                    processes.watch()
            finally:
                chief.stop()
                processes.end()
        if chief.error is not None:
            raise chief.error


def engine(workers: int | None = None, chief: str | None = None, address: str | None = None) -> Engine:
    """What `--workers` and `--chief` ask for.

    Args:
        workers: Processes that run trials side by side. Defaults to `None`, this one.
        chief: `[HOST:]PORT` to hand trials out at. Defaults to `None`.
        address: An address to join; there is none here.

    Raises:
        ValueError: If they are wrong.
    """
    workers = 1 if workers is None else check_positive_integer("workers", workers)
    if chief is None:
        return InProcess() if workers == 1 else ChiefAndWorkers(workers)
    if workers > 1:
        raise ValueError(
            f"workers are started by a search without a chief; beside a chief, each joins it. "
            f"Got workers {workers} and chief {chief}."
        )
    return ChiefAndWorkers(0, *address_of(chief, host=LOOPBACK))
