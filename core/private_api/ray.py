"""What Ray keeps to itself; it is imported only where it is used, since it need not be installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def files_in(folder: str | Path) -> dict[str, str]:
    """The argument of `ray.init` by which it writes its files into a folder.

    Only the command `ray start` has a public name for it.
    """
    return {"_temp_dir": str(folder)}


@contextlib.contextmanager
def says_nothing_of_workers() -> Iterator[None]:
    """Holds back what Ray prints of processes that die, whatever it was told about its logs."""
    import ray

    worker: Any = ray._private.worker
    name = "print_to_stdstream"
    printing = getattr(worker, name, None)
    setattr(worker, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(worker, name, printing)
