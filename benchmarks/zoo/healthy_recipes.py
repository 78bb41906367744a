"""Healthy programs from this project's recipes: each of them at least once."""

from __future__ import annotations

import keras
import numpy as np

from keras_practice import data, recipes
from keras_practice.data import Task
from zoo import samples as given
from zoo.program import Program, Samples, healthy


def _fitted(model, task, samples, *, learning_rate=1e-3, **fit):
    return Program(recipes.compile_for(model, task, learning_rate=learning_rate), samples, task=task, **fit)


@healthy("recipes")
def recipe_linear(seed):
    """Logistic regression on wine."""
    task = Task.multiclass(3)
    return _fitted(
        recipes.linear((13,), task), task, given.bundled("wine", seed), learning_rate=1e-2, epochs=40
    )


@healthy("recipes")
def recipe_linear_for_a_number(seed):
    """Linear regression on diabetes."""
    task = Task.regression()
    samples = given.bundled("diabetes", seed)
    return _fitted(recipes.linear((10,), task), task, samples, learning_rate=1e-2, epochs=40)


@healthy("recipes")
def recipe_mlp(seed):
    """The standard net on digits."""
    task = Task.multiclass(10)
    return _fitted(recipes.mlp((8, 8, 1), task), task, given.digits(seed))


@healthy("recipes")
def recipe_mlp_for_yes_and_no(seed):
    """The standard net on tumours, with the data set's own task."""
    tumours = data.load("breast_cancer", seed=seed)
    samples = given.bundled("breast_cancer", seed)
    return _fitted(recipes.mlp((30,), tumours.task, units=(32, 16)), tumours.task, samples)


@healthy("recipes")
def recipe_mlp_for_several_labels(seed):
    """The standard net on several labels a row."""
    task = Task.multilabel(6)
    return _fitted(recipes.mlp((15,), task, dropout=0.1), task, given.tags(seed))


@healthy("recipes")
def recipe_residual_mlp(seed):
    """Forty residual dense layers on hastie."""
    task = Task.binary()
    samples = given.bundled("hastie", seed)
    samples = samples.trained_on(samples.x[:2_000], samples.y[:2_000])
    return _fitted(recipes.residual_mlp((10,), task), task, samples)


@healthy("recipes")
def recipe_selu_mlp(seed):
    """A self-normalising net on wine."""
    task = Task.multiclass(3)
    return _fitted(recipes.selu_mlp((13,), task), task, given.bundled("wine", seed), epochs=40)


@healthy("recipes")
def recipe_maxout_mlp(seed):
    """A maxout net on digits."""
    task = Task.multiclass(10)
    return _fitted(recipes.maxout_mlp((8, 8, 1), task), task, given.digits(seed))


@healthy("recipes")
def recipe_low_rank_mlp(seed):
    """A low-rank net on house prices."""
    task = Task.regression()
    return _fitted(recipes.low_rank_mlp((5,), task, rank=8), task, given.houses(seed))


@healthy("recipes")
def recipe_convnet(seed):
    """A convolutional net on coloured shapes."""
    task = Task.multiclass(3)
    return _fitted(recipes.convnet((16, 16, 3), task, filters=(8, 16)), task, given.shapes(seed))


@healthy("recipes")
def recipe_lenet5(seed):
    """LeNet-5 on shapes of 28 by 28."""
    task = Task.multiclass(3)
    return _fitted(recipes.lenet5((28, 28, 3), task), task, given.shapes(seed, 28))


@healthy("recipes")
def recipe_alexnet(seed):
    """The small AlexNet on digits of 16 by 16."""
    task = Task.multiclass(10)
    model = recipes.alexnet((16, 16, 1), task, variant="small")
    return _fitted(model, task, given.large_digits(seed, 16, 600), learning_rate=3e-4)


@healthy("recipes")
def recipe_googlenet(seed):
    """GoogLeNet with batch normalisation on digits of 32 by 32."""
    task = Task.multiclass(10)
    model = recipes.googlenet((32, 32, 1), task, batch_norm=True)
    return _fitted(model, task, given.large_digits(seed, 32), epochs=8)


@healthy("recipes")
def recipe_resnet(seed):
    """A residual net of eight layers on digits."""
    task = Task.multiclass(10)
    return _fitted(recipes.resnet((8, 8, 1), task, depth=8), task, given.digits(seed), epochs=10)


@healthy("recipes")
def recipe_conv1d(seed):
    """A 1-D convolutional net on waves."""
    task = Task.multiclass(3)
    return _fitted(recipes.conv1d((48, 1), task, filters=(16, 32)), task, given.waves(seed))


@healthy("recipes")
def recipe_rnn(seed):
    """An LSTM on waves."""
    task = Task.multiclass(3)
    samples = given.waves(seed)
    return _fitted(recipes.rnn((48, 1), task, units=(24,)), task, samples, learning_rate=5e-3, epochs=25)


@healthy("recipes")
def recipe_rnn_on_words(seed):
    """A bidirectional GRU on word numbers."""
    task = Task.binary()
    model = recipes.rnn((24,), task, cell="gru", units=(16,), bidirectional=True, vocabulary=60, embedding=16)
    return _fitted(model, task, given.reviews(seed), learning_rate=3e-3, epochs=10)


@healthy("recipes")
def recipe_autoencoder(seed):
    """An autoencoder of wine."""
    wine = data.load("wine", seed=seed).rebuilding_input()
    samples = Samples(wine.train.x, wine.train.y, wine.test.x, wine.test.y, "numbers")
    model = recipes.autoencoder((13,), wine.task, code=6)
    return _fitted(model, wine.task, samples, epochs=80)


@healthy("recipes")
def recipe_autoencoder_of_images(seed):
    """A denoising convolutional autoencoder of digits."""
    digits = data.load("digits", seed=seed).rebuilding_input()
    samples = Samples(digits.train.x, digits.train.y, digits.test.x, digits.test.y, "numbers")
    model = recipes.autoencoder((8, 8, 1), digits.task, kind="denoising", units=(16,), code=16)
    return _fitted(model, digits.task, samples, epochs=15)


@healthy("recipes")
def recipe_multi_task(seed):
    """One trunk for a number and a class."""
    houses = given.houses(seed)
    tasks = {"price": Task.regression(), "dear": Task.binary()}
    trunk = recipes.mlp((5,), Task.regression(), units=(32, 16), dropout=0.0)
    model = recipes.compile_multi_task(recipes.multi_task(trunk, tasks), tasks, learning_rate=3e-3)

    def labels(y):
        return {"price": y[:, None], "dear": (y > 0).astype(np.float32)[:, None]}

    return Program(model, houses.with_y(labels))


@healthy("recipes")
def recipe_one_cycle(seed):
    """The standard net under SGD with one cycle of the learning rate."""
    task = Task.multiclass(10)
    model = recipes.mlp((8, 8, 1), task)
    rate = recipes.one_cycle(0.1, 20 * 34)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, clipnorm=1.0)
    return Program(recipes.compile_for(model, task, optimizer), given.digits(seed), task=task)
