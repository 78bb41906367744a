"""The whole check: the CPU in a process of its own, then every recipe in every mode on the GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_practice import training
from keras_practice.core.command import quiet_start
from keras_practice.gpu_check.cases import CASES, Case, Mode
from keras_practice.gpu_check.figures import figures
from keras_practice.gpu_check.judging import judge, judge_figures, judge_several
from keras_practice.gpu_check.measuring import build, exact_products, executed, measure, modes, samples
from keras_practice.training.devices import DOCTOR, gather

NO_GPU = "no GPU: nothing checked"


def measure_cpu(names: list[str], steps: int, path: Path) -> int:
    """Writes the CPU's measurements as JSON; returns the exit code."""
    training.device("cpu", verbose=False)
    found = {name: measure(CASES[name], Mode(), steps) for name in names}
    path.write_text(json.dumps({"cases": found, "figures": figures()}))
    return 0


def reference(names: list[str], steps: int) -> dict[str, Any]:
    """The CPU's measurements, made in a process that sees no GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cpu.json"
        command = [
            sys.executable,
            "-m",
            "keras_practice",
            "gpu-check",
            "--reference",
            str(path),
            "--steps",
            str(steps),
            "--only",
            *names,
        ]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, check=True, stderr=subprocess.PIPE, env=environment)
        found: dict[str, Any] = json.loads(path.read_text())
    return found


def several(devices: list[str]) -> list[str]:
    """What is wrong with a training under `MirroredStrategy` on several devices."""
    case = CASES["mlp"]
    x, y = samples(case, 64)
    with tf.distribute.MirroredStrategy(devices).scope():
        model = build(case, Mode())
    losses: list[float] = []
    operations = executed(lambda: losses.extend(model.fit(x, y, epochs=3, verbose=0).history["loss"]))
    fell = (
        [] if losses[-1] < losses[0] else [f"the loss must fall, and went from {losses[0]} to {losses[-1]}"]
    )
    return fell + judge_several(operations, devices)


def check(
    cases: Mapping[str, Case],
    several_modes: list[Mode],
    device: str,
    expected: Mapping[str, Any],
    steps: int,
    console: Console,
) -> list[str]:
    """Measures all cases in all modes on the device that TensorFlow prefers, and says what is wrong."""
    wrong: list[str] = []
    table = Table(box=None, pad_edge=False)
    for name in ("recipe", "mode", "cpu ms", f"{device} ms", "times faster", "wrong"):
        table.add_column(name, justify="right" if name[-2:] == "ms" or name[:5] == "times" else "left")
    for name, case in cases.items():
        cpu = expected[name]
        for mode in several_modes:
            try:
                seen = measure(case, mode, steps)
                found = judge(case, mode, device, seen, cpu)
                times = [f"{seen['milliseconds']:.2f}", f"{cpu['milliseconds'] / seen['milliseconds']:.1f}"]
            except Exception as error:  # Whatever it is, the other cases are to be seen.
                found, times = [f"{type(error).__name__}: {str(error).splitlines()[0]}"], ["", ""]
            wrong += [f"{name}, {mode}: {sentence}" for sentence in found]
            table.add_row(name, str(mode), f"{cpu['milliseconds']:.2f}", *times, str(len(found) or "-"))
            keras.backend.clear_session()
    console.print(table)
    return wrong


def check_gpu(names: list[str], steps: int) -> int:
    """Checks these cases, monitors, sweeps and the search; prints what is wrong, returns the exit code."""
    with quiet_start():
        facts = gather()
    if not facts.gpus:
        print(f"{NO_GPU}; see {DOCTOR}")
        return 3
    print(training.device("gpu", mixed_precision=False, strategy=False, verbose=False))
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}; the CPU is measured first, for minutes")
    try:
        expected = reference(names, steps)
    except subprocess.CalledProcessError as error:
        print(f"WRONG the CPU could not be measured:\n{error.stderr.decode(errors='replace')}")
        return 1
    cases = {name: CASES[name] for name in names}
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    wrong = check(cases, modes(facts), "GPU:0", expected["cases"], steps, console)
    try:
        with exact_products():
            wrong += judge_figures(figures("auto"), expected["figures"])
        if len(facts.gpus) > 1:
            wrong += several([f"GPU:{number}" for number in range(len(facts.gpus))])
    except Exception as error:
        wrong.append(f"monitors, sweeps, search, several GPUs: {type(error).__name__}: {error}")
    for sentence in wrong:
        print(f"WRONG {sentence}")
    print(f"not all of it held: {len(wrong)} wrong" if wrong else "all of it held")
    return 1 if wrong else 0
