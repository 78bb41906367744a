import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import running, wait_for

from keras_practice.callbacks import resuming
from keras_practice.callbacks.resuming import resumable
from keras_practice.callbacks.stopping import best_weights
from keras_practice.data import Split, Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("float32")
TRAIN = Split(X, Y, Task.binary(), "train")
# Learning the opposite, so that early stopping and plateaus come soon.
VAL = tf.data.Dataset.from_tensor_slices((X[::3], 1 - Y[::3])).batch(len(X))
EPOCHS = 4
FOLDERS = [str(folder) for folder in Path(__file__).parents[:2]]  # For the programs that import this file.


def build(optimizer=None, width=4, **compiling):
    """A model with all kinds of state."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(width, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer or keras.optimizers.Adam(0.02), "binary_crossentropy", **compiling)
    return model


def small(optimizer=None, **compiling):
    """A model that shows the order of its data; eager, since tracing takes longer than so few batches."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.3), keras.layers.Dense(1)])
    compiling = compiling or {"run_eagerly": True}
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse", **compiling)
    return model


class Break(keras.callbacks.Callback):
    """Ends `fit` by an error at a batch of an epoch."""

    def __init__(self, epoch, batch=1):
        super().__init__()
        self.epoch, self.batch = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch >= self.batch:
            raise RuntimeError("broken")


class Diary(keras.callbacks.Callback):
    """A user's callback with memory of every plain kind, and a random number an epoch."""

    def __init__(self, share=1.0):
        super().__init__()
        self.share = share
        self.settings = {"unchanged": True}

    def on_train_begin(self, logs=None):
        self.began = object(), time.monotonic()
        self.seen, self.best, self.flags = [], None, {"odd": (), 3: None}

    def on_epoch_end(self, epoch, logs=None):
        self.share *= 0.9
        self.seen.append((epoch, random.random(), float(np.random.uniform())))
        self.best = np.float32(logs["val_loss"])
        self.flags["odd"] += (np.arange(epoch),)


class Shuffled(keras.utils.PyDataset):
    """An order of its own every epoch, from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(3)
        self.rows = np.arange(40)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        rows = self.rows[10 * i : 10 * i + 10]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.rng.shuffle(self.rows)


class Augmented(Shuffled):
    """Noise from numpy's global generator."""

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + np.random.normal(size=x.shape).astype("float32"), y


def rows():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(40, seed=5)


def forever():
    rng = np.random.default_rng(4)
    while True:
        chosen = rng.choice(40, size=10)
        yield X[chosen], Y[chosen]


def noisy():
    rng = np.random.default_rng(6)

    def generate():
        for i in range(4):
            yield X[i::4] + rng.normal(size=(10, 3)), Y[i::4]

    signature = tf.TensorSpec((10, 3)), tf.TensorSpec((10,))
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


DATA = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 10},
    "split": lambda: {"x": TRAIN.batches(10), "shuffle": False},
    "repeated": lambda: {"x": rows().repeat().batch(7), "steps_per_epoch": 4, "shuffle": False},
    "three in one": lambda: {"x": rows().repeat(3).batch(10), "shuffle": False},
    "cached": lambda: {"x": rows().cache().batch(10), "shuffle": False},
    "unknown length": lambda: {"x": rows().filter(lambda x, y: True).batch(10), "shuffle": False},
    "from a generator": lambda: {"x": noisy(), "shuffle": False},
    "generator": lambda: {"x": forever(), "steps_per_epoch": 4, "shuffle": False},
    "PyDataset in Keras's order": lambda: {"x": Augmented()},
    "PyDataset in its own order": lambda: {"x": Shuffled(), "shuffle": False},
}


