import copy
import gc
import os
import signal
import threading
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from shared import reused

from keras_practice.callbacks import F1Score, best_weights, direction
from keras_practice.callbacks.stopping import StopOnTarget, TimeBudget


def drive(callback, values):
    """Calls a callback's hooks with one score an epoch; the model's weight holds the epoch's number."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(loss="mse")
    model.stop_training = False
    callback.set_model(model)
    callback.on_train_begin()
    epochs = 0
    for epoch, value in enumerate(values):
        epochs += 1
        model.set_weights([np.full((1, 1), float(epoch))])
        callback.on_epoch_end(epoch, {callback.monitor: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return epochs, int(model.get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("monitor", "values", "epochs", "best"),
    [
        ("val_loss", [3, 1, 2, 2, 2, 2], 4, 1),
        ("val_f1", [0.1, 0.5, 0.4, 0.4, 0.9], 4, 1),
        ("val_auc", [0.1, 0.2, 0.3, 0.4], 4, 3),
        ("val_loss", [3, 1, 0.99995, 0.9999, 0.99992], 4, 1),
    ],
)
def test_the_best_epochs_weights_come_back(monitor, values, epochs, best):
    assert drive(best_weights(monitor, patience=2), values) == (epochs, best)


def test_one_callback_serves_two_fits():
    callback = best_weights(patience=2)
    assert drive(callback, [1, 2, 2, 2]) == (3, 0)
    assert drive(callback, [9, 8, 7, 6]) == (4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be a positive integer"),
        ({"patience": 1.5}, "patience must be a positive integer"),
        ({"min_delta": -1}, "min_delta must be zero or"),
        ({"mode": "up"}, "mode must be"),
        ({"monitor": "val_happiness"}, "better high or low"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        best_weights(**options)


def test_an_unknown_score_may_be_stated():
    assert best_weights("val_happiness", mode="max").mode == "max"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("output_1_loss", "min"),
        ("val_f1", "max"),
        ("val_f1_score", "max"),
        ("val_fbeta_score", "max"),
        ("val_auc", "max"),
        ("val_auc_3", "max"),
        ("val_precision", "max"),
        ("val_recall", "max"),
        ("val_sparse_categorical_accuracy", "max"),
        ("val_top_k_categorical_accuracy", "max"),
        ("val_mean_io_u", "max"),
        ("val_r2", "max"),
        ("val_r2_score", "max"),
        ("val_cosine_similarity", "max"),
        ("val_species_accuracy", "max"),
        ("val_mae", "min"),
        ("val_rmse", "min"),
        ("val_root_mean_squared_error", "min"),
        ("val_kl_divergence", "min"),
        ("val_false_positives", "min"),
        ("val_categorical_crossentropy", "min"),
    ],
)
def test_directions(score, expected):
    assert direction(score) == expected


@pytest.mark.parametrize("score", ["", "val_", "val_score", "happiness", "lossless", "val_accuracy_gap"])
def test_an_unknown_direction_is_an_error_and_not_a_guess(score):
    with pytest.raises(ValueError, match="better high or low"):
        direction(score)


def public_metrics():
    found = []
    for name in dir(keras.metrics):
        item = getattr(keras.metrics, name)
        if not (isinstance(item, type) and issubclass(item, keras.metrics.Metric)):
            continue
        for arguments in (
            {},
            {"num_classes": 3},
            {"num_classes": 3, "target_class_ids": [0]},
            {"recall": 0.5},
            {"precision": 0.5},
            {"specificity": 0.5},
            {"sensitivity": 0.5},
            {"target_class_ids": [0]},
        ):
            try:
                found.append(item(**arguments))
                break
            except (TypeError, ValueError):
                continue
    return [m for m in found if hasattr(m, "_direction")]


def test_every_keras_metric_is_known_and_agrees_with_keras():
    metrics = public_metrics()
    assert len(metrics) > 25
    for metric in metrics:
        assert direction(metric.name) == {"up": "max", "down": "min"}[metric._direction], metric.name


def test_a_name_of_ones_own_is_looked_up_in_the_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=[F1Score(name="quality"), keras.metrics.MeanSquaredError(name="gap")])
    assert direction("val_quality", model) == "max"
    assert direction("val_gap", model) == "min"
    assert direction("val_loss", model) == "min"
    with pytest.raises(ValueError, match="better high or low"):
        direction("val_quality")


class Script(keras.callbacks.Callback):
    """Writes scores into the logs, remembers every epoch's weights, and acts in the middle of an epoch."""

    def __init__(self, scores, act=lambda: None, epoch=3, hook="on_train_batch_end"):
        super().__init__()
        self.scores, self.act, self.epoch, self.weights = scores, act, epoch, []
        setattr(self, hook, self.now_and_then)

    def now_and_then(self, batch, logs=None):
        if len(self.weights) == self.epoch and batch >= 1:
            self.act()

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())
        logs["val_loss"] = self.scores[epoch]
        logs["val_auc"] = self.scores[epoch]


