"""Checks of the scale of regression targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_practice.checks.findings import Finding, gravest_first
from keras_practice.checks.inspection.context import CheckContext, loss_name
from keras_practice.checks.inspection.forward_pass import Call
from keras_practice.checks.inspection.targets import (
    Target,
    as_rows,
    columns_of,
    numbers_in,
    some_of,
    targets_of,
)
from keras_practice.checks.rules.scale import (
    BOUNDED,
    cancels_scale,
    clips,
    layers_with_kernels,
    learning_rate_of,
    loudness_of,
)
from keras_practice.core.types import Array

_LINEAR_LOSSES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh", "mse", "mae")
_STRETCHED_BY_ERROR = ("mean_squared_error", "mse")
# A target within ten units of 0 is within reach of any head.
_NEAR = 10.0
# Epochs spent on finding the scale alone: more than a short fit has, and more than a long one has.
_SHORT_FIT, _LONG_FIT = 20, 100
_MIN_STEPS = 100
_LONG_STEPS = 2_000


def target_scale(context: CheckContext) -> Iterable[Finding]:
    """Regression targets that a linear head cannot reach in the steps that a fit takes.

    Adam moves a weight by about the learning rate a step. With the widths of the
    layers that follows how many steps the output needs to come to the targets' scale.
    Plain gradient descent moves by the error itself and leaps too far instead.

    Source:
        A38; Kingma and Ba 2015.
    """
    found: list[Finding] = []
    for head in targets_of(context):
        task = head.task
        name = loss_name(head.loss)
        if task is None or task.kind != "regression" or name not in _LINEAR_LOSSES or head.activations:
            continue
        y = as_rows(head.labels) if head.labels.ndim < 3 else columns_of(head.labels)
        if head.outputs.size == 0 or len(y) < 2:
            continue
        y = some_of(y).astype(np.float64)
        outputs = columns_of(head.outputs).astype(np.float64)
        found += _out_of_reach(context, head, y, outputs, name)
        found += _unequal_targets(head, y, name)
    return gravest_first(found)


def _out_of_reach(
    context: CheckContext, head: Target, y: Array, outputs: Array, loss: str
) -> Iterator[Finding]:
    gap = float(max(np.abs(y.mean(axis=0)).max(), y.std(axis=0).max()))
    if outputs.shape[1] == y.shape[1]:
        gap = float(max(np.abs(y.mean(axis=0) - outputs.mean(axis=0)).max(), y.std(axis=0).max()))
    path = _growing_layers(context)
    if not path or not path[-1].outputs or not math.isfinite(gap):
        return
    stretched = max(1.0, loudness_of(outputs) / max(loudness_of(path[-1].outputs[0]), 1e-30))
    gap /= stretched if not np.array_equal(path[-1].outputs[0], head.outputs) else 1.0
    rate = learning_rate_of(context)
    figures = f"targets have mean {y.mean():.3g} and deviation {y.std(axis=0).max():.3g}"
    source = "A38; Kingma and Ba 2015, 'Adam'"
    fix = "standardise the targets with the training set's mean and deviation, and turn predictions back."
    descends = isinstance(context.model.optimizer, keras.optimizers.SGD)
    if gap > _NEAR and descends and loss in _STRETCHED_BY_ERROR:
        # The error goes back through a layer of unit scale, so that its weights move by rate times error.
        leap = 2 * rate * gap
        if len(layers_with_kernels(context)) > 1 and leap > 1 and not clips(context.model.optimizer):
            yield Finding(
                "target-scale",
                "error",
                f"y of {head.name}",
                f"{figures}; at a learning rate of {rate:.2g} the first step moves weights by about "
                f"{leap:.2g}, where less than 0.1 is expected.",
                "targets in their own unit, with a squared error and plain gradient descent.",
                fix,
                source,
            )
        return
    steps = _steps_to_reach(path, gap, rate)
    epoch = math.ceil((context.train.total or len(context.train)) / context.batch_size)
    if gap > _NEAR and steps > max(_SHORT_FIT * epoch, _MIN_STEPS):
        too_long = steps > max(_LONG_FIT * epoch, _LONG_STEPS)
        yield Finding(
            "target-scale",
            "error" if too_long else "warning",
            f"y of {head.name}",
            f"{figures}; at a learning rate of {rate:.2g} the output needs about {steps:,.0f} steps "
            f"({steps / epoch:,.0f} epochs) to come to that scale, where less than one epoch is expected.",
            "targets in their own unit, far from what a fresh linear output gives (about 1).",
            fix,
            source,
        )
    elif (
        0 < y.std(axis=0).max() < 1e-3
        and y.std(axis=0).max() < rate
        and len(layers_with_kernels(context)) > 1
    ):
        yield Finding(
            "target-scale",
            "warning",
            f"y of {head.name}",
            f"{figures}; one step at a learning rate of {rate:.2g} moves the output further than that, "
            f"where a deviation of about 1 is expected.",
            "targets in too large a unit.",
            fix,
            source,
        )


def _unequal_targets(head: Target, y: Array, loss: str) -> Iterator[Finding]:
    deviations = y.std(axis=0)
    moving = np.flatnonzero(deviations > 1e-7 * np.maximum(np.abs(y).max(axis=0), 1e-30))
    if len(moving) < 2 or loss not in _STRETCHED_BY_ERROR:
        return
    # Pixels and other outputs in one unit may be near-constant; a few numbers side by side should not.
    if len(moving) > 16:
        return
    small, large = (int(moving[f(deviations[moving])]) for f in (np.argmin, np.argmax))
    ratio = float(deviations[large] / deviations[small])
    if ratio > 30:  # Its share of the squared error is below one in a thousand.
        yield Finding(
            "target-scale",
            "warning",
            f"y of {head.name}",
            f"target {large} has a deviation of {deviations[large]:.3g} and target {small} one of "
            f"{deviations[small]:.3g}, {ratio:.3g} times less, where about as much is expected.",
            "targets in different units in one squared error, which then hears only the largest.",
            "standardise each target with the training set's mean and deviation.",
            "A38",
        )


def _growing_layers(context: CheckContext) -> list[Call]:
    """The last layers of the net, from the output back to the first whose input has a fixed scale."""
    path: list[Call] = []
    for call in reversed(context.forward_pass.calls):
        if cancels_scale(call.layer) or (path and call.activation in BOUNDED):
            break
        if not any("kernel" in v.name for v in call.layer.trainable_variables):
            continue
        recurrent = isinstance(call.layer, (keras.layers.RNN, keras.layers.Bidirectional))
        if recurrent and path:
            break
        path.insert(0, call)
        if recurrent:
            break
    return path


def _steps_to_reach(path: list[Call], gap: float, rate: float) -> float:
    """Steps after which weights that all grow by `rate` a step put out `gap`."""
    came = numbers_in(path[0].inputs)
    rows = np.abs(came[0].reshape(-1, came[0].shape[-1]).astype(np.float64)) if came else np.ones((1, 1))
    pushed = float(np.mean(rows.sum(axis=1))) + 1
    for call in path[1:]:
        kernel = next(v for v in call.layer.trainable_variables if "kernel" in v.name)
        pushed *= max(1.0, math.prod(kernel.shape[:-1]) / 2)  # A ReLU passes half of its units on.
    return float((gap / pushed) ** (1 / len(path)) / max(rate, 1e-30))