def train(path, *extra, data="split", epochs=EPOCHS, patience=4, make=small, replay=True, **fit):
    """What a script does from its first line on."""
    keras.utils.set_random_seed(7)
    model, diary = make(), Diary()
    callbacks = [best_weights(patience=patience), diary, *extra, resumable(path, replay=replay)]
    if isinstance(model.optimizer.learning_rate, keras.Variable):
        callbacks.insert(1, keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5))
    arguments = {"validation_data": VAL, "verbose": 0, **DATA[data](), **fit}
    model.fit(epochs=epochs, callbacks=callbacks, **arguments)
    return model, diary


def state(model, diary=None):
    variables = [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)]
    return variables, model.history.history, model.history.epoch, diary and (
        diary.seen, diary.best, diary.flags, diary.share
    )  # fmt: skip


def assert_same(ours, theirs):
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert set(ours[1]) == set(theirs[1])
    for name, values in theirs[1].items():
        np.testing.assert_allclose(ours[1][name], values, rtol=0, atol=1e-6)
    assert ours[2] == theirs[2]
    np.testing.assert_equal(ours[3], theirs[3])


def break_and_resume(tmp_path, *at, **options):
    """An undisturbed run's end, and that of one which broke at each of some epochs."""
    undisturbed = state(*train(tmp_path / "a.npz", **options))
    for epoch in at:
        with pytest.raises(RuntimeError, match="broken"):
            train(tmp_path / "b.npz", Break(epoch), **options)
    resumed = state(*train(tmp_path / "b.npz", **options))
    return undisturbed, resumed


@pytest.mark.parametrize("data", DATA)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_broken_fit_ends_as_the_undisturbed_one(tmp_path, data):
    undisturbed, resumed = break_and_resume(tmp_path, 2, data=data)
    assert_same(resumed, undisturbed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", ["split", "repeated", "unknown length"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_it_does_so_with_many_steps_a_call(tmp_path, data):
    # Three does not divide the four batches of an epoch.
    assert_same(*break_and_resume(tmp_path, 2, data=data, make=lambda: small(steps_per_execution=3)))


def scheduled():
    return build(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 30)), jit_compile=True)


def averaged():
    return small(keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, gradient_accumulation_steps=3))


@pytest.mark.parametrize(
    "make",
    [build, averaged, pytest.param(scheduled, marks=pytest.mark.slow)],
    ids=["Adam", "EMA", "schedule and XLA"],
)
def test_it_does_so_with_any_optimizer(tmp_path, make):
    assert_same(*break_and_resume(tmp_path, 2, make=make))


def test_early_stopping_comes_at_the_same_epoch(tmp_path):
    undisturbed, resumed = break_and_resume(tmp_path, 2, 5, epochs=20)
    assert_same(resumed, undisturbed)
    assert 6 < len(undisturbed[2]) < 20


def test_the_first_epoch_is_trained_again(tmp_path):
    undisturbed, resumed = break_and_resume(tmp_path, 0, epochs=2)
    assert_same(resumed, undisturbed)


def test_an_explicit_first_epoch(tmp_path):
    undisturbed, resumed = break_and_resume(tmp_path, 2, initial_epoch=1)
    assert_same(resumed, undisturbed)
    assert resumed[2] == [1, 2, 3]


def test_without_replay_the_orders_begin_anew(tmp_path):
    undisturbed, resumed = break_and_resume(tmp_path, 2, replay=False)
    assert resumed[2] == undisturbed[2]
    assert resumed[1]["loss"][:2] == undisturbed[1]["loss"][:2]
    assert resumed[1]["loss"][2:] != pytest.approx(undisturbed[1]["loss"][2:], abs=1e-6)


