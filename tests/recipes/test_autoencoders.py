"""Autoencoders: halves, noise, and each kind's penalty against an independent reference."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import Lasso

from keras_practice.data import Task
from keras_practice.recipes.autoencoders import (
    ContractiveCode,
    PredictiveReconstruction,
    SparseCode,
    autoencoder,
    decoder,
    encoder,
)
from keras_practice.recipes.compiling import compile_for

KINDS = ("plain", "sparse", "denoising", "contractive", "predictive")
SIX = Task.regression(6)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def samples(number=8, shape=(6,)):
    return np.random.default_rng(0).normal(size=(number, *shape)).astype("float32")


def small(kind="plain", **options):
    return autoencoder((6,), SIX, kind, **{"code": 3, "units": (5,), **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "units"),
    [((6,), (5, 4)), ((6,), ()), ((7, 6, 2), (3, 4)), ((5, 9, 1), (2,)), ((4, 4, 3), ())],
)
def test_output_has_the_shape_of_the_input(kind, shape, units):
    model = autoencoder(shape, Task.regression(shape[-1]), kind, code=3, units=units)
    assert model.output_shape == (None, *shape)
    assert encoder(model).output_shape == (None, 3)
    assert decoder(model).input_shape == (None, 3)
    assert model(samples(2, shape)).shape == (2, *shape)


@pytest.mark.parametrize("kind", KINDS)
def test_the_halves_make_up_the_model_and_share_its_weights(kind):
    model, x = small(kind), samples()
    np.testing.assert_allclose(decoder(model)(encoder(model)(x)), model(x), atol=1e-6)
    before = np.array(model(x))
    for half in (encoder(model), decoder(model)):
        half.set_weights([w + 0.1 for w in half.get_weights()])
        after = np.array(model(x))
        assert np.abs(after - before).max() > 1e-3
        before = after
    parts = encoder(model).trainable_variables + decoder(model).trainable_variables
    assert {id(v) for v in parts} == {id(v) for v in model.trainable_variables}


def test_only_a_model_of_autoencoder_has_halves():
    inputs = keras.Input((3,))
    with pytest.raises(
        ValueError, match="must come from recipes.autoencoder. Got 'other', which has no encod"
    ):
        encoder(keras.Model(inputs, keras.layers.Dense(2)(inputs), name="other"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_with_its_halves_and_settings(kind, tmp_path):
    model, x = small(kind, **({} if kind == "plain" else {"strength": 0.25})), samples()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    np.testing.assert_allclose(encoder(loaded)(x), encoder(model)(x), atol=1e-6)
    np.testing.assert_allclose(decoder(loaded)(encoder(loaded)(x)), model(x), atol=1e-6)
    settings = ("stddev", "strength", "prediction", "code_steps", "code_rate", "seed")
    for ours, theirs in zip(model.layers, loaded.layers, strict=True):
        assert [getattr(ours, s, None) for s in settings] == [getattr(theirs, s, None) for s in settings]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_under_mixed_precision(kind):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compile_for(small(kind, l2=1e-3), SIX)
        before = [np.array(v) for v in model.trainable_variables]
        history = model.fit(samples(19), samples(19), batch_size=8, epochs=2, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == "float32"
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.abs(b - a).max() > 0 for a, b in zip(before, model.trainable_variables, strict=True))


def test_noise_comes_in_training_alone_and_before_the_encoder():
    model, x = small("denoising", strength=0.5), samples()
    clean = np.array(model(x))
    np.testing.assert_array_equal(model(x), clean)
    assert np.abs(model(x, training=True) - clean).max() > 0.01
    np.testing.assert_array_equal(encoder(model)(x, training=True), encoder(model)(x))
    noise = np.array(model.get_layer("noise")(np.zeros((1000, 6)), training=True))
    assert noise.std() == pytest.approx(0.5, rel=0.05)


def test_sparsity_penalty_is_the_l1_norm_of_the_code_in_training():
    model, x = small("sparse", strength=0.2), samples()
    model(x, training=True)
    codes = np.array(encoder(model)(x))
    assert float(sum(model.losses)) == pytest.approx(0.2 * np.abs(codes).sum(axis=1).mean(), rel=1e-5)
    model(x)
    assert not model.losses


def test_the_code_of_a_sparse_net_has_exact_zeros():
    codes = np.array(encoder(small("sparse", code=20))(samples()))
    assert codes.min() == 0
    assert 0 < (codes == 0).mean() < 1


def squared_jacobian(weights, x, step=1e-6):
    """|dh/dx|^2 of tanh then sigmoid layers, a sample at a time, by central differences in float64."""
    first, first_bias, second, second_bias = (np.array(w, "float64") for w in weights)

    def encode(x):
        return 1 / (1 + np.exp(-(np.tanh(x @ first + first_bias) @ second + second_bias)))

    total = 0.0
    for offset in np.eye(x.shape[1]) * step:
        total += np.square((encode(x + offset) - encode(x - offset)) / (2 * step)).sum(axis=1)
    return total.mean()


def contractive(code):
    model = small("contractive", strength=0.1, activation="tanh", code=code)
    encoder(model).set_weights([2 * w + 0.1 for w in encoder(model).get_weights()])
    return model


def penalty(model, x):
    model(x, training=True)
    return float(sum(model.losses))


def test_contraction_penalty_is_the_squared_jacobian_where_the_code_is_one_unit():
    model, x = contractive(code=1), samples()
    expected = 0.1 * squared_jacobian(encoder(model).get_weights(), x.astype("float64"))
    assert penalty(model, x) == pytest.approx(expected, rel=1e-4)
    model(x)
    assert not model.losses


def test_contraction_penalty_is_the_squared_jacobian_on_average():
    model, x = contractive(code=3), samples()
    expected = 0.1 * squared_jacobian(encoder(model).get_weights(), x.astype("float64"))
    many = np.array([penalty(model, np.tile(x, (500, 1))) for _ in range(4)])
    assert many.std() > 0
    assert many.mean() == pytest.approx(expected, rel=0.03)


def test_contraction_penalty_of_images_sums_over_all_their_axes():
    model = autoencoder((4, 3, 2), Task.regression(2), "contractive", code=1, units=(2,), strength=0.1)
    x = tf.constant(samples(3, (4, 3, 2)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        code = encoder(model)(x)
    jacobian = tape.batch_jacobian(code, x)
    expected = 0.1 * np.square(jacobian).sum(axis=(1, 2, 3, 4)).mean()
    assert penalty(model, x) == pytest.approx(expected, rel=1e-4)


def predictive(strength, prediction=0.7, **options):
    model = small("predictive", units=())
    decoder(model).set_weights([w + 0.1 for w in decoder(model).get_weights()])
    return PredictiveReconstruction(encoder(model), decoder(model), strength, prediction, **options)


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_many_steps_find_the_codes_that_lasso_finds(strength):
    layer, x = predictive(strength, code_steps=200), samples()
    dictionary, bias = layer.decoder.get_weights()
    predicted = np.array(layer.encoder(x))
    codes, objective = (np.array(a) for a in tf.function(layer.optimise_code)(x, predicted))
    rows = np.concatenate([dictionary.T, np.sqrt(0.7) * np.eye(3)])
    lasso = Lasso(strength / (2 * len(rows)), fit_intercept=False, tol=1e-12, max_iter=100_000)
    for sample in range(len(x)):
        target = np.concatenate([x[sample] - bias, np.sqrt(0.7) * predicted[sample]])
        best = lasso.fit(rows.astype("float64"), target.astype("float64")).coef_
        # In float32 the objective is flat to a seventh digit, and so the code to a third or fourth.
        np.testing.assert_allclose(codes[sample], best, atol=2e-3)
        least = np.square(target - rows @ best).sum() + strength * np.abs(best).sum()
        assert objective[sample] == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("code_rate", [0.5, 100.0])
def test_more_steps_never_raise_the_objective_of_a_sample(code_rate):
    x = samples()
    values = []
    for steps in (1, 2, 4, 8, 16, 32):
        keras.utils.set_random_seed(0)
        layer = predictive(0.3, code_steps=steps, code_rate=code_rate)
        values.append(np.array(layer.optimise_code(x, layer.encoder(x))[1]))
    assert np.diff(values, axis=0).max() <= 0
    assert (values[-1] < values[0]).all()


def test_codes_and_weights_are_optimised_in_turn():
    layer, x = predictive(0.3), samples()
    with tf.GradientTape(persistent=True) as tape:
        rebuilt = layer(x, training=True)
        reconstruction = tf.reduce_mean(tf.square(x - rebuilt))
        added = sum(layer.losses)
    fronts, backs = layer.encoder.trainable_variables, layer.decoder.trainable_variables
    assert all(g is None for g in tape.gradient(reconstruction, [v.value for v in fronts]))
    assert all(g is None for g in tape.gradient(added, [v.value for v in backs]))
    assert all(np.abs(g).max() > 0 for g in tape.gradient(added, [v.value for v in fronts]))
    assert all(np.abs(g).max() > 0 for g in tape.gradient(reconstruction, [v.value for v in backs]))
    objective = layer.optimise_code(x, layer.encoder(x))[1]
    assert float(reconstruction + added) == pytest.approx(np.mean(objective) / 6, rel=1e-5)
    np.testing.assert_allclose(layer(x), layer.decoder(layer.encoder(x)), atol=1e-6)
    assert not layer.losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_rebuilds_data_of_low_rank(kind):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(256, 2)) @ rng.normal(size=(2, 6))).astype("float32")
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    model = compile_for(small(kind, units=(16,)), SIX, learning_rate=1e-2)
    before = model.evaluate(x, x, verbose=0, return_dict=True)["loss"]
    model.fit(x, x, batch_size=32, epochs=15, verbose=0)
    after = model.evaluate(x, x, verbose=0, return_dict=True)["loss"]
    assert after < 0.4 < before


@pytest.mark.parametrize("shape", [(6,), (5, 4, 2)])
@pytest.mark.parametrize(("kind", "limited"), [("sparse", True), ("contractive", True), ("plain", False)])
def test_a_decoder_cannot_make_up_for_a_small_code(shape, kind, limited):
    task = Task.regression(shape[-1])
    model = autoencoder(shape, task, kind, code=3, units=(4, 4))
    compile_for(model, task, "sgd", learning_rate=1e-3)
    model.fit(samples(4, shape), samples(4, shape), verbose=0)
    kernels = [np.array(v) for v in decoder(model).trainable_variables if v.path.endswith("kernel")]
    norms = [np.linalg.norm(np.moveaxis(k, -2, 0).reshape(k.shape[-2], -1), axis=1) for k in kernels]
    assert len(kernels) == (3 if shape == (6,) else 4)
    assert bool(max(n.max() for n in norms) <= 1 + 1e-5) is limited


def test_values_between_0_and_1_get_sigmoids_and_cross_entropy():
    task = Task.multilabel(6)
    model = compile_for(autoencoder((6,), task, code=2, units=(4,)), task)
    output = np.array(model(100 * samples()))
    assert output.min() >= 0
    assert output.max() <= 1
    assert isinstance(model.loss, keras.losses.BinaryCrossentropy)


WRONG = {
    "classes": ({"task": Task.multiclass(6)}, r"must be Task.regression\(6\) or .*Got multiclass\(6\)"),
    "size": ({"task": Task.regression(5)}, r"must be Task.regression\(6\) or .*Got regression\(5\)"),
    "predictive": ({"task": Task.multilabel(6), "kind": "predictive"}, "must have a regression task"),
    "kind": ({"kind": "denoise"}, "did you mean 'denoising'"),
    "plain has none": ({"strength": 0.1}, "A plain autoencoder has no strength. Got 0.1"),
    "strength": ({"kind": "sparse", "strength": 0}, "strength must be a positive number"),
    "code": ({"code": 0}, "code must be a positive integer"),
    "units": ({"units": (3, 0)}, "Each width in units"),
    "units word": ({"units": "12"}, "units must be a sequence"),
    "activation": ({"activation": "rleu"}, "rleu"),
    "max norm": ({"max_norm": -1}, "max_norm must be a positive number"),
    "a sequence": ({"input_shape": (6, 6)}, r"\(features,\) or \(height, width, channels\)"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused_before_anything_is_built(options, message, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a layer was built")

    monkeypatch.setattr(keras, "Input", refuse)
    with pytest.raises(ValueError, match=message):
        autoencoder(**{"input_shape": (6,), "task": SIX, **options})


@pytest.mark.parametrize(
    "build",
    [
        lambda model: SparseCode(0.0),
        lambda model: ContractiveCode(model, -1.0),
        lambda model: PredictiveReconstruction(model, model, 0.1, prediction=0.0),
        lambda model: PredictiveReconstruction(model, model, 0.1, code_steps=0),
        lambda model: PredictiveReconstruction(model, model, 0.1, code_rate=0),
    ],
)
def test_layers_refuse_wrong_settings(build):
    with pytest.raises(ValueError, match="must be a positive"):
        build(encoder(small()))
