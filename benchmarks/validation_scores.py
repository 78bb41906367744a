"""What scores of the validation set cost: `ValidationScores` against a second `predict` after every epoch.

    python benchmarks/validation_scores.py

All three sides train `mlp` on digits with `validation_data`, from the same weights on the same batches, in
turns within one process: Keras's own validation alone, with `ValidationScores` beside it, and with the
callback that lectures show, which predicts a second time and asks scikit-learn.
"""

import argparse
import platform
import statistics
import time

import keras
import tensorflow as tf
from sklearn import metrics

from keras_practice import callbacks, data, recipes

DIGITS = data.load("digits")


class SecondPredict(keras.callbacks.Callback):
    """The usual hand-written callback."""

    def on_epoch_end(self, epoch, logs=None):
        """Predicts the validation set once more and scores it."""
        decided = self.model.predict(DIGITS.val.x, verbose=0).argmax(axis=1)
        logs["val_f1"] = metrics.f1_score(DIGITS.val.y, decided, average="macro")
        logs["val_precision"] = metrics.precision_score(DIGITS.val.y, decided, average="macro")
        logs["val_recall"] = metrics.recall_score(DIGITS.val.y, decided, average="macro")


SIDES = {
    "Keras's validation alone": list,
    "ValidationScores": lambda: [callbacks.ValidationScores(DIGITS.val)],
    "second predict": lambda: [SecondPredict()],
}


def main() -> None:
    """Prints the medians and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    train, val = DIGITS.train.batches(options.batch_size), DIGITS.val.batches(options.batch_size)
    sides = {}
    for name, make in SIDES.items():
        model = recipes.mlp(DIGITS.input_shape, DIGITS.task)
        sides[name] = recipes.compile_for(model, DIGITS.task), make()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.turns + 1):
        for name, (model, watching) in sides.items():
            start = time.perf_counter()
            model.fit(
                train,
                validation_data=val,
                epochs=options.epochs,
                callbacks=watching,
                shuffle=False,
                verbose=0,
            )
            if turn:  # The first one traces.
                times[name].append(time.perf_counter() - start)
    print(f"Python {platform.python_version()}, Keras {keras.__version__}, TensorFlow {tf.__version__}")
    medians = {name: statistics.median(taken) / options.epochs for name, taken in times.items()}
    alone = medians["Keras's validation alone"]
    for name, seconds in medians.items():
        print(f"{name:26} {1e3 * seconds:7.1f} ms an epoch   ratio {seconds / alone:.3f}")


if __name__ == "__main__":
    main()
