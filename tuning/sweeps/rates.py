"""What the studies of learning rates share: samples, batches, a rate that can be changed, and log axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from keras_practice.checks.inspection.samples import Samples, samples_of
from keras_practice.core.types import Array
from keras_practice.data import Split

_MARK = "#b23a48"
_ROOM = 0.18  # of the height


def samples_in(name: str, data: Any) -> Samples:
    """The samples of a split or a pair `(x, y)`.

    Raises:
        ValueError: If it is neither, or there is not one row of labels a sample.
    """
    if isinstance(data, Split):
        return samples_of(data.x, data.y)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return samples_of(data[0], data[1])
    raise ValueError(f"{name} must be a data.Split or a pair (x, y). Got {type(data).__name__}.")


def tensors_of(rows: Samples) -> tuple[Any, Any]:
    """Inputs and labels as tensors, with floats of the type that `fit` gives them."""

    def tensor(values: Array) -> tf.Tensor:
        if values.dtype.kind == "f":
            values = values.astype(keras.config.floatx())
        return tf.convert_to_tensor(values)

    return keras.tree.map_structure(tensor, (rows.x, rows.y))  # type: ignore[no-any-return]


def batches_of(samples: Any, rows: Any, batch_size: int) -> tf.data.Dataset:
    """Batches for `fit`: some rows of the samples in their order, a tensor or a variable, `(rows,)`."""

    def batch(places: tf.Tensor) -> Any:
        chosen = tf.gather(tf.convert_to_tensor(rows), places)
        return keras.tree.map_structure(lambda a: tf.gather(a, chosen), samples)

    places = tf.data.Dataset.range(int(rows.shape[0])).batch(batch_size)
    return places.map(batch, num_parallel_calls=1).prefetch(2)


class EpochOrders(keras.callbacks.Callback):
    """Gives the batches of each epoch the order that was drawn for it.

    A shuffled data set would have to be iterated exactly once an epoch, and how often
    `fit` does so is its own business.

    Args:
        rows: The variable that `batches_of` reads, `(samples,)`.
        orders: Its value in each epoch, `(epochs, samples)`.
    """

    def __init__(self, rows: tf.Variable, orders: Array) -> None:
        super().__init__()
        self._rows, self._orders = rows, orders

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the order, before Keras asks for the first batch."""
        self._rows.assign(self._orders[epoch])


def orders_of(count: int, epochs: int, seed: int) -> Array:
    """An order of all rows for each epoch, `(epochs, count)`."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(count) for _ in range(epochs)])


def built(build: Callable[[], keras.Model], rows: Samples) -> keras.Model:
    """The model that `build` makes, with all variables, its optimizer's included.

    Raises:
        ValueError: If it is not compiled.
    """
    model = build()
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise ValueError("build must return a compiled model. Got one that is not compiled.")
    if not model.built:
        model(rows.take(slice(0, 1)).x, training=False)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return model


def check_rates(rates: Any) -> Array:
    """Learning rates as a rising array.

    Raises:
        ValueError: If there is none, or one is not a positive number.
    """
    values = np.asarray(rates, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"rates must be a sequence of at least one learning rate. Got {rates!r}.")
    if wrong := [value for value in values if not 0 < value < math.inf]:
        raise ValueError(f"rates must be positive. Got {wrong[0]:g}.")
    return np.unique(values)


def log_x(axes: Axes, low: float, high: float) -> None:
    """Makes the horizontal axis logarithmic, with ticks at powers of ten."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def mark(axes: Axes, marks: Sequence[tuple[str, float | None, str]], digits: int = 2) -> None:
    """Draws a vertical line at each value that there is, `(name, value, line style)`.

    The names stand at the foot, on both sides of the lines: a loss is low between them.
    """
    there = sorted((value, name, style) for name, value, style in marks if value is not None)
    low, high = np.log(axes.get_xlim())
    bottom, top = axes.get_ylim()  # With room for the names.
    log = axes.get_yscale() == "log"
    axes.set_ylim(bottom * (bottom / top) ** _ROOM if log else bottom - _ROOM * (top - bottom), top)
    for place, (value, name, style) in enumerate(there):
        share = (np.log(value) - low) / (high - low)
        left = share > 0.4 if place == 0 else share > 0.75
        axes.axvline(value, color=_MARK, linestyle=style, linewidth=1.2, alpha=0.85)
        axes.annotate(
            f"{name} {value:.{digits}g}",
            (value, 0.03 + 0.1 * place),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom",
            fontsize=9.5,
            color=_MARK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )
