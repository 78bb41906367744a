"""E6: linear regression by the normal equations, and the same weights by gradient descent.

python examples/normal_equations.py
"""

import keras
import numpy as np

from keras_practice import data, recipes


def main() -> None:
    """Prints both solutions and how far they are apart."""
    diabetes = data.load("diabetes")
    x, y = diabetes.train.x.astype("float64"), diabetes.train.y.astype("float64")
    design = np.hstack([x, np.ones((len(x), 1))])
    exact = np.linalg.solve(design.T @ design, design.T @ y)

    keras.utils.set_random_seed(0)
    model = recipes.linear(diabetes.input_shape, diabetes.task)
    # The largest curvature sets the largest step; full batches, since the minimum is wanted exactly.
    step = 1 / np.linalg.eigvalsh(2 * design.T @ design / len(x)).max()
    descent = recipes.optimizer("sgd", float(step), momentum=0.9, nesterov=True)
    recipes.compile_for(model, diabetes.task, descent, steps_per_execution=50)
    model.fit(np.tile(x, (50, 1)), np.tile(y, 50), batch_size=len(x), epochs=60, shuffle=False, verbose=0)
    kernel, bias = model.get_weights()
    descended = np.append(kernel[:, 0], bias)

    print(f"{'feature':8}{'normal equations':>18}{'gradient descent':>18}")
    for name, one, other in zip((*diabetes.feature_names, "bias"), exact, descended, strict=True):
        print(f"{name:8}{one:18.5f}{other:18.5f}")
    print(f"largest difference {np.abs(exact - descended).max():.1e}   lecture: the same weights")


if __name__ == "__main__":
    main()
