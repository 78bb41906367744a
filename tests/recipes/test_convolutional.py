import re
from collections.abc import Iterator
from functools import partial
from math import prod

import keras
import numpy as np
import pytest

from keras_practice.data import Task
from keras_practice.recipes import Regularization, compile_for, loss_for, metrics_for
from keras_practice.recipes.classics import alexnet, googlenet, lenet5
from keras_practice.recipes.convolutional import conv1d, conv_block, convnet
from keras_practice.recipes.residual import residual_block, resnet

TEN = Task.multiclass(10)
THREE = Task.multiclass(3)
THOUSAND = Task.multiclass(1000)

# Each recipe at the smallest size that it takes.
SMALLEST = [
    pytest.param(convnet, (8, 8, 1), id="convnet"),
    pytest.param(conv1d, (3, 2), id="conv1d"),
    pytest.param(lenet5, (28, 28, 1), id="lenet5"),
    pytest.param(alexnet, (67, 67, 3), id="alexnet"),
    pytest.param(partial(alexnet, variant="small"), (15, 15, 3), id="alexnet-small"),
    pytest.param(partial(alexnet, variant="small", groups=True), (15, 15, 3), id="alexnet-groups"),
    pytest.param(googlenet, (32, 32, 3), id="googlenet"),
    pytest.param(partial(googlenet, auxiliary=True), (65, 65, 3), id="googlenet-auxiliary"),
    pytest.param(partial(resnet, depth=8), (4, 4, 3), id="resnet-8"),
    pytest.param(partial(resnet, depth=18), (32, 32, 3), id="resnet-18"),
]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()


def trainable_parameters(model):
    return sum(prod(weight.shape) for weight in model.trainable_weights)


def longest_path(model):
    """Convolutions and dense layers of a residual net, without those on shortcuts."""
    weighted = (keras.layers.Conv2D, keras.layers.Dense)
    return sum(isinstance(layer, weighted) and "shortcut" not in layer.name for layer in model.layers)


def block_model(shape, filters=4, **options):
    inputs = keras.Input(shape)
    return keras.Model(inputs, conv_block(inputs, filters, name="block", **options))


# conv_block


def test_a_block_is_convolution_batch_norm_activation_and_spatial_dropout():
    images = block_model((6, 6, 3), dropout=0.2)
    assert [type(layer).__name__ for layer in images.layers[1:]] == [
        "Conv2D",
        "BatchNormalization",
        "Activation",
        "SpatialDropout2D",
    ]
    assert not images.get_layer("block_conv").use_bias
    sequences = block_model((6, 3), batch_norm=False)
    assert [type(layer).__name__ for layer in sequences.layers[1:]] == ["Conv1D", "Activation"]
    assert sequences.get_layer("block_conv").use_bias


def test_padding_and_strides_set_the_size():
    assert block_model((9, 9, 1), kernel_size=5, padding="valid").output_shape == (None, 5, 5, 4)
    assert block_model((9, 9, 1), strides=2).output_shape == (None, 5, 5, 4)
    assert block_model((9, 1), kernel_size=4).output_shape == (None, 9, 4)


@pytest.mark.parametrize("shape", [(30, 2), (9, 9, 2)])
@pytest.mark.parametrize("activation", ["sigmoid", "selu"])
def test_dropout_takes_whole_feature_maps(shape, activation):
    model = block_model(shape, filters=64, batch_norm=False, activation=activation, dropout=0.5)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x, training=True))
    spread = np.ptp(y.reshape(2, -1, 64), axis=1)
    # A dropped map is constant, and a sigmoid or SELU of noise never is.
    dropped = spread == 0
    assert 0.25 < dropped.mean() < 0.75
    assert not np.array_equal(dropped[0], dropped[1])


def test_initial_weights_suit_relu():
    kernel = block_model((5, 5, 50), filters=200).get_layer("block_conv").kernel
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 50)), rel=0.02)


@pytest.mark.parametrize("shape", [(8, 2), (5, 5, 2)])
def test_max_norm_limits_each_filter_and_not_its_parts(shape):
    model = block_model(shape, regularization=Regularization(max_norm=0.5))
    layer = model.get_layer("block_conv")
    limited = keras.ops.convert_to_numpy(layer.kernel_constraint(layer.kernel * 100))
    norms = np.linalg.norm(limited.reshape(-1, 4), axis=0)
    np.testing.assert_allclose(norms, 0.5, rtol=1e-5)


