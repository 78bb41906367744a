"""How right a model is on some samples, and beside the best constant answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.inspection.context import loss_name, task_of
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.samples import Samples, samples_of
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.data import Split, Task

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Judged:
    """What a model says to some samples, and how right it is.

    Attributes:
        samples: What was judged.
        task: What is predicted, as wide as the model's output.
        truth, prediction: Classes, labels or numbers, `(samples, ...)`.
        confidence: Probability of the prediction, `(samples,)`; NaN for regression.
        losses: Cross-entropy or squared error, `(samples,)`.
        wrong: Whether a sample is wrong in any decision, `(samples,)`.
        error: Share of wrong decisions; for regression mean squared error over variance.
        chance: The same error of the best constant answer: the most common class,
            or the mean.
        doubt: Standard error of `error`, from the number of samples.
    """

    samples: Samples
    task: Task
    truth: Array
    prediction: Array
    confidence: Array
    losses: Array
    wrong: Array
    error: float
    chance: float
    doubt: float


def judge(model: keras.Model, split: Any, task: Task | None = None, most: int | None = None) -> Judged:
    """Runs a model on samples in inference, and compares what it says with the labels.

    Args:
        model: A model with one output.
        split: A `data.Split`, a pair `(x, y)`, or batches, as for `fit`.
        task: What is predicted. Defaults to `None`: the split's, or what labels and loss say.
        most: Most samples that are used, drawn at random. Defaults to `None`, all.

    Raises:
        ValueError: If data, model and task do not fit each other.
    """
    samples, task = samples_and_task(split, task)
    samples = samples if most is None else samples.spread(most)
    with preserved(model, _first(samples.x)):
        outputs = outputs_of(model, samples.x)
    return judge_outputs(model, outputs, samples, task)


def samples_and_task(split: Any, task: Task | None) -> tuple[Samples, Task | None]:
    """The samples of a split, a pair or batches, and their task where it is known."""
    if isinstance(split, Split):
        return samples_of(split.x, split.y), task or split.task
    if isinstance(split, (tuple, list)):
        if len(split) != 2:
            raise ValueError(f"Samples must be a data.Split or a pair (x, y). Got {len(split)} parts.")
        return samples_of(split[0], split[1]), task
    return samples_of(split, None), task


def outputs_of(model: Any, x: Any) -> Array:
    """What a model, or a graph of it, puts out in inference, `(samples, ..., outputs)`."""
    count = len(keras.tree.flatten(x)[0])
    parts = []
    for start in range(0, count, _BATCH):
        batch = keras.tree.map_structure(lambda a, s=start: a[s : s + _BATCH], x)
        part = model(batch, training=False)
        if len(keras.tree.flatten(part)) != 1:
            raise ValueError("The model must have one output. Got several.")
        parts.append(np.asarray(keras.tree.flatten(part)[0], dtype=np.float64))
    return np.concatenate(parts)


def judge_outputs(model: keras.Model, outputs: Array, samples: Samples, task: Task | None) -> Judged:
    """Compares outputs `(samples, ..., outputs)` with the labels of the same samples."""
    task = task_for(model, outputs, samples.y, task)
    task.check(samples.y)
    count = len(outputs)
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    flat = outputs.reshape(-1, outputs.shape[-1])
    # A channel of size 1 at the end of the labels is not an axis of its own.
    labels = np.asarray(samples.y).reshape(len(flat), -1)
    if task.kind == "regression":
        losses = np.mean((flat - labels) ** 2, axis=1).reshape(count, -1).mean(axis=1)
        error, chance, doubt = _relative_error(flat, labels)
        missing = np.full(count, np.nan)
        return Judged(
            samples,
            task,
            _by_sample(labels, count),
            _by_sample(flat, count),
            missing,
            losses,
            np.ones(count, dtype=bool),
            error,
            chance,
            doubt,
        )
    truth, prediction, confidence, losses = _decide(probabilities(model, flat, task), labels, task)
    missed = truth != prediction
    error = float(missed.mean())
    # Decisions of one sample are not independent of each other, so samples are what counts.
    doubt = math.sqrt(max(error * (1 - error), 1 / count) / count)
    return Judged(
        samples,
        task,
        _by_sample(truth, count),
        _by_sample(prediction, count),
        confidence.reshape(count, -1).min(axis=1),
        losses.reshape(count, -1).mean(axis=1),
        missed.reshape(count, -1).any(axis=1),
        error,
        chance_error(labels, task),
        doubt,
    )


def task_for(model: keras.Model, outputs: Array, y: Any, task: Task | None) -> Task:
    """The task, stated or read from labels and loss, as wide as the model's output."""
    if isinstance(y, (dict, list, tuple)):
        raise ValueError(f"There must be labels for one output. Got {len(y)}.")
    if task is None:
        task = task_of(Head("output", outputs, np.asarray(y), getattr(model, "loss", None), ()))
    if task is None:
        task = Task.infer(y)  # Raises, and says what is missing.
    width = outputs.shape[-1] if outputs.ndim > 1 else 1
    # Two softmax units for yes or no, or more units than the labels at hand have classes.
    if (task.kind == "binary" and width == 2) or (
        task.kind == "multiclass" and width > task.outputs and not task.one_hot
    ):
        names = task.class_names if len(task.class_names) == width else ()
        return Task.multiclass(width, names)
    if width != task.outputs:
        raise ValueError(f"The model must have {task.outputs} output(s) for {task}. Got {width}.")
    return task


