"""A search of 200 trials over more shapes than are kept; prints the memory in use after the 10th and last.

By itself, since what tests before it have left behind in a process moves the figure by more than its bound.
"""

import resource
import sys

import keras

from keras_practice import data, recipes
from keras_practice.tuning import RandomSearch

IRIS = data.load("iris")
USED = []


class Watched(RandomSearch):
    """Notes the megabytes in use after each trial."""

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        with open("/proc/self/statm") as file:
            USED.append(int(file.read().split()[1]) * resource.getpagesize() / 2**20)


def build(hp):
    """A dense net in one of twelve shapes."""
    units = [hp.Choice("width", [3, 4, 5, 6, 7, 8])] * hp.Int("depth", 1, 2)
    model = recipes.mlp(IRIS.input_shape, IRIS.task, units=units, dropout=0.2)
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


search = Watched(build, "val_loss", 200, 0, directory=sys.argv[1])
search.oracle.verbose = 0
search.search(
    IRIS.train.x, IRIS.train.y, validation_data=(IRIS.val.x, IRIS.val.y), epochs=1, batch_size=16, verbose=0
)
assert len(USED) == 200
print("megabytes", USED[9], USED[-1])
