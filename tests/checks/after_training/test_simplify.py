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
    ladder = simplify(net, (X, Y), **PATIENT)
    after = state(net)
    assert all(np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert ladder.fault == "none", str(ladder)
    assert ladder.ends_at is None
    assert ladder.begins_at is ladder.rungs[0]
    assert [r.key for r in ladder.rungs] == [
        "two",
        "few",
        "all",
        "model_two",
        "model_few",
        "own_few",
        "own_all",
    ]
    last = ladder.rungs[-1]
    assert last.reached > last.chance + 0.3
    assert "Your model learns" in str(ladder)


@pytest.mark.parametrize("rate", [1e-9, pytest.param(1e4, marks=pytest.mark.slow)])
def test_an_optimizer_that_does_not_get_there_is_named(rate):
    ladder = simplify(model(keras.optimizers.SGD(rate)), (X, Y), **PATIENT)
    assert ladder.fault == "optimizer", str(ladder)
    assert ladder.ends_at.key == "own_few"
    assert "not with SGD" in ladder.conclusion


@pytest.mark.slow
def test_a_model_that_cannot_tell_classes_is_named():
    blind = keras.Sequential(
        [keras.Input((6,)), keras.layers.Rescaling(0.0), keras.layers.Dense(4, "softmax")]
    )
    blind.compile("adam", "sparse_categorical_crossentropy")
    ladder = simplify(blind, (X, Y), **PATIENT)
    assert ladder.fault == "model", str(ladder)
    assert ladder.ends_at.net == "your model"
    assert ladder.ends_at.starts > 1  # Not blamed for one bad start.


def test_weights_that_are_stuck_are_tried_anew():
    ladder = simplify(model(weights=0.0), (X, Y), **PATIENT)
    tried = {rung.key: rung for rung in ladder.rungs}
    assert tried["model_few"].learned, str(ladder)
    assert tried["model_few"].starts > 1


def test_labels_at_random_are_learned_by_heart_and_not_beyond():
    ladder = simplify(model(), (X, RNG.permutation(Y)), **PATIENT)
    assert ladder.fault == "labels", str(ladder)
    assert ladder.ends_at.key == "all"
    assert "no better than chance" in ladder.conclusion


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.where(RNG.random(X.shape) < 0.1, np.nan, X), "NaN or infinite"),
        (np.ones_like(X), "only 1 of 192 inputs"),
    ],
)
def test_inputs_that_cannot_be_learned_from_stop_at_the_first_rung(x, words):
    ladder = simplify(model(), (x.astype("float32"), Y), **PATIENT)
    assert ladder.fault == "data", str(ladder)
    assert len(ladder.rungs) == 1
    assert ladder.ends_at is ladder.rungs[0]
    assert ladder.begins_at is None
    assert words in ladder.conclusion


def test_numbers_have_a_ladder_too():
    targets = (X @ RNG.normal(size=(6, 1))).astype("float32")
    net = recipes.compile_for(
        recipes.mlp((6,), Task.regression(), (32,), dropout=0.0), Task.regression(), learning_rate=1e-2
    )
    ladder = simplify(net, (X, targets), **PATIENT)
    assert ladder.fault == "none", str(ladder)
    assert "r2" in str(ladder)


@pytest.mark.slow
def test_several_labels_have_a_ladder_too():
    several = Task.multilabel(2)
    net = recipes.compile_for(recipes.mlp((6,), several, (32,), dropout=0.0), several, learning_rate=1e-2)
    ladder = simplify(net, Split(X, (X[:, :2] > 0).astype("float32"), several), **PATIENT)
    assert ladder.fault == "none", str(ladder)


def test_time_that_is_over_is_said_and_nothing_is_blamed():
    ladder = simplify(model(keras.optimizers.SGD(1e-9)), (X, Y), seconds=1e-9)
    assert ladder.fault == "unknown"
    assert "out of time" in str(ladder)
    assert "more seconds" in ladder.conclusion


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