def test_penalties_touch_kernels_alone():
    model = resnet((4, 4, 1), THREE, depth=8, l1=0.1, l2=0.01)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(layer.gamma + 7)
    kernels = [
        keras.ops.convert_to_numpy(layer.kernel)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    expected = sum(0.1 * np.abs(k).sum() + 0.01 * np.square(k).sum() for k in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_prelu_has_one_slope_a_feature_map():
    model = block_model((6, 6, 3), activation="prelu")
    assert model.get_layer("block_prelu").alpha.shape == (1, 1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "filters must be a positive integer. Got 0."),
        ({"kernel_size": 2.5}, "kernel_size must be a positive integer. Got 2.5."),
        ({"strides": -1}, "strides must be a positive integer. Got -1."),
        ({"padding": "causal"}, "padding must be 'same' or 'valid'. Got 'causal'."),
        ({"groups": 2}, "groups must divide the 3 channels and the 4 filters. Got 2."),
        ({"dropout": 1.0}, "dropout must be in [0, 1). Got 1.0."),
    ],
)
def test_a_block_refuses(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        block_model((6, 6, 3), **options)


def test_a_block_refuses_vectors():
    message = "x must have shape (batch, steps, channels) or (batch, height, width, channels). Got (None, 6)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        block_model((6,))


# Parameters and shapes of the papers


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 1)])
def test_lenet5_has_its_parameters_on_both_sizes(shape):
    model = lenet5(shape, TEN)
    assert model.count_params() == 61_706
    assert model.get_layer("stage1_pool").output.shape == (None, 14, 14, 6)


def test_lenet5_takes_any_size_above():
    # 31 -> 31 -> 15 -> 11 -> 5 and 40 -> 40 -> 20 -> 16 -> 8: 15 cells of 16 more than in the paper.
    assert lenet5((31, 40, 1), TEN).count_params() == 61_706 + 15 * 16 * 120
    # 36 -> 32 -> 16 -> 12 -> 6: 11 cells more.
    assert lenet5((36, 36, 1), TEN).count_params() == 61_706 + 11 * 16 * 120


@pytest.mark.parametrize(("groups", "parameters"), [(False, 62_378_344), (True, 60_965_224)])
def test_alexnet_has_its_parameters(groups, parameters):
    model = alexnet((227, 227, 3), THOUSAND, groups=groups)
    assert model.count_params() == parameters
    assert model.get_layer("stage1_relu").output.shape == (None, 55, 55, 96)
    assert model.get_layer("stage5_pool").output.shape == (None, 6, 6, 256)


def test_googlenet_has_its_parameters():
    model = googlenet((224, 224, 3), THOUSAND)
    assert model.count_params() == 6_998_552
    # The output sizes of the paper's table 1.
    for layer, size in {
        "stage1_pool": (56, 56, 64),
        "stage2_pool": (28, 28, 192),
        "stage3a_concatenate": (28, 28, 256),
        "stage3b_concatenate": (28, 28, 480),
        "stage4a_concatenate": (14, 14, 512),
        "stage4d_concatenate": (14, 14, 528),
        "stage4e_concatenate": (14, 14, 832),
        "stage5b_concatenate": (7, 7, 1024),
    }.items():
        assert model.get_layer(layer).output.shape == (None, *size)


def test_the_auxiliary_outputs_have_the_sizes_of_the_paper():
    model = googlenet((224, 224, 3), TEN, auxiliary=True)
    assert model.get_layer("auxiliary1_pool").output.shape == (None, 4, 4, 512)
    assert model.get_layer("auxiliary2_pool").output.shape == (None, 4, 4, 528)
    assert model.get_layer("auxiliary2_relu").output.shape == (None, 4, 4, 128)
    extra = model.count_params() - googlenet((224, 224, 3), TEN).count_params()
    reduce = (512 * 128 + 128) + (528 * 128 + 128)
    dense = 2 * (4 * 4 * 128 * 1024 + 1024 + 1024 * 10 + 10)
    assert extra == reduce + dense


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (20, 269_722),
        (32, 464_154),
        (44, 658_586),
        (56, 853_018),
        pytest.param(110, 1_727_962, marks=pytest.mark.slow),
    ],
)
def test_small_resnets_have_the_parameters_of_table_6(depth, parameters):
    model = resnet((32, 32, 3), TEN, depth=depth)
    assert trainable_parameters(model) == parameters
    assert longest_path(model) == depth
    assert model.get_layer("average").input.shape == (None, 8, 8, 64)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (18, 11_689_512),
        (34, 21_797_672),
        (50, 25_557_032),
        pytest.param(101, 44_549_160, marks=pytest.mark.slow),
        pytest.param(152, 60_192_808, marks=pytest.mark.slow),
    ],
)
def test_large_resnets_have_their_parameters(depth, parameters):
    model = resnet((224, 224, 3), THOUSAND, depth=depth)
    assert trainable_parameters(model) == parameters
    assert longest_path(model) == depth
    assert model.get_layer("average").input.shape[1:3] == (7, 7)


