"""Trials that share graphs give, to the bit on a CPU, what plain `build` and `fit` give."""

import os
import subprocess
import sys
import typing
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from shared import variables_of

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
    "mlp": ((5,), THREE, {"units": (4,), "dropout": 0.3}),
    "residual_mlp": ((5,), THREE, {"depth": 6, "units": 4, "dropout": 0.1}),
    "selu_mlp": ((5,), THREE, {"units": (4,), "dropout": 0.1}),
    "maxout_mlp": ((5,), THREE, {"units": (4,)}),
    "low_rank_mlp": ((5,), THREE, {"units": (4,), "rank": 2}),
    "convnet": ((8, 8, 1), THREE, {"filters": (4,), "units": 4}),
    "conv1d": ((9, 2), THREE, {"filters": (4,)}),
    "rnn": ((5, 2), THREE, {"units": (4,), "recurrent_dropout": 0.3, "dropout": 0.2}),
    "autoencoder": ((6,), Task.regression(6), {"kind": "denoising", "units": (5,), "code": 3}),
    "lenet5": ((28, 28, 1), THREE, {}),
    "resnet": ((8, 8, 1), THREE, {"depth": 8}),
    "alexnet": ((15, 15, 1), THREE, {"variant": "small"}),
    "googlenet": ((32, 32, 1), THREE, {}),
}
SLOW = {"residual_mlp", "lenet5", "resnet", "alexnet", "googlenet"}
# Draws in evaluation too, and what dropout and batch normalisation are then.
VALIDATED = {"rnn", "mlp"}


def samples(shape, task, count=22):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *shape)).astype("float32")
    return x, x if task.kind == "regression" else rng.integers(0, 3, size=count)


class Kept(keras_tuner.HyperModel):
    """Keeps every epoch's scores of each trial, and the model that it was trained on."""

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
        self.models.append(model)
        return result


def searched(folder, build, fit, trials=3, arguments=dict, objective="val_loss", **options):
    hypermodel = Kept(build, arguments)
    search = RandomSearch(
        hypermodel, objective, trials, 0, directory=str(folder), max_consecutive_failed_trials=99, **options
    )
    search.search(**fit, verbose=0)
    return search, hypermodel


def plain(search, build, fit, arguments=dict, executions=1, alike=True):
    """The histories of the same trials by Keras alone.

    Models that are `alike` differ in nothing but their variables and learning rates: one that Keras has
    traced is given those of each. Others run step by step, since Keras would trace each of them.
    """
    histories, traced = [], None
    for trial in search.oracle.trials.values():
        keras.utils.set_random_seed(search.trial_seed(trial))
        for _ in range(executions):
            model = build(trial.hyperparameters)
            if alike:
                traced = model = as_fresh(traced or model, model)
            else:
                model.run_eagerly = True
            histories.append(model.fit(**{**fit, **arguments()}, verbose=0).history)
    return histories


def as_fresh(traced, fresh):
    """A model that was fitted, with all in which a fresh one that is alike differs from it."""
    for model in (traced, fresh):
        model.optimizer.build(model.trainable_variables)
    for theirs, ours in zip(variables_of(traced), variables_of(fresh), strict=True):
        theirs.assign(ours)
    traced.optimizer.learning_rate = float(fresh.optimizer.learning_rate)
    return traced


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        for name in other:
            # Early batch-norm statistics make losses of hundreds, of which float32 knows seven digits.
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name)


def rate(hp):
    return hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")


def iris(hp, optimizer=None, units=(6,), dropout=0.2, loss="sparse_categorical_crossentropy"):
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=units, dropout=dropout)
    optimizer = optimizer or keras.optimizers.Adam(rate(hp))
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


FIT = {
    "x": IRIS.train.x,
    "y": IRIS.train.y,
    "validation_data": (IRIS.val.x, IRIS.val.y),
    "epochs": 2,
    "batch_size": 16,
}
# As many batches as are worth putting into the loop, and one that is left over.
FEW = {"x": IRIS.train.x[:45], "y": IRIS.train.y[:45], "epochs": 2, "batch_size": 10, "shuffle": False}


