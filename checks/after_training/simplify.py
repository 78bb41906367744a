"""It does not learn: from the simplest case that must work to the user's own, one step at a time."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_practice.checks.after_training.judging import outputs_of, samples_and_task, task_for
from keras_practice.checks.after_training.stage_trainings import Climb
from keras_practice.checks.after_training.stage_verdict import conclude
from keras_practice.checks.after_training.stages import SimplificationResult
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.variables import preserved
from keras_practice.data import Dataset, Task

_MAX_SAMPLES = 4_096


def simplify(
    model: keras.Model,
    dataset: Any,
    *,
    task: Task | None = None,
    steps: int = 500,
    batch_size: int = 32,
    seconds: float = 20.0,
    seed: int = 0,
) -> SimplificationResult:
    """Finds the step at which learning ends, on the way from the simplest case to the user's own.

    A small sound net (two hidden layers, ReLU, He-normal weights, standardised
    inputs, Adam at 1e-3) shows what the data allow: two classes by heart, all classes by
    heart, then the whole set. Then the user's model climbs: few samples with Adam at
    1e-3, with its own optimiser, then the whole set. The model trains with its own loss
    and a fresh copy of its optimiser, from the weights that it has; where it fails, from
    two other starts as well, if Keras can clone it.

    The model is not changed: weights, statistics, optimiser and compile state are the
    same afterwards.

    Args:
        model: A compiled model with one output.
        dataset: A `data.Dataset`, a `data.Split`, a pair `(x, y)`, or batches; without a
            validation split a fifth is held out. At most 4,096 samples are used.
        task: What is predicted. Defaults to `None`: the data set's, or what labels and loss say.
        steps: Most updates of the weights in one stage. Defaults to `500`.
        batch_size: Samples a batch on the whole set; few samples are one batch. Defaults to `32`.
        seconds: Time for the steps of all stages; those that it cuts short say so. Defaults to `20.0`.
        seed: Fixes samples and order. Defaults to `0`.

    Returns:
        The stages and the conclusion; `print` it.

    Raises:
        ValueError: If the model is not compiled, its optimizer cannot be copied, the inputs are
            not numbers, there is not one row of labels a sample, or an argument is not positive.

    Example:
        >>> print(checks.simplify(model, digits))  # doctest: +SKIP

    Source:
        A53, A47, A54; Goodfellow, Bengio and Courville 2016, section 11.5.
    """
    if not getattr(model, "compiled", False):
        raise ValueError("The model must be compiled, since its loss is used. Got an uncompiled model.")
    for name, value in (("steps", steps), ("batch_size", batch_size), ("seconds", seconds)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value > 0:
            raise ValueError(f"{name} must be a positive number. Got {value!r}.")
    train, val, task = _samples(dataset, task, seed)
    with preserved(model, train.take(slice(0, 1)).x):
        task = task_for(model, outputs_of(model, train.take(slice(0, 2)).x), train.y, task)
        task.check(train.y)
        climb = Climb(model, train, val, task, int(steps), int(batch_size), float(seconds), seed)
        stages = climb.stages()
    fault, conclusion = conclude(stages, train)
    return SimplificationResult(tuple(stages), fault, conclusion)


def _samples(dataset: Any, task: Task | None, seed: int) -> tuple[Samples, Samples, Task | None]:
    if isinstance(dataset, Dataset):
        train, task = samples_and_task(dataset.train, task)
        val, _ = samples_and_task(dataset.val, task)
    else:
        samples, task = samples_and_task(dataset, task)
        if len(samples) < 2:
            raise ValueError(f"There must be at least two samples. Got {len(samples)}.")
        order = np.random.default_rng(seed).permutation(len(samples))
        held = max(1, len(samples) // 5)
        val, train = samples.take(order[:held]), samples.take(order[held:])
    train, val = train.spread(_MAX_SAMPLES, seed), val.spread(_MAX_SAMPLES, seed)
    for values in keras.tree.flatten(train.x):
        if values.dtype.kind not in "biuf":
            raise ValueError(f"Inputs must be numbers. Got dtype {values.dtype}.")
    y = keras.tree.flatten(train.y)
    if len(y) != 1 or y[0].ndim > 2:
        raise ValueError("There must be one output, with one row of labels a sample.")
    return train, val, task
