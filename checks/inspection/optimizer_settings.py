"""What an optimiser is set to, and how far it can get with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_practice.checks.inspection.context import CheckContext
from keras_practice.core.private_api.keras import learning_rate_schedule
from keras_practice.core.steps import innermost

# A generous training; a rate that moves nothing in so many epochs never will.
EPOCHS = 100
# Schedules are looked at so often over it.
_POINTS = 11


def steps_of(context: CheckContext) -> int:
    """Steps of a generous training."""
    samples = context.train.total or len(context.train)
    return EPOCHS * max(1, math.ceil(samples / max(1, context.batch_size)))


def rates_of(context: CheckContext) -> list[float]:
    """The learning rate over a hundred epochs; one number where it does not change."""
    optimizer = innermost(context.model.optimizer)
    if optimizer is None:
        return []
    schedule = schedule_of(context)
    try:
        if schedule is not None:
            points = np.unique(np.linspace(0, steps_of(context), _POINTS).astype(np.int64))
            return [float(np.asarray(schedule(int(step)))) for step in points]
        return [float(np.asarray(optimizer.learning_rate))]
    except (AttributeError, TypeError, ValueError):
        return []  # An optimiser of the user's own, without a rate that can be read.


def schedule_of(context: CheckContext) -> Any:
    """The schedule of the learning rate; `None` for a number."""
    return learning_rate_schedule(innermost(context.model.optimizer))


def number_of(optimizer: Any, name: str) -> float | None:
    """A setting of an optimiser; `None` where it has none, or no number."""
    value = getattr(optimizer, name, None)
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def weight_size(context: CheckContext) -> float:
    """Root mean square of the trainable kernels, as they would be at the start of a training."""
    sizes = []
    for weight in context.model.trainable_variables:
        if len(weight.shape) > 1:
            values = np.asarray(weight, dtype=np.float64)
            sizes.append(float(np.sqrt(np.mean(values**2))) if values.size else 0.0)
    sizes = [size for size in sizes if math.isfinite(size) and size > 0]
    return float(np.median(sizes)) if sizes else 0.1


def lengthens(momentum: float) -> float:
    """How many times longer the steps of plain SGD become."""
    return 1 / (1 - momentum) if 0 < momentum < 1 else 1.0
