"""What a training does on a device: losses, predictions, operations and times."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice import recipes
from keras_practice.core.private_api.tensorflow import graphs_run_by
from keras_practice.gpu_check.cases import Case, Mode
from keras_practice.training.devices import Facts, decide


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
    """Operations that graphs run for the first time place, by type and device such as `GPU:0`."""
    found: Counter[tuple[str, str]] = Counter()
    for graph in graphs_run_by(run):
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
