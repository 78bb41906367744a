"""What every callback promises, whatever it does."""

import copy
import itertools
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from shared import dataset, reused

from keras_practice import callbacks, recipes
from keras_practice.callbacks import (
    LiveReport,
    StopOnExplosion,
    StopOnTarget,
    TimeBudget,
    TrainingMonitor,
    ValidationScores,
    best_weights,
    resumable,
    standard,
)

IRIS = dataset("iris")

# Name: how to make one, given an empty folder. None of them ends so short a training.
CALLBACKS = {
    "ValidationScores": lambda folder: [ValidationScores(IRIS.val, log_dir=folder)],
    "TrainingMonitor": lambda folder: [TrainingMonitor(2, folder, sink=lambda words: None)],
    "StopOnExplosion": lambda folder: [StopOnExplosion()],
    "StopOnTarget": lambda folder: [StopOnTarget("loss", 0.0)],
    "TimeBudget": lambda folder: [TimeBudget(3600.0)],
    "best_weights": lambda folder: [best_weights(patience=99)],
    "resumable": lambda folder: [resumable(folder / "resume.npz")],
    "LiveReport": lambda folder: [LiveReport(folder)],
    "standard": lambda folder: standard(IRIS.val, folder),
}
# Those that look at the validation's result: without it they say so, once a fit.
NEEDS_VALIDATION = {"TimeBudget", "best_weights", "standard"}
# Those that put the best weights back at the end, and so may end with others than the last.
RESTORES = {"TimeBudget", "best_weights", "standard"}

every_callback = pytest.mark.parametrize("name", CALLBACKS)


def build(**options):
    return recipes.compile_for(recipes.mlp(IRIS.input_shape, IRIS.task, units=(4,)), IRIS.task, **options)


# A model that no callback ever stood in, and one for those that do.
unwatched, model = reused(build), reused(build)


def fit(net, watching, epochs=3, **options):
    options = {"validation_data": IRIS.val.batches(16), **options}
    return net.fit(
        IRIS.train.batches(16), epochs=epochs, shuffle=False, verbose=0, callbacks=watching, **options
    )


def learned(net, watching, **options):
    """The history of a fit, and the weights that it ends with."""
    return fit(net, watching, **options), net.get_weights()


def same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_every_public_callback_is_here():
    classes = {
        name
        for name in callbacks.__all__
        if isinstance(getattr(callbacks, name), type)
        and issubclass(getattr(callbacks, name), keras.callbacks.Callback)
    }
    makers = {"best_weights", "resumable", "standard"}
    assert classes | makers == set(CALLBACKS)


def learns_the_same(name, folder, **options):
    _, expected = learned(unwatched(**options), [])
    history, weights = learned(model(**options), CALLBACKS[name](folder))
    assert len(history.epoch) == 3
    if name not in RESTORES:
        assert same(weights, expected)
    assert np.all(np.isfinite(history.history["loss"]))
    return weights, expected


