import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.data import Task
from keras_practice.recipes.blocks import maxout_block, residual_dense_block
from keras_practice.recipes.dense import linear, low_rank_mlp, maxout_mlp, mlp, residual_mlp, selu_mlp

CLASSES = Task.multiclass(3)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def outputs_of(model, kind, x):
    """The outputs of all layers of one kind, as arrays."""
    tensors = [layer.output for layer in model.layers if isinstance(layer, kind)]
    return [np.asarray(value) for value in keras.Model(model.input, tensors)(x)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: linear((3, 4), CLASSES), 12 * 3 + 3),
        (lambda: selu_mlp((5,), CLASSES, units=(7, 6)), 5 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3),
        (lambda: maxout_mlp((5,), CLASSES, units=(7, 6), pieces=4), 4 * (6 * 7 + 8 * 6) + 7 * 3),
        # Two narrow layers of 2 units; each wide one has four batch-norm arrays and no bias.
        (
            lambda: low_rank_mlp((9,), CLASSES, units=(8, 6), rank=2),
            2 * (9 + 8) + 4 * 8 + 2 * (8 + 6) + 4 * 6 + 6 * 3 + 3,
        ),
        # The first layer, 2 x 8, would cost more in two factors.
        (
            lambda: low_rank_mlp((2,), CLASSES, units=(8, 6), rank=2),
            2 * 8 + 4 * 8 + 2 * (8 + 6) + 4 * 6 + 6 * 3 + 3,
        ),
        (
            lambda: residual_mlp((5,), CLASSES, depth=8, units=4, layers_per_block=3),
            5 * 4 + 6 * (4 * 4 + 4 * 4) + 4 * 4 + 4 * 3 + 3,
        ),
    ],
)
def test_parameters_are_those_of_the_formula(model, expected):
    assert model().count_params() == expected


@pytest.mark.parametrize(("depth", "layers_per_block"), [(40, 2), (110, 3), (5, 3)])
def test_depth_counts_the_layers_with_weights(depth, layers_per_block):
    model = residual_mlp((5,), CLASSES, depth=depth, units=2, layers_per_block=layers_per_block)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert len(dense) == depth


@pytest.mark.parametrize(
    ("depth", "layers_per_block", "message"),
    [
        (41, 2, "the nearest are 40 and 42. Got 41."),
        (40, 3, "the nearest are 38 and 41. Got 40."),
        (3, 2, "depth must be at least 4, one block. Got 3."),
        (0, 2, "depth must be a positive integer"),
        (40, 4, "layers_per_block must be 2 or 3. Got 4."),
    ],
)
def test_a_depth_that_no_number_of_blocks_gives_is_refused(depth, layers_per_block, message):
    with pytest.raises(ValueError, match=message):
        residual_mlp((5,), CLASSES, depth=depth, layers_per_block=layers_per_block)


def test_a_residual_block_adds_to_its_input():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, residual_dense_block(inputs, layers=3, dropout=0.5, name="block"))
    x = normal(6, 4)
    hidden = x
    for number in (1, 2, 3):
        kernel = model.get_layer(f"block_dense{number}").kernel.numpy()
        # Without statistics, batch norm divides by the root of 1 plus its epsilon.
        hidden = np.maximum(hidden / np.sqrt(1 + 1e-3), 0) @ kernel
    np.testing.assert_allclose(model(x), x + hidden, rtol=1e-5, atol=1e-6)
    model.get_layer("block_dense3").kernel.assign(np.zeros((4, 4)))
    np.testing.assert_array_equal(model(x), x)


def test_a_deep_residual_net_starts_near_the_loss_of_chance_and_its_gradient_reaches_the_first_block():
    task = Task.multiclass(10)
    model = residual_mlp((20,), task, depth=60, units=32)
    x, y = normal(64, 20), np.arange(64) % 10
    loss = recipes.loss_for(task)
    with tf.GradientTape() as tape:
        in_training = tf.reduce_mean(loss(y, model(x, training=True)))
    kernels = [model.get_layer(f"block{number}_dense1").kernel.value for number in (1, 29)]
    first, last = (float(tf.norm(gradient)) for gradient in tape.gradient(in_training, kernels))
    assert 0.05 < first / last < 20
    # Batch norm without statistics does not hold the sum in check; the blocks' weight has to.
    for start in (in_training, loss(y, model(x, training=False))):
        assert float(start) < 1.5 * np.log(10)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [40, 110])
