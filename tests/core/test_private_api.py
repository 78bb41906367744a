"""Each private part that the package rests on does what is expected of it, or a test here says so."""

import gc
import inspect
import subprocess
import sys
import weakref

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from keras_practice.core.private_api.keras import (
    batch_spec_of_fit,
    batches_of_fit,
    begin_fit_at,
    decays,
    excludes_weights,
    fit_frame,
    learning_rate_schedule,
    mask_of,
    move_to_front,
    restart_automatic_names,
    siblings,
    traces_batches,
)
from keras_practice.core.private_api.keras_tuner import (
    build_config_path,
    built_model,
    callbacks_of_execution,
    oracle_path,
    trial_path,
    tuner_path,
    waiting_trials,
    weights_path,
)
from keras_practice.core.private_api.ray import files_in, says_nothing_of_workers
from keras_practice.core.private_api.tensorflow import (
    captured,
    graphs_run_by,
    graphs_stay_prepared,
    has_started,
    optimized_graph,
    traced,
)

X, Y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")


def net(optimizer="sgd"):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="d")])
    model.compile(optimizer, "mse")
    return model


class Beside(keras.callbacks.Callback):
    def set_model(self, model):
        super().set_model(model)
        self.found = list(siblings(self))


def test_a_callback_finds_those_beside_it_in_a_real_fit():
    ours, other = Beside(), keras.callbacks.TerminateOnNaN()
    net().fit(X, Y, verbose=0, callbacks=[other, ours])
    assert ours in ours.found
    assert other in ours.found
    assert any(isinstance(callback, keras.callbacks.History) for callback in ours.found)


def test_without_a_list_there_is_nothing_beside():
    callback = Beside()
    callback.set_model(net())
    assert callback.found == []
    move_to_front(callback)


def test_a_callback_comes_first_where_it_asks_for_it():
    class First(Beside):
        def set_model(self, model):
            move_to_front(self)
            super().set_model(model)

    ours = First()
    net().fit(X, Y, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN(), ours])
    assert ours.found[0] is ours


def test_the_running_fit_and_its_batches_are_found_from_within():
    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.frame = fit_frame(self.model, inspect.currentframe()) is not None
            self.other = fit_frame(net(), inspect.currentframe())
            self.spec = batch_spec_of_fit(self.model)
            batches = batches_of_fit(self.model)
            with batches.catch_stop_iteration():
                self.drawn = [next(iterator)[0].shape for *_, iterator in batches]

    model, look = net(), Look()
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[look])
    assert look.frame
    assert look.other is None
    assert look.drawn == [(4, 2), (4, 2)]
    assert [spec.shape.as_list()[1:] for spec in look.spec[:2]] == [[2], [1]]
    assert batches_of_fit(model) is None
    assert batch_spec_of_fit(model) is None


def test_automatic_names_begin_anew():
    keras.metrics.AUC()
    restart_automatic_names()
    assert [keras.metrics.AUC().name for _ in range(2)] == ["auc", "auc_1"]


def test_a_fit_begins_where_it_is_told_to():
    class Late(keras.callbacks.Callback):
        epochs = ()

        def on_train_begin(self, logs=None):
            begin_fit_at(self.model, 2)

        def on_epoch_begin(self, epoch, logs=None):
            begin_fit_at(self.model, None)
            self.epochs = (*self.epochs, epoch)

    model, late = net(), Late()
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[late])
    assert late.epochs == (2, 3)
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


@pytest.mark.parametrize(("profile", "traces"), [(0, False), (2, True), ((1, 3), True)])
def test_whether_tensorboard_profiles_batches_is_known(profile, traces, tmp_path):
    board = keras.callbacks.TensorBoard(tmp_path, update_freq="epoch", profile_batch=profile)
    assert traces_batches(board) is traces


def test_the_schedule_of_an_optimizer_is_found_and_a_number_is_none():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert learning_rate_schedule(keras.optimizers.SGD(decay)) is decay
    assert learning_rate_schedule(keras.optimizers.SGD(0.1)) is None
    assert learning_rate_schedule(object()) is None


def test_what_weight_decay_spares_is_known():
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    model = net(optimizer)
    assert not excludes_weights(optimizer)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert excludes_weights(optimizer)
    optimizer.build(model.trainable_variables)
    assert [decays(optimizer, variable) for variable in model.trainable_variables] == [True, False]


def test_tensorflow_tells_whether_it_has_opened_its_devices():
    tf.ones(()).numpy()
    assert has_started() is True
    code = "from keras_practice.core.private_api.tensorflow import has_started; print(has_started())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == ["False"]


