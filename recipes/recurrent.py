"""Recurrent networks for sequences, and dropout that leaves their memory alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_practice.core.arguments import check_positive_integer, check_share, check_widths
from keras_practice.data import Registry, Task
from keras_practice.recipes.catalog import recipe
from keras_practice.recipes.heads import head
from keras_practice.recipes.regularization import Regularization


@keras.saving.register_keras_serializable(package="keras_practice")
class UpdateDropoutLSTMCell(keras.layers.LSTMCell):
    """An LSTM cell whose dropout is on the candidate update: the memory is never erased.

    `c_t = f * c_{t-1} + i * d(g)`, where `d` is dropout with one mask a sequence,
    scaled by `1 / (1 - rate)` in training and absent at inference. The mask is
    drawn once a call and travels as a third state that never changes, so nothing
    random happens inside the loop over steps. The weights are those of
    `keras.layers.LSTM`.

    Args:
        units: Width of the state.
        update_dropout: Share of the candidate's units dropped, in `[0, 1)`. Defaults to `0.0`.
        **cell_options: More arguments of `keras.layers.LSTMCell`.

    Source:
        A13; Semeniuta, Severyn and Barth 2016, "Recurrent Dropout without Memory Loss".
    """

    def __init__(self, units: int, update_dropout: float = 0.0, **cell_options: Any) -> None:
        check_share("update_dropout", update_dropout)
        super().__init__(units, **cell_options)
        self.update_dropout = update_dropout
        self.mask_seed = keras.random.SeedGenerator(cell_options.get("seed"))
        self.state_size = [units, units, units]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """A zero output, a zero memory, and a fresh dropout mask."""
        zeros = keras.ops.zeros((batch_size, self.units), dtype=self.compute_dtype)
        return [zeros, zeros, _dropout_mask(zeros, self.update_dropout, self.mask_seed)]

    def call(self, inputs: Any, states: Sequence[Any], training: bool = False) -> tuple[Any, list[Any]]:
        """One step: `(batch, features)` and the states to `(batch, units)` and the next states."""
        output, memory, mask = states
        gates = keras.ops.matmul(inputs, self.kernel) + keras.ops.matmul(output, self.recurrent_kernel)
        write, keep, candidate, read = keras.ops.split(gates + self.bias, 4, axis=-1)
        candidate = self.activation(candidate)
        if training:
            candidate = candidate * mask
        memory = self.recurrent_activation(keep) * memory + self.recurrent_activation(write) * candidate
        output = self.recurrent_activation(read) * self.activation(memory)
        return output, [output, memory, mask]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "update_dropout": self.update_dropout}


@keras.saving.register_keras_serializable(package="keras_practice")
class UpdateDropoutGRUCell(keras.layers.GRUCell):
    """A GRU cell whose dropout is on the candidate update: the state is never erased.

    `h_t = z * h_{t-1} + (1 - z) * d(g)` in Keras's notation, where `d` is dropout
    with one mask a sequence, as in `UpdateDropoutLSTMCell`. The weights are those
    of `keras.layers.GRU`.

    Args:
        units: Width of the state.
        update_dropout: Share of the candidate's units dropped, in `[0, 1)`. Defaults to `0.0`.
        **cell_options: More arguments of `keras.layers.GRUCell`.

    Source:
        A13; Semeniuta, Severyn and Barth 2016, "Recurrent Dropout without Memory Loss".
    """

    def __init__(self, units: int, update_dropout: float = 0.0, **cell_options: Any) -> None:
        check_share("update_dropout", update_dropout)
        super().__init__(units, **cell_options)
        self.update_dropout = update_dropout
        self.mask_seed = keras.random.SeedGenerator(cell_options.get("seed"))
        self.state_size = [units, units]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """A zero state and a fresh dropout mask."""
        zeros = keras.ops.zeros((batch_size, self.units), dtype=self.compute_dtype)
        return [zeros, _dropout_mask(zeros, self.update_dropout, self.mask_seed)]

    def call(self, inputs: Any, states: Sequence[Any], training: bool = False) -> tuple[Any, list[Any]]:
        """One step: `(batch, features)` and the states to `(batch, units)` and the next states."""
        state, mask = states
        bias = keras.ops.convert_to_tensor(self.bias)  # (2, 3 * units): of the input, of the state
        from_input = keras.ops.matmul(inputs, self.kernel) + bias[0]
        from_state = keras.ops.matmul(state, self.recurrent_kernel) + bias[1]
        input_keep, input_reset, input_candidate = keras.ops.split(from_input, 3, axis=-1)
        state_keep, state_reset, state_candidate = keras.ops.split(from_state, 3, axis=-1)
        keep = self.recurrent_activation(input_keep + state_keep)
        reset = self.recurrent_activation(input_reset + state_reset)
        candidate = self.activation(input_candidate + reset * state_candidate)
        if training:
            candidate = candidate * mask
        state = keep * state + (1 - keep) * candidate
        return state, [state, mask]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "update_dropout": self.update_dropout}


def _dropout_mask(like: Any, rate: float, seed: keras.random.SeedGenerator) -> Any:
    ones = keras.ops.ones_like(like)
    return keras.random.dropout(ones, rate, seed=seed) if rate else ones


@recipe
def rnn(
    input_shape: Sequence[int | None],
    task: Task,
    cell: str = "lstm",
    units: Sequence[int] = (64,),
    bidirectional: bool = False,
    every_step: bool = False,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    vocabulary: int | None = None,
    embedding: int = 64,
    mask_value: float | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    name: str = "rnn",
) -> keras.Model:
    """A stack of LSTM, GRU or simple recurrent layers over numbers or words.

    Recurrent weights start orthogonal, the others Glorot-uniform, the LSTM's
    forget gate with bias 1. Gradients of recurrent nets explode now and then:
    clip them, as `compile_for` does unless it is told not to.

    On a GPU, Keras runs `"lstm"` and `"gru"` through cuDNN's fast kernels
    if `recurrent_dropout` is 0 (any other value closes this path, as does
    `cell="simple"`). cuDNN then asks that padding comes after the sequence,
    never before or inside it, and that no sequence is all padding; and XLA
    (`jit_compile=True`) is closed there, as it cannot compile cuDNN's kernel.

    A saved model with recurrent dropout in an LSTM or GRU has cells of this
    package; `import keras_practice.recipes` before `keras.models.load_model`.
    Other models load where there is Keras alone.

    Args:
        input_shape: `(steps, features)` for numbers, `(steps,)` for words;
            `steps` is `None` where the length varies from batch to batch.
        task: What is predicted; decides the output layer. With `every_step` the
            labels have a step axis, as in `(samples, steps)` for classes.
        cell: `"lstm"`, `"gru"` or `"simple"`. Defaults to `"lstm"`.
        units: Widths of the recurrent layers. Defaults to `(64,)`.
        bidirectional: Whether each layer reads the sequence both ways, which
            doubles its output. Defaults to `False`.
        every_step: Whether there is an output at every step, and not only after
            the last one. Padded steps do not count in the loss. Defaults to `False`.
        dropout: Share of units dropped in training after each recurrent layer,
            in `[0, 1)`. Defaults to `0.0`.
        recurrent_dropout: Share of units, in `[0, 1)`, that store nothing new in
            a training sequence: dropout of the candidate update, which leaves
            the memory alone, where Keras's own argument of this name drops the
            state. A simple cell keeps no memory apart from its state, so there
            the two are the same and Keras's own is used. Defaults to `0.0`.
        vocabulary: Number of word ids. The input is then integers from 1 to
            `vocabulary - 1`, and 0 for padding. Defaults to `None`, numbers.
        embedding: Width of the words' vectors; no effect on numbers. Defaults to `64`.
        mask_value: Number that fills every feature of a padded step; such steps
            are skipped. Defaults to `None`, no padding. Words have 0 for this.
        l1: Factor of the L1 penalty on input and recurrent weights. Defaults to `0.0`.
        l2: Factor of the L2 penalty on input and recurrent weights. Defaults to `0.0`.
        max_norm: Largest norm of the input weights, and of the recurrent ones,
            into a gate's unit. Defaults to `None`, no limit.
        name: The model's name. Defaults to `"rnn"`.

    Returns:
        A functional model from `(batch, *input_shape)` to `(batch, task.outputs)`,
        or to `(batch, steps, task.outputs)` with `every_step`.

    Raises:
        ValueError: If an argument is outside its range, the shape suits neither
            numbers nor words, or words are given a `mask_value`; before any
            layer is built.

    Example:
        >>> from keras_practice import data, recipes
        >>> model = recipes.rnn((None, 3), data.Task.binary(), units=(16,), mask_value=0.0)
        >>> model.output_shape
        (None, 1)

    Source:
        A13, A17, A21; Hochreiter and Schmidhuber 1997, Cho et al. 2014 (GRU),
        Schuster and Paliwal 1997 (bidirectional), Jozefowicz et al. 2015 (forget
        bias), Semeniuta et al. 2016 (recurrent dropout), Pascanu et al. 2013 (clipping).
    """
    _CELLS.get(cell)
    units = check_widths("units", units)
    check_share("dropout", dropout)
    check_share("recurrent_dropout", recurrent_dropout)
    regularization = Regularization(l1, l2, max_norm)
    embedding = check_positive_integer("embedding", embedding)
    if vocabulary is not None:
        vocabulary = check_positive_integer("vocabulary", vocabulary)
        if mask_value is not None:
            raise ValueError(f"mask_value is for numbers; words are padded with 0. Got {mask_value!r}.")
    shape = _check_sequence_shape(input_shape, words=vocabulary is not None)
    if mask_value is not None:
        _check_number("mask_value", mask_value)

    if vocabulary is not None:
        inputs = keras.Input(shape, dtype="int32", name="input")
        x = keras.layers.Embedding(vocabulary, embedding, mask_zero=True, name="embedding")(inputs)
    else:
        inputs = x = keras.Input(shape, name="input")
        if mask_value is not None:
            x = keras.layers.Masking(float(mask_value), name="masking")(x)
    for number, width in enumerate(units, start=1):
        last = number == len(units)
        layer = _recurrent_layer(
            cell,
            width,
            recurrent_dropout,
            return_sequences=every_step or not last,
            name=f"block{number}_{cell}",
            **_weight_options(regularization),
        )
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"block{number}_both_ways")
        x = layer(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"block{number}_dropout")(x)
    return keras.Model(inputs, head(x, task), name=name)


_Cell = UpdateDropoutLSTMCell | UpdateDropoutGRUCell
_CELLS: Registry[tuple[type[keras.layers.RNN], type[_Cell] | None]] = Registry("cell")
_CELLS.add("lstm", (keras.layers.LSTM, UpdateDropoutLSTMCell))
_CELLS.add("gru", (keras.layers.GRU, UpdateDropoutGRUCell))
_CELLS.add("simple", (keras.layers.SimpleRNN, None))


def _recurrent_layer(cell: str, units: int, recurrent_dropout: float, **options: Any) -> keras.layers.RNN:
    layer, update_dropout_cell = _CELLS.get(cell)
    if not recurrent_dropout or update_dropout_cell is None:
        return layer(units, recurrent_dropout=recurrent_dropout, **options)
    outside = {key: options.pop(key) for key in ("return_sequences", "name")}
    return keras.layers.RNN(update_dropout_cell(units, recurrent_dropout, **options), **outside)


def _weight_options(regularization: Regularization) -> dict[str, Any]:
    """The same limits for both kernels: each `(inputs or units, gates * units)`."""
    options = regularization.kernel_options(axis=0)
    recurrent = {key.replace("kernel", "recurrent"): value for key, value in options.items()}
    return {**options, **recurrent}


def _check_sequence_shape(input_shape: Any, *, words: bool) -> tuple[int | None, ...]:
    """The shape of one sequence as a tuple; the number of steps may be `None`."""
    wanted = "(steps,) for words" if words else "(steps, features) for numbers"
    if (
        isinstance(input_shape, str)
        or not isinstance(input_shape, Sequence)
        or len(input_shape) != (1 if words else 2)
    ):
        raise ValueError(f"input_shape must be {wanted}. Got {input_shape!r}.")
    if input_shape[0] is not None:
        check_positive_integer("The number of steps in input_shape", input_shape[0])
    for size in input_shape[1:]:
        check_positive_integer("The number of features in input_shape", size)
    return tuple(None if size is None else int(size) for size in input_shape)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number or None. Got {value!r}.")