def break_at(path, epoch=2, **options):
    with pytest.raises(RuntimeError, match="broken"):
        train(path, Break(epoch), **options)
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The content of the file that a fit left when it broke in its third epoch."""
    return break_at(tmp_path_factory.mktemp("broken") / "a.npz").read_bytes()


def test_it_says_where_it_goes_on_and_how_to_train_anew(tmp_path, broken, capsys):
    train(tmp_path / "new.npz")
    assert capsys.readouterr().out == ""
    path = tmp_path / "a.npz"
    path.write_bytes(broken)
    train(path)
    assert capsys.readouterr().out == f"Going on at epoch 3 from {path}; delete that file to train anew.\n"


def test_a_later_fit_of_the_model_begins_at_its_own_first_epoch(tmp_path, broken):
    path = tmp_path / "a.npz"
    path.write_bytes(broken)
    model, _ = train(path)
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


def test_a_later_fit_after_another_error_does_so_too(tmp_path, broken):
    (tmp_path / "a.npz").write_bytes(broken)
    model = small()
    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path / "a.npz", Break(3), make=lambda: model)
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


def test_other_callbacks_have_their_memory_when_the_first_epoch_begins(tmp_path):
    seen = []

    class Counting(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.count = 0

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.count)

        def on_epoch_end(self, epoch, logs=None):
            self.count += 1

    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path / "a.npz", Counting(), Break(2))
    train(tmp_path / "a.npz", Counting())
    assert seen == [0, 1, 2, 2, 3]


def test_where_no_epoch_is_left_the_model_comes_back(tmp_path, broken):
    path = tmp_path / "a.npz"
    path.write_bytes(broken)
    resumed = state(*train(path, epochs=2))
    assert not list(tmp_path.iterdir())
    assert_same(resumed, state(*train(tmp_path / "b.npz", epochs=2)))


def test_settings_are_the_scripts_and_clocks_run_on(tmp_path):
    def run(patience, *extra):
        stopper, diary = keras.callbacks.EarlyStopping(patience=patience, min_delta=0.125), Diary()
        model = small()
        model.fit(X, Y, validation_data=VAL, epochs=4, verbose=0, callbacks=[
            stopper, diary, *extra, resumable(tmp_path / "a.npz")
        ])  # fmt: skip
        return stopper, diary

    with pytest.raises(RuntimeError, match="broken"):
        run(9, Break(2))
    began = time.monotonic()
    stopper, diary = run(7)
    assert (stopper.patience, stopper.min_delta) == (7, -0.125)
    assert diary.began[1] > began


def test_the_file_is_of_an_epochs_end_and_holds_no_pickle(tmp_path):
    path = break_at(tmp_path / "new" / "folder" / "a.npz")
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]
    with np.load(path, allow_pickle=False) as file:
        saved = json.loads(file["state"].tobytes())
        assert all(not file[name].dtype.hasobject for name in file.files)
    assert (saved["epoch"], saved["finished"]) == (2, 2)


def test_two_fits_with_one_path_do_not_take_each_others_state(tmp_path):
    def script(*extra):
        path = tmp_path / "a.npz"
        return state(*train(path)), state(*train(path, *extra, data="arrays"))

    expected = script()
    resuming._finished_fits.clear()  # As in a new process.
    with pytest.raises(RuntimeError, match="broken"):
        script(Break(2))
    assert [file.name for file in tmp_path.iterdir()] == ["a-2.npz"]
    resuming._finished_fits.clear()
    for ours, theirs in zip(script(), expected, strict=True):
        assert_same(ours, theirs)
    assert not list(tmp_path.iterdir())


def test_one_callback_and_its_copy_serve_two_fits(tmp_path):
    callback = resumable(tmp_path / "a.npz")
    model = small()
    for each in (callback, copy.deepcopy(callback)):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[each])
        assert not list(tmp_path.iterdir())


def test_no_epochs_at_all(tmp_path):
    small().fit(X, Y, epochs=0, verbose=0, callbacks=[resumable(tmp_path / "a.npz")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [build, lambda: small("adam")], ids=["other layers", "other optimizer"])
def test_another_models_file_is_refused(tmp_path, broken, make):
    path = tmp_path / "a.npz"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"a\.npz must be of this model"):
        train(path, make=make)
    assert path.read_bytes() == broken


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: b"nonsense", lambda content: content[:-100], flip],
    ids=["empty", "nonsense", "cut off", "one bit"],
)
def test_a_damaged_file_is_refused(tmp_path, broken, damage):
    path = tmp_path / "a.npz"
    path.write_bytes(damage(broken))
    with pytest.raises(ValueError, match=r"a\.npz must be a whole file"):
        train(path)
    assert path.read_bytes() == damage(broken)


@pytest.mark.parametrize("content", [{"x": X}, {"state": np.frombuffer(b'{"format": 0}', np.uint8)}])
def test_a_foreign_archive_is_refused(tmp_path, content):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(ValueError, match=r"a\.npz must be a whole file"):
        train(tmp_path / "a.npz")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be that of a file"):
        resumable(tmp_path)


def test_a_write_that_was_killed_leaves_nothing_in_the_end(tmp_path):
    (tmp_path / ".a.123.part.npz").write_bytes(b"half")
    (tmp_path / ".ab.123.part.npz").write_bytes(b"another's")
    train(tmp_path / "a.npz", epochs=2)
    assert [file.name for file in tmp_path.iterdir()] == [".ab.123.part.npz"]


class Tell(keras.callbacks.Callback):
    """Prints a line at the end of every epoch."""

    def on_epoch_end(self, epoch, logs=None):
        print(epoch, flush=True)


def script(path, result):
    """Trains a model whose file takes some time to write, and writes down how it ended."""
    learning_rate = keras.optimizers.schedules.CosineDecay(0.02, 100)
    model, diary = train(
        path,
        Tell(),
        epochs=100,
        patience=22,
        make=lambda: build(keras.optimizers.Adam(learning_rate), width=100_000),
    )
    variables, history, epochs, memory = state(model, diary)
    rest = {"history": history, "epochs": epochs, "memory": repr(memory)}
    np.savez(result, *variables, rest=np.array(json.dumps(rest)))


def started(path, result):
    program = f"import sys; sys.path[:0] = {FOLDERS!r}; import test_resuming\n"
    program += f"test_resuming.script({str(path)!r}, {str(result)!r})"
    return running("-c", program, stdout=subprocess.PIPE, text=True)


def wait_for_write(folder, process):
    wait_for(lambda: list(folder.glob(f".*.{process.pid}.part.npz")), pause=0.001)


def run_to_end(path, result):
    with started(path, result) as process:
        process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
def test_ten_kills_at_any_moment_change_nothing(tmp_path):
    run_to_end(tmp_path / "a.npz", tmp_path / "undisturbed.npz")
    folder, moments, halves = tmp_path / "killed", random.Random(0), 0
    for kill in range(10):
        with started(folder / "b.npz", tmp_path / "resumed.npz") as process:
            process.stdout.readline()
            if kill % 2:
                wait_for_write(folder, process)
            else:
                time.sleep(moments.uniform(0, 1))
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        halves += len(list(folder.glob(".*")))
    assert halves > 0  # Some of the kills came while the file was being written.
    run_to_end(folder / "b.npz", tmp_path / "resumed.npz")
    with np.load(tmp_path / "undisturbed.npz") as expected, np.load(tmp_path / "resumed.npz") as resumed:
        assert json.loads(str(resumed["rest"])) == json.loads(str(expected["rest"]))
        for name in set(expected.files) - {"rest"}:
            np.testing.assert_allclose(resumed[name], expected[name], rtol=0, atol=1e-6)
    assert not list(folder.iterdir())


DEVICES = """
import sys, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path[:0] = {folders!r}
import pathlib, pytest, test_resuming as tests
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
def make():
    with strategy.scope():
        return tests.build()
tests.assert_same(*tests.break_and_resume(pathlib.Path({folder!r}), 2, make=make))
"""


@pytest.mark.slow
def test_it_does_so_on_two_devices(tmp_path):
    program = DEVICES.format(folders=FOLDERS, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
