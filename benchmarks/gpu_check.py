"""What a person with a GPU runs, since this was written where there is none.

    make gpu-check
    python benchmarks/gpu_check.py --only mlp rnn-lstm --steps 20

Trains every recipe on the GPU with and without mixed precision and XLA, and checks that the loss falls, that
the heavy operations ran there, that cuDNN ran the recurrent nets it can run, and that predictions from the
same weights are those of the CPU. Then the same of monitors, learning-rate sweeps and the search, and of
several GPUs if there are. Prints the time of a step beside the CPU's, which a process of its own measures.

Exit code: 0 all of it held, 1 something did not, 3 there is no GPU and nothing was checked.

Tests run these checks on the CPU, with the CPU in the place of the GPU. So it is known that they find an
operation in the wrong place, a loss that does not fall, predictions that differ and a search that ends
elsewhere. It is not known what they say on a GPU: its kernels, its memory, cuDNN and XLA for it have never
been run by this program's authors. The bounds on how far predictions may differ follow from the float types.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_practice import training
from keras_practice.core.command import quiet_start

with quiet_start():
    import keras
    import numpy as np
    import tensorflow as tf
    from rich.console import Console
    from rich.table import Table
    from tensorflow.python.eager import context

    from keras_practice import callbacks, data, recipes, tuning
    from keras_practice.data import Task
    from keras_practice.training.devices import DOCTOR, Facts, decide, gather

NO_GPU = "no GPU: nothing checked"
TEN = Task.multiclass(10)
HEAVY = re.compile(r"MatMul|Conv\dD|CudnnRNN|FusedBatchNorm|MaxPool|AvgPool")
# Of predictions, to the largest of them. float32 has 24 bits, and its sums are made in another order; float16
# has 11 bits and bfloat16 8, whose errors of 1/2048 and 1/256 add up from layer to layer.
APART = {"float32": 1e-3, "mixed_float16": 1e-2, "mixed_bfloat16": 5e-2}


@dataclass(frozen=True)
class Case:
    """A recipe at a size at which it is used, and the operations that its training must run.

    Attributes:
        recipe: Its name.
        shape: Shape of one sample.
        arguments: More arguments of the recipe.
        task: What is predicted.
        heavy: Operations that must be on the device.
        cudnn: Whether cuDNN must run it, so that XLA must not.
    """

    recipe: str
    shape: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    task: Task = TEN
    heavy: tuple[str, ...] = ("MatMul",)
    cudnn: bool = False


CONVOLUTIONS = ("Conv2D", "MatMul")
CASES = {
    "linear": Case("linear", (784,)),
    "mlp": Case("mlp", (784,), {"units": (512, 256)}),
    "residual_mlp": Case("residual_mlp", (784,), {"depth": 10}),
    "selu_mlp": Case("selu_mlp", (784,), {"units": (512, 256)}),
    "maxout_mlp": Case("maxout_mlp", (784,), {"units": (256, 128)}),
    "low_rank_mlp": Case("low_rank_mlp", (784,), {"units": (512, 256), "rank": 32}),
    "lenet5": Case("lenet5", (32, 32, 1), heavy=CONVOLUTIONS),
    "alexnet": Case("alexnet", (32, 32, 3), {"variant": "small"}, heavy=CONVOLUTIONS),
    "googlenet": Case("googlenet", (64, 64, 3), heavy=CONVOLUTIONS),
    "resnet": Case("resnet", (32, 32, 3), {"depth": 20}, heavy=CONVOLUTIONS),
    "convnet": Case("convnet", (28, 28, 1), heavy=CONVOLUTIONS),
    "conv1d": Case("conv1d", (128, 8), heavy=CONVOLUTIONS),
    "rnn-lstm": Case("rnn", (64, 16), heavy=("CudnnRNN",), cudnn=True),
    "rnn-gru": Case("rnn", (64, 16), {"cell": "gru", "bidirectional": True}, heavy=("CudnnRNN",), cudnn=True),
    "rnn-masked": Case("rnn", (64, 16), {"mask_value": 0.0}, heavy=("CudnnRNN",), cudnn=True),
    "rnn-simple": Case("rnn", (64, 16), {"cell": "simple"}),
    "rnn-dropout": Case("rnn", (64, 16), {"recurrent_dropout": 0.2}),
    "autoencoder": Case("autoencoder", (784,), {"units": (256,), "code": 32}, Task.regression(784)),
}


@dataclass(frozen=True)
class Mode:
    """A float type and whether Keras may use XLA."""

    policy: str = "float32"
    xla: bool | str = False

    def __str__(self) -> str:
        return f"{self.policy}{', XLA' if self.xla else ''}"


def modes(facts: Facts) -> list[Mode]:
    """With and without mixed precision and XLA, in the type that `training.device` would choose."""
    mixed = decide(facts, mixed_precision=True).policy
    return [Mode(policy, xla) for policy in ("float32", mixed) for xla in (False, "auto")]


def samples(case: Case, count: int) -> tuple[Any, Any]:
    """Inputs, and labels that have nothing to do with them: to be learned by heart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *case.shape)).astype("float32")
    if case.arguments.get("mask_value") is not None:
        x[: count // 2, case.shape[0] // 2 :] = case.arguments["mask_value"]  # Padding comes last, for cuDNN.
    if case.recipe == "autoencoder":
        return x, x
    return x, rng.integers(0, case.task.num_classes, size=count)


def build(case: Case, mode: Mode) -> keras.Model:
    """The compiled model, with weights that are the same on every machine."""
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(mode.policy)
    try:
        model = recipes.get(case.recipe)(case.shape, case.task, **case.arguments)
        recipes.compile_for(model, case.task, jit_compile=mode.xla, steps_per_execution=1)
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            scale = math.sqrt(2.0 / math.prod(weight.shape[:-1]))
            weight.assign(rng.normal(0.0, scale, weight.shape).astype("float32"))
    return model


def executed(run: Callable[[], Any]) -> Counter[tuple[str, str]]:
    """Operations that graphs run for the first time place, by type and device such as `GPU:0`.

    TensorFlow's public tools only log them.
    """
    eager = context.context()
    eager.ensure_initialized()
    eager.enable_run_metadata()
    try:
        eager.export_run_metadata()  # Of what ran before.
        run()
        graphs = eager.export_run_metadata().partition_graphs
    finally:
        eager.disable_run_metadata()
    found: Counter[tuple[str, str]] = Counter()
    for graph in graphs:
        library = {function.signature.name: function.node_def for function in graph.library.function}
        for node in graph.node:
            device = node.device.rsplit("device:", 1)[-1]
            found[node.op, device] += 1
            # What XLA compiles stands in the graph as one call.
            if node.attr["_XlaMustCompile"].b:
                found.update((inner, device) for inner in _inside(node, library))
    return found


def _inside(node: Any, library: Mapping[str, Any]) -> Iterator[str]:
    """Types of the operations in the functions that a node calls, at any depth."""
    for value in node.attr.values():
        for inner in library.get(value.func.name, ()):
            yield inner.op
            yield from _inside(inner, library)


def measure(case: Case, mode: Mode, steps: int, batch: int = 64) -> dict[str, Any]:
    """Predictions from the same weights, losses, operations and times of a training, ready for JSON."""
    model, (x, y) = build(case, mode), samples(case, batch)
    with exact_products():
        predictions = _before_activation(model).predict(x, batch_size=batch, verbose=0)
    batches = tf.data.Dataset.from_tensors((x, y)).cache().repeat(steps)
    losses, times = [], []

    def train() -> None:
        start = time.perf_counter()
        losses.append(float(model.fit(batches, shuffle=False, verbose=0).history["loss"][0]))
        times.append((time.perf_counter() - start) / steps)

    operations = executed(train)
    for _ in range(3):
        train()
    return {
        "predictions": np.asarray(predictions, np.float64).ravel().tolist(),
        "losses": [losses[0], losses[-1]],
        "operations": [[name, device, count] for (name, device), count in operations.items()],
        "xla": bool(model.jit_compile),
        "milliseconds": 1000 * statistics.median(times[1:]),
    }


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Without TensorFloat-32, by which GPUs from Ampere on round factors in float32 products to 11 bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _before_activation(model: keras.Model) -> keras.Model:
    """The model without its last activation, in whose flat ends differences would vanish."""
    cut = keras.Model(model.input, model.layers[-1].input)
    cut.compile(jit_compile=model.jit_compile)
    return cut


def judge(
    case: Case, mode: Mode, device: str, seen: Mapping[str, Any], reference: Mapping[str, Any]
) -> list[str]:
    """What is wrong with a measurement on `device`, in sentences; empty where all of it holds."""
    wrong = []
    first, last = seen["losses"]
    if not (math.isfinite(first) and math.isfinite(last) and last < first):
        wrong.append(f"the loss must fall, and went from {first:.3g} to {last:.3g}")
    heavy = [(name, place) for name, place, _ in seen["operations"] if HEAVY.search(name)]
    if elsewhere := sorted({f"{name} on {place or 'no device'}" for name, place in heavy if place != device}):
        wrong.append(f"not on {device}: {', '.join(elsewhere)}")
    for wanted in case.heavy:
        if not any(wanted in name for name, place in heavy if place == device):
            wrong.append(f"no {wanted} ran on {device}")
    if case.cudnn and seen["xla"]:
        wrong.append("Keras must not use XLA where cuDNN runs the net")
    elif not case.cudnn and bool(mode.xla) != seen["xla"]:
        wrong.append(f"XLA must be {'on' if mode.xla else 'off'}")
    apart = distance(seen["predictions"], reference["predictions"])
    if not apart <= APART[mode.policy]:
        wrong.append(
            f"predictions are {apart:.2g} of the largest from the CPU's, at most {APART[mode.policy]:g}"
        )
    return wrong


def distance(one: list[float], other: list[float]) -> float:
    """The largest difference of two lists over the largest number in the second; NaN for NaN."""
    if len(one) != len(other):
        return math.inf
    return float(np.abs(np.subtract(one, other)).max() / max(1e-6, np.abs(other).max()))


# What is compared of monitors and sweeps, and how far it may be apart, as in `distance`. The search ends
# after some epochs of training, in which differences of the last digit grow.
FIGURES = {
    "monitor, mlp": 1e-2,
    "monitor, rnn": 1e-2,
    "scores, mlp": 5e-2,
    "sweep, mlp": 2e-2,
    "sweep, rnn": 2e-2,
    "search": 1e-1,
}


def figures(xla: bool | str = False) -> dict[str, list[float]]:
    """What monitors, scores, sweeps and the search say, in float32: numbers that no device may change."""
    digits, waves = data.load("digits"), data.load("waves")
    found: dict[str, list[float]] = {}
    nets: dict[str, tuple[Any, Any]] = {
        "mlp": (digits, lambda: recipes.mlp(digits.input_shape, digits.task, units=(32,), dropout=0.0)),
        "rnn": (waves, lambda: recipes.rnn(waves.input_shape, waves.task, units=(16,))),
    }
    for name, (dataset, make) in nets.items():

        def compiled(make: Any = make, dataset: Any = dataset) -> keras.Model:
            return recipes.compile_for(make(), dataset.task, jit_compile=xla)

        keras.utils.set_random_seed(0)
        monitor, scores = (
            callbacks.TrainingMonitor(every=1, sink=list),
            callbacks.ValidationScores(dataset.val),
        )
        history = compiled().fit(
            dataset.train.x[:256],
            dataset.train.y[:256],
            batch_size=64,
            shuffle=False,
            validation_data=(dataset.val.x, dataset.val.y),
            verbose=0,
            callbacks=[monitor, scores],
        )
        found[f"monitor, {name}"] = [float(norm) for norm in monitor.history["gradient_norm"]]
        if name == "mlp":
            found[f"scores, {name}"] = [float(history.history["val_auc"][-1])]
        swept = tuning.learning_rate_sweep(
            compiled, dataset.train, dataset.val, rates=[1e-4, 1e-3, 3e-3], epochs=1, batch_size=64
        )
        found[f"sweep, {name}"] = swept.val_loss.ravel().tolist()
    with tempfile.TemporaryDirectory() as folder:
        settings = tuning.Settings(data="iris", trials=2, epochs=3, learning_rate=(1e-3, 1e-2))
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            tuning.tune(settings, folder)
        found["search"] = [json.loads((Path(folder) / "best.json").read_text())["validation"]["val_auc"]]
    return found


def judge_figures(seen: Mapping[str, list[float]], reference: Mapping[str, list[float]]) -> list[str]:
    """Which monitors, sweeps and searches say something else than on the CPU."""
    wrong = []
    for name, most in FIGURES.items():
        apart = distance(seen[name], reference[name])
        if not apart <= most:
            wrong.append(f"{name}: {apart:.2g} of the largest from the CPU's, at most {most:g}")
    return wrong


def judge_several(operations: Mapping[tuple[str, str], int], devices: list[str]) -> list[str]:
    """On which of several devices a training under a strategy ran no heavy operation."""
    busy = {place for name, place in operations if HEAVY.search(name)}
    return [f"nothing heavy ran on {device}" for device in devices if device not in busy]


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


def reference(names: list[str], steps: int) -> dict[str, Any]:
    """The CPU's measurements, made in a process that sees no GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cpu.json"
        command = [
            sys.executable,
            __file__,
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


def main(arguments: list[str] | None = None) -> int:
    """Runs the checks; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="some of the recipes")
    parser.add_argument("--steps", type=int, default=20, help="steps of a timed training (default: 20)")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)  # This process measures the CPU.
    options = parser.parse_args(arguments)
    if options.reference is not None:
        training.device("cpu", verbose=False)
        found = {name: measure(CASES[name], Mode(), options.steps) for name in options.only}
        options.reference.write_text(json.dumps({"cases": found, "figures": figures()}))
        return 0
    with quiet_start():
        facts = gather()
    if not facts.gpus:
        print(f"{NO_GPU}; see {DOCTOR}")
        return 3
    print(training.device("gpu", mixed_precision=False, strategy=False, verbose=False))
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}; the CPU is measured first, for minutes")
    try:
        expected = reference(options.only, options.steps)
    except subprocess.CalledProcessError as error:
        print(f"WRONG the CPU could not be measured:\n{error.stderr.decode(errors='replace')}")
        return 1
    cases = {name: CASES[name] for name in options.only}
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    wrong = check(cases, modes(facts), "GPU:0", expected["cases"], options.steps, console)
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


if __name__ == "__main__":
    sys.exit(main())
