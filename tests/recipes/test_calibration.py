import dataclasses

import keras
import numpy as np
import pytest

from keras_practice import recipes
from keras_practice.data import Task
from keras_practice.recipes.calibration import calibrate
from keras_practice.recipes.dense import linear, low_rank_mlp, maxout_mlp, mlp, residual_mlp, selu_mlp

CLASSES = Task.multiclass(3)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def convnet():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(6, 3, padding="same")(inputs)
    x = keras.layers.BatchNormalization()(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = keras.layers.Add()([x, keras.layers.SeparableConv2D(6, 3, padding="same")(y)])
    x = keras.layers.Conv2DTranspose(4, 2, activation="tanh")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, recipes.head(x, CLASSES))


MODELS = {
    "mlp": lambda: mlp((8, 8, 2), CLASSES, units=(16, 8), batch_norm=False),
    "batch norm": lambda: mlp((8, 8, 2), CLASSES, units=(16, 8)),
    "sigmoid": lambda: mlp((8, 8, 2), CLASSES, units=(16, 8), activation="sigmoid", batch_norm=False),
    "abs": lambda: mlp((8, 8, 2), CLASSES, units=(16, 8), activation="abs"),
    "residual": lambda: residual_mlp((8, 8, 2), CLASSES, depth=8, units=8),
    "selu": lambda: selu_mlp((8, 8, 2), CLASSES, units=(16,) * 4),
    "maxout": lambda: maxout_mlp((8, 8, 2), CLASSES, units=(16, 8)),
    "low rank": lambda: low_rank_mlp((8, 8, 2), CLASSES, units=(16, 8), rank=3),
    "convnet": convnet,
}


def hidden_layers(model):
    return [
        layer
        for layer in model.layers
        if not layer.name.startswith("output")
        and (hasattr(layer, "kernel") or hasattr(layer, "pointwise_kernel"))
    ]


def variances(model, x):
    """Output variances of the hidden layers with weights, by a model that Keras makes of each one."""
    found = {}
    for layer in hidden_layers(model):
        activation = getattr(layer, "activation", None)
        if activation is not None:
            layer.activation = keras.activations.linear
        values = keras.Model(model.input, layer.output)(x, training=False)
        if activation is not None:
            layer.activation = activation
        found[layer.name] = float(np.var(np.asarray(values, dtype=np.float64)))
    return found


@pytest.mark.parametrize("scale", [1.0, 10.0, 0.01])
@pytest.mark.parametrize("name", MODELS)
def test_every_hidden_layer_has_unit_variance_afterwards(name, scale):
    model, x = MODELS[name](), normal(40, 8, 8, 2)
    for layer in hidden_layers(model):
        kernel = layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel
        kernel.assign(scale * kernel.value)
    before = variances(model, x)
    report = calibrate(model, x)
    after = variances(model, x)
    assert after
    assert list(after.values()) == pytest.approx([1.0] * len(after), abs=0.1)
    assert {layer.layer: layer.variance_before for layer in report.layers} == pytest.approx(before, rel=1e-3)
    assert {layer.layer: layer.variance_after for layer in report.layers} == pytest.approx(after, rel=1e-3)
    if scale != 1:
        assert len(report.rescaled) == len(after)


@pytest.mark.parametrize("name", MODELS)
def test_only_hidden_kernels_change_and_a_second_time_nothing_does(name):
    model, x = MODELS[name](), normal(40, 8, 8, 2)
    initial = {variable.path: variable.numpy() for variable in model.variables}
    report = calibrate(model, x, tolerance=0.01)
    once = {variable.path: variable.numpy() for variable in model.variables}
    factors = {layer.layer: layer.factor for layer in report.layers}
    for path, value in once.items():
        layer, weight = path.split("/")[-2:]
        scaled = weight in ("kernel", "pointwise_kernel") and layer in factors
        expected = initial[path] * factors[layer] if scaled else initial[path]
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        if not scaled:
            np.testing.assert_array_equal(value, initial[path])
    assert calibrate(model, x, tolerance=0.01).rescaled == ()
    for variable in model.variables:
        np.testing.assert_array_equal(variable.numpy(), once[variable.path])


def test_the_model_is_as_usable_as_before(tmp_path):
    model = recipes.compile_for(mlp((5,), CLASSES, units=(4,)), CLASSES)
    x, y = normal(20, 5), np.arange(20) % 3
    model.fit(x, y, verbose=0)
    calls = [vars(layer).get("call") for layer in model.layers]
    calibrate(model, x)
    assert [vars(layer).get("call") for layer in model.layers] == calls
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(x), model(x), rtol=1e-5)
    model.fit(x, y, verbose=0)


