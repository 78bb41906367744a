"""Initial weights rescaled to the data: layer-sequential unit variance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.arguments import check_positive, check_positive_integer, check_share
from keras_practice.core.layers import all_layers
from keras_practice.core.types import Array

# A hook gets a layer, what it would have done when called, and the arguments of the call.
Hook = Callable[[keras.layers.Layer, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class LayerScale:
    """What `calibrate` found and did in one layer.

    Attributes:
        layer: The layer's name.
        variance_before: Variance of its output before anything was rescaled.
        variance_after: Variance of its output in the calibrated model.
        factor: What its kernel was multiplied by; 1 where it was good already.
    """

    layer: str
    variance_before: float
    variance_after: float
    factor: float


@dataclass(frozen=True)
class Calibration:
    """The report of `calibrate`.

    Attributes:
        layers: The layers whose output has unit variance now, in the order in
            which data meets them.
        left_alone: Name and reason for each layer with weights that was not touched.
        tolerance: Largest distance from a variance of 1 that counts as one.
    """

    layers: tuple[LayerScale, ...]
    left_alone: tuple[tuple[str, str], ...]
    tolerance: float

    @property
    def rescaled(self) -> tuple[LayerScale, ...]:
        """The layers whose kernel was changed."""
        return tuple(layer for layer in self.layers if layer.factor != 1)

    def __str__(self) -> str:
        lines = [
            f"Rescaled {len(self.rescaled)} of {len(self.layers)} layers to an output variance of 1 "
            f"(within {self.tolerance:g})."
        ]
        width = max((len(name) for name, _ in self._names()), default=0)
        lines += [
            f"  {layer.layer:<{width}}  variance {layer.variance_before:.3g} -> "
            f"{layer.variance_after:.3g}, kernel times {layer.factor:.3g}"
            for layer in self.layers
        ]
        lines += [f"  {name:<{width}}  left alone: {reason}" for name, reason in self.left_alone]
        return "\n".join(lines)

    def _names(self) -> Iterator[tuple[str, str]]:
        yield from ((layer.layer, "") for layer in self.layers)
        yield from self.left_alone


def calibrate(
    model: keras.Model,
    x: Any,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    include_output: bool = False,
) -> Calibration:
    """Rescales a new model's weights, layer by layer, until every layer's output has unit variance.

    One minibatch goes through the model. On its way, each layer with a kernel is
    measured, its kernel divided by the standard deviation of its output, and
    only then the next layer gets its input. The variance is that of all samples,
    units and positions together, before the layer's own activation function.

    The forward pass is that of inference: no dropout, batch norm with its stored
    statistics (which change nothing in a new model). Only kernels change, in
    place; biases, batch-norm statistics and random state stay as they are.

    What counts as a layer's kernel and output:

    - Dense layers and convolutions of all kinds, also inside attention, nested
      models and wrappers; of separable convolutions the pointwise kernel;
      embeddings, whose table is the kernel.
    - In recurrent layers the input's part of all gates, `x W`. Their outputs are
      bounded and cannot have unit variance, and Keras starts the recurrent
      kernel orthogonal, which is right as it is.
    - A layer that is used several times has one variance over all its uses.

    Left alone, with the reason in the report: output layers, whose scale sets
    the initial loss (a softmax of unit variance starts above the loss of
    chance); layers that are not trainable; kernels that are all zero, a choice
    of some residual blocks; and layers whose output does not follow their
    kernel, as under a large bias, which get their kernel back.

    The paper starts from orthonormal kernels. This function keeps the directions
    that the initializer chose; for the paper's, build the model with
    `keras.initializers.Orthogonal`. Batch norm makes most of this
    unnecessary.

    Args:
        model: A built model, which has not been trained yet.
        x: One minibatch of inputs as the model takes them, scaled as in training:
            an array or, for several inputs, a list or dictionary of arrays. Some
            hundred samples are enough.
        tolerance: Distance from 1 at which a variance is good, in `(0, 1)`. Layers
            that are good already are not changed. Defaults to `0.1`, the paper's.
        max_iterations: Rescalings of one layer before it is given up. Without
            biases one is enough. Defaults to `10`.
        include_output: Whether output layers are rescaled too. Defaults to `False`.

    Returns:
        What was measured and changed. Print it.

    Raises:
        ValueError: If the model is not built, `x` is empty, not numeric, not finite
            or of another shape, or a number is outside its range.

    Example:
        >>> import numpy as np
        >>> from keras_practice import recipes
        >>> from keras_practice.data import Task
        >>> model = recipes.mlp((8,), Task.binary(), units=(16,), batch_norm=False)
        >>> report = recipes.calibrate(model, np.random.default_rng(0).normal(size=(64, 8)))
        >>> [layer.layer for layer in report.layers], report.left_alone
        (['block1_dense'], (('output_dense', 'output layer'),))

    Source:
        A3; Mishkin and Matas 2016, "All you need is a good init".
    """
    check_positive("tolerance", tolerance)
    check_share("tolerance", tolerance)
    max_iterations = check_positive_integer("max_iterations", max_iterations)
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras model. Got {model!r}.")
    if not model.built:
        raise ValueError(f"model must be built; give it an Input. Got {model.name!r} without weights yet.")
    x = _minibatch(model, x)
    before = _Measurement(model, x)
    left_alone = before.reasons_to_leave(include_output)
    found = {layer: variance for layer, variance in before.variances.items() if layer not in left_alone}
    kernels = {layer: _kernel(layer) for layer in found}
    initial = {layer: kernel.numpy() for layer, kernel in kernels.items()}
    factors = dict.fromkeys(found, 1.0)

    def is_good(variance: float) -> bool:
        return abs(variance - 1) <= tolerance

    def rescale(layer: keras.layers.Layer, variance: float) -> None:
        factors[layer] /= np.sqrt(variance)
        kernels[layer].assign(initial[layer] * factors[layer])

    def give_up(layer: keras.layers.Layer) -> None:
        kernels[layer].assign(initial[layer])
        left_alone[layer] = "no scale of its kernel brings the variance to 1"

    def rescale_on_the_way(
        layer: keras.layers.Layer, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if layer in left_alone or before.uses[layer] > 1:
            return call(*args, **kwargs)
        for _ in range(max_iterations):
            output, sample = _call_and_sample(layer, call, args, kwargs)
            variance = _variance(sample)
            if is_good(variance):
                return output
            if not 0 < variance < np.inf:
                break
            rescale(layer, variance)
        output, sample = _call_and_sample(layer, call, args, kwargs)
        if not is_good(_variance(sample)):
            give_up(layer)
            output = call(*args, **kwargs)
        return output

    # One pass does it, unless a layer has several uses: its variance is known only after the last.
    for attempt in range(max_iterations + 1):
        with _intercepted(before.layers, rescale_on_the_way):
            model(x, training=False)
        after = _Measurement(model, x)
        wrong = [layer for layer in found if layer not in left_alone and not is_good(after.variances[layer])]
        if not wrong:
            break
        for layer in wrong:
            if attempt == max_iterations or not 0 < after.variances[layer] < np.inf:
                give_up(layer)
            elif before.uses[layer] > 1:
                rescale(layer, after.variances[layer])
    else:
        after = _Measurement(model, x)
    return Calibration(
        layers=tuple(
            LayerScale(layer.name, variance, after.variances[layer], float(factors[layer]))
            for layer, variance in found.items()
            if layer not in left_alone
        ),
        left_alone=tuple((layer.name, reason) for layer, reason in left_alone.items()),
        tolerance=float(tolerance),
    )


class _Measurement:
    """What one forward pass tells about each layer with a kernel, in the order of their first call.

    Attributes:
        layers: All of them.
        uses: How often each was called.
        variances: The variance of each one's output over all its uses.
        outputs: Those from whose output there is a way to the model's output
            through no other of them.
    """

    def __init__(self, model: keras.Model, x: Any) -> None:
        # The kernel of a cell or a repeated layer belongs to the layer that repeats it.
        closed = keras.layers.RNN, keras.layers.TimeDistributed
        self.layers = [layer for layer in all_layers(model, closed) if _kernel(layer) is not None]
        self.uses: dict[keras.layers.Layer, int] = {}
        self.variances: dict[keras.layers.Layer, float] = {}
        samples: dict[keras.layers.Layer, list[Array]] = {}
        results: list[tuple[keras.layers.Layer, Any]] = []

        def measure(
            layer: keras.layers.Layer, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            # With the gradient stopped where a kernel is met, the model's output has
            # a gradient for output layers alone.
            args, kwargs = keras.tree.map_structure(_without_gradient, (args, kwargs))
            output, sample = _call_and_sample(layer, call, args, kwargs)
            samples.setdefault(layer, []).append(sample)
            results.append((layer, keras.tree.flatten(output)[0]))
            tape.watch(results[-1][1])
            return output

        with tf.GradientTape(watch_accessed_variables=False) as tape, _intercepted(self.layers, measure):
            predictions = keras.tree.flatten(model(x, training=False))
        gradients = tape.gradient(predictions, [result for _, result in results])
        self.outputs = {
            layer for (layer, _), gradient in zip(results, gradients, strict=True) if gradient is not None
        }
        for layer, parts in samples.items():
            self.uses[layer] = len(parts)
            self.variances[layer] = _variance(np.concatenate(parts))

    def reasons_to_leave(self, include_output: bool) -> dict[keras.layers.Layer, str]:
        """Why each layer that is not to be rescaled is not."""
        reasons = {}
        for layer in self.variances:
            if layer in self.outputs and not include_output:
                reasons[layer] = "output layer"
            elif not layer.trainable:
                reasons[layer] = "not trainable"
            elif not np.any(_kernel(layer).numpy()):
                reasons[layer] = "its kernel is zero"
        return reasons


def _minibatch(model: keras.Model, x: Any) -> Any:
    inputs = getattr(model, "inputs", None) or []
    if isinstance(x, (list, tuple)) and len(inputs) == 1:
        x = np.asarray(x)
    arrays = keras.tree.map_structure(np.asarray, x)
    for array in keras.tree.flatten(arrays):
        if array.dtype.kind not in "biuf":
            raise ValueError(f"x must be an array of numbers, one minibatch. Got dtype {array.dtype}.")
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"x must have at least one sample. Got shape {array.shape}.")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"x must be finite. Got {np.sum(~np.isfinite(array))} NaN or infinite values.")
    if len(inputs) == 1 and isinstance(arrays, np.ndarray):
        shape = inputs[0].shape
        fits = arrays.ndim == len(shape) and all(
            expected in (None, size) for expected, size in zip(shape, arrays.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"x must have shape {tuple(shape)}, as the model's input. Got {arrays.shape}.")
    return arrays


def _kernel(layer: keras.layers.Layer) -> Any:
    """The weights to which a layer's output is proportional, apart from its bias, or `None`."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return _kernel(layer.layer)
    if isinstance(layer, keras.layers.RNN):
        kernel = getattr(layer.cell, "kernel", None)
        # A convolutional recurrent layer's input part is not a matrix product.
        return kernel if isinstance(kernel, keras.Variable) and len(kernel.shape) == 2 else None
    for name in ("kernel", "pointwise_kernel", "embeddings"):
        kernel = getattr(layer, name, None)
        if isinstance(kernel, keras.Variable):
            return kernel
    return None


