"""Parts of a look that fail by themselves: the others go on, and what failed is said."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OF_TENSORFLOW = re.compile(r"\{\{.*?\}\}|\[Op:.*?\]|\[\[.*?\]\]")
_ROOM = Path(__file__).resolve().parent
# What TensorFlow and Keras wrap around the sentence that says what is wrong.
_ABOUT_TRACE = (
    "Graph execution error",
    "Detected at",
    "Exception encountered",
    "<stack",
    "File ",
    "Arguments received",
    "\t",
)


class Looking:
    """What could not be looked at so far, and the exceptions that were the reason.

    Attributes:
        unlooked: A sentence a part.
        problems: What was raised, by the part's name.
    """

    def __init__(self) -> None:
        self.unlooked: list[str] = []
        self.problems: dict[str, Exception] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part that may fail by itself, and then is left where it was."""
        try:
            yield
        except Exception as problem:  # Whose fault it is shows in a plain step of the model's own.
            self.problems[name] = problem

    def leave_out(self, part: str, reason: str) -> None:
        """Says that a part was left out on purpose."""
        self.unlooked.append(f"{part}: {reason}")

    def conclude(self, theirs: Exception | None, *, ran: bool = True) -> None:
        """Says what failed by our own fault.

        Args:
            theirs: What the model itself raises; parts that failed of the same are explained by it.
            ran: Whether the model's own step could be run; if not, it is not known whose fault
                anything is. Defaults to `True`.
        """
        for part, problem in self.problems.items():
            if not ran:
                self.unlooked.append(
                    f"{part}: {first_line(problem)}{_where(problem)}. The model's own step could not be run "
                    "beside it, so that it is not known whose fault it is."
                )
            elif theirs is None:
                self.unlooked.append(f"{part}: {_ours(problem)}")
            elif _what(problem) != _what(theirs):
                self.unlooked.append(
                    f"{part}: {first_line(problem)}. The model's own step raises too; look here again once "
                    "it does not."
                )
        self.problems.clear()


def first_line(problem: Exception) -> str:
    """What an exception says, in one line, with its type."""
    lines = [line.strip() for line in _COLOURS.sub("", str(problem)).splitlines()]
    lines = [line for line in lines if line and not line.startswith(_ABOUT_TRACE)] or ["no message"]
    return f"{type(problem).__name__} ({_OF_TENSORFLOW.sub('', lines[0]).strip()[:200]})"


def _what(problem: Exception) -> str:
    """What an exception says, the same in a graph and outside of one."""
    return " ".join(_OF_TENSORFLOW.sub("", first_line(problem)).split())


def _where(problem: Exception) -> str:
    """The innermost place in these checks that a problem went through."""
    frames = traceback.extract_tb(problem.__traceback__)
    inside = [frame for frame in frames if _ROOM in Path(frame.filename).resolve().parents] or frames
    return f" at {Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""


def _ours(problem: Exception) -> str:
    return (
        f"{first_line(problem)}{_where(problem)}. The model's own step does not raise this, so that it is a "
        "fault of keras-practice and says nothing about your program; please report it with this line."
    )
