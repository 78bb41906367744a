"""Parts of the data, and a training on one of them, which ends with its best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.after_training.judging import judge_outputs, outputs_of
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.types import Array
from keras_practice.core.variables import Snapshot, snapshot
from keras_practice.data import Task

_SIZES = 6
_PER_CLASS = 2  # Fewer samples a class than this, and some class may not be there at all.
_SMALLEST = 10
_MIN_UPDATES = 1_000  # Adam at its usual rate, 1e-3, moves a weight by up to 1 in so many.
_LOOKS = 20  # Times that a training is looked at, to keep its best weights.
_PATIENCE = 6  # Looks without a better validation loss after which a training ends.


@dataclass(frozen=True)
class SubsetResult:
    """How a training on a part of the data ended."""

    train_error: float
    val_error: float
    doubt: float
    chance: float
    classifies: bool
    unfinished: bool


@dataclass(frozen=True)
class SubsetTraining:
    """One training on a part of the data."""

    part: Samples
    held: Samples
    task: Task
    updates: int
    batch_size: int
    seed: int
    infer: Any

    def run(self, model: keras.Model) -> SubsetResult:
        """Trains, and judges the best weights."""
        keeper = _Keeper(self.held, self.task, self.infer)
        together = max(1, int(getattr(model, "steps_per_execution", 1) or 1))
        # fit takes whole executions, so a part of one would become one.
        steps = together * max(1, round(self.updates / _LOOKS / together))
        model.stop_training = False
        model.fit(
            self._batches(),
            epochs=max(1, round(self.updates / steps)),
            steps_per_epoch=steps,
            callbacks=[keeper],
            shuffle=False,  # The batches are shuffled already.
            verbose=0,
        )
        keeper.restore()
        train = judge_outputs(model, outputs_of(self.infer, self.part.x), self.part, self.task)
        val = judge_outputs(model, outputs_of(self.infer, self.held.x), self.held, self.task)
        return SubsetResult(
            train.error, val.error, val.doubt, val.chance, self.task.is_classification, keeper.still_improving
        )

    def _batches(self) -> tf.data.Dataset:
        """Batches without end, so that every size has batches of one shape and no small last one."""
        samples: tuple[Any, ...] = (self.part.x, self.part.y)
        if self.part.weight is not None:
            samples = (*samples, self.part.weight)
        count = len(self.part)
        return (
            tf.data.Dataset.range(count)
            .shuffle(count, seed=self.seed, reshuffle_each_iteration=True)
            .repeat()
            .batch(self.batch_size)
            .map(lambda i: keras.tree.map_structure(lambda a: tf.gather(a, i), samples), num_parallel_calls=1)
            .prefetch(2)
        )


class _Keeper(keras.callbacks.Callback):
    """Keeps the weights with the lowest validation loss, and ends a training that finds no better ones."""

    def __init__(self, held: Samples, task: Task, infer: Any) -> None:
        super().__init__()
        self._held, self._task, self._infer = held, task, infer
        self._best, self._since, self._improved = math.inf, 0, 0
        self._weights: Snapshot | None = None

    @property
    def still_improving(self) -> bool:
        """Whether the last looks were clearly better than those before."""
        return self._since == 0 and self._improved >= 3

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        judged = judge_outputs(self.model, outputs_of(self._infer, self._held.x), self._held, self._task)
        loss = float(judged.losses.mean())
        if loss < self._best:
            # A hundredth is less than the last looks should still bring to call them progress.
            self._improved = self._improved + 1 if loss < 0.99 * self._best else 0
            self._best, self._since = loss, 0
            self._weights = snapshot(self.model.variables)
            return
        self._since, self._improved = self._since + 1, 0
        if self._since >= _PATIENCE or not math.isfinite(loss):
            self.model.stop_training = True

    def restore(self) -> None:
        """Sets the best weights."""
        if self._weights is not None:
            self._weights.restore()


def built(build: Callable[[], keras.Model], samples: Samples) -> keras.Model:
    """A compiled model with all its variables, those of its optimiser among them."""
    model = build()
    if not getattr(model, "compiled", False):
        raise ValueError("build must return a compiled model. Got one that is not compiled.")
    if not model.built:
        model(samples.take(slice(0, 1)).x, training=False)
    model.optimizer.build(model.trainable_variables)
    return model


def stratified_order(y: Any, task: Task, seed: int) -> Array:
    """An order in which every beginning has the classes' shares of the whole."""
    order = np.random.default_rng(seed).permutation(len(y))
    if task.kind not in ("binary", "multiclass"):
        return order
    classes = task.class_indices(np.asarray(y).reshape(len(y), -1) if task.one_hot else y)
    if len(classes) != len(order):  # Several decisions a sample.
        return order
    place = np.empty(len(order))
    for c in np.unique(classes):
        members = np.flatnonzero(classes[order] == c)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.asarray(order[np.argsort(place, kind="stable")])


def updates(epochs: int | None, steps: int) -> int:
    """The most updates of the weights that any size gets."""
    return max(20 * steps, _MIN_UPDATES) if epochs is None else epochs * steps


def check_sizes(sizes: Sequence[int], most: int) -> list[int]:
    """The sizes in order, each once.

    Raises:
        ValueError: If one is not between 1 and the number of samples.
    """
    chosen = sorted({int(size) for size in sizes})
    if not chosen or chosen[0] < 1 or chosen[-1] > most:
        raise ValueError(f"sizes must be between 1 and the {most} training samples. Got {list(sizes)}.")
    return chosen


def default_sizes(most: int, task: Task) -> list[int]:
    """Up to six sizes, each half of the next, with enough samples of each class."""
    classes = task.num_classes if task.kind in ("binary", "multiclass") else 1
    least = min(most, max(_SMALLEST, _PER_CLASS * classes))
    return sorted({size for i in range(_SIZES) if (size := round(most / 2**i)) >= least})
