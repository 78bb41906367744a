"""Autoencoders: nets that rebuild their input from a short code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_practice.core.arguments import (
    check_input_shape,
    check_positive,
    check_positive_integer,
    check_widths,
)
from keras_practice.data import Registry, Task
from keras_practice.recipes.activations import initializer_for, resolve_activation
from keras_practice.recipes.blocks import dense_block
from keras_practice.recipes.catalog import recipe
from keras_practice.recipes.regularization import Regularization

# By kind: the activation of the code, and the strength that suits standardised inputs.
_KINDS: Registry[tuple[str, float]] = Registry("kind of autoencoder")
_KINDS.add("plain", ("linear", 0.0))
_KINDS.add("sparse", ("relu", 1e-3))
_KINDS.add("denoising", ("linear", 0.3))
_KINDS.add("contractive", ("sigmoid", 1e-2))
_KINDS.add("predictive", ("linear", 0.1))

# Kinds with a penalty that a code evades by shrinking, if the decoder grows as much.
_PENALISED = ("sparse", "contractive", "predictive")


@keras.saving.register_keras_serializable(package="keras_practice")
class SparseCode(keras.layers.Layer):
    """Passes a code on, with an L1 penalty on it in training, averaged over the batch.

    Keras's own `activity_regularizer` does not train under mixed precision, where
    its float16 penalty meets a float32 loss, and in earlier versions it grew with
    the size of the batch.

    Args:
        strength: Factor of the penalty, `> 0`.
        **layer_options: More arguments of `keras.layers.Layer`.

    Source:
        A6, A18; Goodfellow, Bengio and Courville 2016, section 14.2.1.
    """

    def __init__(self, strength: float, **layer_options: Any) -> None:
        check_positive("strength", strength)
        super().__init__(**{"dtype": "float32", **layer_options})
        self.strength = strength

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The code of shape `(batch, code)`, as it is."""
        if training:
            self.add_loss(self.strength * _mean_of_sums(keras.ops.absolute(inputs)))
        return inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's own shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "strength": self.strength}


