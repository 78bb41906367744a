import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_practice import data, recipes
from keras_practice.callbacks import TrainingMonitor
from keras_practice.callbacks.probe import Probe
from keras_practice.data import Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 1)) + 0.1 * RNG.normal(size=(96, 1))).astype("float32")


# For figures that have nothing to do with graphs: tracing takes longer than so few steps.
EAGER = {"run_eagerly": True}


def net(activation="relu", optimizer=None, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = keras.layers.Dense(7, activation=activation, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    model.compile(optimizer or keras.optimizers.SGD(0.05), "mse", **options)
    return model


def batched(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)


BATCHES = batched(X, Y)


def fit(model, *callbacks, batches=BATCHES, epochs=2):
    return model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def watched(model, every=1, **options):
    notes = []
    monitor = TrainingMonitor(every, sink=notes.append)
    fit(model, monitor, **options)
    return monitor


def by_hand(weights, steps, rate=0.05, batch=32):
    """Gradient descent on the mean squared error of a ReLU net, in float64."""
    w1, b1, w2, b2 = (w.astype(np.float64) for w in weights)
    for step in range(steps):
        part = slice(step * batch % len(X), step * batch % len(X) + batch)
        x, y = X[part].astype(np.float64), Y[part].astype(np.float64)
        hidden = np.maximum(x @ w1 + b1, 0)
        error = 2 * (hidden @ w2 + b2 - y) / len(x)
        back = (error @ w2.T) * (hidden > 0)
        gradients = [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
        yield gradients, [w1, b1, w2, b2], hidden
        w1, b1, w2, b2 = (w - rate * g for w, g in zip([w1, b1, w2, b2], gradients, strict=True))


def norm(*arrays):
    return np.sqrt(sum((a**2).sum() for a in arrays))


@pytest.mark.parametrize(
    "options", [{}, {"steps_per_execution": 2}, {"jit_compile": True}, {"run_eagerly": True}]
)
def test_figures_equal_a_float64_loop(options):
    model = net(**options)
    start = model.get_weights()
    history = watched(model).history
    expected = {name: [] for name in history if name.partition("/")[0] not in ("seconds_per_step",)}
    for gradients, weights, hidden in by_hand(start, 6):
        both = {"hidden": (0, 1), "head": (2, 3)}
        expected["gradient_norm"].append(norm(*gradients))
        expected["norm_to_clip"].append(max(map(norm, gradients)))
        expected["update_ratio"].append(
            0.05 * norm(gradients[0], gradients[2]) / norm(weights[0], weights[2])
        )
        for layer, arrays in both.items():
            expected[f"gradient_norm/{layer}"].append(norm(*(gradients[i] for i in arrays)))
            expected[f"weight_norm/{layer}"].append(norm(*(weights[i] for i in arrays)))
            matrix = arrays[0]
            expected[f"update_ratio/{layer}"].append(0.05 * norm(gradients[matrix]) / norm(weights[matrix]))
        expected["dead/hidden"].append(np.mean((hidden <= 0).all(axis=0)))
        expected["step"].append(len(expected["step"]))
        expected["learning_rate"].append(0.05)
    compared = [name for name, values in expected.items() if values]
    assert len(compared) == 12
    for name in compared:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-4, atol=1e-9, err_msg=name)


def test_histograms_equal_numpys():
    model = net()
    start = model.get_weights()
    monitor = watched(model, epochs=1)
    gradients, weights, hidden = next(by_hand(start, 1))
    arrays = {
        "weights/hidden/kernel": weights[0],
        "gradients/hidden/kernel": gradients[0],
        "gradients/head/bias": gradients[3],
        "activations/hidden": hidden,
    }
    assert arrays.keys() < monitor.histograms.keys()
    for name, values in arrays.items():
        row = monitor.histograms[name][0]
        np.testing.assert_allclose(row[:2], [values.min(), values.max()], rtol=1e-4, err_msg=name)
        if values.size > 1:
            counts, _ = np.histogram(values, 30)
            # A value on an edge may fall to either side in float32.
            assert np.abs(row[2:] - counts).sum() <= 2, name
        assert row[2:].sum() == values.size


def test_a_histogram_of_many_values_takes_some_of_them_evenly():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = keras.layers.Dense(20_000, name="wide")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse", **EAGER)
    row = watched(model, epochs=1).histograms["weights/wide/kernel"][0]
    assert 4_096 <= row[2:].sum() < 2 * 4_096
    spread = row[2:] / row[2:].sum()
    assert np.all(np.abs(spread - 1 / 30) < 0.01)  # Uniform initial weights.


def test_the_weights_are_those_of_training_without_it():
    plain, seen = net(), net()
    fit(plain)
    watched(seen, every=2)
    for ours, theirs in zip(seen.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("every", "options", "expected"),
    [
        (1, EAGER, [0, 1, 2, 3, 4, 5]),
        (2, {"steps_per_execution": 4}, [0, 2, 4]),
        (4, EAGER, [0, 4]),
        (50, {"steps_per_execution": 3}, [0]),
    ],
)
def test_it_samples_every_so_many_steps(every, options, expected):
    monitor = watched(net(**options), every)
    assert monitor.history["step"].tolist() == expected


@pytest.mark.parametrize(
    ("every", "steps_per_execution", "expected"),
    # Steps 0, 4, 5, 9 and 10: those that are sampled, and those before, whose end is where a sample begins.
    [(5, 1, [s in (0, 4, 5, 9, 10) for s in range(12)]), (5, 2, [True, False, True, True, False, True])],
)
def test_calls_without_a_sample_run_without_the_probe(monkeypatch, every, steps_per_execution, expected):
    due, asked = Probe.due, []
    monkeypatch.setattr(Probe, "due", lambda probe: asked.append(due(probe)) or asked[-1])
    monitor = watched(net(steps_per_execution=steps_per_execution), every, epochs=4)
    assert monitor.history["step"].tolist() == [0, 5, 10]
    assert asked[: len(expected)] == expected[: len(asked)]


def test_a_data_set_that_ends_early_loses_no_sample():
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).take(2)
    monitor = TrainingMonitor(1)
    model = net(steps_per_execution=4)
    model.fit(batches, epochs=3, shuffle=False, verbose=0, callbacks=[monitor])
    assert monitor.history["step"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_second_fit_begins_anew_and_traces_nothing_again(monkeypatch):
    model, monitor = net(), TrainingMonitor(1)
    traced = []
    step = type(model).train_step
    monkeypatch.setattr(type(model), "train_step", lambda self, data: traced.append(1) or step(self, data))
    fit(model, monitor)
    first = len(traced)
    fit(model, monitor)
    assert len(traced) == first > 0
    assert monitor.history["step"].tolist() == [6, 7, 8, 9, 10, 11]


def test_it_leaves_the_model_as_it_was():
    model = net()
    function = model.make_train_function() or model.train_function
    watched(model)
    assert model.train_function is function
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)
    assert all("call" not in vars(layer) for layer in model.layers)


def test_a_model_compiled_anew_is_watched_with_its_new_optimizer():
    model, monitor = net(), TrainingMonitor(1)
    fit(model, monitor)
    model.compile(keras.optimizers.SGD(0.001), "mse")
    fit(model, monitor)
    assert monitor.history["learning_rate"] == pytest.approx(0.001)


def test_saturated_outputs_lie_at_an_end_of_the_range():
    model = net("tanh", **EAGER)
    model.layers[1].set_weights([np.full((5, 7), 1.5), np.zeros(7)])
    outputs = np.tanh(X[:32] @ np.full((5, 7), 1.5))
    assert watched(model).history["saturated/hidden"][0] == pytest.approx(np.mean(np.abs(outputs) >= 0.95))


def test_the_last_layer_may_saturate():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="yes")(inputs))
    model.compile("sgd", "binary_crossentropy", **EAGER)
    assert not [
        name
        for name in watched(model, batches=batched(X, (Y > 0).astype("float32"))).history
        if "saturated" in name
    ]


