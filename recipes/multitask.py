"""Multi-task learning: one trunk, and a head for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_practice.core.arguments import check_positive
from keras_practice.data import Task
from keras_practice.recipes.compiling import compile_for, loss_for, metrics_for
from keras_practice.recipes.heads import head


def multi_task(trunk: keras.Model, tasks: Mapping[str, Task], name: str = "multi_task") -> keras.Model:
    """Several heads on one trunk, so that what helps one task can help the others.

    Args:
        trunk: A functional or sequential model with one output, the features,
            `(batch, ..., features)`. A recipe's model loses its own output layer.
            Its weights are shared, not copied.
        tasks: Task by name. The names become those of the outputs, so labels come
            as a dictionary: `fit(x, {"age": ages, "smiles": smiles})`.
        name: The model's name. Defaults to `"multi_task"`.

    Returns:
        A functional model from the trunk's input to a dictionary of outputs, one a task.

    Raises:
        ValueError: If there is no task, a name is not a string or is one of the
            trunk's layers, a value is not a `Task`, or the trunk has several outputs.

    Example:
        >>> from keras_practice import data, recipes
        >>> trunk = recipes.mlp((30,), data.Task.binary())
        >>> tasks = {"age": data.Task.regression(), "smiles": data.Task.binary()}
        >>> model = recipes.compile_multi_task(recipes.multi_task(trunk, tasks), tasks)
        >>> sorted(model.output)
        ['age', 'smiles']

    Source:
        A19; Caruana 1997, "Multitask Learning".
    """
    _check_tasks(tasks)
    layers = {layer.name: layer for layer in trunk.layers}
    if len(trunk.outputs) != 1:
        raise ValueError(f"trunk must have one output, the features. Got {len(trunk.outputs)}.")
    features = trunk.outputs[0]
    if "output_dense" in layers and layers.get("output") is trunk.layers[-1]:
        features = layers["output_dense"].input
    if len(features.shape) < 2:
        raise ValueError(f"The trunk's output must be (batch, ..., features). Got {features.shape}.")
    for key in tasks:
        if key in layers or f"{key}_dense" in layers:
            raise ValueError(f"A task needs a name that no layer of the trunk has. Got {key!r}.")
    heads = {key: head(features, task, name=key) for key, task in tasks.items()}
    inputs = trunk.inputs[0] if len(trunk.inputs) == 1 else trunk.input
    return keras.Model(inputs, heads, name=name)


def compile_multi_task(
    model: keras.Model,
    tasks: Mapping[str, Task],
    weights: Mapping[str, float] | None = None,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
    clipnorm: float | None = 1.0,
    **compile_options: Any,
) -> keras.Model:
    """Compiles a multi-task model: to each head the loss, metrics and weight that suit its task.

    The losses add up, so a task whose loss is large rules the trunk. A weight of
    one over the loss that chance gives puts the tasks on a par.

    Args:
        model: A model of `multi_task`.
        tasks: The same tasks by name.
        weights: Positive weight of a task's loss, by name; a task that is not
            named has weight 1. Defaults to `None`, 1 for all.
        optimizer: As in `compile_for`. Defaults to `"adam"`.
        learning_rate: As in `compile_for`. Defaults to `1e-3`.
        clipnorm: As in `compile_for`. Defaults to `1.0`.
        **compile_options: More arguments of `keras.Model.compile`.

    Returns:
        The model. Its metrics are called by task, such as `val_smiles_accuracy`.

    Raises:
        ValueError: If the tasks are not those of the model, or a weight is not
            positive or belongs to no task.

    Source:
        A16, A19, A21.
    """
    _check_tasks(tasks)
    heads = model.output if isinstance(model.output, dict) else {}
    widths = {key: output.shape[-1] for key, output in heads.items()}
    if widths != {key: task.outputs for key, task in tasks.items()}:
        described = ", ".join(f"{key}: {task}" for key, task in tasks.items())
        raise ValueError(f"The tasks must be those of the model, with outputs {widths}. Got {described}.")
    weights = {} if weights is None else weights
    for key, weight in weights.items():
        if key not in tasks:
            raise ValueError(f"Each weight must belong to one of the tasks {', '.join(tasks)}. Got {key!r}.")
        check_positive(f"The weight of {key}", weight)
    # With losses and metrics given, the task passed on decides nothing.
    return compile_for(
        model,
        next(iter(tasks.values())),
        optimizer,
        learning_rate,
        clipnorm,
        loss={key: loss_for(task) for key, task in tasks.items()},
        metrics={key: metrics_for(task) for key, task in tasks.items()},
        loss_weights={key: float(weights.get(key, 1.0)) for key in tasks},
        **compile_options,
    )


def _check_tasks(tasks: Any) -> None:
    if not isinstance(tasks, Mapping) or not tasks:
        raise ValueError(f"tasks must map at least one name to a Task. Got {tasks!r}.")
    for key, task in tasks.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(f"A task's name must be a string without a slash. Got {key!r}.")
        if not isinstance(task, Task):
            raise ValueError(f"tasks must map names to Tasks. Got {task!r} for {key!r}.")
