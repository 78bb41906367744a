"""Tables of words, as a terminal and a file show them."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence

from rich.console import Console


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    r"""A line a row, its columns two blanks apart, and no blanks at the end.

    Args:
        rows: Cells, as many in each row.
        right: Numbers of the columns whose cells end below each other, as figures
            do; those of the others begin below each other. Defaults to `()`.

    Example:
        >>> print("\n".join(aligned([["rate", "loss"], ["0.1", "12.5"], ["0.01", "3"]], right=[1])))
        rate  loss
        0.1   12.5
        0.01     3
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plain(show: Callable[[Console], object], width: int) -> str:
    """What rich would show, as text: no colours, and no blanks at the end of a line or of the whole.

    Args:
        show: Called with the console on which it prints tables and texts.
        width: Letters in a line.
    """
    written = io.StringIO()
    # A notebook would get a second copy as HTML.
    show(Console(file=written, width=width, color_system=None, force_jupyter=False, highlight=False))
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip().splitlines())
