"""Files: written whole or not at all, and read with a sentence for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends well.

    A reader, or a run that starts after a crash, sees the old file or the new
    one and never a part. The temporary name keeps the suffix, since many writers
    choose the format by it.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an `.npz` file by name.

    Raises:
        ValueError: If it holds anything but plain arrays.
        OSError: If it is not there or cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"The data file must exist. Got {path}.") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"The data file must be a file. Got the folder {path}.") from None
    except Exception as error:  # numpy and zipfile raise half a dozen kinds on a damaged file.
        raise ValueError(
            f"{path} must be an .npz file of plain arrays. Got {type(error).__name__}: {error}"
        ) from error
