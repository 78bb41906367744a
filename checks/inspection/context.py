"""What a preflight looks at: a model, the data and the arguments that `fit` would take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.forward_pass import (
    ForwardPass,
    Head,
    fixed_batch,
    forward_pass_of,
    heads_of,
)
from keras_practice.checks.inspection.own_loss import compares_labels
from keras_practice.checks.inspection.samples import Samples, samples_of
from keras_practice.data import Task

Rule = Callable[["CheckContext"], Iterable[Finding]]

_TRIED = 32
_CLASSIFIES = ("crossentropy", "hinge", "focal", "dice", "tversky")


@dataclass(frozen=True)
class CheckContext:
    """Everything that a check may look at; nothing in it may be changed.

    Attributes:
        model: The compiled model; its variables are lent while the checks run.
        train: What `fit` would train on, in its order, before any shuffling.
        val: Validation data, or `None`. With `validation_split`, the last rows of
            `train` serve for that, and `val` is `None`.
        batch_size: Samples a batch.
        shuffle: Whether `fit` would reorder the samples in each epoch. For data
            sets, which come in an order of their own, `True` where it cannot be known.
        validation_split: Share of the last rows that `fit` would hold out.
        task: What is predicted by the first output: stated by the user or read
            from labels and loss; `None` where these do not say.
        forward_pass: What a forward pass of the first samples showed.
        heads: The outputs, with their labels and losses.
        seed: Fixes every choice at random.
    """

    model: keras.Model
    train: Samples
    val: Samples | None
    batch_size: int
    shuffle: bool
    validation_split: float
    task: Task | None
    forward_pass: ForwardPass
    heads: tuple[Head, ...]
    seed: int


def context_of(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    validation_data: Any = None,
    validation_split: float = 0.0,
    batch_size: int = 32,
    shuffle: bool = True,
    task: Task | None = None,
    seed: int = 0,
) -> CheckContext:
    """Reads the data and runs the model once; its variables must be lent before."""
    train = samples_of(x, y, alone=not compares_labels(model))
    val = validation_of(model, validation_data)
    forward_pass = forward_pass_of(model, train.spread(fixed_batch(model) or _TRIED, seed).fed)
    heads = heads_of(model, forward_pass, train.y)
    task = task or next((task_of(head) for head in heads if head.labels.size), None)
    # `fit` takes a data set in its own order.
    shuffle = shuffle if train.shuffled is None else train.shuffled
    batch_size = batch_size if train.batch is None else train.batch
    return CheckContext(
        model, train, val, batch_size, shuffle, validation_split, task, forward_pass, heads, seed
    )


def validation_of(model: keras.Model, data: Any, steps: int | None = None) -> Samples | None:
    """Validation data as `fit` takes them: `(x, y)`, `(x, y, weights)` or a data set; `None` for none."""
    if data is None or isinstance(data, Samples):
        return data
    alone = not compares_labels(model)
    if isinstance(data, (tuple, list)) and not (alone and isinstance(data, list)):
        x, y, weight = (*data, None, None)[:3]
        return samples_of(x, y, weight, alone=alone)
    return samples_of(data, None, steps=steps, alone=alone)


def task_of(head: Head) -> Task | None:
    """The task that labels and loss state together; `None` where they do not."""
    y = head.labels
    if y.dtype.kind not in "biuf" or y.size == 0 or not np.all(np.isfinite(y)):
        return None
    if 1 < y.ndim == head.outputs.ndim - 1:  # A class a step or pixel.
        if "sparse_categorical" in loss_name(head.loss):
            return Task.multiclass(head.units) if head.units > 1 else None
        y = y.reshape(-1)
    classifies = any(word in loss_name(head.loss) for word in _CLASSIFIES)
    if not classifies and len(np.unique(y[:1_000])) > 2:
        return Task.regression(1 if y.ndim < 2 else y.shape[-1])
    if y.dtype.kind == "f" and np.array_equal(y, np.round(y)):
        y = y.astype(np.int64)
    try:
        return Task.infer(y)
    except ValueError:
        return None


def loss_name(loss: Any) -> str:
    """A loss's name in lower case with underscores, as in `"binary_crossentropy"`; `""` for none."""
    if loss is None:
        return ""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return str(loss).lower()
    function = getattr(loss, "fn", loss)
    return str(getattr(function, "__name__", "") or type(function).__name__).lower()
