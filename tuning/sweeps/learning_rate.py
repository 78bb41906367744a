"""Every learning rate at once: one model, trained at many rates from the same start on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.steps import innermost
from keras_practice.core.types import Array
from keras_practice.core.variables import all_variables, snapshot
from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.rendering.tables import aligned
from keras_practice.training.side_by_side import CannotStackError, HeldRate, Stack
from keras_practice.tuning.sweeps.rates import (
    EpochOrders,
    batches_of,
    built,
    check_rates,
    log_x,
    mark,
    orders_of,
    samples_in,
    tensors_of,
)

# From the lowest of the lecture's random search (A25) to the highest of its tries by magnitudes (A24).
_LOWEST, _HIGHEST = 1e-5, 10.0
_VALIDATED_AT_ONCE = 256
# At this share of the lowest rate nothing is learned. A rate of 0 would do, but FTRL divides by it.
_NOTHING = 1e-9
_SHOWN = 1.3  # How far above the untrained loss the picture goes; what explodes leaves it.


@dataclass(frozen=True, eq=False)
class SweepResult:
    """How trainings went that differ in their learning rate alone.

    Attributes:
        rates: Learning rates, ascending, `(copies,)`.
        train_loss: Mean loss of the steps of each epoch, in training mode, `(copies, epochs)`.
        val_loss: Loss on the validation data after each epoch, `(copies, epochs)`.
        untrained: Mean loss of the steps of an epoch in which nothing is learned.
        why_one_by_one: Why the copies were trained one after another; `""` if side by side.
    """

    rates: Array
    train_loss: Array
    val_loss: Array
    untrained: float
    why_one_by_one: str = ""

    def __post_init__(self) -> None:
        for name in ("rates", "train_loss", "val_loss"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shape = self.train_loss.shape
        if self.rates.ndim != 1 or shape[:1] != self.rates.shape or self.val_loss.shape != shape:
            raise ValueError(
                "rates must have shape (copies,) and the losses (copies, epochs). "
                f"Got {self.rates.shape}, {shape} and {self.val_loss.shape}."
            )

    @property
    def exploded(self) -> Array:
        """Whether each rate is too high, `(copies,)`.

        A loss overflowed; or the rate is above the one whose training loss is the lowest at
        the end, and more than half of what that one learned is lost again: with clipping or
        Adam a loss does not run away, it jumps about at a height.
        """
        finite = np.isfinite(self.train_loss).all(axis=1) & np.isfinite(self.val_loss).all(axis=1)
        final = np.where(finite, self.train_loss[:, -1], np.inf)
        least = int(final.argmin())
        limit = (self.untrained + min(self.untrained, float(final[least]))) / 2
        above = np.arange(len(final)) >= least
        return np.asarray(~finite | (above & ~(final <= limit)))

    @property
    def largest_stable(self) -> float | None:
        """The largest rate that does not explode, nor does any below it; `None` if the lowest does."""
        stable = int(np.argmax(np.append(self.exploded, True)))
        return float(self.rates[stable - 1]) if stable else None

    @property
    def choice(self) -> float | None:
        """Half of the largest stable rate, by the lecture's rule; `None` if there is none."""
        return None if self.largest_stable is None else self.largest_stable / 2

    @property
    def best(self) -> float | None:
        """The rate with the lowest validation loss at the end; `None` if all exploded."""
        final = np.where(self.exploded, np.inf, self.val_loss[:, -1])
        return float(self.rates[np.argmin(final)]) if np.isfinite(final).any() else None

    def figure(self) -> Figure:
        """Final losses against the learning rate, the choices marked, and the curves of all rates.

        Returns:
            A figure that belongs to no window and no global state.
        """
        highest = _SHOWN * self.untrained if self.untrained > 0 else np.inf
        train, val = (np.where(x <= highest, x, np.nan) for x in (self.train_loss, self.val_loss))
        finals = (
            Line("training", self.rates, train[:, -1]),
            Line("validation", self.rates, val[:, -1]),
            Line("untrained", self.rates, np.full(len(self.rates), self.untrained), "dashed"),
        )
        exploded = int(self.exploded.sum())
        note = f"{exploded} of {len(self.rates)} rates explode." if exploded else "No rate explodes."
        panels = [Panel("Loss after training", finals, "learning rate", "loss", log=True, note=note)]
        epochs = np.arange(1, self.train_loss.shape[1] + 1)
        for title, losses in (("Training", train), ("Validation", val)):
            lines = tuple(
                Line(f"{rate:.1e}", epochs, loss) for rate, loss in zip(self.rates, losses, strict=True)
            )
            note = f"Loss of each of {len(self.rates)} rates, the lowest in blue, the highest in orange."
            panels.append(Panel(title, lines, y_label="loss", log=True, note=note))
        whole = figure(panels, columns=3)
        axes = whole.subfigs[3].axes[0]
        log_x(axes, self.rates[0] / 1.3, self.rates[-1] * 1.3)
        mark(axes, (("best", self.best, "-"), ("choice", self.choice, "--")))
        for part in whole.subfigs[4:]:
            for line in part.axes[0].get_lines():
                line.set_linewidth(1.1)
        return whole

    def __str__(self) -> str:
        rows = [["rate", "training loss", "validation loss", ""]]
        for rate, train, val, exploded in zip(
            self.rates, self.train_loss[:, -1], self.val_loss[:, -1], self.exploded, strict=True
        ):
            said = {"explodes": exploded, "best": rate == self.best}
            said["largest stable"] = rate == self.largest_stable
            words = [word for word, holds in said.items() if holds]
            rows.append([f"{rate:.3g}", f"{train:.4g}", f"{val:.4g}", ", ".join(words)])
        lines = aligned(rows, right=range(3))
        return "\n".join([f"loss after {self.train_loss.shape[1]} epochs:", *lines, self._conclusion])

    def __repr__(self) -> str:
        copies, epochs = self.train_loss.shape
        return (
            f"SweepResult({copies} rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}, {epochs} epochs: "
            f"best={_number(self.best)}, largest_stable={_number(self.largest_stable)}, "
            f"choice={_number(self.choice)})"
        )

    @property
    def _conclusion(self) -> str:
        if self.best is None:
            return f"Every rate explodes; try rates below {self.rates[0]:.3g}."
        words = f"Best by validation: {self.best:.3g}."
        if self.best == self.rates[-1] or self.best == self.rates[0]:
            words += " It is at the end of the range; try a wider one."
        if self.choice is not None:
            end = ", the highest tried" if self.largest_stable == self.rates[-1] else ""
            words += f" Half of the largest stable rate ({self.largest_stable:.3g}{end}): {self.choice:.3g}."
        return words


