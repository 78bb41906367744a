"""The command `keras-practice`: a sub-command for each room that has one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from keras_practice import __version__
from keras_practice.core.command import refuse

# What each does, and the module whose `main(arguments)` gives the exit code. It is imported when it is
# asked for, and imports TensorFlow once its arguments are right.
_COMMANDS = {
    "tune": ("search hyperparameters; the best model is left in a folder", "keras_practice.tuning.__main__"),
    "check": ("look for what would keep a saved model from learning", "keras_practice.checks.__main__"),
    "doctor": ("versions and devices, and why a GPU is not seen", "keras_practice.training.doctor_report"),
    "gpu-check": ("train every recipe on the GPU and check it", "keras_practice.gpu_check.command"),
}


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = (f"  {name:{width}}  {about}" for name, (about, _) in _COMMANDS.items())
    return "\n".join(
        [
            "usage: keras-practice COMMAND ...",
            "",
            "Model builders, callbacks, checks and tuning for Keras.",
            "",
            "commands:",
            *lines,
            "",
            "keras-practice COMMAND --help lists its options; keras-practice --version gives the version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sub-command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in _COMMANDS:
        near = get_close_matches(name, _COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        refuse(f"The command must be one of {', '.join(_COMMANDS)}. Got {name!r}{hint}")
    code: int = importlib.import_module(_COMMANDS[name][1]).main(given[1:])
    return code