# What the builders refuse, before any layer is built


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (
            convnet,
            (28, 28),
            "input_shape must be (height, width, channels); add a channel axis to grey images, "
            "x[..., np.newaxis]. Got (28, 28).",
        ),
        (convnet, (7, 8, 1), "Images must be at least 8 x 8 for 3 poolings of 2 x 2. Got 7 x 8."),
        (
            partial(convnet, filters=(8,) * 5),
            (31, 32, 1),
            "Images must be at least 32 x 32 for 5 poolings of 2 x 2. Got 31 x 32.",
        ),
        (partial(convnet, units=0), (8, 8, 1), "units must be a positive integer. Got 0."),
        (partial(convnet, dropout=1), (8, 8, 1), "dropout must be in [0, 1). Got 1."),
        (partial(convnet, l2=-1), (8, 8, 1), "l2 must be zero or a positive number. Got -1."),
        (
            partial(convnet, filters=()),
            (8, 8, 1),
            "filters must be a sequence of at least one width. Got ().",
        ),
        (
            conv1d,
            (100,),
            "input_shape must be (steps, channels); add a channel axis to plain sequences, "
            "x[..., np.newaxis]. Got (100,).",
        ),
        (conv1d, (2, 4), "Sequences must have at least 3 steps for 1 pooling(s) by 3. Got 2."),
        (
            partial(conv1d, filters=(4, 4, 4)),
            (8, 4),
            "Sequences must have at least 9 steps for 2 pooling(s) by 3. Got 8.",
        ),
        (partial(conv1d, kernel_size=0), (9, 4), "kernel_size must be a positive integer. Got 0."),
        (lenet5, (27, 28, 1), "Images must be at least 28 x 28 for lenet5. Got 27 x 28."),
        (
            alexnet,
            (66, 67, 3),
            "Images must be at least 67 x 67 for the full alexnet; variant='small' takes 15 x 15. "
            "Got 66 x 67.",
        ),
        (
            partial(alexnet, variant="small"),
            (15, 14, 3),
            "Images must be at least 15 x 15 for the small alexnet. Got 15 x 14.",
        ),
        (
            partial(alexnet, variant="tiny"),
            (67, 67, 3),
            "variant must be one of full, small. Got 'tiny'.",
        ),
        (googlenet, (31, 32, 3), "Images must be at least 32 x 32 for googlenet. Got 31 x 32."),
        (
            partial(googlenet, auxiliary=True),
            (64, 65, 3),
            "Images must be at least 65 x 65 for googlenet with auxiliary outputs. Got 64 x 65.",
        ),
        (resnet, (3, 4, 3), "Images must be at least 4 x 4 for a resnet of depth 20. Got 3 x 4."),
        (
            partial(resnet, depth=50),
            (31, 32, 3),
            "Images must be at least 32 x 32 for a resnet of depth 50. Got 31 x 32.",
        ),
        (partial(resnet, depth=20.0), (8, 8, 3), "depth must be a positive integer. Got 20.0."),
        (partial(resnet, max_norm=0), (8, 8, 3), "max_norm must be a positive number or None. Got 0."),
    ],
)
def test_refuses_beforehand(build, shape, message, monkeypatch):
    def no_layer(*args, **kwargs):
        raise AssertionError("A layer was built.")

    monkeypatch.setattr(keras, "Input", no_layer)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(shape, TEN)


@pytest.mark.parametrize(
    ("depth", "nearest"),
    [
        (1, "8"),
        (7, "8"),
        (9, "8 and 14"),
        (19, "18 and 20"),
        (33, "32 and 34"),
        (100, "98 and 101"),
        (151, "146 and 152"),
        (153, "152 and 158"),
    ],
)
def test_a_depth_that_does_not_exist_is_refused_with_the_nearest(depth, nearest):
    message = f"depth must be 18, 34, 50, 101, 152 or 6n + 2; the nearest is {nearest}. Got {depth}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resnet((32, 32, 3), TEN, depth=depth)


@pytest.mark.parametrize(("build", "shape"), SMALLEST)
def test_the_smallest_size_works_and_comes_back_from_disk(build, shape, tmp_path):
    model = build(shape, THREE)
    x = np.random.default_rng(0).random((2, *shape), dtype="float32")
    expected = model(x)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in restored.layers] == [layer.name for layer in model.layers]
    actual = restored(x)
    if not isinstance(expected, dict):
        expected, actual = {"output": expected}, {"output": actual}
    for output, values in expected.items():
        assert values.shape == (2, 3)
        np.testing.assert_array_equal(actual[output], values)


