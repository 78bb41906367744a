"""`keras-practice gpu-check`: trains every recipe on the GPU and checks it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.command import Parser, quiet_start, refuse
from keras_practice.gpu_check.cases import CASES

_ABOUT = """\
Trains every recipe on the GPU with and without mixed precision and XLA, and checks that the loss falls, that
the heavy operations ran there, that cuDNN ran the recurrent nets it can run, and that predictions from the
same weights are those of the CPU. Then the same of monitors, learning-rate sweeps and the search, and of
several GPUs if there are. Prints the time of a step beside the CPU's, which a process of its own measures.

Tests run these checks on the CPU, with the CPU in the place of the GPU. So it is known that they find an
operation in the wrong place, a loss that does not fall, predictions that differ and a search that ends
elsewhere. It is not known what they say on a GPU: its kernels, its memory, cuDNN and XLA for it have never
been run by this program's authors. The bounds on how far predictions may differ follow from the float types.
"""


def _parser() -> Parser:
    parser = Parser(
        prog="keras-practice gpu-check",
        description=_ABOUT,
        epilog="Exit code: 0 all of it held, 1 something did not, 2 wrong input,\n"
        "3 there is no GPU and nothing was checked.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="some of the recipes")
    parser.add_argument("--steps", type=int, default=20, help="steps of a timed training (default: 20)")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)  # This process measures the CPU.
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_positive_integer("steps", options.steps)
    except ValueError as error:
        refuse(error)
    with quiet_start():
        from keras_practice.gpu_check.checking import check_gpu, measure_cpu

    if options.reference is not None:
        return measure_cpu(options.only, options.steps, options.reference)
    return check_gpu(options.only, options.steps)


if __name__ == "__main__":
    sys.exit(main())
