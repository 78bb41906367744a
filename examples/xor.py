"""E1: XOR. A linear model says 1/2 everywhere; two ReLU units solve it exactly.

python examples/xor.py
"""

import keras
import numpy as np

from keras_practice import recipes
from keras_practice.data import Task

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype="float32")
Y = np.array([0, 1, 1, 0], dtype="float32")
TASK = Task.regression()


def least_squares() -> np.ndarray:
    """The linear model of least squared error, by the normal equations."""
    model = recipes.linear((2,), TASK)
    design = np.hstack([X, np.ones((4, 1))])
    *weights, bias = np.linalg.solve(design.T @ design, design.T @ Y)
    model.set_weights([np.array(weights)[:, None], np.array([bias])])
    return model.predict(X, verbose=0)[:, 0]


def by_hand() -> np.ndarray:
    """The lecture's two-unit net: W = ones, c = (0, -1), w = (1, -2), b = 0."""
    model = recipes.mlp((2,), TASK, units=(2,), dropout=0.0, batch_norm=False)
    model.set_weights([np.ones((2, 2)), np.array([0, -1]), np.array([[1], [-2]]), np.zeros(1)])
    return model.predict(X, verbose=0)[:, 0]


def trained(starts: int = 20) -> tuple[int, float]:
    """How many of several random starts learn it, and the least squared error."""
    errors = []
    for seed in range(starts):
        keras.utils.set_random_seed(seed)
        model = recipes.mlp((2,), TASK, units=(2,), dropout=0.0, batch_norm=False)
        recipes.compile_for(model, TASK, learning_rate=0.05, steps_per_execution=4)
        x, y = np.tile(X, (100, 1)), np.tile(Y, 100)
        errors.append(model.fit(x, y, batch_size=4, epochs=4, verbose=0).history["loss"][-1])
    return sum(error < 1e-3 for error in errors), min(errors)


if __name__ == "__main__":
    np.set_printoptions(precision=4, suppress=True)
    print(f"linear model        {least_squares()}   lecture: 1/2 everywhere")
    print(f"two ReLU units      {by_hand()}   lecture: [0 1 1 0], exactly")
    learned, error = trained()
    print(f"trained from random starts: {learned} of 20 learn it (least squared error {error:.1e})")
