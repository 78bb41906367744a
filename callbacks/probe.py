"""Figures of a training step, computed in the step itself every so many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.layers import activation_name, inner_layers
from keras_practice.core.steps import (
    Step,
    flat_gradient,
    hooked,
    innermost,
    outputs_kept,
    replica_values,
    step_variable,
    true_scale,
    usable_here,
    when,
)
from keras_practice.core.types import Array

BINS = 30
_MAX_IN_HISTOGRAM = 4_096
_MIN_FOR_DEAD = 16
# How near to an end of its range an output counts as saturated, as a share of the range.
_NEAR = 0.025
_RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}
_CUT_AT_ZERO = ("relu", "relu6")


@dataclass(frozen=True)
class Activation:
    """A hidden layer whose output is an activation, and what can go wrong with it."""

    layer: keras.layers.Layer
    name: str
    fault: Literal["dead", "saturated"] | None
    bounds: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Sample:
    """The figures of one step.

    Attributes:
        step: The optimiser's count of steps before this one.
        learning_rate: The rate of this step.
        began, ended: When its batch was there, and when the step before had ended, in
            seconds since 1970; NaN under XLA.
        examples: Size of its batch.
        gradients, weights, updates: Norms, one a trainable array: of the gradient
            before clipping, of the weights before the step, and of their change.
        largest_gradient: Largest absolute value in the gradient.
        faults: Share of dead or saturated units, one a watched activation; NaN
            where it is not defined.
        histograms: `(arrays, BINS + 2)`: lowest value, highest value, counts; all
            weights first, then all gradients, then all activations.
    """

    step: int
    learning_rate: float
    began: float
    ended: float
    examples: float
    gradients: list[float]
    weights: list[float]
    updates: list[float]
    largest_gradient: float
    faults: list[float]
    histograms: Array


class Probe:
    """Watches the training step of one compiled model.

    Keeps one more copy of the trainable weights, to take the true change of each.

    Args:
        model: A built and compiled model.
        every: Steps from one sample to the next.
    """

    def __init__(self, model: keras.Model, every: int) -> None:
        self.model = model
        self.optimizer = model.optimizer
        self.weights = list(model.trainable_variables)
        self._sizes = [math.prod(weight.shape) for weight in self.weights]
        self.activations = watched_activations(model)
        self.in_xla = bool(model.jit_compile)
        self.every = _whole_updates(every, model.optimizer)
        self.steps_per_call = int(model.steps_per_execution)
        self._steps_known: int | None = 0
        # Whether the last call was the first one with the probe, or without: it may have been traced.
        self.first_of_its_kind = True
        self._kinds: set[bool] = set()
        self.capacity = -(-max(self.steps_per_call, self.every) // self.every) + 2
        self._figures = 6 + 3 * len(self.weights) + len(self.activations)
        self._read_samples = 0
        histograms = 2 * len(self.weights) + len(self.activations)
        self._steps = step_variable(model, tf.zeros((), tf.int64))
        self._taken = step_variable(model, tf.zeros((), tf.int64))
        self._record = step_variable(model, tf.zeros((self.capacity, self._figures), tf.float64))
        self._histograms = step_variable(model, tf.zeros((self.capacity, histograms, BINS + 2)))
        # The weights before a step that is sampled, one after another, and when the step before ended.
        self._before = step_variable(model, tf.zeros(sum(self._sizes)))
        self._ended = step_variable(model, tf.zeros((), tf.float64))

    def fits(self, model: keras.Model) -> bool:
        """Whether this probe was made for the model as it is now compiled."""
        return (
            model is self.model
            and model.optimizer is self.optimizer
            and len(self.weights) == len(model.trainable_variables)
            and all(ours is its for ours, its in zip(self.weights, model.trainable_variables, strict=True))
            and bool(model.jit_compile) == self.in_xla
            and int(model.steps_per_execution) == self.steps_per_call
        )

    def reset(self) -> None:
        """Begins again with a sample of the next step."""
        self._read_samples = self._steps_known = 0
        self._kinds = set()
        for counter in (self._steps, self._taken):
            counter.assign(tf.zeros((), tf.int64))
        self._prepare()

    def due(self) -> bool:
        """Whether the next call has a step to watch: one that is sampled, or the one before it.

        Other calls may run without the probe, where it is known how many steps were taken.
        """
        known, due = self._steps_known, True
        if known is not None and not self.in_xla:  # XLA would take as long again to compile two functions.
            phase = (known + 2 - _accumulation(self.optimizer)) % self.every
            due = phase < 2 or phase + self.steps_per_call > self.every
            if due:
                self._steps.assign(tf.constant(known, tf.int64))
        self.first_of_its_kind = due not in self._kinds
        self._kinds.add(due)
        return due

    def went_on(self, steps: int | None) -> None:
        """Says how many steps there were since the last `reset`; `None` where that is not known."""
        self._steps_known = steps

    def steps(self) -> int:
        """Steps since the last `reset`."""
        if self._steps_known is not None:
            return self._steps_known
        return int(replica_values(self.model, self._steps)[0])

    def has_news(self, steps: float) -> bool:
        """Whether there can be a sample to read after that many steps since the last `reset`."""
        return (steps - _accumulation(self.optimizer)) // self.every + 1 > self._read_samples

    def news(self) -> int:
        """How many samples there are since the last reading."""
        return int(replica_values(self.model, self._taken)[0]) - self._read_samples

    def read(self) -> list[Sample]:
        """The samples since the last reading, oldest first."""
        taken = self._read_samples + self.news()
        rows, histograms = (
            replica_values(self.model, variable).mean(axis=0) for variable in (self._record, self._histograms)
        )
        first = max(self._read_samples, taken - self.capacity)
        self._read_samples = taken
        return [
            self._sample(rows[i % self.capacity], histograms[i % self.capacity]) for i in range(first, taken)
        ]

    def _sample(self, row: Array, histograms: Array) -> Sample:
        weights, activations = len(self.weights), len(self.activations)
        single, gradients, norms, updates, faults = np.split(
            row, np.cumsum([6, weights, weights, weights, activations])[:-1]
        )
        step, rate, began, ended, examples, largest = single.tolist()
        examples *= self.model.distribute_strategy.num_replicas_in_sync
        return Sample(
            step=int(step),
            learning_rate=rate,
            began=began,
            ended=ended,
            examples=examples,
            gradients=gradients.tolist(),
            weights=norms.tolist(),
            updates=updates.tolist(),
            largest_gradient=largest,
            faults=faults.tolist(),
            histograms=histograms,
        )

    def tap(self, step: Step, data: Any) -> Any:
        """Stands around the training step.

        Every operation here and in `_apply` is one of every step that is `due`, and so
        of its cost; what is under a condition is not.
        """
        leaves = [leaf for leaf in tf.nest.flatten(data) if tf.is_tensor(leaf)]
        with tf.control_dependencies(leaves):
            began = self._now()
        with (
            outputs_kept([activation.layer for activation in self.activations]) as outputs,
            hooked(self.model.optimizer, "apply", self._apply(leaves[0], began, outputs)),
        ):
            return step(data)

    def _now(self) -> tf.Tensor:
        return tf.constant(np.nan, tf.float64) if self.in_xla else tf.timestamp()

    def _apply(self, batch: tf.Tensor, began: tf.Tensor, outputs: dict[int, tf.Tensor]) -> Callable[..., Any]:
        def around(apply: Callable[..., Any], grads: Any, trainable_variables: Any = None) -> Any:
            # 0 in the step before one that is sampled, 1 in that one.
            phase = (self._steps + (2 - _accumulation(self.model.optimizer))) % self.every
            by_variable = dict(zip(map(id, trainable_variables or self.weights), grads, strict=True))
            gradients = [by_variable.get(id(weight)) for weight in self.weights]
            factor = true_scale(self.model)
            rate, iterations = self.model.optimizer.learning_rate, self.model.optimizer.iterations
            rate, iterations = tf.convert_to_tensor(rate), tf.convert_to_tensor(iterations)
            result = apply(grads, trainable_variables)
            here = usable_here(outputs)

            def take() -> None:
                timing = [iterations, rate, began, tf.convert_to_tensor(self._ended), tf.shape(batch)[0]]
                self._take(timing, gradients, factor, here)

            def sample() -> None:
                when(tf.equal(phase, 1 % self.every), take)
                when(tf.equal(phase, 0), self._prepare)

            # Every tensor that goes into a condition costs time in every step: one condition, not two.
            when(phase < 2, sample)
            self._steps.assign_add(tf.ones((), tf.int64))
            return result

        return around

    def _flat_weights(self) -> list[tf.Tensor]:
        return [tf.reshape(tf.cast(tf.convert_to_tensor(w.value), tf.float32), [-1]) for w in self.weights]

    def _prepare(self) -> None:
        """Keeps what the next step is compared with."""
        weights = tf.concat(self._flat_weights(), axis=0)
        with tf.control_dependencies([weights]):
            self._ended.assign(self._now())
        self._before.assign(weights)

    def _take(
        self, timing: Sequence[Any], gradients: Sequence[Any], factor: Any, outputs: dict[int, tf.Tensor]
    ) -> None:
        """Writes one row."""
        missing = tf.constant(np.nan, tf.float32)
        before = tf.split(tf.convert_to_tensor(self._before), self._sizes)
        flat = [
            tf.fill([n], missing) if g is None else flat_gradient(g, n)
            for n, g in zip(self._sizes, gradients, strict=True)
        ]
        changes = [a - b for a, b in zip(self._flat_weights(), before, strict=True)]
        norms = tf.sqrt(2.0 * tf.stack([tf.nn.l2_loss(part) for part in (*flat, *before, *changes)]))
        scales = tf.concat([tf.fill([len(flat)], factor), tf.ones([2 * len(flat)])], axis=0)
        largest = missing
        if innermost(self.model.optimizer).clipvalue is not None:
            largest = factor * tf.reduce_max(tf.abs(tf.concat(flat, axis=0)))
        faults = [
            _fault(activation, outputs[i]) if i in outputs else missing
            for i, activation in enumerate(self.activations)
        ]
        figures = tf.concat([[largest], norms * scales, tf.stack([*faults, missing])[:-1]], axis=0)
        single = tf.stack([tf.cast(figure, tf.float64) for figure in timing])
        row = tf.concat([single, tf.cast(figures, tf.float64)], axis=0)
        here = tf.equal(tf.range(self.capacity, dtype=tf.int64), self._taken % self.capacity)
        self._record.assign(tf.where(here[:, None], row, tf.convert_to_tensor(self._record)))
        histograms = self._take_histograms(before, flat, factor, outputs)
        self._histograms.assign(
            tf.where(here[:, None, None], histograms, tf.convert_to_tensor(self._histograms))
        )
        self._taken.assign_add(tf.ones((), tf.int64))

    def _take_histograms(
        self, before: Sequence[Any], gradients: Sequence[Any], factor: Any, outputs: dict[int, tf.Tensor]
    ) -> tf.Tensor:
        """Histograms of all arrays at once, `(arrays, BINS + 2)`, in a few operations."""
        arrays = [*map(_thin, before), *(_thin(g) * factor for g in gradients)]
        owners = [tf.constant(np.repeat(np.arange(len(arrays)), [int(a.shape[0]) for a in arrays]), tf.int32)]
        for i in range(len(self.activations)):
            if i in outputs:
                arrays.append(_thin(tf.reshape(tf.cast(outputs[i], tf.float32), [-1])))
                owners.append(tf.fill(tf.shape(arrays[-1]), 2 * len(before) + i))
        count = 2 * len(before) + len(self.activations)
        return _histograms(tf.concat(arrays, axis=0), tf.concat(owners, axis=0), count)


def watched_activations(model: keras.Model) -> list[Activation]:
    """The hidden layers that end in an activation, in the order of the model."""
    names = set(getattr(model, "output_names", ()))
    return [
        Activation(
            layer,
            layer.name,
            "saturated" if function in _RANGES else "dead" if function in _CUT_AT_ZERO else None,
            _RANGES.get(function, (0.0, 0.0)),
        )
        for layer in inner_layers(model)
        if (function := _activation(layer)) is not None and layer.name not in names
    ]


def _activation(layer: keras.layers.Layer) -> str | None:
    """The name of the activation that a layer's output went through; `None` for none."""
    name = activation_name(layer)
    if name in (None, "softmax", "log_softmax"):
        return None
    return "other" if name == "relu" and getattr(layer, "negative_slope", None) else name


