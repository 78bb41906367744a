"""Short trainings of a model on its own data, for a look."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import fixed_batch, labels_by_output
from keras_practice.checks.inspection.own_loss import computed_loss, penalty_in
from keras_practice.checks.inspection.samples import in_turn
from keras_practice.checks.trials.constant_answer import constant_loss, penalty_of
from keras_practice.checks.trials.train_loop import LossCurve, TensorSamples, TrainLoop
from keras_practice.core.layers import activation_name, inner_layers
from keras_practice.core.steps import outputs_kept, usable_here
from keras_practice.core.types import Array
from keras_practice.core.variables import restored
from keras_practice.data import Task

# As much as fits a look of seconds: samples to train on, samples to look at, samples a step.
_MAX_ROWS = 2_048
_MAX_SEEN = 512
_MAX_IN_BATCH = 128
# Numbers in the inputs that stay small beside the activations they lead to.
_MAX_NUMBERS = 20_000_000
_MIN_ROWS = 64
_MAX_HELD, _MIN_HELD = 256, 100
_SHUFFLES = 8
# Epochs, and steps, that a fit takes; what needs more than a long one is out of reach.
USUAL_FIT = (10, 2_000)
LONG_FIT = (300, 20_000)
_CUT_AT_ZERO = ("relu", "relu6")


@dataclass(frozen=True)
class Evaluation:
    """What the model makes of some samples, in inference.

    Attributes:
        outputs: Its outputs, a list of arrays `(samples, ...)`.
        loss: Without penalties.
        shuffled: The same outputs' loss with the labels of other samples, several times.
        dead: Share of the units of each ReLU layer that are 0 for all samples, with the number of units.
    """

    outputs: list[Array]
    loss: float
    shuffled: Array
    dead: dict[str, tuple[float, int]]

    @property
    def finite(self) -> bool:
        """Whether loss and outputs are finite."""
        return math.isfinite(self.loss) and all(bool(np.isfinite(out).all()) for out in self.outputs)

    @property
    def knowledge(self) -> tuple[float, float]:
        """How far right labels lower the loss below that of others', and the standard error of it."""
        return float(self.shuffled.mean() - self.loss), float(self.shuffled.std()) + 1e-12


@dataclass(frozen=True)
class Run:
    """A short training and what the model was like at its end.

    Attributes:
        factor: What the learning rate was multiplied by.
        curve: The loss of each step.
        evaluation: The model afterwards.
    """

    factor: float
    curve: LossCurve
    evaluation: Evaluation

    @property
    def end(self) -> float:
        """The lower of the losses in training mode (penalised by dropout) and in inference (by lag)."""
        finite = self.curve.finite and self.evaluation.finite
        return min(self.curve.end, self.evaluation.loss) if finite else math.inf


