"""The model's own training step, run as `fit` runs it: what it raises, and whether it gets anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.forward_pass import fixed_batch
from keras_practice.checks.inspection.own_loss import trains_itself
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.looking import Looking, first_line
from keras_practice.checks.trials.baseline import LEARNED, SURE
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.case import MIN_STEPS, STEPS
from keras_practice.checks.trials.lent_optimizers import CannotLendError, LentOptimizers
from keras_practice.checks.trials.train_loop import TensorSamples
from keras_practice.core.types import Array
from keras_practice.core.variables import restored, snapshot

_MAX_ROWS = 2_048
_MAX_NUMBERS = 20_000_000
_MAX_IN_BATCH = 128
_FIRST_STEPS = 3
_PROBE_STEPS = 8
_OTHER_RATES = (10.0, 0.1)
# How far above its start a loss has run away.
_RUN_AWAY = 10.0


class OwnTraining:
    """A model with its samples, trained by its own `train_step` and copies of its optimisers.

    Args:
        model: A compiled model, built as far as it can be.
        train: What `fit` would train on.
        batch_size: Samples a batch.
        seed: Fixes the choice of samples. Defaults to `0`.
    """

    def __init__(self, model: keras.Model, train: Samples, batch_size: int, seed: int = 0) -> None:
        self.model = model
        numbers = sum(math.prod(a.shape[1:]) for a in train.inputs.values())
        self.rows = train.spread(min(_MAX_ROWS, max(64, _MAX_NUMBERS // max(1, numbers))), seed)
        self.batch_size = fixed_batch(model) or min(batch_size, _MAX_IN_BATCH, len(self.rows))
        self._samples: TensorSamples | None = None
        self._optimizers: LentOptimizers | None = None
        self._rng = np.random.default_rng(seed)
        self._step: Any = None
        self.names: tuple[str, ...] = ()  # Of what a step returns, known once it was run.

    @contextmanager
    def lent(self) -> Iterator[LentOptimizers]:
        """Within the block the model may be trained; everything is put back."""
        if self._optimizers is None:
            self._optimizers = LentOptimizers(self.model)
        with restored(self.model.variables), self._optimizers.lent():
            yield self._optimizers

    @contextmanager
    def optimizers_lent(self) -> Iterator[LentOptimizers]:
        """The same where the model's variables are lent already, and stay changed for now."""
        if self._optimizers is None:
            self._optimizers = LentOptimizers(self.model)
        with self._optimizers.lent():
            yield self._optimizers

    def raised(self) -> Exception | None:
        """What one plain step on the first samples raises, `None` for nothing.

        Raises:
            CannotLendError: If an optimiser cannot be copied.
        """
        with self.lent():
            if self._samples is None:
                self._samples = TensorSamples(self.model, self.rows)
            rows = tf.constant(np.arange(self.batch_size), tf.int64)
            batch = self._samples.batch_of(rows, rows)
            step = self.model.train_step
            if not self.model.run_eagerly:
                step = tf.function(step, autograph=False)
            try:
                logs = step(batch)
            except Exception as problem:
                return problem
        self.names = _losses_in(logs)[0]
        return None

    def run(self, steps: int, factor: float = 1.0) -> Array:
        """Trains on random batches; returns what each step said of its loss, `(steps,)`.

        It ends with the first that is not finite. The weights stay changed.
        """
        if self._step is None:
            eager = self.model.run_eagerly
            self._step = self._one if eager else tf.function(self._one, autograph=False)
        assert self._optimizers is not None
        self._optimizers.factor.assign(factor)
        losses = []
        for _ in range(steps):
            rows = self._rng.choice(len(self.rows), self.batch_size, replace=False)
            losses.append(float(self._step(tf.constant(rows, tf.int64))))
            if not math.isfinite(losses[-1]):
                break
        return np.array(losses)

    def _one(self, rows: tf.Tensor) -> tf.Tensor:
        assert self._samples is not None
        for metric in self.model.metrics:  # So that a running mean is the value of this batch.
            metric.reset_state()
        return _losses_in(self.model.train_step(self._samples.batch_of(rows, rows)))[1]


def plain_step_findings(training: OwnTraining, looking: Looking) -> list[Finding]:
    """Whose fault it is that parts failed: the model's, if its own plain step raises, else ours."""
    theirs, ran = None, False
    with looking.part("a plain step"):
        theirs, ran = training.raised(), True
    looking.conclude(theirs, ran=ran)
    return [] if theirs is None else [raises(training.model, theirs)]


def own_step_findings(training: OwnTraining, budget: Budget, looking: Looking) -> list[Finding]:
    """Trains a model by its own step for a moment: `raises`, `loss-stuck`, `loss-diverges`, rates."""
    found: list[Finding] = []
    theirs, ran = None, False
    with looking.part("train_step"):
        try:
            theirs, ran = training.raised(), True
        except CannotLendError as problem:
            looking.leave_out("train_step", f"it was not run, since {problem}")
        else:
            if theirs is None:
                found += _trained(training, budget, looking)
    looking.conclude(theirs, ran=ran)
    return found if theirs is None else [raises(training.model, theirs)]


