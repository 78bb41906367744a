"""The output layer, by task."""

from __future__ import annotations

import keras

from keras_practice.data import Task
from keras_practice.recipes.regularization import NONE, Regularization

_ACTIVATION = {"regression": "linear", "binary": "sigmoid", "multiclass": "softmax", "multilabel": "sigmoid"}


def head(
    x: keras.KerasTensor, task: Task, *, regularization: Regularization = NONE, name: str = "output"
) -> keras.KerasTensor:
    """The output layer that suits a task: linear, sigmoid, softmax, or several sigmoids.

    The output is float32 even under mixed precision, where a softmax in float16
    would round small probabilities to zero.

    Args:
        x: Tensor of shape `(batch, ..., features)`.
        task: What is predicted.
        regularization: Penalties and constraints on the weights. Defaults to none,
            as usual for an output layer.
        name: Name of the output. Defaults to `"output"`.

    Returns:
        Tensor of shape `(batch, ..., task.outputs)`: numbers, or probabilities.

    Source:
        A15; Bishop 1995, section 6.
    """
    x = keras.layers.Dense(
        task.outputs,
        kernel_initializer="glorot_uniform",
        name=f"{name}_dense",
        **regularization.kernel_options(axis=0),
    )(x)
    return keras.layers.Activation(_ACTIVATION[task.kind], dtype="float32", name=name)(x)