def test_a_seed_alone_is_set_where_graphs_stay_prepared():
    known = tf.random.set_seed
    with graphs_stay_prepared():
        tf.random.set_seed(987_321)
        ours = tf.random.uniform((3,)).numpy()
    assert tf.random.set_seed is known
    tf.random.set_seed(987_321)
    np.testing.assert_array_equal(tf.random.uniform((3,)).numpy(), ours)


def test_a_traced_graph_goes_with_its_function():
    gc.freeze()  # What other tests have left is not looked through.

    @tf.custom_gradient
    def doubled(x):
        return 2.0 * x, lambda upstream: 2.0 * upstream

    function = traced(tf.function(doubled, autograph=False), tf.TensorSpec((None,)))
    assert function(tf.ones(2)).numpy().tolist() == [2.0, 2.0]
    graph = weakref.ref(function.graph)
    del function
    gc.collect()
    assert graph() is None


def test_a_graph_comes_back_optimized():
    count = tf.Variable(0.0)

    def step(x):
        count.assign_add(tf.reduce_sum(x * (tf.ones(3) + tf.zeros(3))))

    function = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((None,)))
    assert 0 < len(optimized_graph(function).node) < len(function.graph.as_graph_def().node)


def test_a_tensor_from_outside_becomes_an_input_of_the_graph():
    outside, found = tf.constant([3.0]), []

    @tf.function(autograph=False)
    def read():
        found.extend(captured([outside]))
        return found[0] + 1.0

    assert read().numpy().tolist() == [4.0]
    assert found[0] is not outside


def test_graphs_that_run_are_seen_with_their_devices():
    function = tf.function(lambda x: tf.linalg.matmul(x, x), autograph=False)
    nodes = [node for graph in graphs_run_by(lambda: function(tf.ones((3, 3)))) for node in graph.node]
    assert any(node.op == "MatMul" and "device:" in node.device for node in nodes)


def tuner(folder):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("loss", "min"), max_trials=2, max_retries_per_trial=1
    )
    return keras_tuner.Tuner(
        oracle, lambda hp: net(hp.Choice("optimizer", ["sgd", "adam"])), directory=folder
    )


def test_kerastuner_finds_its_files_where_we_write_them(tmp_path, capsys):
    search = tuner(tmp_path)
    search.search(X, Y, epochs=1, verbose=0)
    search.save()
    name = next(iter(search.oracle.trials))
    for path in (oracle_path(search.oracle), trial_path(search.oracle, name), tuner_path(search)):
        assert path.is_file()
    for path in (weights_path(search, name), build_config_path(search, name)):
        assert path.is_file()
    assert weights_path(search, name).name.endswith(".weights.h5")


def test_the_last_of_the_waiting_trials_is_run_next(tmp_path):
    oracle = tuner(tmp_path).oracle
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    waiting_trials(oracle)[:] = [first.trial_id, second.trial_id]
    assert oracle.create_trial("c") is second
    assert oracle.create_trial("d") is first
    assert waiting_trials(oracle) == []


def test_an_execution_has_callbacks_of_its_own(tmp_path):
    search, board = tuner(tmp_path), keras.callbacks.TensorBoard(str(tmp_path / "logs"))
    trial = search.oracle.create_trial("a")
    copy, *_ = callbacks_of_execution(search, [board], trial, 0)
    assert copy is not board
    assert copy.log_dir != board.log_dir
    assert board.log_dir == str(tmp_path / "logs")


def test_the_hypermodel_is_built_without_clearing_the_session(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "clear_session", lambda *_, **__: pytest.fail("cleared"))
    assert isinstance(built_model(tuner(tmp_path), keras_tuner.HyperParameters()), keras.Model)


def test_ray_takes_a_folder_and_has_a_place_to_be_silenced():
    ray = pytest.importorskip("ray")
    (argument,) = files_in("/tmp/elsewhere")
    text = inspect.getsource(ray.init)
    assert f'"{argument}"' in text
    worker = ray._private.worker
    printing = worker.print_to_stdstream
    with says_nothing_of_workers():
        assert worker.print_to_stdstream("a line") is None
        assert worker.print_to_stdstream is not printing
    assert worker.print_to_stdstream is printing


def test_a_layer_leaves_its_mask_on_what_it_puts_out():
    tokens = np.array([[3, 0], [1, 2]])
    inputs = keras.Input((2,), dtype="int64")
    model = keras.Model(inputs, keras.layers.Embedding(4, 2, mask_zero=True)(inputs))
    np.testing.assert_array_equal(mask_of(model(tokens)), tokens != 0)
    assert mask_of(keras.layers.Embedding(4, 2)(tokens)) is None