def one_layer(optimizer, loss="sparse_categorical_crossentropy", **compile_options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile(optimizer, loss, **compile_options)
    return model


def one_layer_by_rate(hp):
    return one_layer(keras.optimizers.SGD(rate(hp)))


def check(folder, build, fit=FIT, alike=True, **options):
    """The trials, which are all trained on one model, equal plain ones."""
    search, hypermodel = searched(folder, build, fit, **options)
    failed = [trial.message for trial in search.oracle.trials.values() if trial.status != "COMPLETED"]
    assert not failed, failed[0]
    assert len(set(map(id, hypermodel.models))) == 1
    arguments, executions = options.get("arguments", dict), options.get("executions_per_trial", 1)
    assert_same(hypermodel.histories, plain(search, build, fit, arguments, executions, alike))
    return search


def test_every_recipe_has_a_case():
    assert set(CASES) == set(recipes.names())


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_trials_of_every_recipe_are_those_of_plain_fit(recipe, tmp_path):
    shape, task, arguments = CASES[recipe]
    x, y = samples(shape, task)
    fit = {"x": x, "y": y, "epochs": 2, "batch_size": 5}
    if recipe in VALIDATED:
        fit["validation_data"] = x[:9], y[:9]

    def build(hp):
        model = recipes.get(recipe)(shape, task, **arguments)
        # At rates at which a residual net explodes, the last digit of the first step decides all others.
        factor = 1e-3 if recipe == "resnet" else 1.0
        learning_rate = factor * rate(hp)
        return recipes.compile_for(model, task, learning_rate=learning_rate, steps_per_execution=1)

    check(tmp_path, build, fit, trials=2, objective="loss")


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
        return one_layer(optimizer(hp))

    step = keras.Model.train_step

    def counted(self, batch):
        traced.append(1)
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_step", counted)
        search, hypermodel = searched(tmp_path, build, FEW, trials=5, objective="loss")
        # Once with constants, once more with those that were then seen to change.
        assert len(traced) <= 2 * 2
    assert_same(hypermodel.histories, plain(search, build, FEW, alike=False))


def penalised(hp):
    drop, l2 = hp.Float("drop", 0.1, 0.6), hp.Float("l2", 1e-4, 1e-1, sampling="log")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.GaussianNoise(0.1),
            layers.Dense(8, "selu", kernel_regularizer=keras.regularizers.L2(l2)),
            layers.Dropout(drop),
            layers.Dense(8, activity_regularizer=keras.regularizers.L1L2(1e-3)),
            layers.AlphaDropout(0.2),
            layers.GaussianDropout(0.2),
            layers.Dropout(drop),
            layers.Dense(3, "softmax", bias_regularizer=keras.regularizers.L1L2(l2, l2 / 2)),
        ]
    )
    learning_rate = hp.Float("learning_rate", 0.01, 1.0, sampling="log")
    model.compile(
        keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_rates_and_penalties_of_layers_without_names_are_inputs_of_one_graph(tmp_path):
    fit = {**FEW, "epochs": 3, "validation_data": FIT["validation_data"], "validation_batch_size": 99}
    search = check(tmp_path, penalised, fit, alike=False)
    trials = search.oracle.get_best_trials(2)
    assert any(trial.metrics.get_best_value("best_epoch") < 3 for trial in trials)
    # The models that are given back have the trial's own numbers, not another one's, and its best weights.
    for model, trial in zip(search.get_best_models(2), trials, strict=True):
        assert model.layers[-2].rate == trial.hyperparameters.get("drop")
        assert float(model.optimizer.learning_rate) == np.float32(trial.hyperparameters.get("learning_rate"))
        model.run_eagerly = True
        loss, accuracy = model.evaluate(IRIS.val.x, IRIS.val.y, verbose=0)
        assert loss == pytest.approx(trial.score, abs=1e-6)
        assert accuracy == pytest.approx(trial.metrics.get_best_value("val_accuracy"))


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
    def width(drop):
        return 3 if drop < 0.2 else 5

    def build(hp):
        layers = keras.layers
        drop = hp.Float("drop", 0.1, 0.5)
        hidden = layers.Dense(width(drop)), layers.Dropout(drop)
        model = keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(3, "softmax")])
        model.compile(keras.optimizers.SGD(rate(hp)), "sparse_categorical_crossentropy")
        return model

    search, hypermodel = searched(tmp_path, build, FEW, trials=5, objective="loss")
    assert_same(hypermodel.histories, plain(search, build, FEW, alike=False))
    widths = [width(trial.hyperparameters.get("drop")) for trial in search.oracle.trials.values()]
    models = list(map(id, hypermodel.models))
    assert min(map(widths.count, (3, 5))) > 1
    assert len(set(zip(widths, models, strict=True))) == len(set(models)) == 2
    table = ModelCache(most=2)
    for units in (3, 4, 5, 6):
        with table.model_for(iris(keras_tuner.HyperParameters(), units=(units,))):
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


class Counting(keras.callbacks.Callback):
    """Which batches each fit told of."""

    fits: typing.ClassVar[list[list[int]]] = []

    def on_train_begin(self, logs=None):
        self.fits.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.fits[-1].append(batch)


def seeing_batches():
    return {
        "callbacks": [
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.ReduceLROnPlateau(patience=0),
            Counting(),
        ]
    }


