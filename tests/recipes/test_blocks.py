import keras
import numpy as np
import pytest

from keras_practice import recipes
from keras_practice.data import Task
from keras_practice.recipes import NONE, Regularization

TASKS = [
    (Task.regression(2), "linear", "mean_squared_error"),
    (Task.binary(), "sigmoid", "binary_crossentropy"),
    (Task.multiclass(4), "softmax", "sparse_categorical_crossentropy"),
    (Task.multiclass(4, one_hot=True), "softmax", "categorical_crossentropy"),
    (Task.multilabel(3), "sigmoid", "binary_crossentropy"),
]


@pytest.mark.parametrize(("task", "activation", "loss"), TASKS)
def test_head_and_loss_suit_the_task(task, activation, loss):
    model = recipes.compile_for(recipes.mlp((5,), task, units=(4,)), task)
    assert model.output_shape == (None, task.outputs)
    assert model.get_layer("output").get_config()["activation"] == activation
    assert model.loss.name == loss


def test_the_head_is_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = recipes.mlp((5,), Task.multiclass(3))
    finally:
        keras.config.set_dtype_policy(before)
    assert model.output.dtype == "float32"
    assert model.get_layer("block1_dense").compute_dtype == "float16"


def test_the_standard_block_has_the_layers_of_the_lecture_in_order():
    model = recipes.mlp((5,), Task.binary(), units=(8,), dropout=0.3)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "Dense",
        "BatchNormalization",
        "Activation",
        "Dropout",
        "Dense",
        "Activation",
    ]
    dense, dropout = model.get_layer("block1_dense"), model.get_layer("block1_dropout")
    assert isinstance(dense.kernel_initializer, keras.initializers.HeNormal)
    assert not dense.use_bias
    assert dropout.rate == 0.3


def test_parameters_are_those_of_the_formula():
    # 64 -> 128 -> 64 -> 10, each hidden unit with a shift and a scale and two statistics.
    model = recipes.mlp((8, 8, 1), Task.multiclass(10))
    assert model.count_params() == 64 * 128 + 4 * 128 + 128 * 64 + 4 * 64 + 64 * 10 + 10


def test_without_batch_norm_the_dense_layers_have_biases():
    model = recipes.mlp((4,), Task.binary(), units=(3,), batch_norm=False, dropout=0.0)
    assert model.count_params() == 4 * 3 + 3 + 3 + 1


def test_penalties_touch_weights_alone():
    keras.utils.set_random_seed(0)
    model = recipes.mlp((4,), Task.binary(), units=(3,), batch_norm=False, l1=0.5, l2=0.25)
    model.get_layer("block1_dense").bias.assign([7.0, 7.0, 7.0])
    kernel = model.get_layer("block1_dense").kernel.numpy()
    expected = 0.5 * np.abs(kernel).sum() + 0.25 * (kernel**2).sum()
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_max_norm_limits_the_weights_into_each_unit():
    model = recipes.mlp((4,), Task.binary(), units=(16,), max_norm=0.5)
    model.compile(keras.optimizers.SGD(10.0), "binary_crossentropy")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(64, 4)), rng.integers(0, 2, size=64), epochs=3, verbose=0)
    norms = np.linalg.norm(model.get_layer("block1_dense").kernel.numpy(), axis=0)
    assert norms.max() <= 0.5 + 1e-5
    assert norms.max() > 0.4


def test_activity_penalty_falls_on_the_activations():
    inputs = keras.Input((4,))
    outputs = recipes.dense_block(
        inputs, 3, batch_norm=False, regularization=Regularization(activity_l1=2.0), name="a"
    )
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    activations = np.asarray(model(x))
    penalty = float(sum(model.losses))
    keras_own = keras.layers.ActivityRegularization(l1=2.0)
    keras_own(activations)
    assert penalty == pytest.approx(float(sum(keras_own.losses)), rel=1e-5)
    total = 2.0 * np.abs(activations).sum()  # Keras for Python 3.10 does not divide by the batch.
    assert penalty == pytest.approx(total / 5, rel=1e-5) or penalty == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": -1}, "l1 must be"),
        ({"l2": float("nan")}, "l2 must be"),
        ({"max_norm": 0}, "max_norm must be"),
        ({"activity_l1": -0.1}, "activity_l1 must be"),
    ],
)
def test_regularization_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Regularization(**options)


def test_no_regularization_adds_nothing():
    assert NONE.kernel_options() == {}
    assert NONE.activity_options() == {}


