"""An epoch in one graph: it ends wherever it runs."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "one_thread_run.py"


def test_an_epoch_ends_where_tensorflow_has_one_thread_for_what_waits():
    command = [sys.executable, PROGRAM]
    done = subprocess.run(command, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        *(f"{name}, {rows} rows: done" for name in ("small", "calls", "convolves") for rows in (80, 40)),
        "three at once: done",
    ]