def _whole_updates(every: int, optimizer: Any) -> int:
    """`every`, rounded up to a multiple of the steps that make one update of the weights."""
    accumulated = _accumulation(optimizer)
    return -(-every // accumulated) * accumulated


def _accumulation(optimizer: Any) -> int:
    inner = innermost(optimizer)
    return int(getattr(inner, "gradient_accumulation_steps", None) or 1)


def _fault(activation: Activation, output: tf.Tensor) -> tf.Tensor:
    """Share of a layer's units, or outputs, that are dead or saturated in this batch."""
    missing = tf.constant(np.nan, tf.float32)
    output = tf.cast(output, tf.float32)
    if activation.fault == "saturated":
        low, high = activation.bounds
        margin = _NEAR * (high - low)
        outside = tf.logical_or(output <= low + margin, output >= high - margin)
        return tf.reduce_mean(tf.cast(outside, tf.float32))
    if activation.fault == "dead":
        by_unit = tf.reshape(output, (-1, output.shape[-1]))
        silent = tf.cast(tf.reduce_all(by_unit <= 0.0, axis=0), tf.float32)
        # Of a few samples any unit may be silent.
        return tf.where(tf.shape(by_unit)[0] >= _MIN_FOR_DEAD, tf.reduce_mean(silent), missing)
    return missing


def _thin(flat: tf.Tensor) -> tf.Tensor:
    """Evenly chosen values, about as many as a histogram takes."""
    if flat.shape[0] is None:
        return flat[:: tf.maximum(1, tf.size(flat) // _MAX_IN_HISTOGRAM)]
    return flat[:: max(1, int(flat.shape[0]) // _MAX_IN_HISTOGRAM)]


def _histograms(values: tf.Tensor, owner: tf.Tensor, count: int) -> tf.Tensor:
    """Lowest and highest finite value, and counts, of the values of each owner."""
    finite = tf.math.is_finite(values)
    low = tf.math.unsorted_segment_min(tf.where(finite, values, values.dtype.max), owner, count)
    high = tf.math.unsorted_segment_max(tf.where(finite, values, values.dtype.min), owner, count)
    low, high = (tf.where(high >= low, edge, 0.0) for edge in (low, high))  # Of no values.
    width = tf.where(high > low, high - low, 1.0)
    place = (tf.where(finite, values, 0.0) - tf.gather(low, owner)) / tf.gather(width, owner) * BINS
    place = tf.clip_by_value(tf.cast(place, tf.int32), 0, BINS - 1)
    counts = tf.math.unsorted_segment_sum(tf.cast(finite, tf.float32), owner * BINS + place, count * BINS)
    return tf.concat([tf.stack([low, high], axis=1), tf.reshape(counts, (count, BINS))], axis=1)
