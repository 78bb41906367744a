"""Runs a notebook from top to bottom: `python tests/package/notebook_run.py NOTEBOOK RESULT`.

The kernel is that of the Python that runs this file, so that a notebook can be tried with an installed wheel.
It runs in the folder of RESULT, with CI=true in its environment. Exits with 1 where a cell fails, writes to
stderr, or shows fewer pictures than are saved in NOTEBOOK.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

# What TensorFlow 2.21's C++ side writes while it starts, whatever TF_CPP_MIN_LOG_LEVEL says.
_START = re.compile(
    r"(WARNING: All log messages before absl::InitializeLog\(\)|[IWE]\d{4} \d\d:\d\d:\d\d|[IW]0000 ).*"
)


class _ThisPython(KernelSpecManager):
    """Knows one kernel; by its name alone, it would be whatever Python was registered under it."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernel of the Python that runs this file."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def run(notebook: Any, folder: Path, seconds: int = 300) -> list[str]:
    """Runs all cells, fills in their outputs, and returns what went wrong.

    Args:
        notebook: An `nbformat` notebook; changed in place.
        folder: Where it runs.
        seconds: Limit for one cell.
    """
    os.environ["CI"] = "true"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=_ThisPython()),
        timeout=seconds,
        resources={"metadata": {"path": str(folder)}},
    )
    faults = []
    saved = [_pictures(cell) for cell in notebook.cells]
    try:
        client.execute()
    except CellExecutionError as error:
        faults.append(str(error))
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_start(output)]
            faults += [
                f"Cell {number} wrote to stderr: {output.text}"
                for output in cell.outputs
                if output.get("name") == "stderr"
            ]
            cell.metadata.pop("execution", None)  # The times of day.
            if _pictures(cell) < saved[number - 1]:
                faults.append(
                    f"Cell {number} must show {saved[number - 1]} picture(s). Got {_pictures(cell)}."
                )
    return faults


def _pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def _is_start(output: Any) -> bool:
    """Whether an output is nothing but what TensorFlow writes while it starts."""
    lines = [line for line in output.get("text", "").splitlines() if line.strip()]
    return output.get("name") == "stderr" and all(_START.fullmatch(line) for line in lines)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("result", type=Path, help="where the notebook is written with its outputs")
    options = parser.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
    faults = run(notebook, options.result.resolve().parent)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, options.result)
    print("\n".join(faults) or "notebook: ok")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
