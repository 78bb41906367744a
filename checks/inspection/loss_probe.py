"""What a compiled loss computes, found out by calling it and not from its name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.types import Array

_FAMILIES = {
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
    "categorical_crossentropy": "categorical",
    "categorical_focal_crossentropy": "categorical",
    "sparse_categorical_crossentropy": "sparse",
    "kl_divergence": "divergence",
    "hinge": "hinge",
    "squared_hinge": "hinge",
    "categorical_hinge": "categorical_hinge",
    "poisson": "poisson",
    "dice": "overlap",
    "tversky": "overlap",
    "huber": "distance",
    "log_cosh": "distance",
    "mean_absolute_error": "distance",
    "mean_absolute_percentage_error": "distance",
    "mean_squared_error": "distance",
    "mean_squared_logarithmic_error": "distance",
}
# How far the ratio of two losses may scatter for them to count as one: what a guard such as
# `log(p + 1e-7)` adds is far below it, and losses of different kinds differ by tens of per cent.
_SAME = 0.01
# From nearly equal outputs to sure ones: over these the kinds of loss grow at different rates.
_SHARPNESS = (0.3, 1.0, 2.0, 4.0)
_TRIED_ROWS = 8


@dataclass(frozen=True)
class LossProbe:
    """A loss that can be tried on any labels and outputs.

    Attributes:
        name: What to call it in a sentence.
        compute: `compute(labels, outputs)`, reduced as `fit` reduces it.
        family: What it takes: `"binary"`, `"categorical"` or `"sparse"` cross-entropies,
            `"divergence"`, `"hinge"`, `"categorical_hinge"`, `"poisson"`, `"overlap"`,
            `"distance"` (squared error and its kin); `"other"` for Keras's others, and
            `"own"` for a hand-written loss that computes none of these.
        takes_logits: Whether it squashes the outputs itself.
        own: Whether it is hand-written.
        config: Arguments of Keras's own losses, such as `ignore_class`.
    """

    name: str
    compute: Callable[[Any, Any], Any]
    family: str
    takes_logits: bool
    own: bool
    config: Mapping[str, Any]

    @property
    def takes_probabilities(self) -> bool:
        """Whether the outputs must lie between 0 and 1."""
        kinds = ("binary", "categorical", "sparse", "divergence", "overlap")
        return self.family in kinds and not self.takes_logits

    def value(self, labels: Any, outputs: Any) -> float | None:
        """The loss as `fit` minimises it; `None` where it cannot be computed."""
        return self._tried(labels, outputs, False)[0]

    def gradient(self, labels: Any, outputs: Any) -> Array | None:
        """Its gradient by the outputs, in their shape; `None` where there is none."""
        return self._tried(labels, outputs, True)[1]

    def complaint(self, labels: Any, outputs: Any) -> str:
        """What it raises, in one line; `""` if it can be computed."""
        return self._tried(labels, outputs, True)[2]

    def _tried(self, labels: Any, outputs: Any, by_outputs: bool) -> tuple[float | None, Array | None, str]:
        tensor = tf.convert_to_tensor(np.asarray(outputs, np.float32))
        try:
            if not by_outputs:
                return float(tf.reduce_sum(self.compute(labels, tensor))), None, ""
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                # Without a reduction, TensorFlow's gradient adds up the samples.
                loss = tf.reduce_sum(self.compute(labels, tensor))
            slope = tape.gradient(loss, tensor)
        except Exception as problem:  # A hand-written loss may raise anything.
            return None, None, (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
        return float(loss), None if slope is None else np.asarray(tf.convert_to_tensor(slope)), ""


def probe_of(loss: Any, labels: Array, outputs: Array) -> LossProbe | None:
    """The loss of an output; `None` if there is none.

    Args:
        loss: A name, a function or a `keras.losses.Loss`.
        labels: Some of its labels, for their shape.
        outputs: Some of its outputs, for their shape.

    Raises:
        ValueError: If there is no loss of that name.
    """
    if loss is None:
        return None
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        loss = _crossentropy_by_shape(labels, outputs)
    loss = keras.losses.get(loss)
    function, config = _unwrapped(loss)
    name = str(getattr(function, "__name__", "") or type(function).__name__)
    compute = loss if isinstance(loss, keras.losses.Loss) else _AsCompiled(loss)
    if getattr(keras.losses, name, None) is function:
        family = _FAMILIES.get(name, "other")
        if config.get("axis", -1) not in (-1, outputs.ndim - 1, None):
            family = "other"
        logits = bool(config.get("from_logits", False))
        return LossProbe(name, compute, family, logits, False, MappingProxyType(config))
    probe = LossProbe(name, compute, "own", False, True, MappingProxyType(config))
    family, logits = _recognised(probe, labels, outputs)
    return LossProbe(name, compute, family, logits, True, MappingProxyType(config))


def goes_back_to_logits(probe: LossProbe, model: keras.Model, position: int, x: Any, labels: Array) -> bool:
    """Whether Keras passes over the output's activation and hands the loss what came before it.

    Keras's cross-entropies do so for a softmax or sigmoid that is the model's last operation.
    Whether they do shows in the value of the loss: on the output as the model makes it, and
    on the same numbers without their history.
    """

    @tf.function(autograph=False)
    def both(inputs: Any) -> tuple[Any, Any]:
        output = keras.tree.flatten(model(inputs, training=False))[position]
        bare = tf.identity(tf.stop_gradient(output))
        return probe.compute(labels, output), probe.compute(labels, tf.reshape(bare, tf.shape(bare)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own word on the matter.
        within, alone = (float(np.sum(value)) for value in both(x))
    return not np.isclose(within, alone, rtol=1e-5)


def same_rank(labels: Any, outputs: Any) -> tuple[Any, Any]:
    """Labels and outputs as Keras hands them to a loss function: an axis of length 1 fewer or more."""
    if len(labels.shape) == len(outputs.shape) + 1 and labels.shape[-1] == 1:
        return labels[..., 0], outputs
    if len(outputs.shape) == len(labels.shape) + 1 and outputs.shape[-1] == 1:
        return (labels[..., None], outputs) if len(labels.shape) == 1 else (labels, outputs[..., 0])
    return labels, outputs


def softmax(logits: Array) -> Array:
    """Rows that add up to 1."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Numbers between 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-logits)))


