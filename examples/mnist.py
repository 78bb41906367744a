"""MNIST, 55,000 images to train on, with a dense or a convolutional net, annealed in one cycle.

    python examples/mnist.py --recipe mlp
    python examples/mnist.py --recipe convnet --data mnist.npz

Without --data the set is downloaded.
"""

import argparse
import time

import keras

from keras_practice import callbacks, data, recipes
from keras_practice.training.devices import parse_and_place

SETTINGS = {
    "mlp": {"epochs": 16, "batch_size": 256, "arguments": {"units": (1024, 512, 256), "dropout": 0.3}},
    "convnet": {"epochs": 10, "batch_size": 128, "arguments": {}},
}


def main() -> None:
    """Trains, and prints the accuracy on the test set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=SETTINGS, default="mlp")
    parser.add_argument("--data", metavar="NPZ", help="local mnist.npz (default: downloaded)")
    parser.add_argument("--seed", type=int, default=0)
    options = parse_and_place(parser)
    settings = SETTINGS[options.recipe]
    epochs, batch_size = settings["epochs"], settings["batch_size"]

    mnist = data.load("mnist", path=options.data, seed=options.seed, val=5_000 / 60_000)
    keras.utils.set_random_seed(options.seed)
    model = recipes.get(options.recipe)(mnist.input_shape, mnist.task, **settings["arguments"])
    train = mnist.train.batches(batch_size, seed=options.seed)
    recipes.compile_for(model, mnist.task, learning_rate=recipes.one_cycle(5e-3, epochs * len(train)))
    start = time.perf_counter()
    model.fit(
        train,
        validation_data=mnist.val.batches(1024),
        epochs=epochs,
        shuffle=False,
        verbose=2,
        callbacks=[callbacks.ValidationScores(mnist.val), callbacks.best_weights()],
    )
    seconds = time.perf_counter() - start
    scores = callbacks.scores(
        mnist.test.y, model.predict(mnist.test.x, batch_size=1024, verbose=0), mnist.task
    )
    print(
        f"{options.recipe}: test accuracy {scores['accuracy']:.4f}, F1 {scores['f1']:.4f} in {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
