"""What every callback promises, whatever it does."""

import copy
import functools
import itertools
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from shared import blank_pictures, dataset, reused

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


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with blank_pictures():
        yield


every_callback = pytest.mark.parametrize("name", CALLBACKS)


def build(**options):
    return recipes.compile_for(recipes.mlp(IRIS.input_shape, IRIS.task, units=(4,)), IRIS.task, **options)


# A model that no callback ever stood in, and one for those that do.
unwatched, model = reused(build), reused(build)


def fit(net, watching, epochs=3, **options):
    options = {"x": IRIS.train.batches(16), "validation_data": IRIS.val.batches(16), **options}
    return net.fit(epochs=epochs, shuffle=False, verbose=0, callbacks=watching, **options)


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


class Broken(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("broken")


class Life:
    """What one callback did in fit after fit, each of which is to be as if it were the callback's first.

    One callback serves all fits of the same model, and so traces what it needs once.
    """

    def __init__(self, name, folder):
        make = CALLBACKS[name]
        self.expected = learned(step_by_step(), make(folder / "fresh"), epochs=2)
        watching = make(folder / "a")
        copied = copy.deepcopy(watching)
        net = step_by_step()
        self.untrained = net.get_weights()
        fit(net, watching, epochs=0)
        self.after_no_epoch = net.get_weights()
        with pytest.raises(RuntimeError, match="broken"):
            fit(step_by_step(), [*watching, Broken()])
        self.after_a_break = learned(step_by_step(), watching, epochs=2)
        net = step_by_step()
        self.again = learned(net, watching, epochs=2)
        self.going_on = learned(net, watching, epochs=1)
        self.left = set(vars(net)), set(vars(net.optimizer))
        net = step_by_step()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.unvalidated = fit(net, watching, epochs=2, validation_data=None)
        self.sentences = [str(w.message) for w in caught if "val_loss" in str(w.message)]
        self.of_a_copy = learned(step_by_step(), copied, epochs=2)


@pytest.fixture(scope="module")
def life(request, tmp_path_factory):
    return Life(request.param, tmp_path_factory.mktemp("life"))


every_life = pytest.mark.parametrize("life", CALLBACKS, indirect=True, scope="module")


def step_by_step():
    return model(steps_per_execution=1)


@functools.cache
def plainly(*epochs):
    """The weights after fits of so many epochs that nobody watches."""
    net = unwatched(steps_per_execution=1)
    for count in epochs:
        fit(net, [], epochs=count)
    return net.get_weights()


def assert_like(some, others):
    for (history, weights), (expected, theirs) in zip(some, others, strict=True):
        assert same(weights, theirs)
        assert history.history.keys() == expected.history.keys()
        assert history.history["loss"] == expected.history["loss"]


@every_life
def test_watching_does_not_change_what_is_learned(life):
    history, weights = life.expected
    assert len(history.epoch) == 2
    assert np.all(np.isfinite(history.history["loss"]))
    assert same(weights, plainly(2))  # Of those that restore too, since the last epoch is the best.


@every_life
def test_two_fits_are_like_one_callback_each(life):
    assert_like([life.again], [life.expected])


@every_life
def test_one_model_can_go_on_in_a_second_fit(life, request):
    if request.node.callspec.params["life"] not in RESTORES:
        assert same(life.going_on[1], plainly(2, 1))
    of_model, of_optimizer = life.left
    assert not {"train_step", "test_step"} & of_model
    assert "apply" not in of_optimizer


@every_life
def test_without_validation_data(life, request):
    assert len(life.unvalidated.epoch) == 2
    assert len(life.sentences) == (request.node.callspec.params["life"] in NEEDS_VALIDATION)


@every_life
def test_no_epoch_at_all(life):
    assert same(life.after_no_epoch, life.untrained)


@every_life
def test_a_fit_that_broke_leaves_the_callback_usable(life):
    assert_like([life.after_a_break], [life.expected])


@every_life
def test_it_can_be_copied_as_tuners_do(life):
    assert_like([life.of_a_copy], [life.expected])


def five_batches(size):
    """A data set that does not know its length."""
    return tf.data.Dataset.from_generator(
        lambda: itertools.repeat((IRIS.train.x[:size], IRIS.train.y[:size]), 5),
        # As those of a split, so that nothing is traced anew.
        output_signature=(tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64)),
    )


@every_callback
def test_nor_do_calls_of_many_steps_and_data_that_end_early(name, tmp_path):
    watching = CALLBACKS[name](tmp_path)
    for x, steps in ((IRIS.train.batches, None), (five_batches, None), (five_batches, 9)):
        nets = unwatched(steps_per_execution=4), model(steps_per_execution=4)
        for net, seen_by in zip(nets, ([], watching), strict=True):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*ran out of data.*")
                fit(net, seen_by, epochs=2, x=x(16), steps_per_epoch=steps)
        if name not in RESTORES:
            assert same(*(net.get_weights() for net in nets))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_nor_do_all_together_under_xla_and_eagerly(options, tmp_path):
    _, expected = learned(unwatched(**options), [])
    _, weights = learned(model(**options), standard(IRIS.val, tmp_path))
    assert same(weights, expected)  # The last epoch of three is the best.


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


@pytest.mark.parametrize("turn", [0, *(pytest.param(t, marks=pytest.mark.slow) for t in range(1, 4))])
@pytest.mark.parametrize("life", ["standard"], indirect=True, scope="module")
def test_the_standard_set_works_in_any_order(turn, life, tmp_path):
    watching = standard(IRIS.val, tmp_path)
    order = np.random.default_rng(turn).permutation(len(watching))
    recorder = Recorder()
    _, weights = learned(step_by_step(), [recorder, *(watching[i] for i in order)], epochs=2)
    assert same(weights, life.expected[1])
    assert all({"val_loss", "val_f1", "val_auc"} <= logs.keys() for logs in recorder.logs)


def test_the_metric_is_saved_with_its_model(tmp_path):
    net = build(metrics=[callbacks.F1Score(IRIS.task)], steps_per_execution=1)
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
