"""A convolutional net on digits, watched by the standard callbacks.

    python examples/watching.py

Leaves runs/watching/report.html and report.png, which are there from the first epoch on, and the logs for
`make tensorboard LOGS=runs/watching`. Run again after a kill, it goes on where it was.
"""

import argparse

import keras

from keras_practice import callbacks, data, recipes
from keras_practice.training.devices import parse_and_place


def main() -> None:
    """Trains and says where to look."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", default="runs/watching")
    options = parse_and_place(parser)
    keras.utils.set_random_seed(0)
    digits = data.load("digits")
    x, x_val = (split.x.reshape(-1, 8, 8, 1) for split in (digits.train, digits.val))
    model = recipes.convnet((8, 8, 1), digits.task, filters=(16, 32))
    recipes.compile_for(model, digits.task)
    model.fit(
        x,
        digits.train.y,
        validation_data=(x_val, digits.val.y),
        epochs=options.epochs,
        verbose=2,
        callbacks=callbacks.standard(
            (x_val, digits.val.y),
            options.out,
            digits.task,
            monitor=callbacks.TrainingMonitor(every=20, log_dir=options.out),
        ),
    )
    print(f"See {options.out}/report.html, or: make tensorboard LOGS={options.out}")


if __name__ == "__main__":
    main()