@pytest.mark.parametrize(("wrong", "near"), [("mpl", "mlp"), ("MLP", "mlp")])
def test_an_unknown_recipe_is_answered_with_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"Unknown recipe '{wrong}'; did you mean '{near}'"):
        recipes.get(wrong)
    assert recipes.get(near) is recipes.mlp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": ()}, "at least one width"),
        ({"units": "128"}, "at least one width"),
        ({"units": (8, -1)}, "positive integer. Got -1"),
        ({"units": (8.5,)}, "positive integer"),
        ({"dropout": 1}, r"dropout must be in \[0, 1\). Got 1"),
        ({"dropout": -0.1}, "dropout must be"),
        ({"activation": "relo"}, "Unknown activation 'relo'; did you mean 'relu'"),
        ({"l2": -1}, "l2 must be"),
        ({"max_norm": -2}, "max_norm must be"),
        ({"input_shape": ()}, "input_shape must be"),
        ({"input_shape": (0,)}, "positive integer. Got 0"),
        ({"input_shape": 4}, "input_shape must be"),
    ],
)
def test_mlp_refuses_before_any_layer_is_built(options, message, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a layer was built")

    monkeypatch.setattr(keras.layers, "Dense", fail)
    monkeypatch.setattr(keras, "Input", fail)
    with pytest.raises(ValueError, match=message) as error:
        recipes.mlp(**{"input_shape": (4,), "task": Task.binary(), **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("adam", {}, {"clipnorm": None}),
        ("sgd", {}, {"momentum": 0.9, "nesterov": False}),
        ("sgd", {"momentum": 0.5, "nesterov": True}, {"momentum": 0.5, "nesterov": True}),
        ("rmsprop", {"momentum": 0.8}, {"momentum": 0.8}),
        ("adagrad", {"clipnorm": 1.0}, {"clipnorm": 1.0}),
        ("adadelta", {"clipvalue": 0.5}, {"clipvalue": 0.5}),
        ("adamax", {"global_clipnorm": 2.0}, {"global_clipnorm": 2.0}),
        ("nadam", {}, {}),
        ("adamw", {}, {}),
    ],
)
def test_optimizers_by_name(name, options, expected):
    made = recipes.optimizer(name, 0.02, **options)
    assert type(made).__name__.lower() == name
    config = made.get_config()
    assert config["learning_rate"] == pytest.approx(0.02)
    for key, value in expected.items():
        assert config[key] == value


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("adem",), {}, "did you mean 'adam'"),
        (("adam", 0.0), {}, "learning_rate must be a positive number"),
        (("adam", float("inf")), {}, "learning_rate must be a positive number"),
        (("adam",), {"clipnorm": -1}, "clipnorm must be"),
        (("adam",), {"clipnorm": 1.0, "clipvalue": 0.5}, "one way at a time"),
        (("adam",), {"momentum": 0.9}, "momentum is for sgd and rmsprop"),
        (("sgd",), {"momentum": 1.0}, "momentum must be"),
        (("adam",), {"nesterov": True}, "nesterov is for sgd"),
        (("sgd",), {"momentum": 0.0, "nesterov": True}, "momentum above 0"),
    ],
)
def test_optimizers_refuse(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        recipes.optimizer(*arguments, **options)


def test_compile_for_clips_and_takes_what_it_is_given():
    task = Task.binary()
    model = recipes.compile_for(recipes.mlp((4,), task), task, "sgd", 0.1, run_eagerly=True)
    assert model.optimizer.clipnorm == 1.0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
    assert model.run_eagerly
    own = keras.optimizers.Adam(0.5)
    assert recipes.compile_for(model, task, own).optimizer is own
    model = recipes.compile_for(model, task, loss="squared_hinge", metrics=["mse"])
    assert model.loss == "squared_hinge"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": keras.optimizers.SGD(), "learning_rate": 0.1}, "of its own"),
        ({"optimizer": keras.optimizers.SGD(), "clipnorm": 0.1}, "of its own"),
        ({"task": Task.multiclass(3)}, "3 output"),
    ],
)
def test_compile_for_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        recipes.compile_for(**{"model": recipes.mlp((4,), Task.binary()), "task": Task.binary(), **options})


def test_compiling_changes_nothing_about_training():
    """The optimiser's variables are made early; the weights after training are those of plain Keras."""
    task = Task.multiclass(3)
    x, y = np.random.default_rng(0).normal(size=(50, 4)).astype("float32"), np.arange(50) % 3
    ends = []
    for ours in (True, False):
        keras.utils.set_random_seed(0)
        model = recipes.mlp((4,), task, units=(8,))
        if ours:
            recipes.compile_for(model, task)
        else:
            model.compile(keras.optimizers.Adam(1e-3, clipnorm=1.0), "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=2, verbose=0)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_small_nets_run_many_steps_a_call_and_others_one():
    def steps(recipe, shape, **arguments):
        task = Task.multiclass(10)
        return recipes.compile_for(recipes.get(recipe)(shape, task, **arguments), task).steps_per_execution

    assert steps("mlp", (8, 8, 1)) == 32
    assert steps("linear", (8,)) == 32
    assert steps("convnet", (32, 32, 3)) == 1
    assert steps("rnn", (None, 64)) == 1
    task = Task.binary()
    assert recipes.compile_for(recipes.mlp((4,), task), task, steps_per_execution=3).steps_per_execution == 3
    assert recipes.compile_for(recipes.mlp((4,), task), task, run_eagerly=True).steps_per_execution == 1
