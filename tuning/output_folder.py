"""One search a folder at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # There is none on Windows, where a folder is not locked.
    _LOCKS = False
else:
    _LOCKS = True

NAME = ".lock"


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
