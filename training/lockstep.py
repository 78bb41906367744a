"""Plain `fit` in several processes, step by step together, as if there were one with the joint batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.steps import Step, flat_gradient, hooked, tap_step, untap_step
from keras_practice.core.variables import all_variables, assign
from keras_practice.training.workers import Workers, new_key

Logs = dict[str, Any] | None

# Added to the seeds of dropout and its like, a multiple for each worker.
_SEED_STRIDE = 1_000_003


def lockstep(
    group: Workers,
    on_chief: Sequence[keras.callbacks.Callback] = (),
    everywhere: Sequence[keras.callbacks.Callback] = (),
) -> list[keras.callbacks.Callback]:
    """The callbacks with which `fit` in several processes trains one model.

    In every step the workers' gradients are averaged before the optimizer clips and
    applies them, so that with equal shares of each batch (`group.share`) the weights are
    those of one process with the joint batch. All begin every epoch, and end, with worker
    0's weights, optimizer and seeds of dropout (from these each draws masks of its own).

    Worker 0 decides: its callbacks alone need exist, and what they do to the model or the
    optimizer reaches the others at the beginning of the next epoch. When any worker
    wants to stop, all stop after the same step or epoch, with worker 0's weights. Training
    metrics at the end of an epoch are those of all samples; everything else in the logs
    is worker 0's, validation too: give all workers the whole validation set.

    Batch normalisation in training uses the mean and variance of each worker's own part of the
    batch, as it does under `tf.distribute`; its moving averages are averaged over the workers.

    To go on after a crash, give all workers
    `everywhere=[callbacks.resumable(group.file("runs/first.npz"))]`, and start them all again.

    Outside this `fit` the model is each process's own. Meanwhile it is compiled without
    XLA, which cannot add up across processes. Only the compiled optimizer is looked after.

    Args:
        group: From `training.workers`.
        on_chief: Callbacks for worker 0, such as `callbacks.standard(...)` without `resumable`.
        everywhere: Callbacks for all workers. Defaults to none.

    Returns:
        The callbacks for this worker's `fit`; for a process that is alone, just those given.

    Raises:
        ValueError: In `fit`, if the workers draw different batches, or the model is under a strategy.
        RuntimeError: In `fit`, if the workers begin at different epochs.
        tf.errors.OpError: In `fit`, if another worker has ended.

    Source:
        Goyal et al. 2017, section 3.
    """
    if group.size == 1:
        return [*on_chief, *everywhere]
    engine = _Engine(group)
    return [_First(engine), *(on_chief if group.chief else ()), *everywhere, _Last(engine)]


class _Engine:
    """What the two callbacks at the ends of the list do together."""

    def __init__(self, group: Workers) -> None:
        self.group = group
        self.key = new_key()
        self.wish = tf.Variable(0.0, trainable=False)
        self.wishes = tf.Variable(0.0, trainable=False)
        self.left: list[np.ndarray[Any, Any]] | None = None
        self.logs: dict[str, float] | None = None

    def begin(self, model: keras.Model) -> None:
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "The model must be built outside of any tf.distribute strategy, and each process use one "
                f"device. Got {model.distribute_strategy.num_replicas_in_sync} replicas."
            )
        self.model, self.checked = model, False
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.jit_compile = model.jit_compile
        model.jit_compile = False
        tap_step(model, "train_step", self.tap)

    def end(self) -> None:
        self.follow(own_seeds=False)
        untap_step(self.model, "train_step", self.tap)
        self.model.jit_compile = self.jit_compile

    def tap(self, step: Step, data: Any) -> Any:
        """Stands around the training step."""
        with hooked(self.model.optimizer, "apply", self.average):
            return step(data)

    def average(self, apply: Callable[..., Any], grads: Any, trainable_variables: Any = None) -> Any:
        """Stands around the optimizer: averages, and tells the others of a wish to stop."""
        present = [grad for grad in grads if grad is not None]
        sizes = [int(np.prod(grad.shape)) for grad in present]
        flat = [flat_gradient(grad, size) for grad, size in zip(present, sizes, strict=True)]
        total = self.group.sum(tf.concat([*flat, [self.wish]], axis=0), self.key)
        *parts, wishes = tf.split(total, [*sizes, 1])
        self.wishes.assign(tf.reshape(wishes, ()))
        averages = iter(
            tf.cast(tf.reshape(part, grad.shape) / self.group.size, grad.dtype)
            for part, grad in zip(parts, present, strict=True)
        )
        return apply([None if grad is None else next(averages) for grad in grads], trainable_variables)

    def begin_epoch(self, epoch: int) -> None:
        epochs = self.group.gather(epoch)
        if len(set(epochs)) > 1:
            raise RuntimeError(
                "All workers must train the same epoch; give `resumable` to all of them, with "
                f"group.file. Got the epochs {[int(each) + 1 for each in epochs]} of workers 0 and on."
            )
        self.wish.assign(0.0)
        self.wishes.assign(0.0)
        self.left = self.logs = None
        self.follow()

    def follow(self, own_seeds: bool = True) -> None:
        """Takes worker 0's variables; its seeds as they are, or as the beginning of this worker's own."""
        variables = all_variables(self.model)
        values = self.group.from_chief([variable.value.numpy() for variable in variables])
        for variable, value in zip(variables, values, strict=True):
            if own_seeds and _is_seed(variable):
                value = value + np.array([self.group.rank * _SEED_STRIDE, 0], value.dtype)
            if not self.group.chief:
                variable.value.assign(value)

    def wish_to_stop(self) -> None:
        """Has all stop after the same step: not at once, for the others may be in the next one already."""
        if not self.checked:
            self.group.check_order()
            self.checked = True
        if self.left is not None or self.model.stop_training:
            if self.left is None:
                self.left = [variable.value.numpy() for variable in all_variables(self.model)]
                self.wish.assign(1.0)
            self.model.stop_training = False
        if float(self.wishes) > 0:
            self.model.stop_training = True

    def end_steps(self) -> None:
        """At the end of the training part of an epoch: metrics of all samples, statistics of all workers."""
        if self.logs is not None:
            return
        counts = [variable.value for metric in self.model.metrics for variable in metric.variables]
        averaged = [
            variable.value
            for variable in self.model.non_trainable_variables
            if tf.as_dtype(variable.dtype).is_floating
        ]
        sums = self.group.sums([variable.numpy() for variable in (*counts, *averaged)])
        for variable, total in zip(counts, sums, strict=False):
            variable.assign(total)
        for variable, total in zip(averaged, sums[len(counts) :], strict=True):
            variable.assign(total / self.group.size)
        if self.left is not None:  # What the callbacks left when they wished to stop, without the step since.
            assign((variable.value for variable in all_variables(self.model)), self.left)
        self.logs = {
            name: float(value)
            for name, value in self.model.get_metrics_result().items()
            if np.ndim(value) == 0
        }

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Before the other callbacks' end of the epoch."""
        self.end_steps()
        logs.update({name: value for name, value in (self.logs or {}).items() if name in logs})
        numbers = {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
        logs.update(json.loads(self.group.say(json.dumps(numbers))))

    def agree(self) -> None:
        """After the other callbacks' end of the epoch."""
        wants = self.model.stop_training or self.left is not None
        self.model.stop_training = any(self.group.gather(float(wants)))


def _is_seed(variable: keras.Variable) -> bool:
    """Whether it is the state of a `keras.random.SeedGenerator`: a seed and a count."""
    return bool(variable.name == "seed_generator_state" and variable.shape == (2,))


class _First(keras.callbacks.Callback):
    """Before all other callbacks."""

    def __init__(self, engine: _Engine) -> None:
        super().__init__()
        self._engine = engine

    def on_train_begin(self, logs: Logs = None) -> None:
        """Stands around the optimizer."""
        self._engine.begin(self.model)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Takes worker 0's state."""
        self._engine.begin_epoch(epoch)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Adds up the training metrics before the validation clears them."""
        self._engine.end_steps()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Makes the logs those of all workers."""
        self._engine.end_epoch({} if logs is None else logs)


class _Last(keras.callbacks.Callback):
    """After all other callbacks."""

    def __init__(self, engine: _Engine) -> None:
        super().__init__()
        self._engine = engine

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Looks whether a worker wants to stop."""
        self._engine.wish_to_stop()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Agrees on whether to stop."""
        self._engine.agree()

    def on_train_end(self, logs: Logs = None) -> None:
        """Takes worker 0's state, and leaves the step as it was."""
        self._engine.end()