def test_layers_are_released_when_the_model_fails():
    model = mlp((5,), CLASSES, units=(4,), activation="elu")
    model.get_layer("block1_elu").activation = None  # Cannot be called.
    with pytest.raises(TypeError):
        calibrate(model, normal(4, 5))
    assert not [layer.name for layer in model.layers if "call" in vars(layer)]


def test_global_random_state_is_not_used():
    model = mlp((5,), CLASSES, dropout=0.5)

    def drawn_after(run):
        keras.backend.clear_session()  # Keras 3.11 keeps the generator that it has, whatever the seed.
        keras.utils.set_random_seed(3)
        run()
        return np.random.random(), float(keras.random.normal(()))

    assert drawn_after(lambda: calibrate(model, normal(20, 5))) == drawn_after(lambda: None)


def test_a_deep_net_whose_signal_has_vanished_comes_back():
    model = mlp((8,), CLASSES, units=(16,) * 30, activation="tanh", batch_norm=False, dropout=0)
    for layer in hidden_layers(model):
        layer.kernel.assign(0.01 * layer.kernel.value)
    report = calibrate(model, normal(64, 8))
    assert report.layers[-1].variance_before < 1e-30
    assert len(report.rescaled) == 30
    assert [layer.variance_after for layer in report.layers] == pytest.approx([1.0] * 30, abs=0.1)


def test_recurrent_layers_get_unit_variance_in_what_they_take_from_the_input():
    inputs = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(30, 6, mask_zero=True, name="words")
    lstm = keras.layers.LSTM(5, return_sequences=True, name="lstm")
    gru = keras.layers.GRU(4, name="gru")
    x = keras.layers.Bidirectional(lstm, name="both")(embedding(inputs))
    model = keras.Model(inputs, recipes.head(gru(x), Task.binary()))
    recurrent = [gru.cell.recurrent_kernel.numpy()]
    words = np.random.default_rng(0).integers(0, 30, size=(32, 7))
    report = calibrate(model, words)
    assert [layer.layer for layer in report.layers] == ["words", "forward_lstm", "backward_lstm", "gru"]
    embedded = embedding(words).numpy()
    assert embedded.var() == pytest.approx(1, abs=0.1)
    both = model.get_layer("both")
    for layer in (both.forward_layer, both.backward_layer):
        assert (embedded @ layer.cell.kernel.numpy()).var() == pytest.approx(1, abs=0.1)
    states = keras.Model(inputs, both.output)(words).numpy()
    assert (states @ gru.cell.kernel.numpy()).var() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(gru.cell.recurrent_kernel.numpy(), recurrent[0])


def test_a_shared_layer_has_unit_variance_over_all_its_uses():
    inputs = keras.Input((6,))
    shared = keras.layers.Dense(6, name="shared")
    x = keras.layers.Dense(6, name="first")(inputs)
    first = shared(x)
    second = shared(keras.layers.Activation("relu")(first))
    last = keras.layers.Dense(4, name="last")(second)
    model = keras.Model(inputs, recipes.head(last, CLASSES))
    shared.kernel.assign(7 * shared.kernel.value)
    data = normal(64, 6)
    report = calibrate(model, data)
    assert [layer.layer for layer in report.layers] == ["first", "shared", "last"]
    uses = np.concatenate([np.asarray(value) for value in keras.Model(inputs, [first, second])(data)])
    assert uses.var() == pytest.approx(1, abs=0.1)
    assert keras.Model(inputs, last)(data).numpy().var() == pytest.approx(1, abs=0.1)