def test_of_few_samples_any_unit_may_be_silent():
    monitor = TrainingMonitor(1)
    net(**EAGER).fit(X[:8], Y[:8], batch_size=4, verbose=0, callbacks=[monitor])
    assert np.all(np.isnan(monitor.history["dead/hidden"]))


@pytest.mark.parametrize(
    ("clipping", "limit"),
    [({"clipnorm": 0.5}, "array"), ({"global_clipnorm": 1.0}, "all"), ({"clipvalue": 0.2}, "value")],
)
def test_the_share_of_clipped_steps(clipping, limit):
    monitor = watched(net(optimizer=keras.optimizers.SGD(0.05, **clipping), **EAGER))
    model = net()
    gradients, _, _ = next(by_hand(model.get_weights(), 1))
    measure = {
        "array": max(map(norm, gradients)),
        "all": norm(*gradients),
        "value": max(np.abs(g).max() for g in gradients),
    }[limit]
    (threshold,) = clipping.values()
    assert monitor.history["clipped"][0] == float(measure > threshold)
    assert monitor.clipped_share == monitor.history["clipped"].mean()
    expected = measure if limit != "value" else norm(*gradients)
    assert monitor.history["norm_to_clip"][0] == pytest.approx(expected, rel=1e-4)
    assert monitor.suggested_clipnorm == pytest.approx(np.percentile(monitor.history["norm_to_clip"], 90))


