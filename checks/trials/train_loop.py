"""The one loop that trains a model for a look, and what was seen of each of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.gradients import loss_and_gradients
from keras_practice.checks.inspection.own_loss import penalty_in
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.steps import innermost
from keras_practice.core.types import Array
from keras_practice.core.variables import snapshot


@dataclass(frozen=True)
class LossCurve:
    """How a short training went.

    Attributes:
        losses: Of each step before its update, in training mode and without penalties,
            `(steps,)`; it ends with the first that is not finite.
        penalized: The same with penalties, as `fit` shows it, `(steps,)`.
        gradients: Norms, `(steps, trainable arrays)`; 0 where no gradient comes.
    """

    losses: Array
    penalized: Array
    gradients: Array

    @property
    def finite(self) -> bool:
        """Whether every loss and gradient was a finite number."""
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.gradients).all())

    @property
    def end(self) -> float:
        """Mean loss of the last fifth; infinite after an overflow."""
        return float(self.losses[-max(1, len(self.losses) // 5) :].mean()) if self.finite else math.inf


NO_STEPS = LossCurve(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros((0, 0), np.float32))


class TensorSamples:
    """Samples as tensors, from which a traced step takes rows.

    Args:
        model: The model that they are for.
        samples: Inputs, labels and weights.
        batch: Samples a batch where that is fixed. Defaults to `None`, any number.
    """

    def __init__(self, model: keras.Model, samples: Samples, batch: int | None = None) -> None:
        self.model = model
        self.batch = batch
        self._samples = samples
        self._x, self._y, self._weight = (
            None if nest is None else keras.tree.map_structure(_tensor, nest)
            for nest in (samples.x, samples.y, samples.weight)
        )

    def inputs(self, rows: Any) -> Any:
        """The inputs of some rows, as the model takes them."""
        forms = self._samples.forms
        if forms is None:
            return _rows_of(self._x, rows)
        dense = keras.tree.flatten(_rows_of(self._x, rows))
        given = [form.given(a, rows) for form, a in zip(forms, dense, strict=True)]
        return keras.tree.pack_sequence_as(self._x, given)

    def targets(self, rows: Any) -> tuple[Any, Any]:
        """The labels and sample weights of some rows."""
        return _rows_of(self._y, rows), _rows_of(self._weight, rows)

    def batch_of(self, rows: Any, labels: Any) -> Any:
        """Some rows as a training step gets them, with the labels of the same or of others."""
        x, (y, weight) = self.inputs(rows), self.targets(labels)
        if y is None:
            return x if self._samples.bare else (x,)
        return (x, y) if weight is None else (x, y, weight)

    def traced(self, function: Callable[..., Any], *arguments: tuple[list[int | None], Any]) -> Any:
        """A function that TensorFlow compiles once, unless the model was told to run eagerly."""
        if self.model.run_eagerly:
            return function
        signature = [tf.TensorSpec(shape, dtype) for shape, dtype in arguments]
        return tf.function(function, input_signature=signature, autograph=False)


class TrainLoop:
    """A model with an optimiser, traced once for any rows and learning rate.

    Every training that the checks and sweeps do step by step is done here. Weights without a
    gradient, to which no path leads from the loss, are left out of the update, as `fit` leaves
    them out: they do not move, not by weight decay or momentum either; their norm counts as 0.

    The model's variables must be lent before.

    Args:
        samples: What to train on, and the model.
        optimizer: An optimiser of its own, not yet built.
        rate: The learning rate, a number or schedule.
        gradient_ends: Whether a gradient that is not finite ends a run, as a loss does. Without
            it, an optimiser that skips such steps or clips them goes on. Defaults to `True`.
    """

    def __init__(
        self, samples: TensorSamples, optimizer: Any, rate: Any, *, gradient_ends: bool = True
    ) -> None:
        self.samples = samples
        self.optimizer = optimizer
        self._rate = ScaledRate(rate)
        self._gradient_ends = gradient_ends
        self.schedule = rate if callable(rate) else None
        innermost(optimizer).learning_rate = self._rate
        optimizer.build(samples.model.trainable_variables)
        self._fresh = snapshot(optimizer.variables)
        rows = ([None, samples.batch], tf.int64)
        self._run = samples.traced(self._loop, rows, rows, ([None], tf.float32))

    def rate(self, factor: float = 1.0) -> float:
        """The learning rate of the first step."""
        self._rate.factor.assign(factor)
        return float(self._rate(tf.zeros((), tf.int64)))

    def run(
        self, order: Array, factor: float | Array = 1.0, *, labels: Array | None = None, fresh: bool = True
    ) -> LossCurve:
        """Trains the model.

        Args:
            order: Rows of each step, `(steps, batch)`.
            factor: What the learning rate is multiplied by, in all steps or in each,
                `(steps,)`; 0 leaves all weights as they are. Defaults to `1.0`.
            labels: Rows from which the labels come, `(steps, batch)`. Defaults to `None`,
                those of `order`.
            fresh: Whether the optimiser begins anew, and does not go on from the last run.
                Defaults to `True`.
        """
        if fresh:
            self._fresh.restore()
        factors = np.broadcast_to(np.asarray(factor, np.float32), (len(order),))
        rows = tf.constant(order, tf.int64)
        labelled = rows if labels is None else tf.constant(labels, tf.int64)
        taken, *seen = self._run(rows, labelled, tf.constant(factors))
        return LossCurve(*(np.asarray(values)[: int(taken)] for values in seen))

    def _loop(self, order: tf.Tensor, labels: tf.Tensor, factors: tf.Tensor) -> Any:
        steps = tf.shape(order)[0]
        arrays = len(self.samples.model.trainable_variables)

        def step(i: Any, _: Any, losses: Any, penalized: Any, gradients: Any) -> Any:
            self._rate.factor.assign(factors[i])
            loss, whole, norms = self._step(order[i], labels[i])
            fine = tf.math.is_finite(loss)
            if self._gradient_ends:
                fine &= tf.reduce_all(tf.math.is_finite(norms))
            written = losses.write(i, loss), penalized.write(i, whole), gradients.write(i, norms)
            return i + 1, fine, *written

        taken, _, *seen = tf.while_loop(
            lambda i, fine, *_: (i < steps) & fine,
            step,
            (
                tf.constant(0),
                tf.constant(True),
                tf.TensorArray(tf.float32, steps, element_shape=()),
                tf.TensorArray(tf.float32, steps, element_shape=()),
                tf.TensorArray(tf.float32, steps, element_shape=(arrays,)),
            ),
        )
        return taken, *(values.stack() for values in seen)

    def _step(self, rows: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        model, optimizer = self.samples.model, self.optimizer
        weights = model.trainable_variables
        loss, _, gradients = loss_and_gradients(
            model,
            (self.samples.inputs(rows), *self.samples.targets(labels)),
            [weight.value for weight in weights],
            training=True,
            objective=optimizer.scale_loss,
        )
        penalty = penalty_in(model)
        scale = tf.cast(optimizer.scale_loss(tf.ones(())), tf.float32)
        norms = [tf.zeros(()) if g is None else tf.norm(_flat(g)) / scale for g in gradients]
        used = [(g, w) for g, w in zip(gradients, weights, strict=True) if g is not None]
        if used:
            optimizer.apply([g for g, _ in used], [w for _, w in used])
        whole = tf.cast(loss, tf.float32)
        return whole - penalty, whole, tf.stack(norms) if norms else tf.zeros((0,))


class ScaledRate(keras.optimizers.schedules.LearningRateSchedule):
    """Any learning rate times a factor that can be changed without a new trace."""

    def __init__(self, rate: Any, factor: tf.Variable | None = None) -> None:
        self.rate = rate
        self.factor = tf.Variable(1.0, trainable=False) if factor is None else factor

    def __call__(self, step: Any) -> Any:
        """The rate at a step."""
        rate = self.rate(step) if callable(self.rate) else self.rate
        return tf.cast(rate, tf.float32) * self.factor

    def get_config(self) -> dict[str, Any]:
        """The rate alone."""
        return {"rate": self.rate}


def own_optimizer(model: keras.Model) -> tuple[Any, Any] | None:
    """A fresh copy of the model's optimiser, and its learning rate: a number or schedule.

    `None` for one that cannot be made from its configuration.
    """
    return copied(model.optimizer)


def copied(optimizer: Any) -> tuple[Any, Any] | None:
    """The same of any optimiser."""
    try:
        copy = type(optimizer).from_config(optimizer.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return None
    found = innermost(copy).get_config()["learning_rate"]
    if isinstance(found, (int, float)):
        return copy, float(found)
    return copy, keras.optimizers.schedules.deserialize(found)


def copied_optimizer(model: keras.Model) -> tuple[Any, Any]:
    """The same where there is no going on without.

    Raises:
        ValueError: If the optimizer cannot be copied.
    """
    found = own_optimizer(model)
    if found is None:
        raise ValueError(
            f"The optimizer must be one that can be copied. Got {type(model.optimizer).__name__}."
        )
    return found


def _rows_of(nest: Any, rows: Any) -> Any:
    return None if nest is None else keras.tree.map_structure(lambda a: tf.gather(a, rows), nest)


def _tensor(values: Array) -> tf.Tensor:
    if values.dtype.kind == "f":  # As `fit` does.
        values = values.astype(keras.config.floatx())
    return tf.convert_to_tensor(values)


def _flat(gradient: Any) -> tf.Tensor:
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.reshape(tf.cast(values, tf.float32), [-1])
