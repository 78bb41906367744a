"""Trials that share graphs give, to the bit on a CPU, what plain `build` and `fit` give."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import data, recipes
from keras_practice.callbacks import ValidationScores, best_weights
from keras_practice.data import Task
from keras_practice.training.batches import DeviceArrays
from keras_practice.training.epoch_fit import EpochFit
from keras_practice.training.model_cache import ModelCache
from keras_practice.training.signature import signature
from keras_practice.training.traced_numbers import TracedNumber, places
from keras_practice.tuning import RandomSearch

IRIS = data.load("iris")
THREE = Task.multiclass(3)
CASES = {
    "linear": ((5,), THREE, {"l2": 1e-3}),
    "mlp": ((5,), THREE, {"units": (6, 4), "dropout": 0.3}),
    "residual_mlp": ((5,), THREE, {"depth": 6, "units": 4, "dropout": 0.1}),
    "selu_mlp": ((5,), THREE, {"units": (6, 4), "dropout": 0.1}),
    "maxout_mlp": ((5,), THREE, {"units": (6, 4)}),
    "low_rank_mlp": ((5,), THREE, {"units": (6, 4), "rank": 2}),
    "convnet": ((8, 8, 1), THREE, {"filters": (4, 4), "units": 4}),
    "conv1d": ((9, 2), THREE, {"filters": (4, 4)}),
    "rnn": ((5, 2), THREE, {"units": (4,), "recurrent_dropout": 0.3, "dropout": 0.2}),
    "autoencoder": ((6,), Task.regression(6), {"kind": "denoising", "units": (5,), "code": 3}),
    "lenet5": ((28, 28, 1), THREE, {}),
    "resnet": ((8, 8, 1), THREE, {"depth": 8}),
    "alexnet": ((15, 15, 1), THREE, {"variant": "small"}),
    "googlenet": ((32, 32, 1), THREE, {}),
}
SLOW = {"residual_mlp", "lenet5", "resnet", "alexnet", "googlenet"}


def samples(shape, task, count=22):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *shape)).astype("float32")
    return x, x if task.kind == "regression" else rng.integers(0, 3, size=count)


class Kept(keras_tuner.HyperModel):
    """Keeps every epoch's scores of each trial, and with how many graphs it was done."""

    def __init__(self, build, arguments=dict):
        super().__init__()
        self.function, self.arguments, self.histories, self.models = build, arguments, [], []

    def build(self, hp):
        return self.function(hp)

    def fit(self, hp, model, *args, **kwargs):
        extra = self.arguments()
        extra["callbacks"] = [*extra.get("callbacks", []), *kwargs.pop("callbacks")]
        result = model.fit(*args, **{**kwargs, **extra})
        self.histories.append(result.history)
        self.models.append(id(model))
        return result


def searched(folder, build, fit, trials=3, arguments=dict, objective="val_loss", **options):
    hypermodel = Kept(build, arguments)
    search = RandomSearch(
        hypermodel, objective, trials, 0, directory=str(folder), max_consecutive_failed_trials=99, **options
    )
    search.search(**fit, verbose=0)
    return search, hypermodel


def plain(search, build, fit, arguments=dict, executions=1):
    """The histories of the same trials by Keras alone."""
    histories = []
    for trial in search.oracle.trials.values():
        keras.utils.set_random_seed(search.trial_seed(trial))
        for _ in range(executions):
            histories.append(build(trial.hyperparameters).fit(**{**fit, **arguments()}, verbose=0).history)
    return histories


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        for name in other:
            # Early batch-norm statistics make losses of hundreds, of which float32 knows seven digits.
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name)


def rate(hp):
    return hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")


def iris(hp, optimizer=None, units=(6,), dropout=0.2, **compile_options):
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=units, dropout=dropout)
    optimizer = optimizer or keras.optimizers.Adam(rate(hp))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **compile_options)
    return model


FIT = {
    "x": IRIS.train.x,
    "y": IRIS.train.y,
    "validation_data": (IRIS.val.x, IRIS.val.y),
    "epochs": 3,
    "batch_size": 16,
}


def check(folder, build, fit=FIT, shared=True, **options):
    """Three trials equal plain ones; `shared` says whether they were trained on one model."""
    search, hypermodel = searched(folder, build, fit, **options)
    failed = [trial.message for trial in search.oracle.trials.values() if trial.status != "COMPLETED"]
    assert not failed, failed[0]
    arguments, executions = options.get("arguments", dict), options.get("executions_per_trial", 1)
    assert_same(hypermodel.histories, plain(search, build, fit, arguments, executions))
    assert (len(set(hypermodel.models)) == 1) == shared
    return search