def test_without_clipping_there_is_a_suggestion_all_the_same():
    monitor = watched(net(**EAGER))
    assert np.isnan(monitor.clipped_share)
    assert monitor.suggested_clipnorm > 0


def test_a_schedule_shows_in_the_learning_rate():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    monitor = watched(net(optimizer=keras.optimizers.SGD(schedule), **EAGER))
    assert monitor.history["learning_rate"] == pytest.approx(0.1 * 0.5 ** np.arange(6))


def test_accumulated_gradients_are_sampled_where_the_weights_change():
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=3)
    monitor = watched(net(optimizer=optimizer), every=1)
    assert len(monitor.history["update_ratio"]) == 2
    assert np.all(monitor.history["update_ratio"] > 0)


def test_mixed_precision_shows_true_gradients():
    model = net()
    start = model.get_weights()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = net(optimizer=keras.optimizers.SGD(0.05))
        assert hasattr(mixed.optimizer, "inner_optimizer")
        monitor = watched(mixed)
    finally:
        keras.config.set_dtype_policy(policy)
    gradients, _, _ = next(by_hand(start, 1))
    assert monitor.history["gradient_norm"][0] == pytest.approx(norm(*gradients), rel=2e-2)


def test_an_embeddings_gradient_is_that_of_the_whole_table():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(6, 4, name="table")(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    tokens, targets = RNG.integers(0, 6, (32, 3)), Y[:32]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(tokens) - targets) ** 2)
    table = model.get_layer("table").embeddings
    expected = np.linalg.norm(tf.convert_to_tensor(tape.gradient(loss, table.value)))
    history = watched(model, batches=batched(tokens, targets), epochs=1).history
    assert history["gradient_norm/table"][0] == pytest.approx(expected, rel=1e-4)
    assert history["update_ratio/table"][0] == pytest.approx(
        0.1 * expected / history["weight_norm/table"][0], rel=1e-3
    )


def test_a_recurrent_layer_is_seen_by_what_it_returns():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 5))
    x = keras.layers.SimpleRNN(3, name="memory")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse", **EAGER)
    history = watched(model, batches=batched(RNG.normal(size=(96, 4, 5)).astype("float32"), Y)).history
    assert np.all((history["saturated/memory"] >= 0) & (history["saturated/memory"] < 1))
    assert np.all(history["gradient_norm/memory"] > 0)


def test_a_frozen_layer_is_left_out_and_a_nested_one_is_not():
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="relu", name="inside")])
    inputs = keras.Input((5,))
    x = keras.layers.Dense(5, name="frozen", trainable=False)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(inner(x)))
    model.compile("sgd", "mse", **EAGER)
    history = watched(model).history
    assert "gradient_norm/inside" in history
    assert "dead/inside" in history
    assert "gradient_norm/frozen" not in history


def test_examples_and_waiting_are_counted():
    def slowly(x, y):
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(0.04), [], [])]):
            return tf.identity(x), y

    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).map(slowly)
    monitor = TrainingMonitor(1, sink=lambda words: None)
    net().fit(batches, epochs=4, shuffle=False, verbose=0, callbacks=[monitor])
    figures = monitor.history
    examples = figures["examples_per_second"] * figures["seconds_per_step"]
    np.testing.assert_allclose(examples[1:], 32, rtol=1e-6)
    assert np.isnan(figures["seconds_per_step"][0])  # The first step is traced, not only run.
    assert np.nanmedian(figures["input_wait"]) > 0.5
    assert np.nanmax(figures["input_wait"]) <= 1.0