class ShortTraining:
    """A model and as many of its samples as a short training takes.

    Its variables must be lent before. Everything runs in few traced functions,
    since tracing takes longer than hundreds of steps of a small net. With `hold_out`,
    a quarter of the samples (256 at most) is kept from the trainings, where that leaves
    100 and more.
    """

    def __init__(self, context: CheckContext, *, hold_out: bool = False) -> None:
        self.context = context
        self.model = context.model
        per_sample = sum(math.prod(a.shape[1:]) for a in keras.tree.flatten(context.train.x))
        room = max(_MIN_ROWS, _MAX_NUMBERS // max(1, per_sample))
        self.rows = context.train.spread(min(_MAX_ROWS, room), context.seed)
        batch = fixed_batch(self.model)
        self.samples = TensorSamples(self.model, self.rows, batch=batch)
        self.batch_size = batch or min(context.batch_size, _MAX_IN_BATCH, len(self.rows))
        self._rng = np.random.default_rng(context.seed)
        seen = min(_MAX_SEEN, max(_MIN_ROWS // 2, room // 4), len(self.rows))
        everything = self._rng.permutation(len(self.rows))
        self.seen = everything[: batch or seen]
        # Samples that no training here sees, where there are enough for both.
        held = min(len(everything) // 4, _MAX_HELD)
        enough = hold_out and held >= _MIN_HELD and batch is None
        self.held = everything[-held:] if enough else everything[:0]
        self._trained = np.sort(everything[: len(everything) - len(self.held)])
        self._variables = [*self.model.variables, *self.model.metrics_variables]
        self._evaluate: Any = None
        self.penalty = 0.0  # What the layers add to the loss; known once a constant loss was asked for.

    def preserved(self) -> AbstractContextManager[None]:
        """Puts back the model's variables at the end of the block."""
        return restored(self._variables)

    def order(self, steps: int, among: Array | None = None) -> Array:
        """Rows for each step, `(steps, batch)`: some rows, or all, in ever new orders."""
        rows = self._trained if among is None else among
        size = self.samples.batch or min(self.batch_size, len(rows))
        turns = -(-steps * size // len(rows))
        return np.concatenate([self._rng.permutation(rows) for _ in range(turns)])[: steps * size].reshape(
            steps, size
        )

    @property
    def epoch(self) -> int:
        """Steps that an epoch of all samples takes."""
        train = self.context.train
        return -(-(train.total or len(train)) // self.context.batch_size)

    def steps_in(self, fit: tuple[int, int]) -> int:
        """Steps of a fit of so many epochs, or of so many steps where these are more."""
        return max(fit[0] * self.epoch, fit[1])

    def run(self, loop: TrainLoop, order: Array, factor: float = 1.0) -> Run:
        """Trains the model, its learning rate times a factor, and evaluates it; its weights stay changed."""
        return Run(factor, loop.run(order, factor), self.evaluate())

    def preserved_run(self, loop: TrainLoop, order: Array, factor: float = 1.0) -> Run:
        """The same from the weights that the model has now, which it gets back."""
        with self.preserved():
            return self.run(loop, order, factor)

    def evaluate(self, rows: Array | None = None) -> Evaluation:
        """Runs the model in inference on some rows, or on those set aside for it."""
        rows = self.seen if rows is None else rows
        if self._evaluate is None:
            self._evaluate = self._traced_evaluation()
        orders = np.stack([rows, *(self._rng.permutation(rows) for _ in range(_SHUFFLES))])
        outputs, losses, dead = self._evaluate(tf.constant(rows), tf.constant(orders))
        losses = np.asarray(losses, np.float64)
        return Evaluation(
            [np.asarray(tf.cast(out, tf.float32)) for out in keras.tree.flatten(outputs)],
            float(losses[0]),
            losses[1:],
            {name: (1 - float(np.mean(alive)), int(np.size(alive))) for name, alive in dead.items()},
        )

    @property
    def normalizers(self) -> list[Any]:
        """Layers with running statistics."""
        kind = keras.layers.BatchNormalization
        return [layer for layer in inner_layers(self.model) if isinstance(layer, kind)]

    def settle(self, before: dict[int, Array], steps: int) -> bool:
        """Takes running statistics to where they would be after many more steps with these weights.

        After n steps an average with momentum m still holds m^n of its first value; the
        rest is a mean over the batches' own values, and that is what is kept.

        Args:
            before: The values of non-trainable variables, by id, before the steps.
            steps: How many steps in training mode were taken since.

        Returns:
            Whether there are others, whose end is not known.
        """
        known: set[int] = set()
        for layer in self.normalizers:
            left = layer.momentum**steps
            for variable in (layer.moving_mean, layer.moving_variance):
                known.add(id(variable))
                first, value = before[id(variable)], np.array(variable.numpy())
                if layer.trainable and left < 1:
                    variable.assign((value - left * first) / (1 - left))
        changed = (v for v in self.model.non_trainable_variables if id(v) not in known)
        return any(
            "float" in str(v.dtype) and not np.array_equal(before[id(v)], np.array(v.numpy()))
            for v in changed
        )

    def first_labels(self, rows: Array) -> Array:
        """The label of each of some rows as a number, by the first output; like labels, like numbers."""
        labels = next((part for part in self.labels() if part.size), None)
        if labels is None:
            return np.arange(len(rows))
        return np.unique(labels[rows].reshape(len(rows), -1), axis=0, return_inverse=True)[1]

    def outputs(self, rows: Array) -> list[Array]:
        """The model's outputs in inference."""
        return self.evaluate(rows).outputs

    def constant_loss(self, rows: Array, uninformed: bool = False) -> float | None:
        """The lowest loss of a model that says the same for every sample.

        Args:
            rows: For these samples.
            uninformed: Whether it does not know the classes' frequencies or the targets'
                mean either. Defaults to `False`.

        Returns:
            `None` where the loss does not compare outputs to labels in a way that is known.
        """
        if self._masks_outputs():
            return None
        model, samples = self.model, self.samples
        heads = [
            replace(head, labels=labels[rows])
            for head, labels in zip(self.context.heads, self.labels(), strict=True)
        ]
        lowest = constant_loss(
            model,
            heads,
            (samples.inputs(rows), *samples.targets(rows)),
            self.context.forward_pass.outputs,
            samples.inputs(self.seen[: samples.batch or 2]),
            uninformed=uninformed,
        )
        if lowest is not None:
            self.penalty = penalty_of(model)
        return lowest

    def few(self, count: int) -> Array:
        """Rows whose inputs differ, from all classes in turn where there are classes."""
        order = self._rng.permutation(len(self.rows))
        task, labels = self.context.task, next((part for part in self.labels() if part.size), None)
        classes = task is not None and task.kind in ("binary", "multiclass")
        if task is not None and classes and labels is not None and _one_a_sample(labels, task):
            order = order[in_turn(task.class_indices(labels)[order])]
        inputs = keras.tree.flatten(self.rows.x)
        chosen: dict[bytes, int] = {}
        for row in order:
            chosen.setdefault(b"".join(np.asarray(a[row]).tobytes() for a in inputs), int(row))
            if len(chosen) == count:
                break
        return np.array(list(chosen.values()))

    def labels(self) -> list[Array]:
        """The labels of each output; without columns for an output that has none."""
        names = [head.name for head in self.context.heads]
        losses = [head.loss for head in self.context.heads]
        return labels_by_output(self.rows.y, names, losses, [(len(self.rows),)] * len(names))

    def _masks_outputs(self) -> bool:
        """Whether some steps of an output may not count."""
        return any(head.outputs.ndim > 2 for head in self.context.heads) and any(
            isinstance(call.layer, keras.layers.Masking) or getattr(call.layer, "mask_zero", False)
            for call in self.context.forward_pass.calls
        )

    def _traced_evaluation(self) -> Any:
        model, samples = self.model, self.samples
        outer = set(getattr(model, "output_names", None) or ())
        watched = [layer for layer in inner_layers(model) if _cuts_at_zero(layer) and layer.name not in outer]

        def evaluate(rows: tf.Tensor, orders: tf.Tensor) -> Any:
            x = samples.inputs(rows)
            with outputs_kept(watched) as hidden:
                outputs = model(x, training=False)
            dead = {watched[i].name: _alive(watched[i], out) for i, out in usable_here(hidden).items()}
            penalty = penalty_in(model)

            def loss(labelled: tf.Tensor) -> tf.Tensor:
                y, weight = samples.targets(labelled)
                return tf.cast(computed_loss(model, x, y, outputs, weight, False), tf.float32) - penalty

            return outputs, tf.map_fn(loss, orders, fn_output_signature=tf.float32), dead

        return samples.traced(evaluate, ([samples.batch], tf.int64), ([None, samples.batch], tf.int64))


def fresh_weights(model: keras.Model) -> list[Array] | None:
    """Initial weights drawn anew; `None` for a model that does not say how it was made."""
    try:
        other = keras.models.clone_model(model)
    except (NotImplementedError, TypeError, ValueError):
        return None
    values = [np.array(variable.numpy()) for variable in other.trainable_variables]
    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    return values if [value.shape for value in values] == shapes else None


def _one_a_sample(labels: Array, task: Task) -> bool:
    return labels.shape[1:] in ((), (1,)) or (labels.ndim == 2 and task.one_hot)


def _cuts_at_zero(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    return activation_name(layer) in _CUT_AT_ZERO


def _alive(layer: keras.layers.Layer, output: tf.Tensor) -> tf.Tensor:
    """Which units are above 0 for some sample."""
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    others = [i for i in range(len(output.shape)) if i != axis % len(output.shape)]
    return tf.reduce_any(output > 0, axis=others)
