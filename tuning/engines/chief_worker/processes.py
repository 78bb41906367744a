"""The worker processes that a chief starts on its own machine, watches, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import tensorflow as tf

from keras_practice.tuning.engines.addresses import LOOPBACK
from keras_practice.tuning.engines.base import EngineError

KILLED = "killed"
_MAX_FALSE_STARTS = 3
_GRACE = 5.0  # Seconds from the word to the kill.


def environment_of(number: int, gpus: int, outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker process: its own GPU where there are several, and memory as it needs it.

    Args:
        number: Which worker, from 1.
        gpus: How many GPUs there are for workers; 0 where this process keeps to the CPU.
        outer: This process's environment.
    """
    inner = dict(outer)
    # Else the first to come takes all of a GPU's memory.
    inner.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if gpus == 0:
        inner["CUDA_VISIBLE_DEVICES"] = "-1"
    elif gpus > 1:
        named = [name.strip() for name in outer.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        seen = named[:gpus] or [str(gpu) for gpu in range(gpus)]
        inner["CUDA_VISIBLE_DEVICES"] = seen[(number - 1) % len(seen)]
    return inner


class Processes:
    """Worker processes, each of which is started again when it dies.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._command: list[str] = []
        self._children: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._joined: set[int] = set()  # By process number.
        self._false_starts = 0
        self._codes: dict[int, int] = {}
        self._ending = False
        # Ctrl-C may hit this thread anywhere; another one is left to say what it has started.
        self._starter = ThreadPoolExecutor(1)
        self._news = threading.Condition()

    def start(self, port: int) -> None:
        """Has them join the chief at this port of this machine."""
        self._command = [sys.executable, "-m", "keras_practice.tuning", "--join", f"{LOOPBACK}:{port}"]
        for number in range(1, self.count + 1):
            self._starter.submit(self._start, number).result()

    def joined(self, process: int) -> None:
        """Says that one has started well."""
        with self._news:
            self._joined.add(process)
            self._false_starts = 0

    def watch(self) -> None:
        """Starts again what has died.

        Raises:
            EngineError: If they die again and again before they have joined.
        """
        for number, (child, log) in list(self._children.items()):
            if (code := child.poll()) is None:
                continue
            with self._news:
                # A kill, which may hit it at any time, says nothing.
                false = child.pid not in self._joined and code != -signal.SIGKILL
                self._joined.discard(child.pid)
                self._false_starts += false
                self._codes[child.pid] = code
                self._news.notify_all()
            if false and (code == 2 or self._false_starts >= _MAX_FALSE_STARTS):
                raise EngineError(f"A worker must start. Got {_described(code)}: {_last_line(log)}")
            log.close()
            self._starter.submit(self._start, number).result()

    def ended(self, process: int) -> tuple[str, str]:
        """Of what kind the death of one was that has hung up, and what is said of it."""
        with self._news:
            self._news.wait_for(lambda: process in self._codes or self._ending, _GRACE)
            code = self._codes.get(process)
        if code is None:
            return "lost", "does not answer"
        return (KILLED if code == -signal.SIGKILL else "fault"), _described(code)

    def _start(self, number: int) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115
        # This process may keep to one of several, and none where it was told so.
        gpus = tf.config.list_physical_devices("GPU") if tf.config.get_visible_devices("GPU") else []
        child = subprocess.Popen(
            [*self._command, "--worker", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment_of(number, len(gpus), os.environ),
            # Ctrl-C is for the chief alone, which ends them.
            start_new_session=True,
        )
        self._children[number] = child, log

    def end(self) -> None:
        """Ends them all, with a kill where the word is not enough."""
        with self._news:
            self._ending = True
            self._news.notify_all()
        self._starter.shutdown()
        for child, _ in self._children.values():
            child.terminate()
        for child, log in self._children.values():
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            log.close()


def _described(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed"
    try:
        return f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    except ValueError:
        return f"ended with signal {-code}"


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing."
