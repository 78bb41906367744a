"""What a chief and its workers say to each other: JSON and files over gRPC.

KerasTuner's own messages carry neither the settings nor why a trial failed, and its
chief does not notice that a worker is gone, so that the trial of one is never run
again. Here a worker holds a stream open for as long as it lives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keras_practice.callbacks.environment import environment

SERVICE = "keras_practice.tuning"
_PROTOCOL = "1"
_FILES = "files"
# Half a minute without an answer to a ping, and the other side counts as gone. gRPC answers by itself,
# also where Python is busy.
OPTIONS = (
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
SERVER_OPTIONS = (*OPTIONS, ("grpc.so_reuseport", 0))  # Two chiefs would share a port unawares.
CLIENT_OPTIONS = (
    *OPTIONS,
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def encode(message: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> bytes:
    """A message and files beside it as bytes: a line of JSON, and then the files one after another."""
    files = files or {}
    sizes = {path: len(content) for path, content in files.items()}
    head = json.dumps({**message, _FILES: sizes} if files else message)
    return b"".join([head.encode(), b"\n", *files.values()])


def decode(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The message and the files in these bytes.

    Raises:
        ValueError: If they are no such thing.
    """
    head, _, rest = data.partition(b"\n")
    message = json.loads(head)
    if not isinstance(message, dict):
        raise ValueError(f"A message must be a JSON object. Got {type(message).__name__}.")
    files, at = {}, 0
    for path, size in message.pop(_FILES, {}).items():
        files[path] = rest[at : at + size]
        at += size
    if at != len(rest):
        raise ValueError(f"A message must be as long as it says. Got {len(rest)} bytes of {at}.")
    return message, files


def versions() -> dict[str, str]:
    """What must be the same on both sides: all that results depend on, and this way to talk."""
    found = environment()["versions"]
    same = ("keras-practice", "keras", "tensorflow", "keras-tuner", "numpy")
    return {name: found[name] for name in same} | {"protocol": _PROTOCOL}


def different(chief: Mapping[str, Any], worker: Mapping[str, Any]) -> str:
    """What differs, in words; empty if nothing does."""
    return "; ".join(
        f"{name} {chief.get(name)} at the chief, {worker.get(name)} at the worker"
        for name in dict.fromkeys([*chief, *worker])
        if chief.get(name) != worker.get(name)
    )
