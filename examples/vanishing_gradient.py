"""E5: the gradient vanishes in a deep sigmoid net, and not in the standard block.

python examples/vanishing_gradient.py
"""

import keras
import numpy as np
import tensorflow as tf

from keras_practice import data, recipes

DEPTH, WIDTH = 10, 64


def gradient_norms(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Norm of the first gradient of each hidden layer's weights, from input to output."""
    kernels = [layer.kernel for layer in model.layers if layer.name.endswith("_dense")][:-1]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=tf.constant(y), y_pred=model(x, training=True))
    return np.array([np.linalg.norm(g) for g in tape.gradient(loss, [k.value for k in kernels])])


def main() -> None:
    """Prints the norms by layer, and what each net learns in ten epochs."""
    digits = data.load("digits")
    for title, options in {
        "sigmoid, no batch norm": {"activation": "sigmoid", "batch_norm": False, "dropout": 0.0},
        "standard block": {"dropout": 0.0},
    }.items():
        keras.utils.set_random_seed(0)
        model = recipes.mlp(digits.input_shape, digits.task, units=(WIDTH,) * DEPTH, **options)
        recipes.compile_for(model, digits.task)
        norms = gradient_norms(model, digits.train.x[:256], digits.train.y[:256])
        history = model.fit(
            digits.train.batches(64),
            validation_data=digits.val.batches(256),
            epochs=10,
            shuffle=False,
            verbose=0,
        ).history
        print(f"{title} ({DEPTH} layers of {WIDTH})")
        print("  gradient norm by layer: " + " ".join(f"{norm:.0e}" for norm in norms))
        print(f"  first over last: {norms[0] / norms[-1]:.1e}, accuracy {history['val_accuracy'][-1]:.3f}")
    print("lecture: each sigmoid layer multiplies the gradient by at most 1/4")


if __name__ == "__main__":
    main()
