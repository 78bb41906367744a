"""Programs that tests start: each ends with its test, and Ctrl-C reaches it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

# What nohup, or a shell's background, has a program ignore, its children ignore too.
_PROGRAM = (
    "import os, signal, sys",
    "signal.signal(signal.SIGINT, signal.SIG_DFL)",
    "os.execv(sys.argv[1], sys.argv[1:])",
)


@contextmanager
def running(*arguments, **options):
    """Python with these arguments, in a process that is killed at the block's end if it still lives."""
    command = [sys.executable, "-c", "; ".join(_PROGRAM), sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def hearing_ctrl_c():
    """Has Ctrl-C interrupt this process within the block, also where it was started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(what, seconds=120, pause=0.05):
    """What the function returns, once that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(pause)
    return found


def is_gone(process):
    """Whether no process has this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False
