"""A search that is shared out: to worker processes of its own, or to workers that join from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from keras_practice.core.arguments import check_positive_integer
from keras_practice.tuning.engines.chief_worker.chief import Chief, MessageError
from keras_practice.tuning.engines.chief_worker.messages import (
    LOOPBACK,
    SERVER_OPTIONS,
    SERVICE,
    address_of,
    decode,
    encode,
    free_port,
    is_loopback,
)
from keras_practice.tuning.engines.chief_worker.processes import Processes, ServingError
from keras_practice.tuning.reports.display import Display
from keras_practice.tuning.search.recipe_search import RecipeSearch

_MAX_THREADS = 1000  # Two a worker.


@dataclass(frozen=True)
class Serving:
    """How a search is shared out.

    Attributes:
        workers: Worker processes that the chief starts and watches. Defaults to
            `0`: it waits for such as join.
        host: What the chief listens on. Defaults to `"127.0.0.1"`, this machine alone.
        port: Its port. Defaults to `0`, any free one.
    """

    workers: int = 0
    host: str = LOOPBACK
    port: int = 0

    def __str__(self) -> str:
        return f"{self.workers} workers" if self.workers else f"a chief on {self.host}:{self.port}"


def serving(workers: int = 1, chief: str | None = None) -> Serving | None:
    """What `--workers` and `--chief` ask for; `None` for a search in this process.

    Raises:
        ValueError: If they are wrong.
    """
    workers = check_positive_integer("workers", workers)
    if chief is None:
        return None if workers == 1 else Serving(workers)
    if workers > 1:
        raise ValueError(
            f"workers are started by a search without a chief; beside a chief, each joins it. "
            f"Got workers {workers} and chief {chief}."
        )
    return Serving(0, *address_of(chief, host=LOOPBACK))


def serve(
    search: RecipeSearch, out: Path, display: Display, how: Serving, total: int, facts: Mapping[str, Any]
) -> None:
    """Runs the trials that are left on workers; returns when all have ended.

    Args:
        search: The search.
        out: Folder of the results.
        display: What shows how far it is.
        how: How it is shared out.
        total: Number of trials, if no space ends before.
        facts: What workers are told of the search: its `settings`, and the
            `data_sha256` of a user's file.

    Raises:
        ServingError: If the port cannot be had, or workers cannot start.
    """
    left = total - search.ended()
    if left <= 0:
        return
    search.oracle.verbose = 0
    processes = Processes(min(how.workers, left))
    chief = Chief(search, out, display, total, facts, processes)
    with _served(chief, how) as port:
        if how.workers:
            several = "worker processes" if processes.count > 1 else "worker process"
            display.note(f"{processes.count} {several} on this machine")
        else:
            if not is_loopback(how.host):
                display.note(
                    f"whoever reaches {how.host}:{port} can take part: nothing is asked or encrypted"
                )
            display.note(f"workers join by: python -m keras_practice.tuning --join {how.host}:{port}")
        try:
            processes.start(port)
            while not chief.is_done(0.2):
                processes.watch()
        finally:
            chief.stop()
            processes.end()
    if chief.error is not None:
        raise chief.error


@contextmanager
def _served(chief: Chief, how: Serving) -> Iterator[int]:
    """Answers on the port, which is given, while the block runs."""

    def one(method: Callable[[Mapping[str, Any], dict[str, bytes]], dict[str, Any]]) -> grpc.RpcMethodHandler:
        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            with _refusing(chief, context):
                return encode(method(*_decoded(data)))
            raise AssertionError  # For mypy: it has been refused.

        return grpc.unary_unary_rpc_method_handler(answer)

    def stream(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with _refusing(chief, context):
            yield from map(encode, chief.join(_decoded(data)[0], context))

    threads = ThreadPoolExecutor(_MAX_THREADS)
    server = grpc.server(threads, options=SERVER_OPTIONS)
    methods = (chief.create, chief.progress, chief.report, chief.leave)
    handlers = {"join": grpc.unary_stream_rpc_method_handler(stream)}
    handlers |= {method.__name__: one(method) for method in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        port = free_port(how.host, how.port)
        server.add_insecure_port(f"{how.host}:{port}")  # Another may have come in between.
    except (ValueError, RuntimeError) as error:
        raise ServingError(str(error)) from error
    server.start()
    try:
        yield port
    finally:
        # Workers hear of a good end; of a bad one they learn as the line breaks.
        server.stop(None if chief.error else 3.0).wait()
        threads.shutdown()


@contextmanager
def _refusing(chief: Chief, context: grpc.ServicerContext) -> Iterator[None]:
    """Tells a worker what is wrong with its message, and ends the search where something else is."""
    try:
        yield
    except MessageError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except Exception as error:
        if context.code() is not None:
            raise  # It was refused, which is an exception, too.
        chief.fail(error)
        context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _decoded(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        return decode(data)
    except ValueError as error:
        raise MessageError(str(error)) from error