@every_callback
@pytest.mark.parametrize("steps_per_execution", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_watching_does_not_change_what_is_learned(name, steps_per_execution, tmp_path):
    learns_the_same(name, tmp_path, steps_per_execution=steps_per_execution)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_nor_do_all_together_under_xla_and_eagerly(options, tmp_path):
    assert same(*learns_the_same("standard", tmp_path, **options))  # The last epoch of three is the best.


@every_callback
def test_two_fits_are_like_one_callback_each(name, tmp_path):
    watching = CALLBACKS[name](tmp_path / "a")
    for turn in ("first", "second"):
        again, ours = learned(model(), watching)
        expected, theirs = learned(model(), CALLBACKS[name](tmp_path / turn))
        assert same(ours, theirs)
        assert again.history.keys() == expected.history.keys()
        assert again.history["loss"] == expected.history["loss"]


@every_callback
def test_one_model_can_go_on_in_a_second_fit(name, tmp_path):
    plain, watched = unwatched(), model()
    watching = CALLBACKS[name](tmp_path)
    fit(plain, [], epochs=2)
    fit(plain, [], epochs=2)
    fit(watched, watching, epochs=2)
    fit(watched, watching, epochs=2)
    if name not in RESTORES:
        assert same(watched.get_weights(), plain.get_weights())
    assert not {"train_step", "test_step"} & vars(watched).keys()
    assert "apply" not in vars(watched.optimizer)


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


@pytest.mark.parametrize("turn", [0, 1, *(pytest.param(t, marks=pytest.mark.slow) for t in range(2, 7))])
def test_the_standard_set_works_in_any_order(turn, tmp_path):
    watching = standard(IRIS.val, tmp_path)
    order = np.random.default_rng(turn).permutation(len(watching))
    recorder = Recorder()
    _, weights = learned(model(), [recorder, *(watching[i] for i in order)])
    _, expected = learned(model(), standard(IRIS.val, tmp_path / "in order"))
    assert same(weights, expected)
    assert all({"val_loss", "val_f1", "val_auc"} <= logs.keys() for logs in recorder.logs)


@every_callback
def test_without_validation_data(name, tmp_path):
    net = model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(net, CALLBACKS[name](tmp_path), validation_data=None)
    assert len(history.epoch) == 3
    sentences = [str(w.message) for w in caught if "val_loss" in str(w.message)]
    if name in NEEDS_VALIDATION:
        assert len(sentences) == 1
    else:
        assert not sentences


def five_batches():
    """A data set that does not know its length."""
    return tf.data.Dataset.from_generator(
        lambda: itertools.repeat((IRIS.train.x[:16], IRIS.train.y[:16]), 5),
        output_signature=(tf.TensorSpec((16, 4)), tf.TensorSpec((16,), tf.int64)),
    )


@every_callback
@pytest.mark.parametrize("steps_per_execution", [pytest.param(1, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("steps_per_epoch", [None, 9])
def test_a_data_set_that_ends_early(name, steps_per_execution, steps_per_epoch, tmp_path):
    options = {"steps_per_execution": steps_per_execution}
    nets = unwatched(**options), model(**options)
    for net, watching in zip(nets, ([], CALLBACKS[name](tmp_path)), strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ran out of data.*")
            net.fit(
                five_batches(),
                epochs=2,
                shuffle=False,
                verbose=0,
                steps_per_epoch=steps_per_epoch,
                validation_data=IRIS.val.batches(16),
                callbacks=watching,
            )
    if name not in RESTORES:
        assert same(*(net.get_weights() for net in nets))


@every_callback
def test_no_epoch_at_all(name, tmp_path):
    net = model()
    before = net.get_weights()
    watching = CALLBACKS[name](tmp_path)
    fit(net, watching, epochs=0)
    for ours, theirs in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    fit(net, watching, epochs=1)


@every_callback
def test_a_fit_that_broke_leaves_the_callback_usable(name, tmp_path):
    class Broken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("broken")

    watching = CALLBACKS[name](tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        fit(model(), [*watching, Broken()])
    _, weights = learned(model(), watching)
    _, expected = learned(model(), CALLBACKS[name](tmp_path / "other"))
    assert same(weights, expected)


@every_callback
def test_it_can_be_copied_as_tuners_do(name, tmp_path):
    watching = CALLBACKS[name](tmp_path)
    copied = copy.deepcopy(watching)
    assert len(fit(model(), copied).epoch) == 3
    fit(model(), watching)


def test_the_metric_is_saved_with_its_model(tmp_path):
    net = model(metrics=[callbacks.F1Score(IRIS.task)])
    fit(net, [], epochs=1)
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    ours, theirs = (m.evaluate(IRIS.val.x, IRIS.val.y, verbose=0, return_dict=True) for m in (net, again))
    assert ours == pytest.approx(theirs)


ON_TWO_DEVICES = """
import sys, warnings
from pathlib import Path
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_practice import callbacks, data, recipes
from keras_practice.callbacks import *

iris = data.load("iris")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2

def fit(watching):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        net = recipes.compile_for(recipes.mlp(iris.input_shape, iris.task, units=(4,)), iris.task)
    history = net.fit(
        iris.train.batches(16), validation_data=iris.val.batches(16), epochs=3, shuffle=False, verbose=0,
        callbacks=watching,
    )
    return net, history

folder = Path(sys.argv[1])
monitor = TrainingMonitor(2, sink=lambda words: None)
plain, _ = fit([])
watching = [
    ValidationScores(iris.val), monitor, StopOnExplosion(), StopOnTarget("loss", 0.0),
    resumable(folder / "resume.npz"), LiveReport(folder), keras.callbacks.TensorBoard(str(folder)),
]
watched, history = fit(watching)
for ours, theirs in zip(watched.get_weights(), plain.get_weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
predictions = watched.predict(iris.val.x, verbose=0)
expected = callbacks.scores(iris.val.y, predictions, iris.task)["f1"]
assert abs(history.history["val_f1"][-1] - expected) < 1e-6
figures = monitor.history
assert len(figures["step"]) == 9, figures["step"]
assert np.all(figures["gradient_norm"] > 0) and np.all(figures["update_ratio"] > 0)

net, history = fit([best_weights(), TimeBudget(3600.0)])
assert len(history.epoch) == 3
guard = StopOnExplosion(every=1, sink=print)
x = iris.train.x.copy()
x[40] = np.nan
net.fit(x, iris.train.y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[guard])
assert (guard.step, guard.first_layer) == (3, "the input"), (guard.step, guard.first_layer)
assert all(np.all(np.isfinite(w)) for w in net.get_weights())
print("all is well")
"""


@pytest.mark.slow
def test_on_two_devices(tmp_path):
    # A process can set up its devices only once.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_TWO_DEVICES), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all is well" in done.stdout
