"""A Ray to train on: one of this machine alone, or a cluster that it is part of."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_practice.core.private_api.ray import files_in, says_nothing_of_workers
from keras_practice.tuning.engines.addresses import address_of
from keras_practice.tuning.engines.base import EngineError

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


def share_of(gpus: float, at_once: int) -> float:
    """What a trial gets of a GPU, the same for all at a time."""
    return math.floor(10_000 / math.ceil(at_once / gpus)) / 10_000 if gpus else 0.0


def hides_gpus() -> bool:
    """Whether this program was told to leave its GPUs alone."""
    return len(tf.config.get_visible_devices("GPU")) < len(tf.config.list_physical_devices("GPU"))


def imported() -> tuple[Any, Any]:
    """Ray, and Ray Tune.

    Raises:
        ValueError: If they are not installed.
    """
    try:
        import ray
        from ray import tune
    except ImportError as error:
        raise ValueError(
            f"Ray Tune must be installed: pip install 'keras-practice[ray]'. Got {error}."
        ) from error
    return ray, tune


@contextlib.contextmanager
def started(address: str | None, cores: int) -> Iterator[None]:
    """Ray while the block runs; that of a program which has one already is left as it is.

    A Ray of this machine alone listens on the loopback interface alone, sends no statistics,
    and takes its files with it.

    Args:
        address: Address of a cluster; `None`: a Ray of this machine alone.
        cores: How many cores that one has.

    Raises:
        ValueError: If Ray is not installed.
        EngineError: If there is no cluster at the address, or its processes cannot start.
    """
    with environment(_ENVIRONMENT | ({} if address else own_cluster())), contextlib.ExitStack() as held:
        ray, _ = imported()
        if not ray.is_initialized():
            where: dict[str, Any] = {"address": address}
            if address is None:
                folder = held.enter_context(_short_folder())
                where = {"num_cpus": cores, "include_dashboard": False, **files_in(folder)}
            else:
                _knock(address)
            held.enter_context(says_nothing_of_workers())
            handler = signal.getsignal(signal.SIGTERM)
            held.callback(_end_by, handler)
            held.callback(ray.shutdown)
            try:
                ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **where)
            except Exception as error:  # Ray raises half a dozen kinds.
                told = " ".join(str(error).split())
                raise EngineError(
                    f"Ray must start here, or run at the address given. Got {type(error).__name__}: {told}"
                ) from error
            _end_by(handler)
        yield


def _knock(address: str) -> None:
    """Refuses at once where nobody answers: Ray tries for minutes.

    Raises:
        EngineError: If nobody does.
    """
    if address == "auto":
        return
    try:
        socket.create_connection(address_of(address), _PATIENCE).close()
    except OSError as error:
        raise EngineError(f"A Ray cluster must be at {address}. Got {error.strerror or error}.") from None


def _end_by(handler: Any) -> None:
    """Has this program end at a SIGTERM as it did before: Ray has it abort."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def own_cluster() -> dict[str, str]:
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
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets these variables while the block runs."""
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
