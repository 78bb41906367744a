"""What holds for every recipe: one table of tiny cases, and one test for each promise."""

import inspect
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.data import Task
from keras_practice.tuning.space.presets import builder_arguments, dataset_for

THREE = Task.multiclass(3)
# Name of the case: recipe, shape of one sample, task, arguments.
CASES = {
    "linear": ("linear", (5,), THREE, {}),
    "mlp-activity": ("mlp", (5,), THREE, {"units": (6,), "activity_l1": 1e-3}),
    "mlp": ("mlp", (4, 4, 1), THREE, {"units": (6, 4)}),
    "residual_mlp": ("residual_mlp", (5,), THREE, {"depth": 6, "units": 4, "dropout": 0.1}),
    "selu_mlp": ("selu_mlp", (5,), THREE, {"units": (6, 4)}),
    "maxout_mlp": ("maxout_mlp", (5,), THREE, {"units": (6, 4)}),
    "low_rank_mlp": ("low_rank_mlp", (5,), THREE, {"units": (6, 4), "rank": 2}),
    "lenet5": ("lenet5", (28, 28, 1), THREE, {}),
    "alexnet": ("alexnet", (15, 15, 1), THREE, {"variant": "small"}),
    "googlenet": ("googlenet", (32, 32, 1), THREE, {}),
    "googlenet-norm": ("googlenet", (32, 32, 1), THREE, {"batch_norm": True}),
    "resnet": ("resnet", (8, 8, 1), THREE, {"depth": 8}),
    "resnet-large": ("resnet", (32, 32, 1), THREE, {"depth": 18}),
    "convnet": ("convnet", (8, 8, 1), THREE, {"filters": (4, 4), "units": 4, "activity_l1": 1e-3}),
    "conv1d": ("conv1d", (9, 2), THREE, {"filters": (4, 4)}),
    "rnn-lstm": ("rnn", (5, 2), THREE, {"units": (4, 3), "mask_value": 0.0}),
    "rnn-gru": ("rnn", (5, 2), THREE, {"cell": "gru", "units": (4,), "bidirectional": True}),
    "rnn-simple": ("rnn", (5, 2), THREE, {"cell": "simple", "units": (4,), "dropout": 0.2}),
    "rnn-dropout": ("rnn", (5, 2), THREE, {"units": (4,), "recurrent_dropout": 0.3}),
    "rnn-gru-dropout": ("rnn", (5, 2), THREE, {"cell": "gru", "units": (4,), "recurrent_dropout": 0.3}),
    "autoencoder": ("autoencoder", (8, 8, 1), Task.regression(1), {"units": (4,), "code": 3}),
}
CASES |= {
    f"autoencoder-{kind}": ("autoencoder", (6,), Task.regression(6), {"kind": kind, "units": (5,), "code": 3})
    for kind in ("plain", "sparse", "denoising", "contractive", "predictive")
}
HEAVY = {"googlenet", "googlenet-norm", "resnet-large", "alexnet"}


def cases(*, without=()):
    marks = {name: [pytest.mark.slow] if name in HEAVY else [] for name in CASES}
    return [pytest.param(*CASES[name], id=name, marks=marks[name]) for name in CASES if name not in without]


every_case = pytest.mark.parametrize(("recipe", "shape", "task", "arguments"), cases())


def build(recipe, shape, task, arguments, **compile_options):
    keras.utils.set_random_seed(0)
    model = recipes.get(recipe)(shape, task, **arguments)
    return recipes.compile_for(model, task, steps_per_execution=1, **compile_options)


def samples(shape, task, count=7):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *shape)).astype("float32")
    if task.kind == "regression":
        return x, x if shape[-1] == task.outputs else rng.normal(size=(count, task.outputs))
    return x, labels(task, rng, count)


def labels(task, rng, count):
    if task.kind == "multilabel":
        return rng.integers(0, 2, size=(count, task.outputs)).astype("float32")
    return rng.integers(0, task.num_classes, size=count)


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


TASKS = {"kind": THREE, "size": Task.regression(2)}


def build_multi_task(**compile_options):
    keras.utils.set_random_seed(0)
    trunk = recipes.mlp((5,), THREE, units=(6,))
    return recipes.compile_multi_task(
        recipes.multi_task(trunk, TASKS), TASKS, steps_per_execution=1, **compile_options
    )


