"""`keras-practice doctor`: which devices there are, and why a GPU is not seen."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_practice.core.command import Parser, device_option, quiet_start, refuse
from keras_practice.rendering.tables import plain

if TYPE_CHECKING:
    from keras_practice.training.doctor import Machine

_PLACES = {"colab": ", Google Colab", "wsl": ", WSL", "container": ", in a container"}


def _parser() -> Parser:
    parser = Parser(
        prog="keras-practice doctor",
        description="Says which devices TensorFlow sees, what training.device() chooses on them, and why a "
        "GPU is not seen.",
        epilog="Exit code: 0 the report was printed, 2 wrong input, or --device gpu where there is none.",
    )
    device_option(parser)
    return parser


def show(machine: Machine, choice: str, console: Console) -> None:
    """Prints the report; `choice` is what `training.device` said, or nothing where it refused."""
    from keras_practice.training.doctor import reasons

    table = _grid(gap=3)
    for name, text in _rows(machine):
        table.add_row(Text(name, style="bold"), Text(text))
    console.print(table)
    console.print()
    found = reasons(machine)
    if found:
        title = "What could be better:" if machine.gpus else "Why no GPU is seen, most likely cause first:"
        console.print(Text(title, style="bold"))
        advice = _grid(gap=1)
        for number, (reason, remedy) in enumerate(found, start=1):
            advice.add_row(f"{number}.", Text.assemble(reason, "\n", (remedy, "green")))
        console.print(advice)
    elif not machine.gpus:
        console.print("None of the usual reasons fits; what TensorFlow says is all there is to go by.")
    if choice:
        console.print(Text(f"\n{choice}"))


def _grid(gap: int) -> Table:
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, gap, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    return grid


def _rows(machine: Machine) -> Iterator[tuple[str, str]]:
    """Each line of the table: what, and what was found."""
    yield "versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield "system", f"{machine.system}{_PLACES.get(machine.place, '')}"
    built = f"CUDA {machine.cuda}, cuDNN {machine.cudnn}; kernels for {', '.join(machine.capabilities)}"
    yield "TensorFlow's build", built if machine.cuda else "for the CPU alone"
    library = "loads" if machine.libcuda else "does not load"
    answer = "" if machine.cu_init is None else f", cuInit answers {machine.cu_init}"
    files = "device files" if machine.device_files else "no device files"
    yield (
        "NVIDIA driver",
        f"{machine.driver or 'none'}; libcuda.so.1 {library}{answer}; {files} in /dev",
    )
    listed = [
        f"{gpu.name}, compute capability {gpu.capability or 'unknown'}, "
        f"{gpu.used:,} of {gpu.total:,} MiB in use"
        for gpu in machine.smi
    ]
    yield "nvidia-smi", "\n".join(listed) or "lists no GPU, or is not there"
    if machine.libraries:
        found = [f"{name} ({where})" for name, where in machine.libraries.items() if where]
        yield "CUDA libraries", ", ".join(found) or "none found"
        if found and machine.missing:
            yield "", f"not found: {', '.join(machine.missing)}"
        yield "XLA's libdevice", machine.xla or "not found"
    if machine.visible is not None:
        yield "CUDA_VISIBLE_DEVICES", repr(machine.visible)
    yield "TensorFlow sees", "\n".join(map(str, machine.gpus)) or "no GPU"
    if machine.words:
        yield "TensorFlow says", "\n".join(dict.fromkeys(machine.words))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    choice, refusal = "", ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")  # All of them: what is missing is said at level 1.
    with quiet_start() as words:
        import tensorflow as tf

        from keras_practice.training.devices import device
        from keras_practice.training.doctor import inspect

        try:
            kind = "" if options.device == "auto" else repr(options.device)
            choice = f"training.device({kind}) chooses: {device(options.device, verbose=False)}"
        except (ValueError, RuntimeError) as error:
            refusal = str(error)
        tf.config.list_logical_devices()  # Where it says more.
    machine = inspect(words)
    if sys.stdout.isatty():
        show(machine, choice, Console(highlight=False))
    else:
        # Lines as long as they are.
        print(plain(lambda console: show(machine, choice, console), width=500))  # noqa: T201
    if refusal:
        refuse(refusal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
