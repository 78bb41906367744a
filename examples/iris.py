"""E2: iris, 60 % to train on and 40 % to test, seed 0: logistic regression against a small net.

python examples/iris.py
"""

import keras
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier

from keras_practice import recipes
from keras_practice.data import Task


def main() -> None:
    """Prints the accuracies beside the lecture's."""
    x, y = load_iris(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=0)

    # The defaults of 2018: one class against the rest, liblinear.
    then = OneVsRestClassifier(LogisticRegression(solver="liblinear")).fit(x_train, y_train)
    now = LogisticRegression(max_iter=1000).fit(x_train, y_train)

    keras.utils.set_random_seed(0)
    task = Task.infer(y_train)
    # No batch norm: on batches of 16 out of 90 flowers its statistics are mostly noise.
    model = recipes.mlp((4,), task, units=(16,), dropout=0.0, batch_norm=False, activation="tanh")
    recipes.compile_for(model, task, learning_rate=1e-2)
    model.fit(x_train, y_train, batch_size=16, epochs=60, verbose=0)
    net = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]

    print(f"logistic regression, defaults of 2018   {then.score(x_test, y_test):.3f}   lecture: 0.83")
    print(f"logistic regression, defaults of today  {now.score(x_test, y_test):.3f}")
    print(f"a net of 16 hidden units                {net:.3f}   lecture: 0.97")


if __name__ == "__main__":
    main()