def test_time_between_epochs_is_not_that_of_steps():
    slow = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(0.3))
    monitor = TrainingMonitor(4, sink=lambda words: None)
    net().fit(X, Y, batch_size=len(X) // 2, epochs=8, verbose=0, callbacks=[slow, monitor])
    assert len(monitor.history["seconds_per_step"]) == 4
    assert np.nanmax(monitor.history["seconds_per_step"]) < 0.1


def test_keras_may_take_the_logs_in_another_thread():
    # A hook for batches would have it wait for the logs of every call.
    for hook in ("on_batch_end", "on_train_batch_end"):
        assert getattr(TrainingMonitor, hook) is getattr(keras.callbacks.Callback, hook)


def test_under_xla_the_wait_is_unknown_and_said_to_be():
    monitor = watched(net(jit_compile=True))
    assert np.all(np.isnan(monitor.history["input_wait"]))
    assert np.any(monitor.history["seconds_per_step"] > 0)


def test_it_warns_once_and_in_words():
    model = net(**EAGER)
    model.layers[1].set_weights([np.zeros((5, 7)), np.full(7, -1.0)])
    words = []
    monitor = TrainingMonitor(1, sink=words.append)
    fit(model, monitor, epochs=4)
    assert [w for w in words if "'hidden' are dead" in w] == [monitor.notes[0]]
    assert words == monitor.notes


def test_healthy_training_is_not_disturbed():
    digits = data.load("digits")
    keras.utils.set_random_seed(0)
    model = recipes.compile_for(recipes.mlp(digits.input_shape, digits.task), digits.task)
    words = []
    model.fit(
        digits.train.batches(64),
        epochs=6,
        shuffle=False,
        verbose=0,
        callbacks=[TrainingMonitor(5, sink=words.append)],
    )
    assert words == []


def test_tensorboard_gets_histograms_scalars_and_filters(tmp_path):
    keras.utils.set_random_seed(0)
    task = Task.multiclass(3)
    model = recipes.compile_for(recipes.convnet((8, 8, 1), task, filters=(4,)), task)
    monitor = TrainingMonitor(2, tmp_path, sink=lambda words: None)
    images = RNG.random((64, 8, 8, 1), np.float32)
    model.fit(images, RNG.integers(0, 3, 64), batch_size=16, epochs=2, verbose=0, callbacks=[monitor])
    events = EventAccumulator(str(tmp_path / "monitor"), {"tensors": 0}).Reload()
    tags = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    kernel = next(name for name in monitor.histograms if name.startswith("gradients/") and "conv" in name)
    assert [event.step for event in tags[kernel]] == monitor.history["step"].tolist()
    buckets = tf.make_ndarray(tags[kernel][0].tensor_proto)
    np.testing.assert_allclose(buckets[:, 2], monitor.histograms[kernel][0][2:])
    assert buckets[0, 0] == pytest.approx(monitor.histograms[kernel][0][0])
    assert any(name.startswith("activations/") for name in tags)
    written = [float(tf.make_ndarray(event.tensor_proto)) for event in tags["gradient_norm"]]
    assert written == pytest.approx(monitor.history["gradient_norm"])
    width, height, png = tf.make_ndarray(tags["first_filters"][0].tensor_proto)[:3]
    picture = tf.io.decode_png(png)
    assert (int(width), int(height)) == (picture.shape[1], picture.shape[0])


def test_the_picture_shows_what_there_is():
    monitor = watched(net(**EAGER))
    titles = [panel.title for panel in monitor.panels()]
    assert titles == ["Gradient norm", "Update over weight", "Dead units", "Learning rate", "Speed"]
    monitor.plot().canvas.draw()


def test_before_a_fit_there_is_nothing_to_see():
    monitor = TrainingMonitor()
    assert monitor.history == {}
    assert monitor.panels() == []
    monitor.plot().canvas.draw()


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_wrong_arguments_are_refused(every):
    with pytest.raises(ValueError, match="every must be a positive integer"):
        TrainingMonitor(every)