def _call_and_sample(
    layer: keras.layers.Layer, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Array]:
    """A layer's output, and the numbers in it (flat) whose variance is to be 1."""
    if isinstance(layer, keras.layers.RNN):
        inputs = _numbers(args[0] if args else next(iter(kwargs.values())))
        return call(*args, **kwargs), (inputs @ _kernel(layer).numpy()).ravel()
    owner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    activation = getattr(owner, "activation", None)
    if activation is None:
        output = call(*args, **kwargs)
        return output, _numbers(keras.tree.flatten(output)[0]).ravel()
    owner.activation = keras.activations.linear
    try:
        output = call(*args, **kwargs)
    finally:
        owner.activation = activation
    return activation(output), _numbers(output).ravel()


def _variance(sample: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # An exploding net is what this is for.
        return float(np.var(sample))


def _numbers(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype(np.float64)


def _without_gradient(value: Any) -> Any:
    return tf.stop_gradient(value) if tf.is_tensor(value) else value


@contextmanager
def _intercepted(layers: Sequence[keras.layers.Layer], hook: Hook) -> Iterator[None]:
    """While it lasts, a call of one of the layers is a call of the hook."""

    def replacement(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: hook(layer, call, args, kwargs)

    own_calls = {layer: vars(layer).get("call") for layer in layers}
    try:
        for layer in layers:
            layer.call = replacement(layer, layer.call)
        yield
    finally:
        for layer, call in own_calls.items():
            if call is None:
                vars(layer).pop("call", None)
            else:
                layer.call = call
