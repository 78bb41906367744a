"""What the package's commands have in common."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Ends with exit code 2 and one sentence where an argument is wrong."""

    def error(self, message: str) -> NoReturn:
        """Ends with the sentence alone; the usage is in `--help`."""
        refuse(message)


DEVICES = ("auto", "gpu", "cpu")


def device_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`, which `training.devices.select_device` puts into effect."""
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where it runs: a GPU if there is one (auto), a GPU or not at all (gpu), or the CPU "
        "(default: %(default)s)",
    )


def refuse(message: object) -> NoReturn:
    """Ends the command with exit code 2 and one sentence."""
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


@contextmanager
def quiet_start() -> Iterator[list[str]]:
    """Holds back what TensorFlow's C++ side writes while it starts; shows it if the start fails.

    TensorFlow 2.21 writes these lines whatever TF_CPP_MIN_LOG_LEVEL says. Afterwards they are in the list.
    """
    lines: list[str] = []
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield lines
        except BaseException:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            lines += held.read().decode(errors="replace").splitlines()