def test_very_deep_residual_nets_train(depth):
    digits = data.load("digits")
    model = recipes.compile_for(residual_mlp(digits.input_shape, digits.task, depth=depth), digits.task)
    val = digits.val.x, digits.val.y
    history = model.fit(
        digits.train.x, digits.train.y, batch_size=32, validation_data=val, epochs=8, verbose=0
    )
    assert max(history.history["val_accuracy"]) >= 0.9


def test_selu_keeps_mean_and_variance_through_32_layers():
    model = selu_mlp((64,), CLASSES, units=(256,) * 32)
    activations = outputs_of(model, keras.layers.Activation, normal(512, 64))[:-1]
    assert len(activations) == 32
    assert max(abs(float(a.mean())) for a in activations) < 0.1
    assert all(0.7 < float(a.var()) < 1.3 for a in activations)


def test_the_selu_net_has_alpha_dropout_and_no_batch_norm():
    kinds = {type(layer) for layer in selu_mlp((4,), CLASSES).layers}
    assert keras.layers.AlphaDropout in kinds
    assert not {keras.layers.Dropout, keras.layers.BatchNormalization} & kinds


def test_maxout_is_the_largest_of_its_pieces():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, maxout_block(inputs, 3, pieces=4, name="block"))
    kernel, bias = model.get_layer("block_dense").get_weights()
    bias += normal(12)
    model.get_layer("block_dense").set_weights([kernel, bias])
    x = normal(7, 5)
    pieces = np.stack([x @ kernel[:, i : i + 3] + bias[i : i + 3] for i in range(0, 12, 3)])
    np.testing.assert_allclose(model(x), pieces.max(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pieces", [2, 5])
def test_maxout_keeps_the_size_of_the_signal(pieces):
    model = maxout_mlp((128,), CLASSES, units=(128,) * 8, pieces=pieces)
    last = outputs_of(model, keras.layers.GlobalMaxPooling1D, normal(512, 128))[-1]
    assert 0.5 < float(np.mean(last**2)) < 2


def negative_as(slope):
    return lambda x: np.where(x > 0, x, slope * x)


ACTIVATIONS = {
    "leaky_relu": negative_as(0.2),
    "prelu": negative_as(0.25),
    "abs": np.abs,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": keras.activations.gelu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_hidden_units_compute_their_formula(name):
    model = mlp((5,), CLASSES, units=(8,), batch_norm=False, dropout=0, activation=name, activity_l1=0.1)
    x = normal(6, 5)
    hidden = x @ model.get_layer("block1_dense").kernel.numpy()
    expected = np.asarray(ACTIVATIONS[name](hidden))
    actual = keras.Model(model.input, model.get_layer(f"block1_{name}").output)(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_prelu_learns_one_slope_a_channel():
    inputs = keras.Input((None, 3))
    prelu = recipes.dense_block(inputs, 4, activation="prelu", name="block")
    assert keras.Model(inputs, prelu).get_layer("block_prelu").weights[0].shape == (1, 4)


@pytest.mark.parametrize("activation", ["relu", "abs", "prelu", "leaky_relu"])
def test_initial_weights_keep_the_size_of_the_signal(activation):
    model = mlp((256,), CLASSES, units=(256,) * 10, batch_norm=False, dropout=0, activation=activation)
    first, *_, last = outputs_of(model, keras.layers.Dense, normal(256, 256))[:-1]
    assert 0.3 < float(np.mean(last**2) / np.mean(first**2)) < 3


def test_penalties_of_the_linear_model_are_on_its_weights_and_survive_a_reload(tmp_path):
    model = linear((4,), Task.regression(2), l1=0.5, l2=0.25, max_norm=1.0)
    kernel = model.get_layer("output_dense").kernel
    model.get_layer("output_dense").bias.assign([7.0, 7.0])
    expected = 0.5 * np.abs(kernel.numpy()).sum() + 0.25 * (kernel.numpy() ** 2).sum()
    model.save(tmp_path / "model.keras")
    for one in (model, keras.models.load_model(tmp_path / "model.keras")):
        assert [float(loss) for loss in one.losses] == pytest.approx([expected])
        recipes.compile_for(one, Task.regression(2), "sgd", learning_rate=10.0, clipnorm=None)
        one.fit(normal(8, 4), 100 * normal(8, 2), verbose=0)
        assert np.linalg.norm(one.get_layer("output_dense").kernel.numpy(), axis=0).max() <= 1.0001


def test_the_linear_model_has_no_penalty_by_default():
    assert linear((4,), CLASSES).losses == []


@pytest.mark.parametrize(
    "builder", [mlp, selu_mlp, maxout_mlp, lambda *a, **k: low_rank_mlp(*a, rank=1, **k)]
)
def test_activity_l1_is_on_the_hidden_activations(builder):
    x = normal(6, 5)
    options = {"units": (4, 3), "dropout": 0.0}
    plain, sparse = builder((5,), CLASSES, **options), builder((5,), CLASSES, activity_l1=0.5, **options)
    sparse.set_weights(plain.get_weights())
    sparse(x)
    kind = keras.layers.GlobalMaxPooling1D if builder is maxout_mlp else keras.layers.Activation
    activations = [a for a in outputs_of(plain, kind, x) if a.shape[-1] in (4, 3)][:2]
    keras_own = keras.layers.ActivityRegularization(l1=0.5)  # Its scale depends on Keras's version.
    expected = 0.0
    for values in activations:
        keras_own(values)
        expected += float(keras_own.losses[0])
    assert expected > 0
    assert sum(float(loss) for loss in sparse.losses) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_all_load_in_a_program_that_has_keras_alone(tmp_path):
    models = {f"mlp_{name}": mlp((5,), CLASSES, units=(4,), activation=name) for name in ACTIVATIONS}
    models |= {
        "linear": linear((5,), CLASSES, l2=0.1),
        "residual_mlp": residual_mlp((5,), CLASSES, depth=6, units=4, dropout=0.1),
        "selu_mlp": selu_mlp((5,), CLASSES),
        "maxout_mlp": maxout_mlp((5,), CLASSES, max_norm=2.0),
        "low_rank_mlp": low_rank_mlp((5,), CLASSES, rank=2),
    }
    x = normal(6, 5)
    np.savez(tmp_path / "out.npz", x=x, **{name: np.asarray(model(x)) for name, model in models.items()})
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    program = f"""
import keras, numpy as np, sys
saved = np.load(r"{tmp_path}/out.npz")
for name in {list(models)}:
    loaded = keras.models.load_model(r"{tmp_path}/" + name + ".keras")
    np.testing.assert_allclose(loaded(saved["x"]), saved[name], rtol=1e-5, atol=1e-6)
assert not any(module.startswith("keras_practice.") for module in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: linear((), CLASSES), "input_shape must be"),
        (lambda: linear((4,), CLASSES, l2=-1), "l2 must be zero or a positive number"),
        (lambda: residual_mlp((4,), CLASSES, units=(4, 4)), "units must be a positive integer"),
        (lambda: residual_mlp((4,), CLASSES, activation="rleu"), "did you mean 'relu'"),
        (lambda: selu_mlp((4,), CLASSES, dropout=1.0), r"dropout must be in \[0, 1\)"),
        (lambda: maxout_mlp((4,), CLASSES, pieces=1), "pieces must be at least 2"),
        (lambda: low_rank_mlp((4,), CLASSES, units=(8,), rank=3), "rank must be below 2.667 to save"),
        (lambda: low_rank_mlp((4,), CLASSES, rank=0), "rank must be a positive integer"),
        (lambda: residual_dense_block(keras.Input((4,)), weight=0, name="b"), "weight must be a positive"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
