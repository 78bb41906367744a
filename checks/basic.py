"""The two checks that the lectures put before every training."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.findings import Finding, Report, Severity
from keras_practice.checks.inspection.context import loss_name
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.loss_probe import probe_of
from keras_practice.checks.inspection.samples import in_turn
from keras_practice.checks.trials.constant_answer import constant_loss, data_loss
from keras_practice.checks.trials.first_loss import FirstLoss, judge_first_loss
from keras_practice.checks.trials.train_loop import TensorSamples, TrainLoop, copied_optimizer
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.data import Task

_MAX_SAMPLES = 1024
_LOOK_EVERY = 10  # steps
# Of a start that a training may make up for, as `preflight` tells it.
_SEVERITY: Mapping[FirstLoss, Severity] = MappingProxyType({FirstLoss.HIGH: "info", FirstLoss.FAR: "warning"})
_LEARNED = {"regression": 0.95}  # R squared; elsewhere every sample must be right.


def initial_loss(
    model: keras.Model, x: Any, y: Any, *, task: Task | None = None, tolerance: float | None = None
) -> Report:
    """Whether the loss of an untrained model is what chance gives.

    Chance is a model that says the same for every sample and knows nothing of the
    classes: cross-entropy ln(C) for C classes and ln(2) a yes/no decision. For
    other losses it is the loss of a constant output, halfway for probabilities
    and 0 for regression. Penalties on the weights are not counted.

    A start far above it means that the model is sure of what it cannot know:
    initial weights or inputs on a wrong scale, or a loss at odds with the output.
    A start well below it, and below that of the best constant answer, means that
    the model knows the labels already.

    The bounds are those of `preflight`: from 1.5 times chance on (for regression 5
    times) a start is a remark, from twice that on a warning. Here no training can
    make up for it, so that there is an end to that: what is above `tolerance` is
    an error.

    The model is not changed.

    Args:
        model: A compiled model, not yet trained.
        x: Inputs, `(samples, ...)`. At most 1,024 of them are used.
        y: Labels, `(samples,)` or `(samples, outputs)`.
        task: What is predicted. Defaults to `None`, inferred from `y`.
        tolerance: How far above chance the loss may be, as a share of it.
            Defaults to `None`: 3 for classes, where fresh nets on a few features give
            up to 3 times ln(C), and 4 for regression, where the scatter of the fresh
            outputs adds to the targets' own. A start too low is an error either way.

    Returns:
        A report with the figures `loss` and `expected`.

    Raises:
        ValueError: If the model is not compiled, or data and task do not fit.

    Source:
        A46; Karpathy 2019, "A recipe for training neural networks".
    """
    _check_compiled(model)
    x, y, task = _check_data(x, y, task)
    if tolerance is None:
        tolerance = 3.0 if task.is_classification else 4.0
    rows = np.random.default_rng(0).permutation(len(x))[:_MAX_SAMPLES]
    x, y = x[rows], y[rows]
    with preserved(model, x[:1]):
        outputs = model(x, training=False)
        loss = _data_loss(model, x, y, outputs)
        expected = _data_loss(model, x, y, _chance(model, task, np.asarray(outputs)))
        head = Head("output", np.asarray(outputs), y, _only_loss(model), ())
        batch = (tf.convert_to_tensor(x), tf.convert_to_tensor(y), None)
        constant = constant_loss(model, (head,), batch, outputs, x[:1])
    figures = MappingProxyType({"loss": loss, "expected": expected})
    severity, cause, fix = _first_loss(
        loss,
        expected,
        # Where it is not known what a constant answer can do, chance is all there is.
        expected if constant is None else constant,
        classes="crossentropy" in loss_name(head.loss),
        most=expected * (1 + tolerance),
    )
    if severity is None:
        return Report(figures=figures)
    seen = f"the first loss is {loss:.4g}, chance gives {expected:.4g}."
    return Report((Finding("initial-loss", severity, "output", seen, cause, fix, "A46"),), figures)


def _first_loss(
    loss: float, expected: float, constant: float, *, classes: bool, most: float
) -> tuple[Severity | None, str, str]:
    """How bad the first loss is, its likely cause and what to try; `None` for what is as it should be."""
    if not np.isfinite(loss):
        return "error", "a loss or an input that overflows.", "look for NaN or huge values in x and y."
    judged = judge_first_loss(loss, expected, constant, classes=classes)
    if judged is FirstLoss.LOW:
        return (
            "error",
            "a model that is trained already, labels among the inputs, or a loss that does not suit them.",
            "start from a fresh model, and check that y is not part of x.",
        )
    severity: Severity | None = _SEVERITY.get(judged)
    return (
        "error" if loss > most else severity,
        "inputs or initial weights on too large a scale, or a loss that does not suit the output.",
        "standardise x, use He-normal weights for ReLU, and let recipes.compile_for choose the loss.",
    )


def overfit_tiny(
    model: keras.Model,
    x: Any,
    y: Any,
    n: int = 20,
    *,
    task: Task | None = None,
    steps: int = 500,
    seed: int = 0,
) -> Report:
    """Whether the model can learn a few samples by heart.

    The model trains on `n` samples as one batch, with its own loss and a fresh
    copy of its optimiser, until every one is right (for regression: until the
    squared error is under 5 % of the targets' variance) or `steps` are over. A
    model that cannot do this will not learn the whole set either, and something
    is broken: the loss, the labels, the output layer, or the gradient's path.

    The model is not changed: weights, statistics, random seeds, optimiser and
    compile state are the same afterwards, bit for bit.

    Args:
        model: A compiled model.
        x: Inputs, `(samples, ...)`.
        y: Labels, `(samples,)` or `(samples, outputs)`.
        n: How many samples, taken from all classes in turn. Defaults to `20`.
        task: What is predicted. Defaults to `None`, inferred from `y`.
        steps: Most updates of the weights. Defaults to `500`.
        seed: Fixes the choice of samples. Defaults to `0`.

    Returns:
        A report with the figures `accuracy` (of the `n` samples; for regression
        `r2`), `steps` taken and the last `loss`.

    Raises:
        ValueError: If the model is not compiled, its optimizer cannot be copied,
            `n` or `steps` is not positive, or data and task do not fit.

    Source:
        A47; Goodfellow, Bengio and Courville 2016, section 11.5.
    """
    _check_compiled(model)
    n, steps = check_positive_integer("n", n), check_positive_integer("steps", steps)
    x, y, task = _check_data(x, y, task)
    rows = _tiny_rows(y, task, n, seed)
    x, y = x[rows], y[rows]
    with preserved(model, x[:1]):
        fit, taken, loss = _train_by_heart(model, x, y, task, steps)
    learned = "r2" if task.kind == "regression" else "accuracy"
    figures = MappingProxyType({learned: fit, "steps": float(taken), "loss": loss})
    if fit >= _LEARNED.get(task.kind, 1.0):
        return Report(figures=figures)
    finding = Finding(
        "tiny-overfit",
        "error",
        "model",
        f"{learned} {fit:.3g} on {len(x)} samples after {taken} steps, where 1 is expected.",
        "a learning rate that is too high or too low, a loss or labels that do not suit the output, "
        "or a gradient that does not reach the weights.",
        "look at the loss and the output layer first, then try learning rates of 1e-3 and 1e-2.",
        "A47",
    )
    return Report((finding,), figures)


def _check_compiled(model: keras.Model) -> None:
    if not model.compiled:
        raise ValueError("The model must be compiled, since its loss is checked. Got an uncompiled model.")


def _check_data(x: Any, y: Any, task: Task | None) -> tuple[Array, Array, Task]:
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"x and y must have one row a sample each, and at least one. Got {len(x)} and {len(y)}."
        )
    if task is None:
        task = Task.infer(y)
    task.check(y)
    return x, y, task


def _only_loss(model: keras.Model) -> Any:
    """The compiled loss, also where it came in a list or dict."""
    losses = keras.tree.flatten(model.loss)
    return losses[0] if len(losses) == 1 else model.loss


def _data_loss(model: keras.Model, x: Array, y: Array, outputs: Any) -> float:
    """The compiled loss alone, so that no penalty can hide it, however large."""
    probe = probe_of(_only_loss(model), y, np.asarray(outputs))
    value = None if probe is None else probe.value(y, outputs)
    if value is not None:
        return value
    return data_loss(model, tf.convert_to_tensor(x), tf.convert_to_tensor(y), tf.convert_to_tensor(outputs))


def _chance(model: keras.Model, task: Task, outputs: Array) -> Array:
    """What a model would put out that knows nothing."""
    if task.kind == "regression" or _gives_logits(model):
        return np.zeros_like(outputs)
    return np.full_like(outputs, 1 / task.outputs if task.kind == "multiclass" else 0.5)


def _gives_logits(model: keras.Model) -> bool:
    return bool(getattr(_only_loss(model), "from_logits", False))


def _tiny_rows(y: Array, task: Task, n: int, seed: int) -> Array:
    """Rows of `n` samples, from all classes in turn where there are classes."""
    order = np.random.default_rng(seed).permutation(len(y))
    if task.kind in ("binary", "multiclass"):
        order = order[in_turn(task.class_indices(y)[order])]
    return np.asarray(order[:n])


def _train_by_heart(
    model: keras.Model, x: Array, y: Array, task: Task, steps: int
) -> tuple[float, int, float]:
    """Trains on one batch; returns how much of it is right, steps taken and the last loss."""
    samples = TensorSamples(model, x, y, batch=len(x))
    optimizer, rate = copied_optimizer(model)
    loop = TrainLoop(samples, optimizer, rate, gradient_ends=False)
    every = np.arange(len(x))
    infer = samples.traced(lambda rows: model(samples.inputs(rows), training=False), ([len(x)], tf.int64))
    fit, loss = 0.0, float("nan")
    # Batch-norm statistics lag behind the weights: look now and then, not at once.
    for begin in range(0, steps, _LOOK_EVERY):
        count = min(_LOOK_EVERY, steps - begin)
        losses = loop.run(np.tile(every, (count, 1)), fresh=begin == 0).penalized
        taken, loss = begin + len(losses), float(losses[-1])
        if not np.isfinite(loss):
            return 0.0, taken, loss
        fit = _share_learned(np.asarray(infer(tf.constant(every))), y, task, _gives_logits(model))
        if fit >= _LEARNED.get(task.kind, 1.0):
            break
    return fit, taken, loss


def _share_learned(outputs: Array, y: Array, task: Task, logits: bool) -> float:
    outputs = outputs.reshape(len(y), -1)
    if task.kind == "regression":
        targets = y.reshape(len(y), -1)
        variance = float(np.mean((targets - targets.mean(axis=0)) ** 2))
        error = float(np.mean((outputs - targets) ** 2))
        return 1 - error / variance if variance else float(error < 1e-6)
    if task.kind == "multiclass":
        return float(np.mean(outputs.argmax(axis=1) == task.class_indices(y)))
    decided = outputs > (0.0 if logits else 0.5)
    return float(np.mean(np.all(decided == (y.reshape(len(y), -1) == 1), axis=1)))
