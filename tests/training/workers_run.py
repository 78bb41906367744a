"""What each process of test_several_workers.py does: `workers_run.py SCENARIO FOLDER`, with TF_CONFIG."""

import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_practice import callbacks, recipes, training
from keras_practice.data import Split, Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(203, 6)).astype("float32")  # 6 batches of 32, and 11, which two cannot share evenly.
Y = (X[:, 0] * X[:, 1] > 0).astype("float32")
TRAIN = Split(X, Y, Task.binary(), "train")
VAL = (X[:50] * 0.9, 1 - Y[:50])  # Learning the opposite, so that early stopping comes soon.
EPOCHS = 5


def plain(seed):
    """A net whose result does not depend on how a batch is split; its gradients are clipped."""
    keras.utils.set_random_seed(seed)
    model = recipes.mlp((6,), Task.binary(), units=(16, 8), dropout=0.0, batch_norm=False)
    keras.utils.set_random_seed(0)
    # So much is clipped away that the average of clipped gradients is another one.
    return recipes.compile_for(model, Task.binary(), learning_rate=0.05, clipnorm=0.01)


def stateful():
    """A net with batch normalisation and dropout."""
    keras.utils.set_random_seed(0)
    model = recipes.mlp((6,), Task.binary(), units=(16, 8), dropout=0.3)
    return recipes.compile_for(model, Task.binary(), learning_rate=0.05, steps_per_execution=1)


class Steps(keras.callbacks.Callback):
    """Counts steps, and does something in one of them."""

    def __init__(self, at=None, action=None):
        super().__init__()
        self.at, self.action, self.count = at, action, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.at:
            self.action(self.model)


def fit(model, group, on_chief=(), everywhere=(), epochs=EPOCHS, data=None, validation=VAL, **options):
    """Plain fit in lockstep; returns its history."""
    batches = TRAIN.batches(32) if data is None else data
    return model.fit(
        group.share(batches),
        validation_data=validation,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=training.lockstep(group, on_chief, everywhere),
        **options,
    ).history


def stop(model):
    """A callback's wish in the middle of an epoch."""
    model.stop_training = True


def stop_at_zero(model):
    """A callback's wish, and the weights that it leaves."""
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    model.stop_training = True


def behaviours(group):
    """What a pair of processes has to show, as arrays."""
    seen = {}
    model = plain(seed=1 + group.rank)  # Other initial weights in each.
    history = fit(model, group)
    seen |= {f"joint {name}": values for name, values in history.items()}
    seen |= {f"joint weights {index}": value for index, value in enumerate(model.get_weights())}

    if group.chief:  # Alone: it must not wait for the others.
        weights = model.get_weights()
        model.fit(X, Y, epochs=1, verbose=0)
        seen["alone moved"] = float(np.abs(model.get_weights()[0] - weights[0]).max())

    model, steps = stateful(), Steps()
    stopping = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    history = fit(model, group, [stopping], [steps], epochs=30)
    seen |= {f"early {name}": values for name, values in history.items()}
    seen |= {f"early weights {index}": value for index, value in enumerate(model.get_weights())}
    seen["early steps"] = steps.count

    model = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rows = Split(X[:32], Y[:32], Task.binary(), "train")
    fit(model, group, epochs=1, data=rows.batches(32, shuffle=False))
    seen["moving mean"], seen["moving variance"] = (value.numpy() for value in model.non_trainable_variables)

    model, steps = stateful(), Steps(3, stop if group.rank == 1 else lambda model: None)
    state = next(variable for variable in model.variables if variable.name == "seed_generator_state")
    seeds = []
    fit(model, group, everywhere=[steps, Steps(1, lambda model: seeds.append(state.numpy()))])
    seen["follower stops"] = steps.count
    seen["seed within"], seen["seed after"] = seeds[0], state.numpy()
    seen |= {f"follower weights {index}": value for index, value in enumerate(model.get_weights())}

    model, steps = stateful(), Steps(9, stop_at_zero if group.chief else lambda model: None)
    fit(model, group, everywhere=[steps], validation=None)
    seen["chief stops"] = steps.count
    seen["chief left"] = max(float(np.abs(value.numpy()).max()) for value in model.trainable_variables)

    try:
        fit(plain(0), group, initial_epoch=2 * group.rank)
    except RuntimeError as error:
        seen["other epoch"] = str(error)

    disordered = TRAIN.batches(32, seed=group.rank)
    try:
        fit(plain(0), group, data=disordered)
    except ValueError as error:
        seen["disorder"] = str(error)
    return seen


def undisturbed(group, folder=None, victim=None):
    """A training that goes on from a file; a victim kills itself in its twentieth step."""
    model = stateful()
    everywhere = [Steps(20, lambda model: os.kill(os.getpid(), signal.SIGKILL))] * (group.rank == victim)
    if folder is not None:
        everywhere.append(callbacks.resumable(group.file(folder / "resume.npz")))
    fit(model, group, everywhere=everywhere)
    return {f"whole weights {index}": value for index, value in enumerate(model.get_weights())}


def main(scenario, folder):
    """Runs one scenario, and leaves what was seen in the folder."""
    group = training.workers()
    if scenario == "behaviours":
        seen = {**undisturbed(group), **behaviours(group)}
    else:
        seen = undisturbed(group, folder, victim={"first dies": 0, "second dies": 1}.get(scenario))
    np.savez(folder / f"{group.rank}.npz", **seen)
    if scenario == "behaviours" and group.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
