"""What the loss of a few samples pulls at: one gradient by the weights and the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.layers import once
from keras_practice.checks.inspection.own_loss import (
    computed_loss,
    penalty_in,
    trains_itself,
    weight_penalties,
)
from keras_practice.core.steps import flat_gradient
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved, snapshot


@dataclass(frozen=True)
class _Pull:
    """What the loss of a few samples pulls at.

    Attributes:
        loss: The loss without the penalties on weights.
        activity_penalty: The part of it that layers add for their activities.
        gradients: That of each trainable array by its id, without the penalties; `None`
            for an array that the loss cannot reach.
        inputs: The same for each input array of floats, by name, `(samples, ...)`.
    """

    loss: float
    activity_penalty: float
    gradients: dict[int, Array | None]
    inputs: dict[str, Array | None]

    @property
    def data_loss(self) -> float:
        """What right outputs could save."""
        return self.loss - self.activity_penalty


def pull_of(context: CheckContext) -> _Pull | None:
    """The gradient in training mode; `None` for a model that trains in a way of its own."""
    return once(context, _measure_pull)


def _measure_pull(context: CheckContext) -> _Pull | None:
    return gradients_of(context, training=True)


def problems_of(context: CheckContext) -> list[Exception]:
    """What was raised where a gradient was asked for, a list that grows."""
    return once(context, _no_problems)


def _no_problems(_: CheckContext) -> list[Exception]:
    return []


def loss_and_gradients(
    model: keras.Model,
    batch: tuple[Any, Any, Any],
    sources: Sequence[Any],
    *,
    training: bool,
    objective: Callable[[Any], Any],
) -> tuple[Any, Any, list[Any]]:
    """The loss of a batch, and what it pulls at: the forward and backward pass of every training here.

    Args:
        model: A compiled model.
        batch: Inputs, labels and sample weights as tensors; `None` for no weights.
        sources: The tensors by which to differentiate.
        training: Whether to run in training mode.
        objective: What is differentiated, as a function of the loss.

    Returns:
        The loss with all penalties, the objective, and a gradient for each source: `None` where
        the objective does not depend on it. What that means is for the caller to say.
    """
    x, y, weight = batch
    with tf.GradientTape() as tape:
        tape.watch([source for source in sources if not isinstance(source, tf.Variable)])
        outputs = model(x, training=training)
        loss = computed_loss(model, x, y, outputs, weight, training)
        aim = objective(loss)
    return loss, aim, tape.gradient(aim, sources)


def gradients_of(context: CheckContext, *, training: bool) -> _Pull | None:
    """The gradient of one small batch; `None` where the model trains in its own way or the loss fails."""
    model = context.model
    if not model.trainable_variables or trains_itself(model):
        return None
    rows = context.train.spread(len(context.heads[0].outputs), context.seed)
    x = rows.fed if rows.forms else keras.tree.map_structure(tf.convert_to_tensor, rows.x)
    y = None if rows.y is None else keras.tree.map_structure(tf.convert_to_tensor, rows.y)
    metrics = snapshot(model.metrics_variables)
    weights = model.trainable_variables
    # A ragged or sparse tensor has no gradient that could be shown by column.
    given = replace(rows, x=x).inputs
    inputs = {name: a for name, a in given.items() if isinstance(a, tf.Tensor) and a.dtype.is_floating}

    def without_penalties(whole: Any) -> Any:
        return whole - sum(weight_penalties(weights), start=tf.zeros((), whole.dtype))

    try:
        with preserved(model, rows.x):
            _, loss, gradients = loss_and_gradients(
                model,
                (x, y, None),
                [*(weight.value for weight in weights), *inputs.values()],
                training=training,
                objective=without_penalties,
            )
            activity = penalty_in(model) - sum(
                (tf.cast(part, tf.float32) for part in weight_penalties(weights)), start=tf.zeros(())
            )
    except Exception as problem:  # Whether it is the loss's own shows in a plain step.
        problems_of(context).append(problem)
        return None
    finally:
        metrics.restore()
    found = {
        id(weight): None if gradient is None else np.asarray(flat_gradient(gradient, math.prod(weight.shape)))
        for weight, gradient in zip(weights, gradients[: len(weights)], strict=True)
    }
    by_name = {
        name: None if gradient is None else np.asarray(tf.convert_to_tensor(gradient))
        for name, gradient in zip(inputs, gradients[len(weights) :], strict=True)
    }
    return _Pull(float(loss), float(activity), found, by_name)
