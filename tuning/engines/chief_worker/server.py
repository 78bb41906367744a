"""How a chief is reached: its methods over gRPC, at a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]

from keras_practice.tuning.engines.addresses import free_port
from keras_practice.tuning.engines.base import EngineError
from keras_practice.tuning.engines.chief_worker.chief import Chief, MessageError
from keras_practice.tuning.engines.chief_worker.messages import SERVER_OPTIONS, SERVICE, decode, encode

_MAX_THREADS = 1000  # Two a worker.


@contextmanager
def answering(chief: Chief, host: str, port: int) -> Iterator[int]:
    """Answers workers while the block runs.

    Args:
        chief: What answers.
        host: What it listens on.
        port: Its port; 0, any free one.

    Yields:
        The port.

    Raises:
        EngineError: If the port cannot be had.
    """

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
        port = free_port(host, port)
        server.add_insecure_port(f"{host}:{port}")  # Another may have come in between.
    except (ValueError, RuntimeError) as error:
        raise EngineError(str(error)) from error
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