def test_layers_inside_layers_are_found():
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="inner", activation="relu")])
    inputs = keras.Input((7, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = keras.layers.TimeDistributed(keras.layers.Dense(6, activation="relu"), name="every_step")(x)
    x = inner(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, recipes.head(x, CLASSES))
    report = calibrate(model, normal(16, 7, 6))
    names = [layer.layer for layer in report.layers]
    assert sorted(names) == sorted(["query", "key", "value", "attention_output", "every_step", "inner"])
    assert [layer.variance_after for layer in report.layers] == pytest.approx([1.0] * 6, abs=0.1)
    assert keras.Model(inputs, x)(normal(16, 7, 6)).numpy().min() == 0  # Activations are back in place.


def test_each_output_of_a_model_is_left_alone_unless_asked_for():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="relu", name="trunk")(inputs)
    outputs = [recipes.head(x, CLASSES, name="kind"), recipes.head(x, Task.regression(), name="size")]
    model = keras.Model(inputs, outputs)
    report = calibrate(model, normal(32, 6))
    assert [layer.layer for layer in report.layers] == ["trunk"]
    assert dict(report.left_alone) == {"kind_dense": "output layer", "size_dense": "output layer"}
    report = calibrate(model, normal(32, 6), include_output=True)
    assert {layer.layer for layer in report.rescaled} == {"kind_dense", "size_dense"}
    assert report.left_alone == ()


def test_what_cannot_or_must_not_be_rescaled_is_left_alone_with_the_reason():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(6, name="frozen", trainable=False)(inputs)
    x = keras.layers.Dense(6, name="zero", kernel_initializer="zeros", bias_initializer="ones")(x)
    x = keras.layers.Dense(6, name="biased", bias_initializer=keras.initializers.RandomNormal(0, 9))(
        x + inputs
    )
    model = keras.Model(inputs, recipes.head(x, CLASSES))
    weights = model.get_weights()
    report = calibrate(model, normal(32, 6))
    reasons = dict(report.left_alone)
    assert reasons["frozen"] == "not trainable"
    assert reasons["zero"] == "its kernel is zero"
    assert reasons["biased"] == "no scale of its kernel brings the variance to 1"
    assert report.layers == ()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_several_inputs_come_as_a_dictionary():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    x = keras.layers.Concatenate()([keras.layers.Dense(4, name=f"dense_{k}")(v) for k, v in inputs.items()])
    model = keras.Model(inputs, recipes.head(x, CLASSES))
    report = calibrate(model, {"a": normal(9, 3), "b": 50 * normal(9, 2)})
    assert [layer.variance_after for layer in report.layers] == pytest.approx([1.0, 1.0], abs=0.1)
    assert report.layers[1].factor < 0.1


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8"])
def test_any_number_type_gives_the_same_as_float32(dtype):
    x = np.random.default_rng(0).integers(0, 9, size=(32, 5)).astype(dtype)
    model = mlp((5,), CLASSES, units=(8, 8))
    weights = model.get_weights()
    report = calibrate(model, x)
    model.set_weights(weights)
    assert calibrate(model, x.astype("float32")) == report
    model.set_weights(weights)
    assert calibrate(model, x.tolist()) == report


def test_mixed_precision_does_not_overflow():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = mlp((8,), CLASSES, units=(16,) * 6, batch_norm=False)
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in hidden_layers(model):
        layer.kernel.assign(100 * layer.kernel.value)
    report = calibrate(model, normal(64, 8))
    assert report.layers[-1].variance_before > 1e4 or np.isnan(report.layers[-1].variance_before)
    assert [layer.variance_after for layer in report.layers] == pytest.approx([1.0] * 6, abs=0.1)


def test_the_report_reads_well_and_is_frozen():
    model = mlp((5,), CLASSES, units=(8,), batch_norm=False)
    model.get_layer("block1_dense").kernel.assign(np.full((5, 8), 2.0))
    report = calibrate(model, np.eye(5, dtype=np.float32) * np.arange(1, 6))
    # Outputs are 2, 4, 6, 8 and 10 in all units: variance 8.
    assert str(report).splitlines() == [
        "Rescaled 1 of 1 layers to an output variance of 1 (within 0.1).",
        "  block1_dense  variance 8 -> 1, kernel times 0.354",
        "  output_dense  left alone: output layer",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.tolerance = 1.0
    assert "0 of 0" in str(calibrate(linear((5,), CLASSES), normal(4, 5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: calibrate(m, np.zeros((0, 5))), r"x must have at least one sample. Got shape \(0, 5\)."),
        (lambda m: calibrate(m, np.array([["a"] * 5])), "x must be an array of numbers"),
        (lambda m: calibrate(m, np.full((2, 5), np.nan)), "x must be finite. Got 10 NaN"),
        (lambda m: calibrate(m, normal(4, 6)), r"x must have shape \(None, 5\), .* Got \(4, 6\)."),
        (lambda m: calibrate(m, normal(4, 5), tolerance=0), "tolerance must be a positive number. Got 0."),
        (lambda m: calibrate(m, normal(4, 5), tolerance=1.0), r"tolerance must be in \[0, 1\)"),
        (lambda m: calibrate(m, normal(4, 5), max_iterations=0), "max_iterations must be a positive integer"),
        (lambda m: calibrate(keras.Sequential([keras.layers.Dense(1)]), normal(4, 5)), "must be built"),
        (lambda m: calibrate(None, normal(4, 5)), "model must be a Keras model. Got None."),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    model = mlp((5,), CLASSES, units=(4,))
    weights = model.get_weights()
    with pytest.raises(ValueError, match=message):
        call(model)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