def test_every_recipe_has_a_case():
    assert set(CASES) == set(recipes.names())


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_trials_of_every_recipe_are_those_of_plain_fit(recipe, tmp_path):
    shape, task, arguments = CASES[recipe]
    x, y = samples(shape, task)
    fit = {"x": x, "y": y, "validation_data": (x[:9], y[:9]), "epochs": 2, "batch_size": 5}

    def build(hp):
        model = recipes.get(recipe)(shape, task, **arguments)
        # At rates at which a residual net explodes, the last digit of the first step decides all others.
        factor = 1e-3 if recipe == "resnet" else 1.0
        return recipes.compile_for(model, task, learning_rate=factor * rate(hp))

    check(tmp_path, build, fit)


def adam(hp):
    return keras.optimizers.Adam(
        rate(hp),
        beta_1=hp.Float("beta_1", 0.5, 0.95),
        beta_2=hp.Float("beta_2", 0.9, 0.999),
        epsilon=hp.Float("epsilon", 1e-8, 1e-2, sampling="log"),
        weight_decay=hp.Float("weight_decay", 1e-4, 1e-1, sampling="log"),
        clipnorm=hp.Float("clipnorm", 0.1, 1.0),
    )


def sgd(hp):
    return keras.optimizers.SGD(
        rate(hp),
        momentum=hp.Float("momentum", 0.5, 0.95),
        global_clipnorm=hp.Float("global_clipnorm", 0.1, 1.0),
    )


def rmsprop(hp):
    return keras.optimizers.RMSprop(
        rate(hp), rho=hp.Float("rho", 0.5, 0.95), clipvalue=hp.Float("clipvalue", 0.01, 0.5)
    )


def cosine(hp):
    return keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(rate(hp), 15, alpha=hp.Float("alpha", 0.01, 0.5))
    )


@pytest.mark.parametrize("optimizer", [adam, sgd, rmsprop, cosine])
def test_the_numbers_of_an_optimiser_are_inputs_of_one_graph(optimizer, tmp_path):
    traced = []

    def build(hp):
        return iris(hp, optimizer(hp))

    fit = {**FIT, "epochs": 2}
    step = keras.Model.train_step

    def counted(self, batch):
        traced.append(1)
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_step", counted)
        search, hypermodel = searched(tmp_path, build, fit, trials=5)
        # Once with constants, once more with those that were then seen to change.
        assert len(traced) <= 2 * 2
    assert_same(hypermodel.histories, plain(search, build, fit))