def learning_rate_sweep(
    build: Callable[[], keras.Model],
    train: Any,
    val: Any,
    rates: int | Sequence[float] = 32,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    seed: int = 0,
) -> SweepResult:
    """Trains a model at many learning rates, side by side in one graph where its layers allow it.

    All rates share the initial weights, the order of the samples in each epoch and the
    dropout masks: they differ in the learning rate alone, and each gives what a `fit` of
    its own would give with these. Side by side, sums are made in another order; where
    training is chaotic, at rates near those that explode, the last digits grow apart.

    Dense and recurrent nets, with batch norm, dropout, penalties and constraints, run
    side by side with an optimizer that treats each weight by itself, such as Adam or SGD.
    Others, such as convolutional nets, run one after another through one graph.

    A schedule in the compiled model gives way to the rate, which is held. Sets the global
    random seed. Weights of classes or samples are not used.

    Args:
        build: Makes a compiled model; called once.
        train: A `data.Split`, or a pair `(x, y)` of arrays.
        val: Validation data in one of these forms.
        rates: Learning rates, or how many, evenly spaced in their logarithm from 1e-5 to
            10: the range of the lecture's random search, and up to the highest of its
            tries by magnitudes. Defaults to `32`.
        epochs: Passes over the training data. Defaults to `10`.
        batch_size: Samples a batch. Defaults to `32`.
        seed: Fixes initial weights, orders and dropout masks. Defaults to `0`.

    Returns:
        Rates and losses; `print` it, read its `.best` and `.choice`, draw its `.figure()`.

    Raises:
        ValueError: If an argument is not positive, the data are of no known form or `build`
            returns a model that is not compiled.

    Example:
        >>> result = tuning.learning_rate_sweep(build, digits.train, digits.val)  # doctest: +SKIP
        >>> result.best  # doctest: +SKIP
        0.0072

    Source:
        A24, A25; Nielsen 2015, "Neural networks and deep learning", chapter 3.
    """
    epochs = check_positive_integer("epochs", epochs)
    batch_size = check_positive_integer("batch_size", batch_size)
    if isinstance(rates, (int, np.integer)):
        rates = check_positive_integer("rates", rates)
        rates = [float(rate) for rate in np.geomspace(_LOWEST, _HIGHEST, int(rates))]
    chosen = check_rates(rates)
    rows, held = samples_in("train", train), samples_in("val", val)
    keras.utils.set_random_seed(seed)
    model = built(build, rows)
    tried = np.append(_NOTHING * chosen[0], chosen)
    samples, held_samples = tensors_of(rows), tensors_of(held)
    orders = orders_of(len(rows), epochs, seed)
    why = ""
    try:
        losses = Stack(model, tried, samples, held_samples).train(orders, batch_size)
    except CannotStackError as error:
        why = str(error)
        held_batches = batches_of(held_samples, tf.range(len(held)), _VALIDATED_AT_ONCE)
        losses = one_by_one(model, tried, samples, held_batches, orders, batch_size)
    train_loss, val_loss = losses
    return SweepResult(chosen, train_loss[1:], val_loss[1:], float(train_loss[0, 0]), why)


def one_by_one(
    model: keras.Model, rates: Array, samples: Any, val: tf.data.Dataset, orders: Array, batch_size: int
) -> tuple[Array, Array]:
    """Losses of `fit` at each rate from the same start, with the graph traced once.

    Args:
        model: A compiled model with all its variables.
        rates: Learning rates, `(copies,)`; the first is held for one epoch alone.
        samples: Inputs and labels as tensors.
        val: Batches of the validation data.
        orders: Rows of the samples in the order of each epoch, `(epochs, samples)`.
        batch_size: Samples a batch; the last may be smaller.

    Returns:
        Training and validation loss of each epoch, `(copies, epochs)` each; NaN where there is none.
    """
    rate, rows = tf.Variable(0.0, trainable=False), tf.Variable(orders[0], trainable=False)
    innermost(model.optimizer).learning_rate = HeldRate(rate)
    start = snapshot(all_variables(model))
    train_loss, val_loss = np.full((2, len(rates), len(orders)), np.nan)
    for copy, value in enumerate(rates):
        start.restore()
        rate.assign(value)
        history = model.fit(
            batches_of(samples, rows, batch_size),
            validation_data=val,
            epochs=len(orders) if copy else 1,
            callbacks=[EpochOrders(rows, orders)],
            shuffle=False,  # The order is set.
            verbose=0,
        ).history
        taken = len(history["loss"])
        train_loss[copy, :taken], val_loss[copy, :taken] = history["loss"], history["val_loss"]
    return train_loss, val_loss


def _number(value: float | None) -> str:
    return "None" if value is None else f"{value:.3g}"
