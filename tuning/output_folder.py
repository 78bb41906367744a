"""The folder of a search: of one search, and by one process at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_practice.core.errors import InputError
from keras_practice.core.files import replacing
from keras_practice.tuning.settings import Settings

try:
    import fcntl
except ImportError:  # There is none on Windows, where a folder is not locked.
    _LOCKS = False
else:
    _LOCKS = True

NAME = ".lock"
RECORD = "settings.json"
_OURS = (
    RECORD,
    "trials.csv",
    "best.keras",
    "best.json",
    "search.png",
    "report.html",
    "search",
    "tensorboard",
)


@contextmanager
def opened(out: Path, identity: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Holds the folder for one search while the block runs.

    Args:
        out: The folder; made if it is absent.
        identity: What makes it this very search and no other.
        overwrite: Whether to start anew where it holds an earlier run.

    Raises:
        ValueError: If it is in use, or holds another search or something else.
        OSError: If it cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT must be a folder. Got the file {out}.")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if overwrite and (out / RECORD).exists():
            _empty(out)
        _check(out, identity)
        yield


def unreadable(out: Path, reason: str) -> InputError:
    """What is said of an earlier run that a search cannot go on from.

    Args:
        out: The folder.
        reason: What was found, `Got ...`.
    """
    return InputError(f"{out} holds an earlier run that cannot be read; --overwrite starts anew. {reason}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock while the block runs.

    The lock is the operating system's, so that a process that is killed, by
    `kill -9` too, leaves none behind; the file it leaves has no power. A file
    system without locks is not locked.

    Args:
        folder: An existing folder.

    Raises:
        ValueError: If another process, or another call in this one, holds it; the
            sentence has its number.
        OSError: If the folder cannot be written to.
    """
    path = folder / NAME
    if not _LOCKS:
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = os.read(file, 32).decode(errors="replace").strip()
                os.close(file)
                raise ValueError(
                    f"Only one search at a time may use {folder}; wait for it, or choose another OUT. "
                    f"Got it in use by process {holder or 'unknown'}."
                ) from None
        if _is_the_file_at(path, file):
            break
        os.close(file)  # Its holder has just removed it.
    try:
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # Before it is let go, so that nobody gets hold of a removed file.
        os.close(file)


def _is_the_file_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _empty(out: Path) -> None:
    """Removes what a search has left, and nothing else."""
    for name in _OURS:
        old = out / name
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)


def _check(out: Path, identity: Mapping[str, Any]) -> None:
    """Checks that the folder holds this very search or none, and says which it is."""
    recorded = out / RECORD
    if recorded.exists():
        try:
            # An earlier version did not know all of them.
            earlier = Settings().as_json() | json.loads(recorded.read_text())
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{recorded} of the earlier run cannot be read; --overwrite starts anew. Got {error}"
            ) from error
        differences = [
            f"{name} {earlier.get(name)!r} there, {identity.get(name)!r} here"
            for name in dict.fromkeys([*identity, *earlier])
            if earlier.get(name) != identity.get(name) and name != "keep"
        ]
        if differences:
            raise ValueError(
                f"{out} holds a run with other settings; choose another OUT, or --overwrite to start anew. "
                f"Got {'; '.join(differences)}."
            )
        return
    if foreign := [name for name in _OURS if (out / name).exists()]:
        raise ValueError(
            f"{out} holds {', '.join(foreign)} but no settings.json, so it cannot be told what run it is; "
            f"choose another OUT."
        )
    with replacing(recorded) as beside:
        beside.write_text(json.dumps(identity, indent=2) + "\n")