class Generated(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(index * 16, index * 16 + 16)
        return IRIS.train.x[rows], IRIS.train.y[rows]


WAYS = {
    "shuffled": (FIT, dict),
    "data set": ({"epochs": 2}, as_batches),
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
    "a callback that sees batches": (FIT, seeing_batches),
    "generator": (
        {"validation_data": FIT["validation_data"], "epochs": 2, "shuffle": False, "x": Generated()},
        dict,
    ),
}
# Again where all is traced, and the scores are.
TURNS = [*WAYS, "shuffled", "scores of a data set"]


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """The histories of one search, of which each trial calls `fit` in another way, and of plain fits."""

    def one_after_another():
        turns = iter(TURNS)

        def arguments():
            fit, more = WAYS[next(turns)]
            return {**fit, **more()}

        return arguments

    Counting.fits.clear()
    search, hypermodel = searched(
        tmp_path_factory.mktemp("ways"), iris, {}, len(TURNS), one_after_another(), objective="loss"
    )
    assert len(hypermodel.histories) == len(TURNS)
    assert len(set(map(id, hypermodel.models))) == 1
    return hypermodel.histories, plain(search, iris, {}, one_after_another())


@pytest.mark.parametrize("way", WAYS)
def test_any_way_of_calling_fit_gives_what_it_gives_plainly(way, ways):
    turns = [index for index, each in enumerate(TURNS) if each == way]
    assert_same(*([histories[turn] for turn in turns] for histories in ways))


def test_callbacks_see_batches_as_often_as_plainly(ways):
    epoch = list(range(-(-len(IRIS.train) // 16)))
    assert Counting.fits == 2 * [FIT["epochs"] * epoch]


def test_several_executions_go_on_from_one_seed(tmp_path):
    fit = {**FEW, "shuffle": True}
    check(tmp_path, one_layer_by_rate, fit, trials=2, objective="loss", executions_per_trial=2)


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
    inner = one_layer(None)
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

    return one_layer(keras.optimizers.Adam(rate(hp)), loss)


def unbuilt(hp):
    model = keras.Sequential([keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(rate(hp)), "sparse_categorical_crossentropy")
    return model


def eager(hp):
    return one_layer(keras.optimizers.Adam(rate(hp)), run_eagerly=True)


def spared(hp):
    optimizer = keras.optimizers.Adam(rate(hp), weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=[hp.Choice("spared", ["kernel", "bias"])])
    return one_layer(optimizer)


@pytest.mark.parametrize("build", [own_step, own_layer, own_loss, unbuilt, eager, spared])
def test_what_is_not_understood_is_left_as_it_was_built(build):
    cache, hp = ModelCache(), keras_tuner.HyperParameters()
    for _ in range(2):
        model = build(hp)
        before = set(vars(model))
        with cache.model_for(model) as given:
            assert given is model
            assert set(vars(given)) == before
    assert not cache.has_models()


def test_what_is_not_understood_is_trained_plainly(tmp_path):
    search, hypermodel = searched(tmp_path, own_layer, FEW, trials=2, objective="loss")
    assert_same(hypermodel.histories, plain(search, own_layer, FEW, alike=False))
    assert len(set(map(id, hypermodel.models))) == 2


def test_a_trial_that_fails_leaves_nothing_behind(tmp_path):
    class Fails(keras.callbacks.Callback):
        count = 0

        def on_epoch_end(self, epoch, logs=None):
            Fails.count += epoch == 1
            if epoch == 1 and Fails.count == 2:
                raise MemoryError("out of memory")

    fit = {**FEW, "callbacks": [Fails()]}
    search, hypermodel = searched(tmp_path, one_layer_by_rate, fit, trials=4, objective="loss")
    trials = list(search.oracle.trials.values())
    assert [trial.status for trial in trials].count("COMPLETED") == 3
    assert "out of memory" in trials[1].message
    others = plain(search, one_layer_by_rate, FEW)
    assert_same(hypermodel.histories, [others[0], *others[2:]])


def test_a_model_that_fit_has_changed_is_not_used_again(tmp_path):
    def compiled(model):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        return model

    class Recompiles(Kept):
        def fit(self, hp, model, *args, **kwargs):
            return super().fit(hp, compiled(model), *args, **kwargs)

    hypermodel = Recompiles(one_layer_by_rate)
    search = RandomSearch(hypermodel, "loss", 3, 0, directory=str(tmp_path))
    search.search(**FEW, verbose=0)
    theirs = plain(search, lambda hp: compiled(one_layer_by_rate(hp)), FEW)
    assert_same(hypermodel.histories, theirs)


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
        iris(hp, loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=0)),
    ]
    frozen = iris(hp)
    frozen.layers[1].trainable = False
    keys = [signature(model) for model in (same[0], *others, frozen)]
    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory in use is read from Linux's /proc")
def test_memory_grows_by_less_than_100_megabytes_after_the_tenth_of_200_trials(tmp_path):
    script = Path(__file__).with_name("memory_run.py")
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    early, late = map(float, run.stdout.rpartition("megabytes")[2].split())
    assert early > 100
    assert late - early < 100