def multi_task_samples(count=7):
    x, kinds = samples((5,), THREE, count)
    return x, {"kind": kinds, "size": samples((5,), TASKS["size"], count)[1]}


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_multi_task_keeps_the_same_promises(jit, mixed_precision):
    """It takes a trunk and tasks instead of a shape and a task, and so is not in the table."""
    model = build_multi_task(jit_compile=jit)
    x, y = multi_task_samples()
    history = model.fit(x, y, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert {output.dtype for output in model.predict(x, verbose=0).values()} == {np.dtype("float32")}


def test_every_recipe_is_covered():
    assert {case[0] for case in CASES.values()} == set(recipes.names())


@every_case
def test_it_trains_on_an_odd_last_batch_and_every_weight_gets_a_gradient(recipe, shape, task, arguments):
    model = build(recipe, shape, task, arguments)
    x, y = samples(shape, task)
    before = [np.array(w) for w in model.get_weights()]
    history = model.fit(x, y, batch_size=4, epochs=1, verbose=0)  # Batches of 4 and 3.
    assert np.isfinite(history.history["loss"][0])
    assert any(not np.array_equal(b, a) for b, a in zip(before, model.get_weights(), strict=True))
    assert model.name == recipe
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = model.compute_loss(x=x, y=tf.convert_to_tensor(y), y_pred=outputs)
    weights = model.trainable_variables
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    assert [w.path for w, g in zip(weights, gradients, strict=True) if g is None] == []


@every_case
def test_it_loads_alone_and_says_the_same(recipe, shape, task, arguments, tmp_path):
    model = build(recipe, shape, task, arguments)
    x, y = samples(shape, task)
    rng = np.random.default_rng(1)  # No weight or statistic keeps its initial value, and none is large.
    model.set_weights([w + rng.uniform(0, 0.01, w.shape) for w in model.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    outputs = np.asarray(model(x))
    assert np.all(np.isfinite(outputs))
    np.testing.assert_allclose(np.asarray(loaded(x)), outputs, rtol=1e-5, atol=1e-6)
    loaded.run_eagerly = True  # A step without a trace: graphs of the same layers are tried above.
    loaded.fit(x[:4], y[:4], batch_size=4, verbose=0)


@every_case
def test_it_trains_under_mixed_precision(recipe, shape, task, arguments, mixed_precision):
    model = build(recipe, shape, task, arguments, run_eagerly=True)
    x, y = samples(shape, task)
    history = model.fit(x, y, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    outputs = model.predict(x, verbose=0)
    assert outputs.dtype == np.float32
    assert np.all(np.isfinite(outputs))


@pytest.mark.slow
@every_case
def test_its_step_compiles_under_xla(recipe, shape, task, arguments):
    model = build(recipe, shape, task, arguments, jit_compile=True)
    x, y = samples(shape, task)
    history = model.fit(x, y, batch_size=4, verbose=0)
    assert model.jit_compile
    assert np.isfinite(history.history["loss"][0])


STRATEGY = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import sys
sys.path.insert(0, {tests!r})
from test_contract import CASES, HEAVY, build, build_multi_task, multi_task_samples, samples
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
for name, case in CASES.items():
    if (name in HEAVY) != {heavy}:
        continue
    with strategy.scope():
        model = build(*case)
    x, y = samples(case[1], case[2], 8)
    loss = model.fit(x, y, batch_size=4, verbose=0).history["loss"][0]
    assert np.isfinite(loss), name
    print(name)
if not {heavy}:
    with strategy.scope():
        model = build_multi_task()
    x, y = multi_task_samples(8)
    assert np.isfinite(model.fit(x, y, batch_size=4, verbose=0).history["loss"][0])
    print("multi_task")
"""


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True])
def test_it_trains_on_two_devices(heavy):
    program = STRATEGY.format(tests=str(Path(__file__).parent), heavy=heavy)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = [name for name in CASES if (name in HEAVY) == heavy]
    assert done.stdout.split() == expected + ([] if heavy else ["multi_task"])


# An autoencoder's task is its input; googlenet takes seconds to build, and its head is that of the others.
@pytest.mark.parametrize("recipe", sorted(set(recipes.names()) - {"autoencoder", "googlenet"}))
@pytest.mark.parametrize("task", [Task.regression(2), Task.binary(), Task.multilabel(3)], ids=str)
def test_it_has_an_output_for_every_kind_of_task(recipe, task):
    _, shape, _, arguments = next(case for case in CASES.values() if case[0] == recipe)
    model = recipes.get(recipe)(shape, task, **arguments)
    assert model.output_shape == (None, task.outputs)
    assert model.output.dtype == "float32"


def layers_of(layer):
    """A layer and all that it is made of, by Keras's public attributes."""
    yield layer
    parts = list(getattr(layer, "layers", ()))
    for name in ("cell", "encoder", "decoder", "forward_layer", "backward_layer"):
        if isinstance(getattr(layer, name, None), keras.layers.Layer):
            parts.append(getattr(layer, name))
    for part in parts:
        yield from layers_of(part)


@pytest.mark.parametrize("recipe", recipes.names())
def test_penalties_never_touch_biases_or_norms(recipe):
    _, shape, task, arguments = next(case for case in CASES.values() if case[0] == recipe)
    model = recipes.get(recipe)(shape, task, **arguments, l1=1.0, l2=1.0)
    regularised = 0
    for layer in layers_of(model):
        assert getattr(layer, "bias_regularizer", None) is None
        assert getattr(layer, "beta_regularizer", None) is None
        assert getattr(layer, "gamma_regularizer", None) is None
        regularised += getattr(layer, "kernel_regularizer", None) is not None
    assert regularised


BAD = {
    "task": ["binary", None, 3],
    "input_shape": [(), (0,), "4", (5, -1)],
    "units": [(), (0,), (4, -1), "8"],
    "filters": [(), (0,), "8"],
    "dropout": [1, -0.1, "much"],
    "recurrent_dropout": [1, -0.1],
    "activation": ["relo"],
    "depth": [0, -3, 2.5],
    "pieces": [0],
    "rank": [0, -1],
    "kernel_size": [0],
    "code": [0],
    "cell": ["lsmt"],
    "kind": ["sprase"],
    "variant": ["huge"],
    "layers_per_block": [0, 5],
    "vocabulary": [0],
    "l1": [-1],
    "l2": [float("nan")],
    "max_norm": [0, -1],
    "activity_l1": [-0.5],
}


def bad_calls():
    for recipe in recipes.names():
        for parameter in inspect.signature(recipes.get(recipe)).parameters:
            for value in BAD.get(parameter, ()):
                if recipe == "autoencoder" and (parameter, value) == ("units", ()):
                    continue  # An encoder of one layer.
                yield pytest.param(recipe, parameter, value, id=f"{recipe}-{parameter}-{value}")


@pytest.mark.parametrize(("recipe", "parameter", "value"), list(bad_calls()))
def test_a_wrong_argument_is_one_sentence_before_any_layer_is_built(recipe, parameter, value, monkeypatch):
    _, shape, task, arguments = next(case for case in CASES.values() if case[0] == recipe)

    def fail(*args, **kwargs):
        raise AssertionError("a layer was built")

    monkeypatch.setattr(keras, "Input", fail)
    with pytest.raises(ValueError, match=r"Got|did you mean|There are") as error:
        recipes.get(recipe)(**{"input_shape": shape, "task": task, **arguments, parameter: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", ["lenet5", "alexnet", "googlenet", "resnet", "convnet", "conv1d"])
def test_an_input_too_small_is_refused_with_the_least_size(recipe):
    shape = (1, 1) if recipe == "conv1d" else (3, 3, 1)
    with pytest.raises(ValueError, match="must (be|have) at least"):
        recipes.get(recipe)(shape, THREE)


@pytest.mark.parametrize("recipe", recipes.names())
def test_its_docstring_tells_all(recipe):
    builder = recipes.get(recipe)
    text = inspect.getdoc(builder)
    for section in ("Args:", "Returns:", "Raises:", "Source:"):
        assert section in text
    for parameter in inspect.signature(builder).parameters.values():
        assert f"{parameter.name}: " in text, parameter.name
        if parameter.default is not parameter.empty:
            entry = text.split(f"{parameter.name}: ", 1)[1]
            assert "Defaults to" in entry.split("\n\n")[0], parameter.name


SUITABLE = {"conv1d": "waves", "rnn": "waves", "convnet": "digits", "resnet": "digits", "autoencoder": "wine"}


@pytest.mark.parametrize("recipe", recipes.names())
def test_it_has_a_search_space_that_builds(recipe):
    hp = keras_tuner.HyperParameters()
    if recipe in ("lenet5", "alexnet", "googlenet"):  # No bundled images are large enough.
        builder_arguments(recipe, hp)
        inspect.signature(recipes.get(recipe)).bind((64, 64, 1), THREE, **builder_arguments(recipe, hp))
    else:
        dataset = dataset_for(recipe, data.load(SUITABLE.get(recipe, "iris")))
        arguments = builder_arguments(recipe, hp)
        model = recipes.get(recipe)(dataset.input_shape, dataset.task, **arguments)
        model(dataset.train.x[:2])
    assert hp.space