@keras.saving.register_keras_serializable(package="keras_practice")
class ContractiveCode(keras.layers.Layer):
    """The code of an encoder, with a penalty in training on how fast it moves with the input.

    The penalty is the squared Frobenius norm of the code's Jacobian `J`, averaged
    over the batch, by a random projection: `E |v J|^2 = |J|^2` for random signs
    `v`. It costs one more backward pass however wide the code and deep the
    encoder, is right on average, and exact for a code of one unit. Every sample
    must be encoded on its own, so the encoder must have no batch norm.

    Args:
        encoder: Model from the input to a code of shape `(batch, code)`.
        strength: Factor of the penalty, `> 0`.
        seed: Seed of the random signs. Defaults to `None`, a random one.
        **layer_options: More arguments of `keras.layers.Layer`.

    Source:
        A18; Rifai et al. 2011, "Contractive Auto-Encoders"; Hutchinson 1990 (projection).
    """

    def __init__(
        self, encoder: keras.Model, strength: float, seed: int | None = None, **layer_options: Any
    ) -> None:
        check_positive("strength", strength)
        # Squares of gradients overflow float16; the encoder casts for itself.
        super().__init__(**{"dtype": "float32", **layer_options})
        self.encoder = encoder
        self.strength = strength
        self.seed = seed
        self.sign_seed = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """From `(batch, ...)` to the code, `(batch, code)`."""
        if not training:
            return self.encoder(inputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            code = self.encoder(inputs, training=True)
            coin = keras.random.uniform(keras.ops.shape(code), seed=self.sign_seed)
            signs = keras.ops.cast(keras.ops.where(coin < 0.5, -1.0, 1.0), code.dtype)
            projected = keras.ops.sum(signs * code)
        gradient = keras.ops.cast(tape.gradient(projected, inputs), "float32")
        self.add_loss(self.strength * _mean_of_sums(keras.ops.square(gradient)))
        return code

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(batch, code)`."""
        return (input_shape[0], self.encoder.output_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "strength": self.strength,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ContractiveCode:
        """The layer that a config describes."""
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


@keras.saving.register_keras_serializable(package="keras_practice")
class PredictiveReconstruction(keras.layers.Layer):
    """Rebuilds the input from a code that is optimised in turn with the weights.

    In training, each step first holds the weights and improves each sample's code
    `h`, from the encoder's `f(x)`, by proximal gradient steps on

        `|x - g(h)|^2 + strength |h|_1 + prediction |h - f(x)|^2`.

    Then it holds the code: the output `g(h)` teaches the decoder through the
    model's own loss, and an added loss teaches the encoder to predict `h`. At
    inference the output is `g(f(x))` and nothing is optimised.

    A step that would raise a sample's objective is not taken, and its size is
    halved. With the mean squared error, loss and added loss sum up to the
    objective divided by the number of entries of the input.

    Args:
        encoder: Model `f` from the input to a code of shape `(batch, code)`.
        decoder: Model `g` from the code to the shape of the input.
        strength: Factor of the L1 norm of the code, `> 0`.
        prediction: Factor of the encoder's squared error, `> 0`. Defaults to `1.0`.
        code_steps: Number of steps on the code. Defaults to `10`.
        code_rate: Size of the first step. Defaults to `0.5`.
        **layer_options: More arguments of `keras.layers.Layer`.

    Source:
        A18; Kavukcuoglu, Ranzato and LeCun 2008, "Fast Inference in Sparse Coding
        Algorithms"; Goodfellow, Bengio and Courville 2016, section 14.8; Beck and
        Teboulle 2009 (proximal steps).
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        strength: float,
        prediction: float = 1.0,
        code_steps: int = 10,
        code_rate: float = 0.5,
        **layer_options: Any,
    ) -> None:
        check_positive("strength", strength)
        check_positive("prediction", prediction)
        code_steps = check_positive_integer("code_steps", code_steps)
        check_positive("code_rate", code_rate)
        # The steps on the code are too small for float16; the two halves cast for themselves.
        super().__init__(**{"dtype": "float32", **layer_options})
        self.encoder = encoder
        self.decoder = decoder
        self.strength = strength
        self.prediction = prediction
        self.code_steps = code_steps
        self.code_rate = code_rate

    def optimise_code(self, inputs: Any, predicted: Any) -> tuple[Any, Any]:
        """The codes after the steps, and what is left of the objective.

        Args:
            inputs: `(batch, ...)`.
            predicted: The encoder's codes, `(batch, code)`, where the steps start.

        Returns:
            Codes of shape `(batch, code)`, and the objective of each sample, `(batch,)`.
        """
        predicted = keras.ops.stop_gradient(keras.ops.cast(predicted, "float32"))
        rate = keras.ops.full_like(predicted[:, :1], self.code_rate)
        objective, slope = self._objective(inputs, predicted, predicted)

        def improve(_: Any, held: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
            code, objective, slope, rate = held
            step = code - rate * slope
            shrunk = keras.ops.maximum(keras.ops.absolute(step) - rate * self.strength, 0.0)
            trial = keras.ops.sign(step) * shrunk
            trial_objective, trial_slope = self._objective(inputs, trial, predicted)
            better = trial_objective < objective
            return (
                keras.ops.where(better[:, None], trial, code),
                keras.ops.where(better, trial_objective, objective),
                keras.ops.where(better[:, None], trial_slope, slope),
                keras.ops.where(better[:, None], rate, rate / 2),
            )

        start = (predicted, objective, slope, rate)
        code, objective, _, _ = keras.ops.fori_loop(0, self.code_steps, improve, start)
        return keras.ops.stop_gradient(code), keras.ops.stop_gradient(objective)

    def _objective(self, inputs: Any, code: Any, predicted: Any) -> tuple[Any, Any]:
        """The objective of each sample, and the slope of its smooth part in the code."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(code)
            error = keras.ops.square(inputs - keras.ops.cast(self.decoder(code, training=True), "float32"))
            smooth = _sums(error) + self.prediction * _sums(keras.ops.square(code - predicted))
        slope = tape.gradient(smooth, code)
        return smooth + self.strength * _sums(keras.ops.absolute(code)), slope

    def call(self, inputs: Any, training: bool = False) -> Any:
        """From `(batch, ...)` to its reconstruction, of the same shape."""
        predicted = self.encoder(inputs, training=training)
        if not training:
            return self.decoder(predicted)
        code, _ = self.optimise_code(inputs, predicted)
        error = keras.ops.square(code - keras.ops.cast(predicted, "float32"))
        size = keras.ops.absolute(code)
        added = self.prediction * _mean_of_sums(error) + self.strength * _mean_of_sums(size)
        self.add_loss(added / math.prod(inputs.shape[1:]))
        return self.decoder(code, training=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's own shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "strength": self.strength,
            "prediction": self.prediction,
            "code_steps": self.code_steps,
            "code_rate": self.code_rate,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PredictiveReconstruction:
        """The layer that a config describes."""
        halves = {key: keras.saving.deserialize_keras_object(config[key]) for key in ("encoder", "decoder")}
        return cls(**{**config, **halves})


def _sums(x: Any) -> Any:
    """The sum over all axes but the first."""
    return keras.ops.sum(x, axis=tuple(range(1, len(x.shape))))


def _mean_of_sums(x: Any) -> Any:
    return keras.ops.mean(_sums(x))


@recipe
def autoencoder(
    input_shape: Sequence[int],
    task: Task,
    kind: str = "plain",
    code: int = 32,
    units: Sequence[int] | None = None,
    strength: float | None = None,
    activation: str = "relu",
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    name: str = "autoencoder",
) -> keras.Model:
    """An autoencoder, dense for vectors and convolutional for images: trained by `fit(x, x)`.

    The target is the input, so the task says what the input's last axis holds:
    `Task.regression(n)` for `n` numbers (linear output, mean squared error) or
    `Task.multilabel(n)` for `n` values in `[0, 1]`, best 0 and 1 (sigmoids,
    cross-entropy). The same task goes into `compile_for`. `encoder` and `decoder`
    give the two halves, which share the weights.

    | kind | `strength` is | in training |
    |---|---|---|
    | `"plain"` | not used | the short code alone keeps it from copying |
    | `"sparse"` | factor of the L1 norm of the code, 1e-3 | few units of the code are on |
    | `"denoising"` | standard deviation of the noise, 0.3 | the input is noisy, the target clean |
    | `"contractive"` | factor of the squared Jacobian, 1e-2 | the code moves little when the input does |
    | `"predictive"` | factor of the L1 norm of the code, 0.1 | code and weights are optimised in turn |

    The figures suit standardised inputs. There is no batch norm, which would mix
    the samples that contractive and predictive nets treat one by one. A penalty
    on the size of the code is only worth something if the decoder cannot make up
    for it: in the decoder of sparse, contractive and predictive nets each unit's
    outgoing weights have a norm of 1 at most.

    A saved sparse, contractive or predictive model has a layer of this package;
    `import keras_practice.recipes` before `keras.models.load_model`. The other
    kinds, and either half of any kind, load where there is Keras alone.

    Args:
        input_shape: `(features,)`, or `(height, width, channels)` for images.
        task: `Task.regression(n)` or `Task.multilabel(n)`, with `n` the last size
            of `input_shape`. Predictive nets take regression alone.
        kind: See the table. Defaults to `"plain"`.
        code: Width of the code. Defaults to `32`.
        units: Widths of the encoder's hidden layers, or its filters for images,
            each of which halves height and width; the decoder mirrors them. May
            be empty. Defaults to `None`: `(128,)`, or `(32, 64)` for images.
        strength: See the table. Defaults to `None`, the figure there.
        activation: Hidden activation, by name. Defaults to `"relu"`. The code's is
            ReLU for sparse nets, sigmoid for contractive ones and linear for the others.
        l1: Factor of the L1 penalty on weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on weights. Defaults to `0.0`.
        max_norm: Largest norm of the weights into a hidden unit, in the decoder
            of plain and denoising nets and in every encoder. Defaults to `None`.
        name: The model's name. Defaults to `"autoencoder"`.

    Returns:
        A model from `(batch, *input_shape)` to the same shape.

    Raises:
        ValueError: If an argument is outside its range, or the task does not
            describe the input; before any layer is built.

    Example:
        >>> from keras_practice import data, recipes
        >>> task = data.Task.regression(64)
        >>> model = recipes.autoencoder((64,), task, kind="denoising", code=8)
        >>> recipes.encoder(model).output_shape
        (None, 8)

    Source:
        A6, A18, A29; Goodfellow, Bengio and Courville 2016, chapter 14; Vincent et al.
        2008 (denoising), Rifai et al. 2011 (contractive), Kavukcuoglu et al. 2008 (predictive).
    """
    shape = check_input_shape(input_shape, ranks=(1, 3), what="(features,) or (height, width, channels)")
    code_activation, usual_strength = _KINDS.get(kind)
    _check_describes_input(task, shape[-1], kind)
    code = check_positive_integer("code", code)
    if units is None:
        units = (128,) if len(shape) == 1 else (32, 64)
    widths = () if units in ((), []) else check_widths("units", units)
    if strength is None:
        strength = usual_strength
    elif kind == "plain":
        raise ValueError(f"A plain autoencoder has no strength. Got {strength!r}.")
    else:
        check_positive("strength", strength)
    resolve_activation(activation)
    limits = Regularization(l1, l2, max_norm)

    encode = _encoder(shape, widths, code, activation, code_activation, limits)
    decode = _decoder(shape, task, widths, code, activation, limits, limit_outgoing=kind in _PENALISED)
    inputs = x = keras.Input(shape, name="input")
    if kind == "predictive":
        x = PredictiveReconstruction(encode, decode, strength, name="reconstruction")(x)
    elif kind == "contractive":
        x = decode(ContractiveCode(encode, strength, name="code")(x))
    elif kind == "sparse":
        x = decode(SparseCode(strength, name="code")(encode(x)))
    elif kind == "denoising":
        x = decode(encode(keras.layers.GaussianNoise(strength, name="noise")(x)))
    else:
        x = decode(encode(x))
    return keras.Model(inputs, x, name=name)


def encoder(model: keras.Model) -> keras.Model:
    """The half of an autoencoder from the input to the code: a feature extractor.

    It shares the model's weights, and has no noise.

    Raises:
        ValueError: If the model is not one of `autoencoder`.

    Source:
        A18, A29.
    """
    return _half(model, "encoder")


def decoder(model: keras.Model) -> keras.Model:
    """The half of an autoencoder from the code to the reconstruction. It shares the model's weights.

    Raises:
        ValueError: If the model is not one of `autoencoder`.
    """
    return _half(model, "decoder")


def _half(model: keras.Model, name: str) -> keras.Model:
    for layer in model.layers:
        half = layer if layer.name == name else getattr(layer, name, None)
        if isinstance(half, keras.Model):
            return half
    raise ValueError(f"model must come from recipes.autoencoder. Got {model.name!r}, which has no {name}.")


def _encoder(
    shape: tuple[int, ...],
    widths: tuple[int, ...],
    code: int,
    activation: str,
    code_activation: str,
    limits: Regularization,
) -> keras.Model:
    inputs = x = keras.Input(shape, name="encoder_input")
    for number, width in enumerate(widths, start=1):
        if len(shape) == 1:
            x = dense_block(
                x,
                width,
                activation=activation,
                batch_norm=False,
                regularization=limits,
                name=f"encoder_block{number}",
            )
        else:
            options = {"strides": 2, **limits.kernel_options(axis=(0, 1, 2))}
            x = _convolution(x, width, activation, options, name=f"encoder_block{number}")
    if len(shape) == 3:
        x = keras.layers.Flatten(name="encoder_flatten")(x)
    x = dense_block(
        x, code, activation=code_activation, batch_norm=False, regularization=limits, name="encoder_code"
    )
    return keras.Model(inputs, x, name="encoder")


def _decoder(
    shape: tuple[int, ...],
    task: Task,
    widths: tuple[int, ...],
    code: int,
    activation: str,
    limits: Regularization,
    *,
    limit_outgoing: bool,
) -> keras.Model:
    def options(incoming: int | tuple[int, ...], outgoing: int | list[int]) -> dict[str, Any]:
        chosen = limits.kernel_options(axis=incoming)
        if limit_outgoing:
            chosen["kernel_constraint"] = keras.constraints.MaxNorm(1.0, axis=outgoing)
        return chosen

    inputs = x = keras.Input((code,), name="decoder_input")
    if len(shape) == 1:
        for number, width in enumerate(reversed(widths), start=1):
            x = _dense(x, width, activation, options(0, 1), name=f"decoder_block{number}")
    else:
        sizes = [shape[:2]]
        for _ in widths:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        height, width = sizes.pop()
        filters = widths[-1] if widths else shape[-1]
        x = _dense(x, height * width * filters, activation, options(0, 1), name="decoder_spread")
        x = keras.layers.Reshape((height, width, filters), name="decoder_grid")(x)
        # Halving rounds up, so doubling can give a row or column too many.
        for number, filters in enumerate(reversed((widths[:1] + widths)[:-1]), start=1):
            block = f"decoder_block{number}"
            x = keras.layers.UpSampling2D(2, name=f"{block}_double")(x)
            wide, (height, width) = x.shape, sizes.pop()
            if wide[1:3] != (height, width):
                surplus = ((0, wide[1] - height), (0, wide[2] - width))
                x = keras.layers.Cropping2D(surplus, name=f"{block}_crop")(x)
            x = _convolution(x, filters, activation, options((0, 1, 2), [0, 1, 3]), name=block)
    # Not `head`: here the weights into the output can have a limit, too.
    output = "linear" if task.kind == "regression" else "sigmoid"
    outgoing = options(0, 1) if limit_outgoing else {}
    x = keras.layers.Dense(task.outputs, name="output_dense", **outgoing)(x)
    x = keras.layers.Activation(output, dtype="float32", name="output")(x)
    return keras.Model(inputs, x, name="decoder")


def _dense(x: Any, units: int, activation: str, options: dict[str, Any], *, name: str) -> Any:
    initial = initializer_for(activation)
    x = keras.layers.Dense(units, kernel_initializer=initial, name=f"{name}_dense", **options)(x)
    return resolve_activation(activation)(name=f"{name}_{activation}")(x)


def _convolution(x: Any, filters: int, activation: str, options: dict[str, Any], *, name: str) -> Any:
    initial = initializer_for(activation)
    x = keras.layers.Conv2D(
        filters, 3, padding="same", kernel_initializer=initial, name=f"{name}_conv", **options
    )(x)
    return resolve_activation(activation)(name=f"{name}_{activation}")(x)


def _check_describes_input(task: Task, size: int, kind: str) -> None:
    if task.kind not in ("regression", "multilabel") or task.outputs != size:
        raise ValueError(
            "An autoencoder's target is its input, so its task must be "
            f"Task.regression({size}) or Task.multilabel({size}). Got {task}."
        )
    if kind == "predictive" and task.kind != "regression":
        raise ValueError(f"A predictive autoencoder must have a regression task. Got {task}.")
