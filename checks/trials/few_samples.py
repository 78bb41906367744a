"""A training on a few samples until every one is right, by the model's own loss and step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.findings import Finding, Report
from keras_practice.checks.inspection.context import task_of
from keras_practice.checks.inspection.forward_pass import ForwardPass, Head, heads_of
from keras_practice.checks.inspection.own_loss import trains_itself
from keras_practice.checks.inspection.samples import Samples, in_turn
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.own_step import OwnTraining
from keras_practice.checks.trials.train_loop import TensorSamples, TrainLoop, copied_optimizer
from keras_practice.core.private_api.keras import mask_of
from keras_practice.core.types import Array
from keras_practice.data import Task

_LOOK_EVERY = 10  # steps
# Of R squared, and of the fall of a loss of which the labels do not say when it is low; elsewhere every
# sample must be right.
_ENOUGH = {"r2": 0.95, "fall": 0.2}
# Of a constant answer's mistakes at steps or pixels, most of which may be of one class, so many may stay.
_MISTAKES = 0.1


@dataclass(frozen=True)
class Learned:
    """How a training on a few samples went.

    Attributes:
        measure: `"accuracy"`, `"accuracy of steps"`, `"r2"` or `"fall"`.
        share: How much was learned by it, up to 1.
        needed: From which share on they count as learned.
        steps: How many were taken.
        loss: The last.
        in_time: Whether it did not end for want of time.
    """

    measure: str
    share: float
    needed: float
    steps: int
    loss: float
    in_time: bool

    @property
    def enough(self) -> bool:
        """Whether the samples are learned."""
        return self.share >= self.needed

    def report(self, count: int, most: int) -> Report:
        """What follows from it, for so many samples and steps."""
        figures = MappingProxyType({self.measure: self.share, "steps": float(self.steps), "loss": self.loss})
        if self.enough:
            return Report(figures=figures)
        if not self.in_time and math.isfinite(self.loss):
            seen = f"{self.measure} {self.share:.3g} on {count} samples after {self.steps} of {most} steps"
            why = f"there was no time to end it ({seen}); give more with budget_s."
            return Report(figures=figures, unlooked=(f"the training on a few samples: {why}",))
        finding = Finding(
            "tiny-overfit",
            "error",
            "model",
            f"{self.measure} {self.share:.3g} on {count} samples after {self.steps} steps, "
            f"where {self.needed:.3g} is expected.",
            "a learning rate that is too high or too low, a loss or labels that do not suit the output, "
            "or a gradient that does not reach the weights.",
            "look at the loss and the output layer first, then try learning rates of 1e-3 and 1e-2.",
            "A47",
        )
        return Report((finding,), figures)


def tiny_rows(model: keras.Model, train: Samples, task: Task | None, count: int, seed: int) -> Array:
    """Rows of some samples, from all classes in turn where each has one."""
    order = np.random.default_rng(seed).permutation(len(train))
    for labels in train.labels[:1]:
        if task is None:
            codes = _classes(labels)
        else:
            classes = task.kind in ("binary", "multiclass") and labels.ndim <= 2
            codes = task.class_indices(labels) if classes else None
        if codes is not None and len(codes) == len(order):
            order = order[in_turn(codes[order])]
    return np.asarray(order[:count])


def _classes(labels: Array) -> Array | None:
    """One class a sample; `None` for what is none, such as measured numbers."""
    if labels.dtype.kind not in "biuf":
        return None
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=1) == 1)
        return labels.argmax(axis=1) if one_hot else None
    if labels.shape[1:] not in ((), (1,)) or not np.array_equal(labels, np.round(labels)):
        return None
    return np.asarray(labels.reshape(-1).astype(np.int64))


def learn_by_heart(
    model: keras.Model, train: Samples, task: Task | None, steps: int, budget: Budget
) -> Learned:
    """Trains on all samples as one batch until they are learned; the model's variables must be lent."""
    own = trains_itself(model)
    share, measure, needed, first, taken, loss = 0.0, "accuracy", 1.0, math.nan, 0, math.nan
    advance = _by_own_step(model, train) if own else _by_loss(model, train)
    infer = tf.function(lambda x: model(x, training=False), autograph=False, reduce_retracing=True)
    if model.run_eagerly:
        infer = lambda x: model(x, training=False)  # noqa: E731
    x = keras.tree.map_structure(_tensor, train.fed)
    counted = None if train.y is None else _counted(model, train, x)
    count, seconds = 1, 0.0
    # Batch-norm statistics lag behind the weights: look now and then, not at once.
    while taken < steps:
        begin = budget.clock()
        losses = advance(min(count, steps - taken), taken == 0)
        taken, loss = taken + len(losses), float(losses[-1])
        seconds = (budget.clock() - begin) / len(losses)
        first = float(losses[0]) if math.isnan(first) else first
        if not np.isfinite(loss):
            return Learned(measure, 0.0, needed, taken, loss, True)
        share, measure, needed = _learned(model, train, infer, x, task, first, loss, counted)
        if share >= needed:
            break
        if budget.over:
            return Learned(measure, share, needed, taken, loss, False)
        left = max(1, int((budget.deadline - budget.clock()) / max(seconds, 1e-6)))
        count = min(_LOOK_EVERY - taken % _LOOK_EVERY, left) if taken > 1 or seconds < 1 else 1
    return Learned(measure, share, needed, taken, loss, True)


