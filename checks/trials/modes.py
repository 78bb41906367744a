"""Symptoms that show in comparison: of inference and training, of one batch and another."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.trials.baseline import LEARNED, Baseline
from keras_practice.checks.trials.short_training import LONG_FIT, USUAL_FIT, ShortTraining
from keras_practice.checks.trials.symptoms import AT_THE_START
from keras_practice.checks.trials.train_loop import TrainLoop
from keras_practice.core.types import Array

SETTLE_STEPS = 50
_LEAK = {"float16": 2e-2, "bfloat16": 1e-1}
_LEAK_FLOAT32 = 1e-3
_COMPANY = 32
# Half of what can be learned, or was.
_HALF = 0.5


def batch_leak(training: ShortTraining, when: str) -> Iterator[Finding]:
    """Outputs that depend on the other samples of the batch, or on chance."""
    rows = training.seen[:_COMPANY]
    half = len(rows) // 2
    others = training.seen[-half:]
    if half < 2 or len(training.seen) < 3 * half or training.samples.batch is not None:
        return
    mine, mixed = rows[:half], np.concatenate([others, rows[:half]])
    first, again = training.outputs(rows), training.outputs(rows)
    variation = max(_distance(a[:half], b[:half]) for a, b in zip(first, again, strict=True))
    tolerance = _LEAK.get(training.model.compute_dtype, _LEAK_FLOAT32)
    if variation > tolerance:
        calls = training.context.forward_pass.calls
        if when == AT_THE_START and not any(getattr(call.layer, "stateful", False) for call in calls):
            yield _random_inference(training, variation)
        return
    other, alone = training.outputs(mixed), training.outputs(mine)
    pairs = zip(first, other, alone, strict=True)
    leak = max(max(_distance(a[:half], b[half:]), _distance(a[:half], c)) for a, b, c in pairs)
    if leak > tolerance:
        yield Finding(
            "batch-leak",
            "error",
            "output",
            f"{when}, in inference, a sample's output changes by {leak:.2g} of the outputs' size with "
            f"the other samples of its batch, where at most {tolerance:g} is expected.",
            "a softmax, mean or other operation over axis 0, a reshape that mixes samples, or batch "
            "statistics used in inference.",
            "let operations work on axis -1, keep the batch axis in reshapes, and pass training on.",
            "Karpathy 2019",
        )


def _random_inference(training: ShortTraining, variation: float) -> Finding:
    x = training.samples.inputs(training.seen[:_COMPANY])
    with training.preserved():
        one, other = (keras.tree.flatten(training.model(x, training=True)) for _ in range(2))
    turned_round = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))
    return Finding(
        "train-eval-gap",
        "error" if turned_round else "warning",
        "output",
        f"in inference the output for the same samples changes by {variation:.2g} of its size from one "
        "call to the next" + (", and in training it does not" if turned_round else "") + ", where no change "
        "is expected.",
        "dropout or noise with its flag turned round."
        if turned_round
        else "dropout or noise that is switched on for good, with training=True.",
        "pass the training argument on as it is"
        + ("." if turned_round else ", unless the outputs are meant to be drawn at random."),
        "A37",
    )


def train_eval_gap(training: ShortTraining, baseline: Baseline, loop: TrainLoop) -> Iterator[Finding]:
    """Compares the loss in both modes once running statistics have settled; weights stay."""
    constant = baseline.constant
    if constant is None:
        return
    with training.preserved():
        before = {id(v): np.array(v.numpy()) for v in training.model.non_trainable_variables}
        curve = loop.run(training.order(SETTLE_STEPS), 0.0)
        if not curve.finite:
            return
        lagging = training.evaluate()
        unknown = training.settle(before, len(curve.losses))
        settled = training.evaluate()
    trained, lowest = float(curve.losses.mean()), min(lagging.loss, settled.loss)
    if not math.isfinite(lowest) and not settled.finite:
        lowest = math.inf
    slowest = max((layer.momentum for layer in training.normalizers), default=0.0)
    if constant <= 0:
        return  # No loss to speak of, as where all sample weights are 0.
    # On the same samples dropout can only make the loss of training mode the higher one.
    lost = lowest >= constant - _HALF * (constant - trained)
    if trained <= 0.7 * constant and lost and not unknown:
        yield Finding(
            "train-eval-gap",
            "error",
            "model",
            f"the same weights give a loss of {trained:.3g} in training mode and {lowest:.3g} in "
            f"inference, where a constant answer gives {constant:.3g}.",
            "a layer that does something else in inference than in training.",
            "look at what each layer makes of the training argument.",
            "A37; Ioffe and Szegedy 2015",
        )
    elif trained <= 0.7 * constant <= constant <= lagging.loss and _lags(training, slowest, USUAL_FIT):
        hopeless = _lags(training, slowest, LONG_FIT)
        yield Finding(
            "train-eval-gap",
            "error" if hopeless else "warning",
            "batch norm",
            f"the loss is {trained:.3g} in training mode and {lagging.loss:.3g} in inference, and with "
            f"momentum {slowest:g} the running statistics take about "
            f"{1 / (1 - min(slowest, 1 - 1e-9)):.1g} steps to follow.",
            "a momentum of batch norm that is too high for a training of usual length.",
            "set momentum=0.99 or 0.9 in BatchNormalization.",
            "Ioffe and Szegedy 2015",
        )
    elif trained > 2 * constant and settled.loss < (1 - LEARNED) * constant:
        yield Finding(
            "train-eval-gap",
            "warning",
            "model",
            f"the same weights give a loss of {trained:.3g} in training mode and {settled.loss:.3g} in "
            f"inference, where a constant answer gives {constant:.3g}.",
            "dropout or noise on the output itself, or far too much of it.",
            "drop units of hidden layers only, and not more than half of them.",
            "A37",
        )


def _lags(training: ShortTraining, momentum: float, fit: tuple[int, int]) -> bool:
    """Whether statistics would still be half initial after so many epochs, or steps."""
    return momentum ** training.steps_in(fit) > 0.5


def _distance(one: Array, other: Array) -> float:
    """The largest difference of two outputs, as a share of their size."""
    return float(np.max(np.abs(one - other))) / max(float(np.max(np.abs(one))), 1e-30)
