"""Ending a training that has exploded, with the weights from before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.layers import inner_layers
from keras_practice.core.steps import (
    Step,
    hooked,
    layer_names,
    no_longer,
    outputs_kept,
    replica_values,
    scales_loss,
    step_variable,
    tap_step,
    true_scale,
    untap_step,
    usable_here,
    when,
    when_built,
)
from keras_practice.core.variables import assign

_FIRST_STEPS = 20  # Their mean is what the gradient's norm is compared with.
_SMALLEST = 1e-8  # So that a gradient of zero at the start is no measure.


class StopOnExplosion(keras.callbacks.Callback):
    """Ends training when the gradient explodes, with the last good weights.

    It looks at every step's gradient: an explosion is one that is not finite, or
    whose norm is `factor` times the geometric mean of the first 20 steps. The
    model then gets back all its variables as they were at the last good look,
    batch-norm statistics included; slots of the optimiser that are no longer
    finite start anew. It says which layer went first: the first one, in the order
    of the forward pass, whose output was not finite, or else the last one whose
    gradient was not, since gradients are computed from the last layer to the first.

    In mixed precision the optimiser skips steps whose gradient overflows and
    lowers its scale; only what is not finite at scale 1 counts. It keeps one copy
    of the model's variables.

    Args:
        factor: How much larger than at the start a gradient may be. Defaults to `1e4`.
        every: Steps from one look, and copy of good weights, to the next.
            Defaults to `50`.
        sink: Called with the sentence that says what happened. Defaults to `print`.

    Attributes:
        exploded: Whether the last `fit` ended so.
        step: The step of the explosion, counted from 1 in this `fit`; `None` without one.
        first_layer: The layer that went first; `"the input"` if the batch itself
            was not finite; `None` without an explosion.

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        A48; Pascanu, Mikolov and Bengio 2013.
    """

    def __init__(self, factor: float = 1e4, every: int = 50, sink: Callable[[str], Any] = print) -> None:
        super().__init__()
        if not 1 < factor < math.inf:
            raise ValueError(f"factor must be a number above 1. Got {factor!r}.")
        self.every = check_positive_integer("every", every)
        self.factor = factor
        self.sink = sink
        self.exploded = False
        self.step: int | None = None
        self.first_layer: str | None = None
        self._guard: _Guard | None = None
        self._good: list[tf.Tensor] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the weights at the start for good ones."""
        self.exploded, self.step, self.first_layer = False, None, None
        if self._guard is not None and not self._guard.fits(self.model):
            self._guard = None
        self._calls = 0
        # A look waits for the device.
        self._calls_to_look = max(1, self.every // int(self.model.steps_per_execution))
        when_built(self.model, self._watch)

    def _watch(self) -> None:
        """Puts the guard around the step of a model that has its weights, which are good ones."""
        if self._guard is None:
            self._guard = _Guard(self.model, self.factor)
        self._guard.reset()
        tap_step(self.model, "train_step", self._guard.tap)
        self._keep()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks whether the gradient has exploded since the last look."""
        self._calls += 1
        if self._calls % self._calls_to_look == 0:
            self._look()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks before a validation, so that exploded weights are not validated."""
        self._look()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks before the next epoch."""
        self._look()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the model's step as it was."""
        no_longer(self.model, self._watch)
        if self._guard is not None:
            untap_step(self.model, "train_step", self._guard.tap)
        self._good = []

    def _keep(self) -> None:
        self._good = [tf.identity(variable.value) for variable in self.model.variables]

    def _look(self) -> None:
        if self.exploded or self._guard is None:
            return
        steps, found, largest = self._guard.look()
        if found is None:
            if largest <= math.sqrt(self.factor):
                self._good_step = steps
                self._keep()
            return
        self.exploded = True
        self.step, self.first_layer, what = found
        assign(self.model.variables, self._good)
        for variable in self.model.optimizer.variables:
            values = np.asarray(variable.numpy())
            if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
                variable.assign(np.zeros_like(values))
        self.model.stop_training = True
        self.sink(
            f"Training exploded at step {self.step}: {what}. It has ended with the last good weights. "
            "Check the data for NaN and large values, lower the learning rate, or clip the gradient "
            "(clipnorm=1.0)."
        )


class _Guard:
    """Watches the norm of every step's gradient, and how the first bad step looked inside."""

    def __init__(self, model: keras.Model, factor: float) -> None:
        self.model = model
        self.optimizer = model.optimizer
        self.weights = list(model.trainable_variables)
        self.layers = [
            layer for layer in inner_layers(model) if not isinstance(layer, keras.layers.InputLayer)
        ]
        self._allowed = math.log(factor)
        self._order: list[int] = []
        # Steps, how many norms are compared with and the sum of their logarithms, the largest
        # log-ratio since the last look, the bad step.
        self._state = step_variable(model, tf.zeros(5))
        # At the bad step, whether the input and each output were finite, and each gradient's norm.
        self._finite = step_variable(model, tf.ones(1 + len(self.layers)))
        self._norms = step_variable(model, tf.zeros(len(self.weights)))

    def fits(self, model: keras.Model) -> bool:
        """Whether this guard was made for the model as it is now."""
        return (
            model is self.model
            and model.optimizer is self.optimizer
            and list(map(id, self.weights)) == list(map(id, model.trainable_variables))
        )

    def reset(self) -> None:
        """Forgets what it has seen."""
        self._state.assign([0.0, 0.0, 0.0, -math.inf, 0.0])

    def look(self) -> tuple[int, tuple[int, str, str] | None, float]:
        """Steps so far; the bad step, its layer and what was seen; the largest norm over the usual one."""
        states = replica_values(self.model, self._state)
        bad = np.where(states[:, 4] > 0, states[:, 4], np.inf)
        steps, largest = int(states[0, 0]), float(np.exp(min(states[:, 3].max(), 80.0)))
        if np.all(np.isinf(bad)):
            self._state.assign([*states[0, :3], -math.inf, 0.0])
            return steps, None, largest
        replica = int(bad.argmin())
        finite = replica_values(self.model, self._finite)[replica]
        norms = replica_values(self.model, self._norms)[replica]
        return steps, (int(bad[replica]), *self._first(finite, norms)), largest

    def _first(self, finite: Any, norms: Any) -> tuple[str, str]:
        if not finite[0]:
            return "the input", "the input of that step was not finite"
        for index in self._order:
            if not finite[1 + index]:
                name = self.layers[index].name
                return name, f"the output of {name!r} was the first that was not finite"
        broken = [i for i, norm in enumerate(norms) if not math.isfinite(norm)]
        index = broken[-1] if broken else int(np.argmax(norms))
        name = layer_names(self.model)[id(self.weights[index])]
        if broken:
            return name, f"the gradient of {name!r} was the first that was not finite"
        return name, f"the gradient of {name!r} was the largest, with norm {norms[index]:.2g}"

    def tap(self, step: Step, data: Any) -> Any:
        """Stands around the training step."""
        leaves = tf.nest.flatten(data[0] if isinstance(data, tuple) else data)
        inputs = [leaf for leaf in leaves if tf.is_tensor(leaf) and leaf.dtype.is_floating]
        with (
            outputs_kept(self.layers) as outputs,
            hooked(self.model.optimizer, "apply", self._apply(outputs, inputs)),
        ):
            return step(data)

    def _apply(self, outputs: dict[int, tf.Tensor], inputs: Sequence[tf.Tensor]) -> Callable[..., Any]:
        def around(apply: Callable[..., Any], grads: Any, trainable_variables: Any = None) -> Any:
            scale = true_scale(self.model)
            gradients = dict(zip(map(id, trainable_variables or self.weights), grads, strict=True))
            squares = {key: _square(grad) for key, grad in gradients.items() if grad is not None}
            result = apply(grads, trainable_variables)
            here = usable_here(outputs)
            self._order = list(here)
            log_norm = 0.5 * tf.math.log(2.0 * tf.add_n(list(squares.values()))) + tf.math.log(scale)
            self._judge(log_norm, scale, squares, here, inputs)
            return result

        return around

    def _judge(
        self,
        log_norm: tf.Tensor,
        scale: tf.Tensor,
        squares: dict[int, tf.Tensor],
        outputs: dict[int, tf.Tensor],
        inputs: Sequence[tf.Tensor],
    ) -> None:
        state = tf.convert_to_tensor(self._state)
        steps, seen, total, largest, bad_step = tf.unstack(state)
        finite = log_norm < math.inf  # Not so for NaN; a gradient of zero has -inf, and is finite.
        usual = tf.maximum(total / tf.maximum(seen, 1.0), math.log(_SMALLEST))
        ratio = tf.where(seen > 0, log_norm - usual, -math.inf)
        # Mixed precision finds its scale by trying what overflows, and skips such steps.
        final = finite | (scale >= 1.0) if scales_loss(self.model.optimizer) else True
        bad = (~finite | (ratio > self._allowed)) & final & (bad_step == 0.0)
        counts = tf.cast(finite & (seen < _FIRST_STEPS), tf.float32)
        total += tf.where(counts > 0, tf.maximum(log_norm, math.log(_SMALLEST)), 0.0)
        largest = tf.maximum(largest, tf.where(finite, ratio, 0.0))
        bad_step = tf.where(bad, steps + 1.0, bad_step)
        self._state.assign(tf.stack([steps + 1.0, seen + counts, total, largest, bad_step]))

        def note() -> None:
            missing = tf.ones(())
            flags = [tf.reduce_all(tf.stack([_all_finite(x) for x in inputs])) if inputs else True]
            flags += [_all_finite(outputs[i]) if i in outputs else True for i in range(len(self.layers))]
            self._finite.assign(tf.stack([tf.cast(flag, tf.float32) for flag in flags]))
            norms = [tf.sqrt(2.0 * squares.get(id(w), 0.0 * missing)) * scale for w in self.weights]
            self._norms.assign(tf.stack(norms))

        when(bad, note)


def _square(gradient: Any) -> tf.Tensor:
    """Half the sum of squares; of an embedding's gradient, of the rows as they were looked up."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.nn.l2_loss(tf.cast(values, tf.float32))


def _all_finite(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tensor))
