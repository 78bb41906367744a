"""Compiling: loss, optimiser, clipping and metrics that suit the task."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_practice.core.layers import inner_layers
from keras_practice.data import Task
from keras_practice.recipes.optimizers import optimizer as optimizer_by_name


def loss_for(task: Task) -> keras.losses.Loss:
    """The loss that the output layer of `task` asks for.

    Mean squared error for regression, cross-entropy for classes.

    Source:
        A16; Goodfellow, Bengio and Courville 2016, section 6.2.
    """
    if task.kind == "regression":
        return keras.losses.MeanSquaredError()
    if task.kind == "multiclass":
        if task.one_hot:
            return keras.losses.CategoricalCrossentropy()
        return keras.losses.SparseCategoricalCrossentropy()
    return keras.losses.BinaryCrossentropy()


def metrics_for(task: Task) -> list[keras.metrics.Metric]:
    """The metrics of `task` beside its loss: mean absolute error, or accuracy."""
    if task.kind == "regression":
        return [keras.metrics.MeanAbsoluteError(name="mae")]
    if task.kind == "multiclass":
        if task.one_hot:
            return [keras.metrics.CategoricalAccuracy(name="accuracy")]
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return [keras.metrics.BinaryAccuracy(name="accuracy")]


def compile_for(
    model: keras.Model,
    task: Task,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
    clipnorm: float | None = 1.0,
    loss: Any = None,
    metrics: Any = None,
    **compile_options: Any,
) -> keras.Model:
    """Compiles a model with the loss, optimiser, clipping and metrics that suit its task.

    Args:
        model: A model whose output suits the task, such as a recipe's.
        task: What is predicted.
        optimizer: A name for `recipes.optimizer`, or a Keras optimiser, which is
            used as it is. Defaults to `"adam"`.
        learning_rate: A positive number, or a schedule. Defaults to `1e-3`.
        clipnorm: Largest norm of the gradient of one weight array; `None` for no
            clipping. Defaults to `1.0`, the lecture's figure.
        loss: Any Keras loss. Defaults to `None`, the one that suits the task.
        metrics: A list of Keras metrics. Defaults to `None`, accuracy, or mean
            absolute error for regression.
        **compile_options: More arguments of `keras.Model.compile`. Where
            `steps_per_execution` is not among them, a net so small that Keras
            takes longer to call a step than to compute it gets 32: the result is
            the same, the time down to half, and callbacks see every 32nd batch.
            Others, and nets on several devices, get 1. Where `jit_compile` is not
            among them, Keras decides on XLA, and where all devices but CPUs are
            hidden there is none.

    Returns:
        The model.

    Raises:
        ValueError: If the model's output does not suit the task, or a learning
            rate or clipping comes beside an optimiser that has its own.

    Source:
        A16, A20, A21.
    """
    shape = model.output_shape
    if isinstance(shape, tuple) and shape[-1] != task.outputs:
        raise ValueError(f"The model must have {task.outputs} output(s) for {task}. Got {shape[-1]}.")
    if isinstance(optimizer, keras.optimizers.Optimizer):
        # The defaults cannot be told from the same values given, and do no harm.
        if learning_rate != 1e-3 or clipnorm not in (None, 1.0):
            raise ValueError(
                "An optimizer object has a learning rate and clipping of its own; set them there. "
                f"Got learning_rate={learning_rate} and clipnorm={clipnorm} beside it."
            )
    else:
        optimizer = optimizer_by_name(optimizer, learning_rate, clipnorm=clipnorm)
    if not compile_options.get("run_eagerly"):
        compile_options.setdefault("steps_per_execution", _steps_per_execution(model))
    if all(device.device_type == "CPU" for device in tf.config.get_visible_devices()):
        compile_options.setdefault("jit_compile", False)  # Keras counts hidden GPUs too.
    model.compile(
        optimizer=optimizer,
        loss=loss_for(task) if loss is None else loss,
        metrics=metrics_for(task) if metrics is None else metrics,
        **compile_options,
    )
    # Otherwise Keras makes the optimiser's variables in the first step, which is then traced twice.
    model.optimizer.build(model.trainable_variables)
    return model


# A step at batch 32 is then under 0.2 GFLOP, a few milliseconds on two cores; a GPU does 100 times that.
_SMALL = {"CPU": 1e6, "GPU": 1e8}


def _steps_per_execution(model: keras.Model) -> int:
    """32 for a net whose steps are too short to be called one by one from Python, else 1."""
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return 1  # There Keras 3.15 fails where the data end before the 32nd step.
    device = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
    return 32 if _multiplications(model) < _SMALL[device] else 1


def _multiplications(model: keras.Model) -> float:
    """Multiplications of weights and inputs for one sample, where a variable length counts as 1,000."""
    total = 0.0
    for layer in inner_layers(model):
        if layer.weights and not isinstance(layer, keras.layers.Embedding):
            # Each weight serves every position of the input: pixels, steps, or a single one.
            positions = math.prod(size or 1_000 for size in _input_shape(layer)[1:-1])
            total += positions * sum(math.prod(weight.shape) for weight in layer.trainable_weights)
    return total


def _input_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    try:
        tensors = keras.tree.flatten(layer.input)
    except (AttributeError, ValueError):  # Called more than once, or inside a subclassed model.
        return ()
    return tuple(tensors[0].shape)