class _AsCompiled(keras.losses.Loss):
    """A loss function as `compile` wraps it."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="as_compiled")
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(*same_rank(y_true, y_pred))


def _crossentropy_by_shape(labels: Array, outputs: Array) -> str:
    """The one that Keras takes for `"crossentropy"`."""
    if outputs.shape[-1] == 1:
        return "binary_crossentropy"
    sparse = labels.ndim < outputs.ndim or labels.shape[-1] == 1
    return "sparse_categorical_crossentropy" if sparse else "categorical_crossentropy"


def _unwrapped(loss: Any) -> tuple[Any, dict[str, Any]]:
    """The function behind a loss, and its arguments."""
    config: dict[str, Any] = {}
    if isinstance(loss, keras.losses.Loss):
        if type(loss).call is not keras.losses.MeanSquaredError.call:
            return type(loss), config
        config.update(loss.get_config())
        loss = loss.fn
    while isinstance(loss, functools.partial):
        config.update(loss.keywords)
        loss = loss.func
    return loss, config


def _recognised(probe: LossProbe, labels: Array, outputs: Array) -> tuple[str, bool]:
    """Which of Keras's losses a hand-written one is a multiple of."""
    shape = (_TRIED_ROWS, *outputs.shape[1:])
    for family, logits, tries in _references(shape, labels.ndim):
        ratio = None
        for given, tried, expected in tries:
            value = probe.value(given, tried)
            if value is None or not np.isfinite(value) or value <= 0:
                break
            ratio = ratio or value / expected
            if abs(value / expected - ratio) > _SAME * ratio:
                break
        else:
            return family, logits
    return "own", False


def _references(
    shape: tuple[int, ...], label_rank: int
) -> Iterator[tuple[str, bool, list[tuple[Array, Array, float]]]]:
    """Family, whether on logits, and tries: labels, outputs and the loss that Keras's own would have."""
    rng = np.random.default_rng(0)
    raw = [sharpness * rng.normal(size=shape) for sharpness in _SHARPNESS]
    yes_no = rng.integers(0, 2, shape)
    tries: list[tuple[Array, Array, float]]
    for logits in (False, True):
        tries = []
        for z in raw:
            p = sigmoid(z)
            tries.append((yes_no, z if logits else p, -float(np.mean(np.log(np.where(yes_no, p, 1 - p))))))
        yield "binary", logits, tries
    if len(shape) > 1 and shape[-1] > 1:
        classes = rng.integers(0, shape[-1], shape[:-1])
        one_hot = np.eye(shape[-1])[classes]
        whole = classes[..., None] if label_rank == len(shape) else classes
        for family, given in (("categorical", one_hot), ("sparse", whole)):
            for logits in (False, True):
                tries = []
                for z in raw:
                    p = softmax(z)
                    expected = -float(np.mean(np.log(np.sum(one_hot * p, axis=-1))))
                    tries.append((given, z if logits else p, expected))
                yield family, logits, tries
    numbers = rng.normal(size=shape)
    for power in (2, 1):
        yield "distance", False, [(numbers, z, float(np.mean(np.abs(numbers - z) ** power))) for z in raw]
