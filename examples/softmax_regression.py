"""E7: softmax regression on MNIST, one dense layer and SGD: everyone's first network.

    python examples/softmax_regression.py --data mnist.npz

Without --data the set is downloaded.
"""

import argparse

import keras

from keras_practice import data, recipes
from keras_practice.training.devices import parse_and_place


def main() -> None:
    """Prints the test accuracy beside the lecture's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="NPZ", help="local mnist.npz (default: downloaded)")
    mnist = data.load("mnist", path=parse_and_place(parser).data)
    keras.utils.set_random_seed(0)
    model = recipes.linear(mnist.input_shape, mnist.task)
    sgd = recipes.optimizer("sgd", 0.1, momentum=0.0)
    recipes.compile_for(model, mnist.task, sgd)
    model.fit(mnist.train.batches(64), epochs=10, shuffle=False, verbose=0)
    accuracy = model.evaluate(mnist.test.batches(1024), verbose=0, return_dict=True)["accuracy"]
    print(f"softmax regression: test accuracy {accuracy:.4f}   lecture: about 0.92")


if __name__ == "__main__":
    main()