def _trained(training: OwnTraining, budget: Budget, looking: Looking) -> Iterator[Finding]:
    model = training.model
    weights = model.trainable_variables
    with training.lent() as optimizers:
        optimizers.restart()
        before = snapshot(weights)
        training.run(_FIRST_STEPS)
        if weights and before.holds():
            yield _unapplied(len(weights))
            return
        begin = budget.clock()
        training.run(1)
        seconds = budget.clock() - begin
    affordable = int(0.3 * (budget.deadline - budget.clock()) / max(seconds, 1e-5))
    steps = min(STEPS, affordable)
    if steps <= _PROBE_STEPS:
        looking.leave_out("the training by train_step", "there was no time for it; give more with budget_s.")
        return
    if not training.names:
        looking.leave_out("the loss of train_step", "it returns no loss that could be followed.")
        return
    with training.lent():
        start = training.run(_PROBE_STEPS, 0.0)
    curve = _curve(training, steps)
    name = " + ".join(training.names)
    if not np.isfinite(curve).all() or not np.isfinite(start).all():
        seen = f"{name} is not a finite number after {len(curve)} steps of the model's own train_step"
        yield _away(name, seen)
        return
    alone = len(training.names) == 1  # Several losses may be one against the other.
    end = float(curve[-max(1, steps // 5) :].mean())
    if alone and end > _RUN_AWAY * max(abs(float(start.mean())), 1e-6):
        yield _away(name, f"{name} grows from {start.mean():.3g} to {end:.3g} in {steps} steps of train_step")
        return
    if not alone or steps < MIN_STEPS or _fell(start, curve) or _trained_before(model):
        return
    for factor in _OTHER_RATES:
        if budget.clock() + 1.5 * steps * seconds > budget.deadline:
            return
        if _fell(start, _curve(training, steps, factor)):
            yield _other_rate(name, float(start.mean()), end, steps, factor)
            return
    yield Finding(
        "loss-stuck",
        "error",
        "train_step",
        f"{name} is {start.mean():.3g} at the start and {end:.3g} after {steps} steps of the model's own "
        "train_step, with 10 times and a tenth of its learning rate too, where a fall is expected.",
        "a gradient that does not reach the weights, of another loss than the one that is returned, or a "
        "loss that does not depend on the outputs.",
        "look at what train_step differentiates by what, and try it on 16 samples.",
        "A47, A53",
    )


def _curve(training: OwnTraining, steps: int, factor: float = 1.0) -> Array:
    with training.lent() as optimizers:
        optimizers.restart()
        return training.run(steps, factor)


def _fell(start: Array, curve: Array) -> bool:
    """Whether a loss surely came below its start."""
    if not np.isfinite(curve).all():
        return False
    last = curve[-max(2, len(curve) // 5) :]
    fall = float(start.mean() - last.mean())
    error = math.hypot(start.std() / math.sqrt(len(start)), last.std() / math.sqrt(len(last)))
    return fall > LEARNED * abs(float(start.mean())) or fall > SURE * error + 1e-9


def _trained_before(model: keras.Model) -> bool:
    optimizer = getattr(model, "optimizer", None)
    return optimizer is not None and int(np.asarray(getattr(optimizer, "iterations", 0))) > 0


def _losses_in(logs: Any) -> tuple[tuple[str, ...], tf.Tensor]:
    """Names and sum of the losses that a step returns: `loss`, else all that have it in their names."""
    if not isinstance(logs, dict):
        values = [v for v in keras.tree.flatten(logs) if v is not None]
        return (("loss",), _mean(values[0])) if len(values) == 1 else ((), tf.zeros(()))
    names = ("loss",) if "loss" in logs else tuple(name for name in logs if "loss" in str(name))
    return names, tf.add_n([_mean(logs[name]) for name in names] or [tf.zeros(())])


def _mean(value: Any) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(value, tf.float32))


def _unapplied(count: int) -> Finding:
    return Finding(
        "loss-stuck",
        "error",
        "train_step",
        f"{_FIRST_STEPS} calls of the model's own train_step change 0 of {count} trainable "
        "arrays; all of them are expected to change.",
        "a training step that does not apply its gradients.",
        "call self.optimizer.apply(gradients, self.trainable_variables) at its end.",
        "A42, A53",
    )


def _away(name: str, seen: str) -> Finding:
    return Finding(
        "loss-diverges",
        "error",
        "train_step",
        f"{seen}, where a fall is expected.",
        "a learning rate that is too high, inputs on a huge scale, or a logarithm, root or division that "
        "overflows.",
        f"lower the learning rate, standardise x, and look at what {name} is made of.",
        "A21, A38, A49",
    )


def _other_rate(name: str, start: float, end: float, steps: int, factor: float) -> Finding:
    high = factor < 1
    return Finding(
        "learning-rate-high" if high else "learning-rate-low",
        "error",
        "optimizer",
        f"{name} goes from {start:.3g} to {end:.3g} in {steps} steps of the model's own train_step; with "
        f"{factor:g} times the learning rate it falls.",
        f"a learning rate that is too {'high' if high else 'low'}.",
        f"use {factor:g} times the learning rate.",
        "A21, A49",
    )


def raises(model: keras.Model, problem: Exception) -> Finding:
    """What a model raises by itself, in a plain step."""
    own = trains_itself(model)
    call = "a call of the model's own train_step" if own else "a step"
    cause = "labels of a shape or range that the loss cannot take."
    return Finding(
        "raises",
        "error",
        "train_step" if own else "model",
        f"{call} raises {first_line(problem)}, which should give a loss.",
        f"an error in {'train_step, ' if own else ''}a layer's call or the loss, or {cause}",
        "call model.train_on_batch(x[:2], y[:2]) and follow the traceback.",
        "A53",
    )