# Behaviour


def test_the_shortcut_without_weights_keeps_every_second_pixel_and_adds_zeros():
    inputs = keras.Input((5, 6, 2))
    outputs = residual_block(inputs, 6, strides=2, project=False, name="block")
    model = keras.Model(inputs, outputs)
    model.get_layer("block_second_batch_norm").gamma.assign(np.zeros(6))
    x = np.random.default_rng(0).random((3, 5, 6, 2), dtype="float32")
    expected = np.concatenate([x[:, ::2, ::2], np.zeros((3, 3, 3, 4))], axis=-1)
    np.testing.assert_array_equal(model(x), expected)


def test_only_large_resnets_have_weights_on_shortcuts():
    def shortcuts(depth):
        layers = resnet((32, 32, 3), THREE, depth=depth).layers
        return [
            layer.name
            for layer in layers
            if isinstance(layer, keras.layers.Conv2D) and "shortcut" in layer.name
        ]

    assert shortcuts(14) == []
    assert shortcuts(18) == [f"stage{stage}_block1_shortcut_conv" for stage in (2, 3, 4)]
    assert shortcuts(50) == [f"stage{stage}_block1_shortcut_conv" for stage in (1, 2, 3, 4)]


def test_grouped_convolutions_see_half_of_the_channels():
    model = alexnet((15, 15, 3), THREE, variant="small", groups=True)
    channels = [model.get_layer(f"stage{number}_conv").kernel.shape[2] for number in range(1, 6)]
    assert channels == [3, 24, 128, 96, 96]


@pytest.mark.parametrize("build", [partial(alexnet, variant="small"), googlenet])
def test_batch_norm_on_request_takes_the_biases_place(build):
    model = build((32, 32, 3), THREE, batch_norm=True)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert not any(layer.use_bias for layer in convolutions)
    # Each channel that leaves a convolution or a hidden dense layer has a scale and a shift.
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) >= len(convolutions)


@pytest.mark.slow
def test_auxiliary_outputs_train_with_the_weights_of_the_paper():
    weights = {"output": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}
    model = googlenet((65, 65, 1), THREE, auxiliary=True)
    compile_for(
        model,
        THREE,
        loss={output: loss_for(THREE) for output in weights},
        loss_weights=weights,
        metrics={"output": metrics_for(THREE)},
        run_eagerly=True,  # Tracing takes longer than the one step.
    )
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 65, 65, 1), dtype="float32"), np.array([0, 1, 2])
    logs = model.train_on_batch(x, dict.fromkeys(weights, y), return_dict=True)
    parts = sum(weight * logs[f"{output}_loss"] for output, weight in weights.items())
    assert logs["loss"] == pytest.approx(parts, rel=1e-5)
    assert "output_accuracy" in logs
    trained = keras.Model(model.input, model.output["output"])
    np.testing.assert_allclose(trained(x), model(x)["output"], rtol=1e-5)


def test_convnet_learns_the_direction_of_bars():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = 0.1 * rng.random((60, 8, 8, 1), dtype="float32")
    for image, label in zip(x, y, strict=True):
        if label == 0:
            image[rng.integers(8)] = 1
        elif label == 1:
            image[:, rng.integers(8)] = 1
        else:
            image[range(8), range(8)] = 1
    model = compile_for(convnet((8, 8, 1), THREE), THREE, learning_rate=3e-3)
    model.fit(x[:45], y[:45], batch_size=15, epochs=25, verbose=0)
    assert model.evaluate(x[:45], y[:45], verbose=0, return_dict=True)["accuracy"] == 1
    assert model.evaluate(x[45:], y[45:], verbose=0, return_dict=True)["accuracy"] >= 0.8


def test_conv1d_learns_frequencies_at_any_phase():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    phase = rng.uniform(0, 2 * np.pi, (60, 1))
    x = np.sin(np.arange(24) * (0.4 + 0.7 * y[:, None]) + phase)[..., None].astype("float32")
    model = compile_for(conv1d((24, 1), THREE, filters=(16, 32)), THREE, learning_rate=3e-3)
    model.fit(x[:45], y[:45], batch_size=15, epochs=25, verbose=0)
    assert model.evaluate(x[:45], y[:45], verbose=0, return_dict=True)["accuracy"] == 1
    assert model.evaluate(x[45:], y[45:], verbose=0, return_dict=True)["accuracy"] >= 0.8
