"""Measures the README's figures again, and shows them beside those on record in `results.json`.

    python benchmarks/run.py                            all of them, for an hour and more
    python benchmarks/run.py xor iris --write           two of them, and keeps what was measured
    python benchmarks/run.py mnist-time --data mnist.npz
    python benchmarks/run.py --list

An entry of `results.json` has the row's name in the README, the command, and for each figure its value as it
was last printed and the pattern that finds it in what the command prints. A figure without a pattern is of a
state that is past. With `--write` the values, the date, the machine and the versions are kept; where the
README says otherwise then, a test fails.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"


def figures_in(printed: str, entry: dict[str, Any]) -> dict[str, str]:
    """The figures of an entry in what its command printed.

    Raises:
        ValueError: If one is not there.
    """
    found = {}
    for name, figure in entry["figures"].items():
        if "pattern" in figure:
            match = re.search(figure["pattern"], printed)
            if match is None:
                raise ValueError(f"The command must print {name!r} as {figure['pattern']}. Got:\n{printed}")
            found[name] = re.sub(r"(\d)\.(?!\d)", r"\1", match[1].strip())  # numpy writes 1 as "1.".
    return found


def command_of(entry: dict[str, Any], data: str | None) -> list[str]:
    """The command as it is run: by this Python, and with a local file of MNIST where there is one."""
    python, *rest = shlex.split(entry["command"])
    assert python == "python"
    if entry.get("data") and data:
        rest = [word for word in rest if word not in ("--data", "mnist.npz")] + ["--data", data]
    return [sys.executable, *rest]


def state(machine: str) -> dict[str, str]:
    """Where and with what a figure is measured now."""
    versions = {name: metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "python": platform.python_version(),
        **versions,
    }


def beside(old: str, new: str) -> str:
    """New over old, or whether they are the same."""
    try:
        return f"{float(new) / float(old):.2f} times"
    except (ValueError, ZeroDivisionError):
        return "the same" if old.split() == new.split() else "other"


def main() -> int:
    """Runs what was asked for; returns 1 if a command failed or a figure was not found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = json.loads(RESULTS.read_text())
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries of results.json (default: all)")
    parser.add_argument("--list", action="store_true", help="list the entries and run nothing")
    parser.add_argument("--write", action="store_true", help="keep what was measured")
    parser.add_argument("--data", metavar="NPZ", help="local mnist.npz (default: downloaded)")
    parser.add_argument(
        "--machine",
        default=f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        help="how the machine is described (default: %(default)s)",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in results]:
        parser.error(f"Names must be among {', '.join(results)}. Got {', '.join(unknown)}.")
    if options.data and not Path(options.data).is_file():
        parser.error(f"--data must be a file. Got {options.data}.")
    names = options.names or list(results)
    if options.list:
        for name in names:
            print(f"{name:20} {results[name]['measured']['date']}  {results[name]['command']}")
        return 0
    data = options.data and str(Path(options.data).resolve())
    printed: dict[tuple[str, ...], str] = {}
    failed = 0
    for name in names:
        entry = results[name]
        if not any("pattern" in figure for figure in entry["figures"].values()):
            print(f"{name}: {entry['note']}", flush=True)
            continue
        command = tuple(command_of(entry, data))
        try:
            if command not in printed:  # Several entries may share one.
                done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
                printed[command] = done.stdout
            found = figures_in(printed[command], entry)
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"{name}: {error}", flush=True)
            failed += 1
            continue
        for figure, new in found.items():
            old = entry["figures"][figure]["value"]
            print(f"{name:20} {figure:30} {old:>10} -> {new:>10}  {beside(old, new)}", flush=True)
            entry["figures"][figure]["value"] = new
        entry["measured"] = state(options.machine)
        if options.write:
            RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
