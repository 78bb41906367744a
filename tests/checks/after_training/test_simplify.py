import keras
import numpy as np
import pytest

from keras_practice import data, recipes
from keras_practice.checks.after_training.simplify import simplify
from keras_practice.data import Split, Task

PATIENT = {"seconds": 300.0, "steps": 300}  # So that a busy machine changes nothing.
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 6)) * 2


def blobs(count=240, seed=1):
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=count)
    return (CENTRES[y] + 0.7 * rng.normal(size=(count, 6))).astype("float32"), y


X, Y = blobs()


def model(optimizer=None, head="softmax", loss="sparse_categorical_crossentropy", weights=None):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(24, "relu", kernel_initializer="he_normal"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(4, head),
        ]
    )
    net.compile(optimizer or keras.optimizers.Adam(3e-3), loss)
    if weights is not None:
        net.set_weights([weights * w for w in net.get_weights()])
    return net


def state(net):
    return [np.array(v) for v in [*net.variables, *net.optimizer.variables]], net.get_compile_config()


def test_a_sound_model_climbs_to_the_end_and_is_left_as_it_was():
    net = model()
    before = state(net)
    result = simplify(net, (X, Y), **PATIENT)
    after = state(net)
    assert all(np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert result.fault == "none", str(result)
    assert result.ends_at is None
    assert result.begins_at is result.stages[0]
    assert [s.key for s in result.stages] == [
        "two",
        "few",
        "all",
        "model_two",
        "model_few",
        "own_few",
        "own_all",
    ]
    last = result.stages[-1]
    assert last.reached > last.chance + 0.3
    assert "Your model learns" in str(result)
    with pytest.warns(DeprecationWarning, match="rungs is now stages"):
        assert result.rungs is result.stages


@pytest.mark.parametrize("rate", [1e-9, pytest.param(1e4, marks=pytest.mark.slow)])
def test_an_optimizer_that_does_not_get_there_is_named(rate):
    result = simplify(model(keras.optimizers.SGD(rate)), (X, Y), **PATIENT)
    assert result.fault == "optimizer", str(result)
    assert result.ends_at.key == "own_few"
    assert "not with SGD" in result.conclusion


@pytest.mark.slow
def test_a_model_that_cannot_tell_classes_is_named():
    blind = keras.Sequential(
        [keras.Input((6,)), keras.layers.Rescaling(0.0), keras.layers.Dense(4, "softmax")]
    )
    blind.compile("adam", "sparse_categorical_crossentropy")
    result = simplify(blind, (X, Y), **PATIENT)
    assert result.fault == "model", str(result)
    assert result.ends_at.net == "your model"
    assert result.ends_at.starts > 1  # Not blamed for one bad start.


def test_weights_that_are_stuck_are_tried_anew():
    result = simplify(model(weights=0.0), (X, Y), **PATIENT)
    tried = {stage.key: stage for stage in result.stages}
    assert tried["model_few"].learned, str(result)
    assert tried["model_few"].starts > 1


def test_labels_at_random_are_learned_by_heart_and_not_beyond():
    result = simplify(model(), (X, RNG.permutation(Y)), **PATIENT)
    assert result.fault == "labels", str(result)
    assert result.ends_at.key == "all"
    assert "no better than chance" in result.conclusion


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.where(RNG.random(X.shape) < 0.1, np.nan, X), "NaN or infinite"),
        (np.ones_like(X), "only 1 of 192 inputs"),
    ],
)
def test_inputs_that_cannot_be_learned_from_stop_at_the_first_stage(x, words):
    result = simplify(model(), (x.astype("float32"), Y), **PATIENT)
    assert result.fault == "data", str(result)
    assert len(result.stages) == 1
    assert result.ends_at is result.stages[0]
    assert result.begins_at is None
    assert words in result.conclusion


def test_numbers_are_simplified_too():
    targets = (X @ RNG.normal(size=(6, 1))).astype("float32")
    net = recipes.compile_for(
        recipes.mlp((6,), Task.regression(), (32,), dropout=0.0), Task.regression(), learning_rate=1e-2
    )
    result = simplify(net, (X, targets), **PATIENT)
    assert result.fault == "none", str(result)
    assert "r2" in str(result)


@pytest.mark.slow
def test_several_labels_are_simplified_too():
    several = Task.multilabel(2)
    net = recipes.compile_for(recipes.mlp((6,), several, (32,), dropout=0.0), several, learning_rate=1e-2)
    result = simplify(net, Split(X, (X[:, :2] > 0).astype("float32"), several), **PATIENT)
    assert result.fault == "none", str(result)


def test_time_that_is_over_is_said_and_nothing_is_blamed():
    result = simplify(model(keras.optimizers.SGD(1e-9)), (X, Y), seconds=1e-9)
    assert result.fault == "unknown"
    assert "out of time" in str(result)
    assert "more seconds" in result.conclusion


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simplify(recipes.mlp((6,), Task.multiclass(4)), (X, Y)), "must be compiled"),
        (lambda: simplify(model(), (X, Y), steps=0), "steps must be a positive"),
        (lambda: simplify(model(), (X, Y), seconds=-1), "seconds must be a positive"),
        (lambda: simplify(model(), (X.astype(str), Y)), "must be numbers"),
        (lambda: simplify(model(), (X, Y), task=Task.multiclass(4, one_hot=True)), "must have 4 column"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_digits():
    digits = data.load("digits")
    net = recipes.compile_for(recipes.mlp(digits.input_shape, digits.task), digits.task)
    assert simplify(net, digits, seconds=300.0).fault == "none"