def penalised(hp):
    drop, l2 = hp.Float("drop", 0.1, 0.6), hp.Float("l2", 1e-4, 1e-1, sampling="log")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "selu", kernel_regularizer=keras.regularizers.L2(l2)),
            layers.Dropout(drop),
            layers.Dense(8),
            layers.Dropout(drop),
            layers.Dense(3, "softmax", bias_regularizer=keras.regularizers.L1L2(l2, l2 / 2)),
        ]
    )
    model.compile(keras.optimizers.Adam(rate(hp)), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_rates_and_penalties_of_layers_without_names_are_inputs_of_one_graph(tmp_path):
    search = check(tmp_path, penalised, trials=4)
    # The models that are given back have the trial's own numbers, not another one's.
    for model, hp in zip(search.get_best_models(4), search.get_best_hyperparameters(4), strict=True):
        assert model.layers[-2].rate == hp.get("drop")


def test_a_held_number_rounds_as_a_constant_does():
    for value in (0.1, 0.3, 0.9, 0.999, 1e-7, 3.7):
        number = TracedNumber(value, tf.constant(value, tf.float64))
        for ours, theirs in (
            (number, value),
            (1 - number, 1 - value),
            (1 / (1 + number), 1 / (1 + value)),
            (-number * 2, -value * 2),
            (number / 3 - 1, value / 3 - 1),
            (number * number, value * value),
        ):
            assert float(ours) == theirs
            assert tf.convert_to_tensor(ours).numpy() == np.float32(theirs)
        x = tf.constant([0.1, 0.7])
        np.testing.assert_array_equal(number * x, value * x)
        np.testing.assert_array_equal(x >= number, x >= value)
        np.testing.assert_array_equal(keras.ops.multiply(x, 1 - number), keras.ops.multiply(x, 1 - value))


def test_shapes_share_by_shape_and_the_table_is_bounded(tmp_path):
    def build(hp):
        return iris(hp, units=(hp.Choice("width", [3, 5, 7]),), dropout=hp.Float("drop", 0.1, 0.5))

    search, hypermodel = searched(tmp_path, build, FIT, trials=7)
    assert_same(hypermodel.histories, plain(search, build, FIT))
    widths = {trial.hyperparameters.get("width") for trial in search.oracle.trials.values()}
    assert len(set(hypermodel.models)) == len(widths) > 1
    table = ModelCache(most=2)
    for width in (3, 4, 5, 6):
        with table.model_for(iris(keras_tuner.HyperParameters(), units=(width,))):
            pass
    assert len(table._prepared) == 2


def as_batches():
    return {
        "x": IRIS.train.batches(16, seed=3),
        "validation_data": IRIS.val.batches(8),
        "shuffle": False,
    }


def watching():
    return {"callbacks": [ValidationScores(IRIS.val), best_weights("val_f1", patience=1)]}


WAYS = {
    "data set": ({"epochs": 3}, as_batches),
    "scores": ({**FIT, "epochs": 6}, watching),
    "scores of a data set": ({"epochs": 6}, lambda: {**as_batches(), **watching()}),
    "unshuffled": ({**FIT, "shuffle": False}, dict),
    "shuffled by batches": ({**FIT, "shuffle": "batch"}, dict),
    "split": ({"x": IRIS.train.x, "y": IRIS.train.y, "validation_split": 0.3, "epochs": 2}, dict),
    "float64, own validation batches": (
        {**FIT, "x": IRIS.train.x.astype("float64"), "validation_batch_size": 7},
        dict,
    ),
    "no validation": ({"x": IRIS.train.x, "y": IRIS.train.y, "epochs": 2}, dict),
    "weights of samples": ({**FIT, "sample_weight": np.linspace(0, 2, len(IRIS.train))}, dict),
    "weights of classes": ({**FIT, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}, dict),
    "steps": ({**FIT, "steps_per_epoch": 3, "validation_steps": 1}, dict),
    "a callback that sees batches": (
        FIT,
        lambda: {
            "callbacks": [keras.callbacks.TerminateOnNaN(), keras.callbacks.ReduceLROnPlateau(patience=0)]
        },
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_any_way_of_calling_fit_gives_what_it_gives_plainly(way, tmp_path):
    fit, arguments = WAYS[way]
    objective = "loss" if way == "no validation" else "val_loss"
    check(tmp_path, iris, fit, arguments=arguments, objective=objective)


def test_callbacks_see_batches_as_often_as_plainly(tmp_path):
    seen = []

    class Counting(keras.callbacks.Callback):
        def __deepcopy__(self, memo):
            return self

        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    searched(tmp_path, iris, {**FIT, "epochs": 1, "callbacks": [Counting()]}, trials=2)
    assert seen == 2 * list(range(-(-len(IRIS.train) // 16)))


def test_several_executions_go_on_from_one_seed(tmp_path):
    check(tmp_path, iris, executions_per_trial=2)


class OwnStep(keras.Model):
    def train_step(self, batch):
        return {**super().train_step(batch), "mine": tf.constant(1.0)}


class OwnLayer(keras.layers.Layer):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor  # Not in its config.

    def call(self, x):
        return self.factor * x


def own_step(hp):
    inner = iris(hp)
    model = OwnStep(inner.inputs, inner.outputs)
    model.compile(keras.optimizers.Adam(rate(hp)), "sparse_categorical_crossentropy")
    return model


def own_layer(hp):
    model = keras.Sequential(
        [keras.Input((4,)), OwnLayer(hp.Float("factor", 0.5, 2.0)), keras.layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.Adam(rate(hp)), "sparse_categorical_crossentropy")
    return model


def own_loss(hp):
    factor = hp.Float("factor", 0.5, 2.0)

    def loss(y, p):
        return factor * keras.losses.sparse_categorical_crossentropy(y, p)

    return iris_with(hp, loss)


def iris_with(hp, loss):
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=(4,))
    model.compile(keras.optimizers.Adam(rate(hp)), loss)
    return model


def unbuilt(hp):
    model = keras.Sequential([keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(rate(hp)), "sparse_categorical_crossentropy")
    return model


def eager(hp):
    return iris(hp, run_eagerly=True)


@pytest.mark.parametrize("build", ["own_step", "own_layer", "own_loss", "unbuilt", "eager", "spared"])
def test_what_is_not_understood_is_trained_plainly(build, tmp_path):
    check(tmp_path, globals()[build], {**FIT, "epochs": 2}, shared=False, trials=2)


def test_a_generator_is_trained_as_plainly(tmp_path):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            rows = slice(index * 16, index * 16 + 16)
            return IRIS.train.x[rows], IRIS.train.y[rows]

    fit = {**FIT, "x": Batches(), "y": None, "batch_size": None, "shuffle": False}
    check(tmp_path, iris, fit, trials=2)


def spared(hp):
    optimizer = keras.optimizers.Adam(rate(hp), weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=[hp.Choice("spared", ["kernel", "bias"])])
    return iris(hp, optimizer)


def test_a_trial_that_fails_leaves_nothing_behind(tmp_path):
    class Fails(keras.callbacks.Callback):
        count = 0

        def on_epoch_end(self, epoch, logs=None):
            Fails.count += epoch == 1
            if epoch == 1 and Fails.count == 2:
                raise MemoryError("out of memory")

    search, hypermodel = searched(tmp_path, iris, {**FIT, "callbacks": [Fails()]}, trials=4)
    trials = list(search.oracle.trials.values())
    assert [trial.status for trial in trials].count("COMPLETED") == 3
    assert "out of memory" in trials[1].message
    others = plain(search, iris, FIT)
    assert_same(hypermodel.histories, [others[0], *others[2:]])


def test_a_model_that_fit_has_changed_is_not_used_again(tmp_path):
    class Recompiles(Kept):
        def fit(self, hp, model, *args, **kwargs):
            model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
            return super().fit(hp, model, *args, **kwargs)

    hypermodel = Recompiles(iris)
    search = RandomSearch(hypermodel, "val_loss", 3, 0, directory=str(tmp_path))
    search.search(**FIT, verbose=0)
    theirs = []
    for trial in search.oracle.trials.values():
        keras.utils.set_random_seed(search.trial_seed(trial))
        model = iris(trial.hyperparameters)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        theirs.append(model.fit(**FIT, verbose=0).history)
    assert_same(hypermodel.histories, theirs)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_the_best_models_have_the_weights_of_their_best_epochs(tmp_path):
    search = check(tmp_path, iris, {**FIT, "epochs": 5})
    for model, trial in zip(search.get_best_models(3), search.oracle.get_best_trials(3), strict=True):
        loss, accuracy = model.evaluate(IRIS.val.x, IRIS.val.y, verbose=0)
        assert loss == pytest.approx(trial.score, abs=1e-6)
        assert accuracy == pytest.approx(trial.metrics.get_best_value("val_accuracy"))
        assert float(model.optimizer.learning_rate) == np.float32(trial.hyperparameters.get("learning_rate"))


def test_an_array_that_changes_in_place_is_copied_again():
    arrays, x = DeviceArrays(), np.arange(6.0).reshape(3, 2)
    first = arrays.get(x)
    assert arrays.get(x) is first
    x[0, 0] = 9
    assert arrays.get(x).numpy()[0, 0] == 9


def test_a_model_is_as_any_other_between_two_fits():
    keras.utils.set_random_seed(0)
    model = iris(keras_tuner.HyperParameters())
    key = signature(model)
    fit = EpochFit(model, DeviceArrays())
    model.fit(**FIT, verbose=0)
    assert signature(model) == key
    before = [place.get() for place in places(model)]
    model.layers[-3].rate = 0.4  # Not the rate that was traced.
    fit.fit(**FIT, verbose=0)
    assert [type(place.get()) for place in places(model)] == [float] * len(before)
    right = model.predict(IRIS.val.x, verbose=0).argmax(axis=1) == IRIS.val.y
    assert model.evaluate(IRIS.val.x, IRIS.val.y, verbose=0)[1] == pytest.approx(right.mean(), abs=1e-6)


def test_signatures_tell_models_apart():
    hp = keras_tuner.HyperParameters()
    same = [iris(hp), iris(hp, dropout=0.4), iris(hp, keras.optimizers.Adam(0.5))]
    assert len({signature(model) for model in same}) == 1
    others = [
        iris(hp, dropout=0.0),
        iris(hp, units=(5,)),
        iris(hp, keras.optimizers.Adam(1e-3, clipnorm=1.0)),
        iris(hp, keras.optimizers.Adam(1e-3, amsgrad=True)),
        iris(hp, keras.optimizers.SGD(1e-3)),
        iris_with(hp, keras.losses.SparseCategoricalCrossentropy(ignore_class=0)),
    ]
    frozen = iris(hp)
    frozen.layers[1].trainable = False
    keys = [signature(model) for model in (same[0], *others, frozen)]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def noisy(hp):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.GaussianNoise(0.1),
            layers.Dense(8, "selu", activity_regularizer=keras.regularizers.L1L2(1e-3)),
            layers.AlphaDropout(0.2),
            layers.GaussianDropout(0.2),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(rate(hp)), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_layers_that_draw_noise_draw_the_same(tmp_path):
    check(tmp_path, noisy)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory in use is read from Linux's /proc")
def test_memory_grows_by_less_than_100_megabytes_after_the_tenth_of_200_trials(tmp_path):
    script = Path(__file__).with_name("memory_run.py")
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    early, late = map(float, run.stdout.rpartition("megabytes")[2].split())
    assert early > 100
    assert late - early < 100
