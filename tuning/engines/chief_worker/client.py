"""A worker's line to its chief, mended when it breaks."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]

from keras_practice.tuning.engines.chief_worker.messages import (
    CLIENT_OPTIONS,
    SERVICE,
    decode,
    encode,
    versions,
)

_PAUSE = 0.5
_ANSWER = 600.0  # Seconds, for a large model on a slow line; a worker without a trial is answered sooner.
_LEAST_WAIT = 10.0  # Seconds for the first word of a chief that is there.


class RefusedError(Exception):
    """What keeps a worker from joining, said in one sentence."""


class LostError(Exception):
    """The chief has been gone for longer than it is waited for."""


class Client:
    """A worker's line to its chief.

    Args:
        address: Host and port of the chief.
        wait: Seconds that the chief is waited for, at the start and whenever it
            is gone.
        own: Which of the chief's own processes this is, which then ends at once when
            the chief does. Defaults to `None`, none.

    Attributes:
        place: The address as text.
        trial: The trial that is running.
        reason: Why the line is dead for good; empty while it is not.
    """

    def __init__(self, address: tuple[str, int], wait: float, own: int | None = None) -> None:
        self.place = "{}:{}".format(*address)
        self.trial: str | None = None
        self.reason = ""
        self._wait, self._own = wait, own
        self._channel = grpc.insecure_channel(self.place, options=CLIENT_OPTIONS)
        self._join = self._channel.unary_stream(f"/{SERVICE}/join")
        self._stream: Any = None
        self._number = ""
        self._facts: dict[str, Any] = {}
        self._joined, self._over, self._closed = threading.Event(), threading.Event(), threading.Event()

    def open(self) -> dict[str, Any]:
        """Joins; returns what the chief tells of the search.

        Raises:
            RefusedError: If the chief is not there in time, or refuses.
        """
        seconds = max(self._wait, _LEAST_WAIT)
        if not self._call_up(seconds):
            raise RefusedError(
                f"A chief must be there within {seconds:g} seconds. Got no answer from {self.place}."
            )
        threading.Thread(target=self._hold, daemon=True).start()
        return self._facts

    def ask(self, method: str, files: Mapping[str, bytes] | None = None, **message: Any) -> dict[str, Any]:
        """The chief's answer, waited for while it is away.

        Args:
            method: What is asked for.
            files: Files that go with it. Defaults to `None`.
            **message: What is said.

        Raises:
            LostError: If it stays away.
            RefusedError: If it does not like the message.
        """
        while not self._over.is_set():
            if not self._joined.wait(_PAUSE):
                if self.reason:
                    raise LostError
                continue
            try:
                answer = self._answer(method, message, _ANSWER, files)
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED):
                    raise RefusedError(f"The chief did not understand: {error.details()}") from error
                time.sleep(_PAUSE)  # Until the stream notices, too.
                continue
            if not answer.get("unknown"):
                return answer
            time.sleep(_PAUSE)
        return {"over": True}

    def tell(self, method: str, **message: Any) -> dict[str, Any]:
        """The chief's answer, or nothing where it is away."""
        if not self._joined.is_set():
            return {}
        try:
            return self._answer(method, message, 5.0)
        except grpc.RpcError:
            return {}

    def leave(self) -> None:
        """Says goodbye."""
        if not self._over.is_set():
            self.tell("leave")

    def close(self) -> None:
        """Hangs up."""
        self._closed.set()
        self._channel.close()

    def _answer(
        self,
        method: str,
        message: dict[str, Any],
        seconds: float,
        files: Mapping[str, bytes] | None = None,
    ) -> dict[str, Any]:
        ask: Callable[..., bytes] = self._channel.unary_unary(f"/{SERVICE}/{method}")
        return decode(ask(encode({"worker": self._number, **message}, files), timeout=seconds))[0]

    def _call_up(self, seconds: float) -> bool:
        """Opens the stream and takes its first word; whether that came in time."""
        request = {
            "versions": versions(),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "own": self._own,
            "trial": self.trial,
        }
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._closed.is_set():
            stream = self._join(encode(request), wait_for_ready=True)
            # The stream itself may last for days, so that it has no deadline of its own.
            timer = threading.Timer(left, stream.cancel)
            timer.daemon = True
            timer.start()
            try:
                facts, _ = decode(next(stream))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    raise RefusedError(error.details()) from error
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    raise RefusedError(
                        f"{self.place} must be a chief's address. Got another server."
                    ) from error
                time.sleep(_PAUSE)
                continue
            except StopIteration:
                time.sleep(_PAUSE)
                continue
            finally:
                timer.cancel()
            self._number = facts.pop("worker")
            earlier, self._facts, self._stream = self._facts, facts, stream
            if earlier and earlier["settings"] != facts["settings"]:
                raise RefusedError(
                    f"The chief at {self.place} must go on with the same search. Got another one."
                )
            self._joined.set()
            return True
        return False

    def _hold(self) -> None:
        """Keeps the stream, and calls up again when it breaks."""
        while True:
            try:
                for word in self._stream:
                    if decode(word)[0].get("over"):
                        self._over.set()
            except grpc.RpcError:
                pass  # It is broken, which is told from a good end by what was said.
            self._joined.clear()
            if self._over.is_set() or self._closed.is_set():
                return
            if self._own is not None:
                os._exit(1)  # Whoever has started this process is gone.
            try:
                if self._call_up(self._wait):
                    continue
                reason = f"The chief at {self.place} has not come back within {self._wait:g} seconds."
            except RefusedError as error:
                reason = str(error)
            except ValueError:
                if not self._closed.is_set():  # gRPC's word for a channel that was closed.
                    raise
                return
            if not self._closed.is_set():
                self.reason = reason
                os.kill(os.getpid(), signal.SIGTERM)  # The trial that is running is of no use to anyone.
            return