def probabilities(model: keras.Model, outputs: Array, task: Task) -> Array:
    """Outputs as probabilities `(decisions, outputs)`, also of a model that gives logits."""
    loss = getattr(model, "loss", None)
    within = bool(np.all((outputs >= 0) & (outputs <= 1)))
    if task.kind == "multiclass":
        # Keras finds the logits behind a softmax by itself, whatever from_logits says.
        if not within or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return outputs
    if not within and (getattr(loss, "from_logits", False) or "hinge" in loss_name(loss)):
        return np.asarray(1 / (1 + np.exp(-np.clip(outputs, -500, 500))))
    return np.clip(outputs, 0, 1)


def chance_error(labels: Array, task: Task) -> float:
    """Share of decisions that the best constant answer gets wrong."""
    if task.kind == "multilabel":
        shares = labels.mean(axis=0)
        return float(np.mean(np.minimum(shares, 1 - shares)))
    counts = np.bincount(task.class_indices(labels))
    return float(1 - counts.max() / counts.sum())


def _decide(p: Array, labels: Array, task: Task) -> tuple[Array, Array, Array, Array]:
    """Truth, decision, confidence and cross-entropy of each decision."""
    least = keras.config.epsilon()  # What Keras's own cross-entropy takes for zero.
    if task.kind == "multiclass":
        truth, decided = task.class_indices(labels), p.argmax(axis=1)
        given = p[np.arange(len(p)), truth]
        # A comparison with NaN decides nothing, so it is wrong.
        decided = np.where(np.isfinite(p).all(axis=1), decided, -1)
        return truth, decided, p.max(axis=1), -np.log(np.clip(given, least, 1))
    truth, decided = labels.astype(np.int64), (p > 0.5).astype(np.int64)
    decided = np.where(np.isfinite(p), decided, -1)
    losses = -np.log(np.clip(np.where(truth == 1, p, 1 - p), least, 1)).mean(axis=1)
    sure = np.maximum(p, 1 - p).min(axis=1)
    if task.kind == "binary":
        return truth[:, 0], decided[:, 0], sure, losses
    return truth, decided, sure, losses


def _relative_error(outputs: Array, targets: Array) -> tuple[float, float, float]:
    """Mean squared error over variance, that of the mean, and the standard error of the first."""
    variance = float(np.mean((targets - targets.mean(axis=0)) ** 2))
    squares = np.mean((outputs - targets) ** 2, axis=1)
    scale = variance or 1.0
    doubt = float(squares.std()) / scale / math.sqrt(len(squares))
    return float(squares.mean()) / scale, 1.0, doubt


def _by_sample(values: Array, count: int) -> Array:
    """`(samples,)` where there is one value a sample, else `(samples, values)`."""
    values = values.reshape(count, -1)
    return values[:, 0] if values.shape[1] == 1 else values


def _first(x: Any) -> Any:
    return keras.tree.map_structure(lambda a: a[:1], x)