def _by_loss(model: keras.Model, train: Samples) -> Callable[[int, bool], Array]:
    optimizer, rate = copied_optimizer(model)
    loop = TrainLoop(TensorSamples(model, train, batch=len(train)), optimizer, rate, gradient_ends=False)
    every = np.arange(len(train))
    return lambda count, fresh: loop.run(np.tile(every, (count, 1)), fresh=fresh).penalized


def _by_own_step(model: keras.Model, train: Samples) -> Callable[[int, bool], Array]:
    training = OwnTraining(model, train, len(train))
    problem = training.raised()
    if problem is not None:
        raise problem

    def advance(count: int, fresh: bool) -> Array:
        with training.optimizers_lent() as optimizers:
            if fresh:
                optimizers.restart()
            return training.run(count)

    return advance


def _learned(
    model: keras.Model,
    train: Samples,
    infer: Callable[[Any], Any],
    x: Any,
    task: Task | None,
    first: float,
    loss: float,
    counted: list[Array | None] | None,
) -> tuple[float, str, float]:
    """How much is learned, by the output that knows least, and by what it was measured."""
    fall = (first - loss) / max(abs(first), 1e-30), "fall", _ENOUGH["fall"]
    if train.y is None:
        return fall
    try:
        outputs = keras.tree.map_structure(np.asarray, infer(x))
    except NotImplementedError:  # A model without a call of its own.
        return fall
    heads = heads_of(model, ForwardPass((), (), (), outputs), train.y)
    found = []
    for head, counts in zip(heads, counted or [None] * len(heads), strict=True):
        known = task if task is not None and len(heads) == 1 else task_of(head)
        if head.labels.size and (head.loss is not None or len(heads) == 1):
            share = _share_learned(head, known, counts)
            found += [] if share is None else [share]
    return min(found, key=lambda known: known[0] - known[2]) if found else fall


def _counted(model: keras.Model, train: Samples, x: Any) -> list[Array | None]:
    """Which steps of each output count: those that the model does not mask and that have a weight."""
    try:
        outputs = keras.tree.flatten(model(x, training=False))
    except NotImplementedError:  # A model without a call of its own.
        return []
    names = list(getattr(model, "output_names", None) or ())
    found: list[Array | None] = []
    for place, output in enumerate(outputs):
        mask = mask_of(output)
        weight = train.weights[place] if len(train.weights) == len(outputs) else None
        if isinstance(train.weight, dict):
            weight = train.weight.get(names[place]) if place < len(names) else None
        kept = None if mask is None else np.asarray(mask)
        if weight is not None and weight.size > len(weight):
            kept = weight > 0 if kept is None or kept.shape != weight.shape else kept & (weight > 0)
        found.append(kept)
    return found


def _share_learned(head: Head, task: Task | None, counted: Array | None) -> tuple[float, str, float] | None:
    outputs, y = head.outputs, head.labels
    if task is None:
        return None
    if task.kind == "regression":
        if outputs.size != y.size:
            return None
        outputs, targets = outputs.reshape(len(y), -1), y.reshape(len(y), -1)
        variance = float(np.mean((targets - targets.mean(axis=0)) ** 2))
        error = float(np.mean((outputs - targets) ** 2))
        return (1 - error / variance if variance else float(error < 1e-6)), "r2", _ENOUGH["r2"]
    if head.units > 1 and task.kind in ("binary", "multiclass"):
        truth = y.argmax(axis=-1) if y.shape == outputs.shape else y
        decided = outputs.argmax(axis=-1)
        if truth.size != decided.size:
            return None
        return _accuracy(decided, truth.reshape(decided.shape), counted)
    if outputs.size != y.size:
        return None
    logits = bool(getattr(head.loss, "from_logits", False))
    decided, truth = outputs.reshape(y.shape) > (0.0 if logits else 0.5), y == 1
    if y.ndim < 3 and y.ndim == outputs.ndim:  # All labels of a sample are one decision.
        decided, truth = np.all(decided == truth, axis=1), np.ones(len(y), bool)
    return _accuracy(decided, truth, counted)


def _accuracy(decided: Array, truth: Array, counted: Array | None) -> tuple[float, str, float]:
    """The share of right decisions, what it is called, and which share is enough."""
    steps = decided.size > len(decided)
    if steps and counted is not None and counted.shape == decided.shape[: counted.ndim]:
        decided, truth = decided[counted], truth[counted]
    right = float(np.mean(decided == truth))
    if not steps:
        return right, "accuracy", 1.0
    common = float(np.unique(truth, return_counts=True)[1].max()) / max(1, truth.size)
    return right, "accuracy of steps", 1 - _MISTAKES * (1 - common)


def _tensor(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":  # As `fit` does.
        values = values.astype(keras.config.floatx())
    return values if isinstance(values, (tf.RaggedTensor, tf.SparseTensor)) else tf.convert_to_tensor(values)