@reused
def regression(name="outer", **compiling):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", **compiling)
    return model


X = np.arange(6.0)[:, None]
# Put into batches once, which in each fit would take longer than these few steps.
TRAIN, VAL = (tf.data.Dataset.from_tensor_slices((X, y)).batch(2) for y in (X + 1, X))


def fit(model, callbacks, epochs=6, **options):
    options = {"validation_data": VAL, **options}
    return model.fit(TRAIN, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **options)


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def handler():
    """Python's own handler of SIGINT, which must be there again after the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


CALLBACKS = {"best_weights": lambda: best_weights(), "TimeBudget": lambda: TimeBudget(600)}


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_test_batch_end"])
def test_ctrl_c_gives_the_best_weights_back(handler, make, hook):
    model, callback = regression(), make()
    for _ in range(2):
        script = Script([3, 1, 2], interrupt, hook=hook)
        with pytest.raises(KeyboardInterrupt):
            fit(model, [script, callback], epochs=9)
        np.testing.assert_equal(model.get_weights(), script.weights[1])
        assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_from_outside_the_process(handler):
    model = regression()
    script = Script([3, 1, 2], lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)))
    with pytest.raises(KeyboardInterrupt):
        fit(model, [script, best_weights()])
    np.testing.assert_equal(model.get_weights(), script.weights[1])


def test_ctrl_c_in_the_first_epoch_leaves_the_weights(handler):
    model = regression()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [Script([], interrupt, epoch=0), best_weights()])
    assert np.all(np.isfinite(model.get_weights()[0]))


@keras.saving.register_keras_serializable(package="test_stopping")
class InterruptedTracing(keras.layers.Layer):
    armed = False

    def call(self, x):
        if self.armed:
            interrupt()
        return x


def test_ctrl_c_while_a_graph_is_traced(handler):
    layer = InterruptedTracing()
    model = keras.Sequential([keras.Input((1,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    def trace_anew():
        layer.armed = True
        model.make_test_function(force=True)

    script = Script([3, 1, 2], trace_anew, epoch=3)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [script, best_weights()])
    np.testing.assert_equal(model.get_weights(), script.weights[1])


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_several_of_them_hand_over_in_any_order(handler, order):
    model = regression()
    callbacks = [best_weights(), best_weights("val_auc"), TimeBudget(600)]
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    for i in order:
        callbacks[i].on_train_end()
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_last_of_several_has_the_last_word(handler):
    model, script = regression(), Script([3, 1, 2], interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [script, best_weights(), best_weights("val_auc")])
    np.testing.assert_equal(model.get_weights(), script.weights[0])


def test_a_fit_inside_a_fit(handler):
    outer, inner = regression(), regression("inner")
    inner_script = Script([3, 1, 2], interrupt)
    script = Script([3, 1, 2], lambda: fit(inner, [inner_script, best_weights()]))
    with pytest.raises(KeyboardInterrupt):
        fit(outer, [script, best_weights()])
    np.testing.assert_equal(inner.get_weights(), inner_script.weights[1])
    np.testing.assert_equal(outer.get_weights(), script.weights[1])


def crash():
    raise ValueError("crashed")


def test_after_a_crash_ctrl_c_outside_of_fit_restores_nothing(handler):
    model, callback = regression(), best_weights()
    script = Script([3, 1, 2], crash)
    with pytest.raises(ValueError, match="crashed"):
        fit(model, [script, callback])
    weights = model.get_weights()
    assert np.any(weights[0] != script.weights[1][0])
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    np.testing.assert_equal(model.get_weights(), weights)
    assert signal.getsignal(signal.SIGINT) is handler


def test_after_a_crash_another_fit_still_listens(handler):
    model, callback = regression(), best_weights()
    for act, error in ((crash, ValueError), (interrupt, KeyboardInterrupt)):
        script = Script([3, 1, 2], act)
        with pytest.raises(error):
            fit(model, [script, callback])
    np.testing.assert_equal(model.get_weights(), script.weights[1])


def test_a_fit_after_a_crash_clears_up(handler):
    model, callback = regression(), best_weights()
    with pytest.raises(ValueError, match="crashed"):
        fit(model, [Script([3, 1, 2], crash), callback])
    fit(model, [callback], epochs=1)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_crash_does_not_keep_the_model_in_memory(handler):
    callback = best_weights()
    callback.set_model(regression())
    callback.on_train_begin()
    gone = weakref.ref(callback)
    del callback
    gc.collect()
    assert gone() is None
    fit(regression(), [best_weights()], epochs=1)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_only_takes_a_note_lets_training_go_on():
    noted = []
    before = signal.signal(signal.SIGINT, lambda *arguments: noted.append(arguments))
    try:
        keras.utils.set_random_seed(0)
        noting, script = signal.getsignal(signal.SIGINT), Script([3, 1, 2, 2], interrupt)
        fit(regression(), [script, best_weights()], epochs=4)
        assert signal.getsignal(signal.SIGINT) is noting
    finally:
        signal.signal(signal.SIGINT, before)
    assert noted
    keras.utils.set_random_seed(0)
    quiet = Script([3, 1, 2, 2])
    fit(regression(), [quiet], epochs=4)
    np.testing.assert_equal(script.weights, quiet.weights)


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(regression(), [Script([3, 1, 2, 2], interrupt), best_weights()], epochs=4)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_fit_in_another_thread_leaves_signals_alone(handler):
    model, done = regression(), []
    callback = best_weights()
    script = Script([3, 1, 2, 2], lambda: done.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=fit, args=(model, [script, callback]), kwargs={"epochs": 4})
    thread.start()
    thread.join()
    assert done[0] is handler
    np.testing.assert_equal(model.get_weights(), script.weights[1])


def test_copies_are_independent(handler):
    callback = best_weights(patience=2)
    assert drive(copy.deepcopy(callback), [1, 2, 2, 2]) == (3, 0)
    assert drive(callback, [9, 8, 7, 6]) == (4, 3)


def test_nan_is_the_worst_score():
    nan = float("nan")
    assert drive(best_weights(patience=2), [nan, 3, nan, 2, nan, nan]) == (6, 3)
    assert drive(best_weights("val_auc", patience=2), [nan, 0.3, nan, 0.4]) == (4, 3)


def end_three_epochs(callback, logs):
    for epoch in range(3):
        callback.on_epoch_end(epoch, logs)


@pytest.mark.parametrize("make", [*CALLBACKS.values(), lambda: StopOnTarget("val_loss", 0)])
def test_a_missing_score_is_said_once_a_fit(make):
    callback = make()
    callback.set_model(regression())
    for _ in range(2):
        callback.on_train_begin()
        with pytest.warns(UserWarning, match="no 'val_loss' among 'loss', 'auc'") as warned:
            end_three_epochs(callback, {"loss": 1.0, "auc": 0.5})
        assert len(warned) == 1
        callback.on_train_end()


def drive_to_target(callback, values, model=None):
    callback.set_model(model or regression())
    callback.model.stop_training = False
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {callback.score: value})
        if callback.model.stop_training:
            return epoch
    return None


@pytest.mark.parametrize(
    ("score", "value", "mode", "values", "epoch"),
    [
        ("val_loss", 0.5, "auto", [0.9, 0.6, 0.5, 0.1], 2),
        ("val_f1", 0.9, "auto", [0.1, 0.95], 1),
        ("val_f1", 0.9, "min", [0.95, 0.1], 1),
        ("val_happiness", 3, "max", [1, 2, 3], 2),
        ("val_loss", -1, "max", [-3, -2, -0.5], 2),
        ("val_loss", 0.5, "auto", [float("nan"), 0.6], None),
        ("val_f1", 0.5, "auto", [float("nan"), 0.4], None),
    ],
)
def test_training_stops_on_its_target(score, value, mode, values, epoch):
    callback = StopOnTarget(score, value, mode)
    assert callback.reached_epoch is None
    for _ in range(2):
        assert drive_to_target(callback, values) == epoch
        assert callback.reached_epoch == epoch


def test_a_target_for_a_metric_of_the_models_own():
    callback = StopOnTarget("val_quality", 0.5)
    with pytest.raises(ValueError, match="better high or low"):
        drive_to_target(callback, [1.0])
    assert drive_to_target(callback, [0.1, 0.6], regression(metrics=[F1Score(name="quality")])) == 1


def test_a_fit_stops_on_its_target():
    assert fit(regression(), [Script([3, 2, 1, 0]), StopOnTarget("val_loss", 1.0)]).epoch == [0, 1, 2]


class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.05)

    def on_epoch_end(self, epoch, logs=None):
        self.weights = self.model.get_weights()


@pytest.mark.parametrize("compiling", [{}, {"steps_per_execution": 2}, {"jit_compile": True}])
def test_training_ends_when_its_time_is_over_with_its_best_weights(compiling):
    budget, model = TimeBudget(0.6), regression(**compiling)
    for _ in range(2):
        script = Script([3, 1, *range(2, 100)])
        fit(model, [script, budget, Slow()], epochs=100)
        assert budget.ran_out
        best = min(1, len(script.weights) - 1)
        np.testing.assert_equal(model.get_weights(), script.weights[best])
    assert len(script.weights) <= 8


def test_a_budget_that_lasts_changes_nothing():
    budget = TimeBudget(600)
    assert len(fit(regression(), [Script([3, 1, 2]), budget], epochs=3).epoch) == 3
    assert not budget.ran_out


def test_the_clock_is_looked_at_in_the_middle_of_an_epoch_and_at_its_end():
    for hook in ("on_train_batch_end", "on_epoch_end"):
        budget, model = TimeBudget(0.01), regression()
        budget.set_model(model)
        budget.on_train_begin()
        model.stop_training = False
        time.sleep(0.02)
        getattr(budget, hook)(0, {"val_loss": 1.0})
        assert model.stop_training
        budget.on_train_end()


def test_without_validation_data_a_budget_leaves_the_last_weights():
    budget, model, slow = TimeBudget(0.2), regression(), Slow()
    with pytest.warns(UserWarning, match="no 'val_loss'"):
        fit(model, [slow, budget], epochs=1000, validation_data=None)
    assert budget.ran_out
    np.testing.assert_equal(model.get_weights(), slow.weights)


@pytest.mark.parametrize("make", [*CALLBACKS.values(), lambda: StopOnTarget("val_loss", 0)])
def test_no_epochs_at_all(handler, make):
    assert fit(regression(), [make()], epochs=0).epoch == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeBudget(0), "seconds must be a positive number"),
        (lambda: TimeBudget(float("nan")), "seconds must be a positive number"),
        (lambda: TimeBudget(1, mode="up"), "mode must be"),
        (lambda: TimeBudget(1, "val_happiness"), "better high or low"),
        (lambda: StopOnTarget("val_loss", float("nan")), "value must be a finite number"),
        (lambda: StopOnTarget("val_loss", 1, "up"), "mode must be"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
