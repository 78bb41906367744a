"""Programs whose optimiser is set so that nothing is learned."""

from __future__ import annotations

from keras import Input, Sequential, layers
from keras.optimizers import SGD, Adam, AdamW, RMSprop
from keras.optimizers.schedules import ExponentialDecay

from keras_practice import recipes
from keras_practice.data import Task
from zoo import samples as given
from zoo.program import Program, faulty


def _digits_net():
    return Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )


@faulty("learning-rate-high")
def adam_at_ten(seed, fault=True):
    """Adam at a learning rate of 10."""
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(64, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(Adam(10.0 if fault else 1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("learning-rate-high")
def adam_at_one_on_a_convnet(seed, fault=True):
    """Adam at a learning rate of 1 on a convolutional net."""
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(32, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(1.0 if fault else 3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.shapes(seed))


@faulty("learning-rate-high")
def sgd_at_five_on_a_regression(seed, fault=True):
    """Plain gradient descent at 5 on standardised numbers."""
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile(SGD(5.0 if fault else 0.05), "mse")
    return Program(model, given.houses(seed))


@faulty("learning-rate-high")
def rmsprop_at_one_on_a_gru(seed, fault=True):
    """RMSprop at 1 on a recurrent net."""
    model = Sequential([Input((24, 1)), layers.GRU(16), layers.Dense(1)])
    model.compile(RMSprop(1.0 if fault else 3e-3), "mse")
    return Program(model, given.forecast(seed))


@faulty("learning-rate-high")
def sigmoid_net_at_five_by_adam(seed, fault=True):
    """Adam at 5 on one hidden layer of sigmoids, which stay where the first steps throw them."""
    model = Sequential(
        [Input((30,)), layers.Dense(16, "sigmoid"), layers.Dense(16, "sigmoid"), layers.Dense(1, "sigmoid")]
    )
    model.compile(Adam(5.0 if fault else 1e-2), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.bundled("breast_cancer", seed))


@faulty("learning-rate-low")
def adam_at_a_billionth(seed, fault=True):
    """Adam at a learning rate of 1e-9."""
    model = _digits_net()
    model.compile(Adam(1e-9 if fault else 1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("learning-rate-low")
def sgd_at_a_ten_millionth_on_an_lstm(seed, fault=True):
    """Gradient descent at 1e-7 on an LSTM."""
    model = Sequential([Input((48, 1)), layers.LSTM(24), layers.Dense(3, "softmax")])
    optimizer = SGD(1e-7, momentum=0.9, clipnorm=1.0) if fault else Adam(5e-3, clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.waves(seed), epochs=25)


@faulty("learning-rate-low")
def recipe_at_a_hundred_millionth(seed, fault=True):
    """The standard recipe, compiled with `learning_rate=1e-8`."""
    task = Task.multiclass(3)
    model = recipes.mlp((2,), task, dropout=0.0)
    model = recipes.compile_for(model, task, learning_rate=1e-8 if fault else 1e-2)
    return Program(model, given.bundled("spirals", seed), epochs=40)


# The rate is gone after some steps, by the setting of the schedule.
@faulty("learning-rate-low", "optimizer-config")
def a_schedule_that_halves_at_every_step(seed, fault=True):
    """A learning rate that halves at every step, where every thousand were meant."""
    model = _digits_net()
    rate = ExponentialDecay(1e-3, decay_steps=1 if fault else 1_000, decay_rate=0.5)
    model.compile(Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, given.digits(seed))


@faulty("optimizer-config")
def momentum_of_four_nines(seed, fault=True):
    """Momentum 0.9999 where 0.9 was meant."""
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile(SGD(0.02, momentum=0.9999 if fault else 0.9), "mse")
    return Program(model, given.houses(seed))


@faulty("optimizer-config")
def gradient_clipped_to_nothing(seed, fault=True):
    """`clipnorm=1e-8` with gradient descent."""
    model = _digits_net()
    model.compile(SGD(0.1, momentum=0.9, clipnorm=1e-8 if fault else 1.0), "sparse_categorical_crossentropy")
    return Program(model, given.digits(seed))


@faulty("optimizer-config")
def values_clipped_to_nothing_on_a_gru(seed, fault=True):
    """`clipvalue=1e-9` with gradient descent on a recurrent net."""
    model = Sequential([Input((24, 1)), layers.GRU(16), layers.Dense(1)])
    model.compile(SGD(0.05, momentum=0.9, clipvalue=1e-9 if fault else 0.5), "mse")
    return Program(model, given.forecast(seed))


@faulty("optimizer-config")
def epsilon_of_ten_thousand(seed, fault=True):
    """Adam with an epsilon of 1e4, which makes all steps tiny."""
    model = _digits_net()
    model.compile(
        Adam(1e-3, epsilon=1e4 if fault else 1e-7), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return Program(model, given.digits(seed))


@faulty("optimizer-config")
def first_moment_of_five_nines(seed, fault=True):
    """Adam with `beta_1=0.99999`: it goes on where the first batches pointed."""
    model = Sequential(
        [Input((2,)), layers.Dense(32, "tanh"), layers.Dense(32, "tanh"), layers.Dense(3, "softmax")]
    )
    model.compile(Adam(1e-2, beta_1=0.99999 if fault else 0.9), "sparse_categorical_crossentropy")
    return Program(model, given.bundled("spirals", seed), epochs=60)


@faulty("optimizer-config", "over-regularized")  # A setting of the optimiser, whose effect is a penalty.
def weight_decay_of_fifty(seed, fault=True):
    """AdamW with a weight decay of 50: every step takes a twentieth of the weights away."""
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile(AdamW(1e-3, weight_decay=50.0 if fault else 1e-3), "mse")
    return Program(model, given.houses(seed))


@faulty("optimizer-config")
def gradients_gathered_without_end(seed, fault=True):
    """Gradients are gathered over 100,000 steps before the first update."""
    model = _digits_net()
    model.compile(
        Adam(1e-3, gradient_accumulation_steps=100_000 if fault else None), "sparse_categorical_crossentropy"
    )
    return Program(model, given.digits(seed))
