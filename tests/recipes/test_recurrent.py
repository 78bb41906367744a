"""Recurrent nets: shapes, masking, and dropout that never erases the memory."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_practice.data import Task
from keras_practice.recipes.compiling import compile_for
from keras_practice.recipes.recurrent import UpdateDropoutGRUCell, UpdateDropoutLSTMCell, rnn

CELLS = ("lstm", "gru", "simple")
KERAS_LAYER = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple": keras.layers.SimpleRNN}
DROPOUT_CELL = {"lstm": UpdateDropoutLSTMCell, "gru": UpdateDropoutGRUCell}


def sequences(samples=4, steps=5, features=3, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, steps, features)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def built(cell, features=3, samples=4, seed=0):
    """The cell with random weights, biases too, and its weights as arrays."""
    rng = np.random.default_rng(seed)
    cell.build((samples, features))
    weights = [rng.normal(size=w.shape) for w in cell.get_weights()]
    cell.set_weights(weights)
    return weights


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("every_step", "shape"), [(False, (None, 3)), (True, (None, 5, 3))])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_output_is_of_the_last_or_of_every_step(cell, every_step, shape, bidirectional):
    model = rnn(
        (5, 3), Task.multiclass(3), cell, units=(4, 2), bidirectional=bidirectional, every_step=every_step
    )
    assert model.output_shape == shape
    assert model.get_layer("output_dense").input.shape[-1] == (4 if bidirectional else 2)


def test_the_number_of_steps_may_vary():
    model = rnn((None, 3), Task.regression(2), units=(4,), every_step=True)
    assert model.output_shape == (None, None, 2)
    assert model(sequences(steps=7)).shape == (4, 7, 2)
    assert model(sequences(steps=2)).shape == (4, 2, 2)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.3])
def test_padding_of_numbers_changes_nothing(cell, recurrent_dropout):
    model = rnn(
        (None, 3),
        Task.regression(),
        cell,
        units=(4, 4),
        bidirectional=True,
        recurrent_dropout=recurrent_dropout,
        mask_value=-1.0,
    )
    x = sequences(steps=4)
    padded = np.concatenate([x, np.full((4, 3, 3), -1.0, "float32")], axis=1)
    np.testing.assert_allclose(model(padded), model(x), atol=1e-6)
    padded[:, 4:] = -1.5
    assert np.abs(model(padded) - model(x)).max() > 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_padding_of_words_changes_nothing(cell):
    model = rnn((None,), Task.regression(), cell, units=(4,), vocabulary=9, embedding=6)
    words = np.random.default_rng(0).integers(1, 9, (4, 5))
    padded = np.concatenate([words, np.zeros((4, 2), int)], axis=1)
    np.testing.assert_allclose(model(padded), model(words), atol=1e-6)
    assert model.get_layer("embedding").embeddings.shape == (9, 6)


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        pytest.param(
            "accuracy",
            marks=pytest.mark.skipif(
                keras.__version__.startswith("3.11."), reason="Keras 3.11 counts padded steps in its metrics"
            ),
        ),
    ],
)
def test_padded_steps_do_not_count_in_the(name):
    task = Task.multiclass(3)
    model = compile_for(rnn((None, 2), task, units=(3,), every_step=True, mask_value=0.0), task)
    x = sequences(steps=3, features=2)
    y = np.random.default_rng(1).integers(0, 3, (4, 3))
    padded_x = np.concatenate([x, np.zeros((4, 4, 2), "float32")], axis=1)
    padded_y = np.concatenate([y, np.zeros((4, 4), int)], axis=1)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    actual = model.evaluate(padded_x, padded_y, verbose=0, return_dict=True)
    assert actual[name] == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_at_inference_recurrent_dropout_is_the_keras_layer_with_the_same_weights(cell, bidirectional):
    def build(recurrent_dropout):
        return rnn(
            (5, 3),
            Task.regression(),
            cell,
            units=(4, 3),
            bidirectional=bidirectional,
            recurrent_dropout=recurrent_dropout,
            mask_value=0.0,
        )

    ours, kerass = build(0.5), build(0.0)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=w.shape) for w in kerass.get_weights()]
    kerass.set_weights(weights)
    for variable, value in zip(ours.trainable_variables, weights, strict=True):
        variable.assign(value)
    x = sequences()
    x[0, 3:] = 0
    np.testing.assert_allclose(ours(x), kerass(x), atol=1e-5)
    assert np.abs(ours(x, training=True) - kerass(x)).max() > 1e-3


def test_lstm_drops_the_candidate_and_never_the_memory():
    cell = UpdateDropoutLSTMCell(6, update_dropout=0.5, seed=1)
    kernel, recurrent, bias = built(cell)
    states = cell.get_initial_state(4)
    mask = np.array(states[2])
    assert 0 < (mask == 0).sum() < mask.size
    output, memory = np.zeros((4, 6)), np.zeros((4, 6))
    for x in np.moveaxis(sequences(), 1, 0):
        write, keep, candidate, read = np.split(x @ kernel + output @ recurrent + bias, 4, axis=-1)
        memory = sigmoid(keep) * memory + sigmoid(write) * np.tanh(candidate) * mask
        output = sigmoid(read) * np.tanh(memory)
        _, states = cell(x, states, training=True)
        np.testing.assert_allclose(states[0], output, atol=1e-5)
        np.testing.assert_allclose(states[1], memory, atol=1e-5)


def test_gru_drops_the_candidate_and_never_the_state():
    cell = UpdateDropoutGRUCell(6, update_dropout=0.5, seed=1)
    kernel, recurrent, (input_bias, state_bias) = built(cell)
    states = cell.get_initial_state(4)
    mask = np.array(states[1])
    assert 0 < (mask == 0).sum() < mask.size
    state = np.zeros((4, 6))
    for x in np.moveaxis(sequences(), 1, 0):
        of_input = np.split(x @ kernel + input_bias, 3, axis=-1)
        of_state = np.split(state @ recurrent + state_bias, 3, axis=-1)
        keep, reset = sigmoid(of_input[0] + of_state[0]), sigmoid(of_input[1] + of_state[1])
        state = keep * state + (1 - keep) * np.tanh(of_input[2] + reset * of_state[2]) * mask
        _, states = cell(x, states, training=True)
        np.testing.assert_allclose(states[0], state, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_is_in_memory_survives_training_when_nothing_new_is_written(cell):
    cell = DROPOUT_CELL[cell](3, update_dropout=0.9)
    kernel, recurrent, bias = built(cell)
    is_lstm = isinstance(cell, UpdateDropoutLSTMCell)
    # LSTM: the write gate shut and the keep gate open; GRU: the keep gate open.
    bias = np.r_[[-50.0] * 3, [50.0] * 3, [0.0] * 6] if is_lstm else np.r_[[50.0] * 3, [0.0] * 6] * [[1], [0]]
    cell.set_weights([kernel * 0, recurrent * 0, bias])
    kept = np.array([[1.0, -2.0, 0.5]] * 4, "float32")
    states = cell.get_initial_state(4)
    states[-2] = kept
    for _ in range(20):
        _, states = cell(np.ones((4, 3), "float32"), states, training=True)
    np.testing.assert_allclose(states[-2], kept, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_dropped_unit_stores_nothing_throughout_its_sequence(cell):
    layer = keras.layers.RNN(DROPOUT_CELL[cell](50, update_dropout=0.3, seed=0), return_sequences=True)
    x = sequences(samples=20, steps=4)
    first, second = np.array(layer(x, training=True)), np.array(layer(x, training=True))
    silent = (first == 0).all(axis=1)
    np.testing.assert_array_equal(silent, (first == 0).any(axis=1))
    assert silent.mean() == pytest.approx(0.3, abs=0.06)
    assert (silent != (second == 0).all(axis=1)).any()
    assert not (np.array(layer(x)) == 0).any()


def test_dropout_masks_are_scaled_to_a_mean_of_one():
    mask = np.array(UpdateDropoutLSTMCell(100, update_dropout=0.25, seed=0).get_initial_state(100)[2])
    np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.75], rtol=1e-6)
    assert mask.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("cell", CELLS)
def test_without_recurrent_dropout_the_layers_are_those_that_cudnn_can_run(cell):
    model = rnn((None, 3), Task.binary(), cell, units=(4,), dropout=0.2, l2=1e-3, max_norm=2.0)
    layer = model.get_layer(f"block1_{cell}")
    assert type(layer) is KERAS_LAYER[cell]
    assert layer.activation is keras.activations.tanh
    assert not layer.recurrent_dropout
    assert layer.use_bias
    assert not layer.unroll
    if cell != "simple":
        assert layer.recurrent_activation is keras.activations.sigmoid
        assert layer.use_cudnn == "auto"
    if cell == "gru":
        assert layer.reset_after


@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.5])
def test_initial_weights(recurrent_dropout):
    model = rnn((None, 3), Task.binary(), units=(8,), recurrent_dropout=recurrent_dropout)
    _, recurrent, bias = model.trainable_variables[:3]
    np.testing.assert_allclose(recurrent @ np.transpose(recurrent), np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(bias, np.r_[np.zeros(8), np.ones(8), np.zeros(16)])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.5])
def test_penalties_are_on_both_kernels_and_on_no_bias(cell, recurrent_dropout):
    model = rnn((None, 3), Task.binary(), cell, (4,), recurrent_dropout=recurrent_dropout, l1=0.1, l2=0.01)
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    kernels = [np.array(v) for v in model.trainable_variables[:2]]
    expected = sum(0.1 * np.abs(k).sum() + 0.01 * np.square(k).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_max_norm_holds_in_training():
    task = Task.regression()
    model = rnn((None, 3), task, units=(4,), recurrent_dropout=0.2, dropout=0.1, max_norm=0.5)
    compile_for(model, task, "sgd", learning_rate=1.0)
    history = model.fit(sequences(samples=7), np.arange(7.0), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for kernel in model.trainable_variables[:2]:
        assert np.linalg.norm(kernel, axis=0).max() <= 0.5 + 1e-5


WRONG = {
    "cell must be known": ((5, 3), {"cell": "lsmt"}, "did you mean 'lstm'"),
    "an image": ((8, 8, 3), {}, r"\(steps, features\) for numbers. Got \(8, 8, 3\)"),
    "numbers without features": ((5,), {}, r"\(steps, features\)"),
    "words with features": ((5, 3), {"vocabulary": 9}, r"\(steps,\) for words"),
    "features must be known": ((5, None), {}, "features in input_shape must be a positive integer. Got None"),
    "steps": ((0, 3), {}, "steps in input_shape must be a positive integer. Got 0"),
    "words are padded with 0": ((5,), {"vocabulary": 9, "mask_value": 0.0}, "mask_value is for numbers"),
    "mask value": ((5, 3), {"mask_value": float("nan")}, "mask_value must be a finite number"),
    "vocabulary": ((5,), {"vocabulary": 0}, "vocabulary must be a positive integer"),
    "embedding": ((5,), {"vocabulary": 9, "embedding": 0}, "embedding must be a positive integer"),
    "dropout": ((5, 3), {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    "recurrent dropout": ((5, 3), {"recurrent_dropout": -0.1}, r"recurrent_dropout must be in \[0, 1\)"),
    "units": ((5, 3), {"units": ()}, "units must be a sequence"),
    "l2": ((5, 3), {"l2": -1}, "l2 must be zero or a positive number"),
}


@pytest.mark.parametrize(("shape", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused_before_anything_is_built(shape, options, message, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a layer was built")

    monkeypatch.setattr(keras, "Input", refuse)
    with pytest.raises(ValueError, match=message):
        rnn(shape, Task.binary(), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "options"),
    [
        ("keras", {"cell": "gru"}),
        ("keras, keras_practice.recipes.recurrent", {"cell": "lstm", "recurrent_dropout": 0.3}),
        ("keras, keras_practice.recipes.recurrent", {"cell": "gru", "recurrent_dropout": 0.3}),
    ],
)
def test_a_saved_model_loads_in_a_fresh_process(modules, options, tmp_path):
    model = rnn((None, 3), Task.binary(), units=(4,), bidirectional=True, **options)
    model.save(tmp_path / "model.keras")
    x = sequences()
    np.save(tmp_path / "x.npy", x)
    program = (
        f"import numpy, {modules}; model = keras.models.load_model('model.keras'); "
        "numpy.save('y.npy', model(numpy.load('x.npy')))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x), atol=1e-6)


def test_a_reloaded_model_drops_with_the_same_rate(tmp_path):
    model = rnn((None, 3), Task.binary(), units=(4,), recurrent_dropout=0.3, max_norm=2.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("block1_lstm").cell.update_dropout == 0.3
    np.testing.assert_allclose(loaded(sequences()), model(sequences()), atol=1e-6)
