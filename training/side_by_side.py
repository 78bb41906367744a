"""Many copies of a model, trained side by side in one graph: all that differs is their learning rate."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.private_api.keras import decays
from keras_practice.core.types import Array
from keras_practice.core.variables import assign

# These treat each number in the weights by itself, so that weights may be stacked and flattened, and multiply
# by the rate. FTRL adds to it, where `keras.ops.add` takes a column as long as the rows for a bias.
_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Lion,
)
_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")
# Beyond it nets are so large that side by side they are no faster, and fill the memory.
_MAX_NUMBERS = 100_000_000
_VALIDATED_AT_ONCE = 2_000_000


class HeldRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate that a variable holds, so that one graph serves for every rate.

    Args:
        rate: Any shape that broadcasts with the weights.
    """

    def __init__(self, rate: tf.Variable) -> None:
        self.rate = rate

    def __call__(self, step: Any) -> tf.Tensor:
        """The variable's value, whatever the step."""
        return tf.convert_to_tensor(self.rate)

    def get_config(self) -> dict[str, Any]:
        """The value at this moment."""
        return {"rate": self.rate.numpy().tolist()}


class CannotStackError(Exception):
    """Why copies of this model must be trained one after another."""


class Stack:
    """Copies of a compiled model that share initial weights, batches and dropout masks.

    The forward pass of one copy is vectorised over all of them, so that a dense layer
    becomes one product of stacked matrices. No operation mixes two copies: what overflows
    in one stays there. The model itself is not changed, only traced.

    Args:
        model: A compiled model with its variables, whose values every copy starts from.
        rates: Learning rate of each copy, `(copies,)`.
        train: Inputs and labels as tensors.
        val: The same of the validation data.

    Raises:
        CannotStackError: If the model or its optimizer does not allow it.
    """

    def __init__(self, model: keras.Model, rates: Array, train: Any, val: Any) -> None:
        self._model, self._copies = model, len(rates)
        self._train, self._val = train, val
        self._refuse_what_does_not_stack()
        self._trained = list(model.trainable_variables)
        own = list(model.non_trainable_variables)
        self._seeds = [v for v in own if _is_seed(v)]
        self._own = [v for v in own if not _is_seed(v)]
        # One row a copy: a column of rates then broadcasts with every array.
        self._weights = [keras.Variable(self._repeated(v).reshape(self._copies, -1)) for v in self._trained]
        self._state = [tf.Variable(self._repeated(v)) for v in self._own]
        self._seed_state = [tf.Variable(np.array(v.numpy())) for v in self._seeds]
        self._optimizer = _stacked_optimizer(model.optimizer, self._trained, self._weights)
        self._optimizer.learning_rate = HeldRate(tf.Variable(np.asarray(rates, np.float32)[:, None]))
        self._optimizer.build(self._weights)

    def train(self, orders: Array, batch_size: int) -> tuple[Array, Array]:
        """Trains all copies.

        Args:
            orders: Rows of the training data in the order of each epoch, `(epochs, samples)`.
            batch_size: Samples a batch; the last may be smaller.

        Returns:
            Training and validation loss after each epoch, `(copies, epochs)` each, as `fit`
            would log them.

        Raises:
            CannotStackError: If an operation in the model does not allow it, or there is
                not memory enough.
        """
        order = tf.TensorSpec((None,), tf.int64)
        epoch = tf.function(lambda rows: self._epoch(rows, batch_size), autograph=False)
        with _quiet():
            try:
                epoch = epoch.get_concrete_function(order)
            except Exception as error:  # Whatever an operation that cannot be vectorised raises.
                raise CannotStackError(_first_line(error)) from error
        train_loss: list[Array] = []
        val_loss: list[Array] = []
        for rows in orders:
            try:
                losses = epoch(tf.constant(rows, tf.int64))
            except tf.errors.ResourceExhaustedError as error:
                raise CannotStackError("the copies do not fit in memory together") from error
            for kept, loss in zip((train_loss, val_loss), losses, strict=True):
                kept.append(np.asarray(loss, np.float64))
        return np.stack(train_loss, axis=1), np.stack(val_loss, axis=1)

    def _refuse_what_does_not_stack(self) -> None:
        model, optimizer = self._model, self._model.optimizer
        if model.run_eagerly:
            raise CannotStackError("the model is compiled to run eagerly")
        for step in ("train_step", "test_step"):
            if getattr(type(model), step) is not getattr(keras.Model, step) or step in vars(model):
                raise CannotStackError(f"the model has a {step} of its own")
        if type(optimizer) not in _ELEMENTWISE:
            raise CannotStackError(f"{type(optimizer).__name__} does not treat each weight by itself")
        config = optimizer.get_config()
        for option in ("use_ema", "loss_scale_factor", "gradient_accumulation_steps"):
            if config.get(option):
                raise CannotStackError(f"the optimizer has {option}")
        for variable in model.trainable_variables:
            if "float32" not in str(variable.dtype):
                raise CannotStackError(f"weights are {variable.dtype}")
        for variable in model.non_trainable_variables:
            if not _is_seed(variable) and "float" not in str(variable.dtype):
                raise CannotStackError(f"{variable.path} is neither a number to average nor a seed")
        numbers = sum(math.prod(variable.shape) for variable in model.variables)
        if self._copies * numbers > _MAX_NUMBERS:
            raise CannotStackError("the model is so large that side by side would not be faster")

    def _repeated(self, variable: Any) -> Array:
        return np.repeat(np.asarray(variable.numpy())[None], self._copies, axis=0)

    def _shaped(self, weights: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.reshape(w, (self._copies, *v.shape)) for w, v in zip(weights, self._trained, strict=True)]

    def _epoch(self, order: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.shape(order)[0]

        def step(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order[start : tf.minimum(start + batch_size, count)]
            loss = self._step(rows)
            return start + batch_size, total + loss * tf.cast(tf.shape(rows)[0], tf.float32)

        _, total = tf.while_loop(
            lambda start, _: start < count, step, (tf.constant(0), tf.zeros(self._copies))
        )
        return total / tf.cast(count, tf.float32), self._validation()

    def _step(self, rows: tf.Tensor) -> tf.Tensor:
        """One step of all copies; their losses before it."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            weights = [variable.value for variable in self._weights]
            tape.watch(weights)
            loss, state, seeds = self._forward(weights, rows, self._train, training=True)
            # Each copy's loss depends on its own weights alone, and so does its part of this gradient.
            total = tf.reduce_sum(loss)
        gradients = tape.gradient(total, weights)
        used = [(g, w) for g, w in zip(gradients, self._weights, strict=True) if g is not None]
        clipped = _clipped([g for g, _ in used], self._model.optimizer)
        self._optimizer.apply(clipped, [w for _, w in used])
        self._constrain()
        assign([*self._state, *self._seed_state], [*state, *seeds])
        return loss

    def _forward(
        self, weights: list[tf.Tensor], rows: tf.Tensor, data: Any, *, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Losses, `(copies,)`, and the other variables' values after the pass."""
        x, y = keras.tree.map_structure(lambda a: tf.gather(a, rows), data)
        seeds = [tf.convert_to_tensor(seed) for seed in self._seed_state]

        def one(values: tuple[list[tf.Tensor], list[tf.Tensor]]) -> Any:
            given = [
                *zip(self._trained, values[0], strict=True),
                *zip(self._own, values[1], strict=True),
                *zip(self._seeds, seeds, strict=True),
            ]
            with keras.StatelessScope(state_mapping=given, collect_losses=True) as scope:
                outputs = self._model(x, training=training)
                loss = self._model.compute_loss(x, y, outputs, None)
                after = [scope.get_current_value(v) for v in (*self._own, *self._seeds)]
            return tf.cast(loss, tf.float32), after

        state = [tf.convert_to_tensor(variable) for variable in self._state]
        loss, after = tf.vectorized_map(one, (self._shaped(weights), state), fallback_to_while_loop=False)
        # Seeds move in the same way in every copy.
        return loss, after[: len(self._own)], [seed[0] for seed in after[len(self._own) :]]

    def _constrain(self) -> None:
        for variable, row, shaped in zip(
            self._trained, self._weights, self._shaped([w.value for w in self._weights]), strict=True
        ):
            if variable.constraint is not None:
                limited = tf.vectorized_map(variable.constraint, shaped, fallback_to_while_loop=False)
                row.assign(tf.reshape(limited, row.shape))

    def _validation(self) -> tf.Tensor:
        """Losses on the validation data in inference, `(copies,)`."""
        inputs = keras.tree.flatten(self._val[0])
        count = int(inputs[0].shape[0])
        numbers = self._copies * sum(math.prod(part.shape[1:]) for part in inputs)
        size = max(1, min(count, _VALIDATED_AT_ONCE // numbers))

        def part(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = tf.range(start, tf.minimum(start + size, count))
            weights = [variable.value for variable in self._weights]
            loss, _, _ = self._forward(weights, rows, self._val, training=False)
            return start + size, total + loss * tf.cast(tf.shape(rows)[0], tf.float32)

        _, total = tf.while_loop(
            lambda start, _: start < count, part, (tf.constant(0), tf.zeros(self._copies))
        )
        return total / count


def _is_seed(variable: Any) -> bool:
    return str(variable.name) == "seed_generator_state"


def _stacked_optimizer(optimizer: Any, trained: list[Any], weights: list[Any]) -> Any:
    """A fresh copy of an optimizer for stacked weights, which leaves the clipping to us."""
    config = {**optimizer.get_config(), **dict.fromkeys(_CLIPPING), "learning_rate": 1.0}
    copy = type(optimizer).from_config(config)
    if config.get("weight_decay"):
        copy.exclude_from_weight_decay(
            var_list=[w for v, w in zip(trained, weights, strict=True) if not decays(optimizer, v)]
        )
    return copy


def _clipped(gradients: list[tf.Tensor], optimizer: Any) -> list[tf.Tensor]:
    """Gradients clipped as Keras clips those of a single copy, `(copies, weights)` each."""
    if limit := optimizer.clipnorm:
        return [tf.clip_by_norm(g, limit, axes=[1]) for g in gradients]
    if limit := optimizer.clipvalue:
        return [tf.clip_by_value(g, -limit, limit) for g in gradients]
    if limit := optimizer.global_clipnorm:
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(g**2, axis=1, keepdims=True) for g in gradients]))
        # As in Keras, an infinite norm makes everything NaN.
        scale = limit * tf.minimum(1 / norm, 1 / limit) + (norm - norm)
        return [g * scale for g in gradients]
    return gradients


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TensorFlow logs of operations that cannot be vectorised: pages of stack traces."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
