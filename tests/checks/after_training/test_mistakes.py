import io

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_practice import data, recipes
from keras_practice.checks.after_training.judging import judge
from keras_practice.checks.after_training.mistakes import worst_mistakes
from keras_practice.data import Task

RNG = np.random.default_rng(0)


class Says(keras.layers.Layer):
    """Puts out its first inputs as they are."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def call(self, x):
        return keras.ops.reshape(x, (-1, int(np.prod(x.shape[1:]))))[:, : self.units]


def saying(outputs, shape=None, loss="sparse_categorical_crossentropy"):
    """A model that says what stands in the first features."""
    model = keras.Sequential([keras.Input(shape or (outputs,)), Says(outputs)])
    model.compile(loss=loss)
    return model


def written(figure):
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO())
    return [text.get_text() for text in [*figure.texts, *(t for a in figure.axes for t in a.texts)]]


SURE_AND_WRONG = np.array(
    [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.98, 0.01, 0.01], [0.4, 0.35, 0.25]], dtype="float32"
)


def test_the_most_confident_wrong_answer_comes_first():
    y = np.array([0, 1, 2, 1])
    found = worst_mistakes(saying(3), (SURE_AND_WRONG, y), k=3)
    assert found.indices.tolist() == [2, 3, 1]
    assert found.truth.tolist() == [2, 1, 1]
    assert found.prediction.tolist() == [0, 0, 1]
    assert found.confidence == pytest.approx([0.98, 0.4, 0.8])
    assert found.loss == pytest.approx(-np.log([0.01, 0.35, 0.8]), rel=1e-4)
    assert (found.samples, found.wrong, len(found)) == (4, 2, 3)
    assert "2 of 4 samples are wrong" in str(found)
    assert len(worst_mistakes(saying(3), (SURE_AND_WRONG, y), k=99)) == 4


def test_equal_losses_are_ordered_by_confidence():
    x = np.array([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [0.7, 0.3, 0.0]], dtype="float32")
    found = worst_mistakes(saying(3), (x, np.array([2, 2, 2])), task=Task.multiclass(3))
    assert found.indices.tolist() == [1, 2, 0]


@pytest.mark.parametrize("from_logits", [True, False])
def test_logits_become_probabilities(from_logits):
    x = np.log(SURE_AND_WRONG) + 3 if from_logits else SURE_AND_WRONG
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    found = worst_mistakes(saying(3, loss=loss), (x, np.array([0, 1, 2, 1])), k=1)
    assert found.confidence == pytest.approx([0.98], rel=1e-4)


def test_yes_or_no():
    x = np.array([[0.9], [0.2], [0.999]], dtype="float32")
    found = worst_mistakes(saying(1, loss="binary_crossentropy"), (x, np.array([1, 1, 0])))
    assert found.indices.tolist() == [2, 1, 0]
    assert found.confidence == pytest.approx([0.999, 0.8, 0.9])
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    found = worst_mistakes(saying(1, loss=logits), (np.array([[-8.0], [3.0], [-9.0]]), np.array([1, 1, 0])))
    assert found.prediction.tolist() == [0, 1, 0]


def test_two_softmax_units_for_yes_or_no():
    x = np.array([[0.9, 0.1], [0.3, 0.7]], dtype="float32")
    found = worst_mistakes(saying(2), (x, np.array([1, 0])))
    assert found.prediction.tolist() == [0, 1]
    assert found.wrong == 2


def test_several_labels():
    x = np.array([[0.9, 0.1, 0.2], [0.9, 0.9, 0.1]], dtype="float32")
    y = np.array([[1, 0, 0], [0, 0, 1]])
    task = Task.multilabel(3, ("red", "round", "ripe"))
    found = worst_mistakes(saying(3, loss="binary_crossentropy"), (x, y), task=task)
    assert found.indices.tolist() == [1, 0]
    assert found.wrong == 1
    assert "ripe" in str(found)
    assert "red, round" in str(found)


def test_numbers():
    x = np.array([[1.0, 0.0], [5.0, 0.0], [2.0, 0.0]])
    found = worst_mistakes(saying(1, (2,), "mse"), (x, np.array([1.5, 1.1, 2.0])))
    assert found.indices.tolist() == [1, 0, 2]
    assert found.loss == pytest.approx([3.9**2, 0.25, 0.0], abs=1e-4)
    assert np.isnan(found.confidence).all()
    assert "confidence" not in str(found)


def test_features_unlike_the_predicted_class_are_named():
    x = np.array([[0.9, 0.1, 5.0], [0.8, 0.2, 5.1], [0.9, 0.1, 4.9], [0.1, 0.9, 0.0], [0.9, 0.1, 0.1]])
    y = np.array([0, 0, 0, 1, 1])
    names = ("a", "b", "weight")
    found = worst_mistakes(saying(2, (3,)), (x, y), k=1, feature_names=names)
    assert found.indices.tolist() == [4]
    assert found.unusual[0][0].startswith("weight -")  # It weighs too little for what it was taken for.
    assert any("weight -" in text for text in written(found.plot()))
    with pytest.raises(ValueError, match="one name for each of 3 features"):
        worst_mistakes(saying(2, (3,)), (x, y), feature_names=("a",))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (30, 1)])
def test_images_and_sequences_are_drawn(shape):
    x = RNG.random((7, *shape)).astype("float32")
    task = Task.multiclass(3, ("cat", "dog", "a very long name of a class"))
    found = worst_mistakes(saying(3, shape), (x, np.array([0, 1, 2, 2, 1, 0, 1])), k=5, task=task)
    picture = found.plot()
    assert len(picture.axes) == 5
    assert bool(picture.axes[0].images) == (shape != (30, 1))
    texts = written(picture)
    assert f"row {found.indices[0]}" in texts
    assert any("%" in text for text in texts)


def test_a_prediction_that_is_not_finite_is_wrong_and_first():
    x = np.array([[0.9, 0.1, 0.0], [np.nan, np.nan, np.nan]], dtype="float32")
    found = worst_mistakes(saying(3), (x, np.array([0, 0])), task=Task.multiclass(3))
    assert found.indices.tolist() == [1, 0]
    assert found.wrong == 1


def test_errors_and_chance():
    y = np.array([0, 0, 0, 1])
    judged = judge(saying(2), (np.eye(2)[[0, 0, 1, 1]], y), Task.binary())
    assert (judged.error, judged.chance) == (0.25, 0.25)
    targets = np.array([0.0, 1.0, 2.0, 3.0])
    assert judge(saying(1, loss="mse"), (targets[:, None], targets)).error == pytest.approx(0)
    mean = np.full((4, 1), 1.5)
    assert judge(saying(1, loss="mse"), (mean, targets)).error == pytest.approx(1.0)


def test_a_trained_model_is_looked_at_and_left_alone():
    dataset = data.load("iris")
    model = recipes.compile_for(recipes.mlp(dataset.input_shape, dataset.task), dataset.task)
    before = [np.array(v) for v in model.get_weights()]
    found = worst_mistakes(model, dataset.val, feature_names=dataset.feature_names)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert np.all(np.diff(found.loss) <= 0)
    assert "setosa" in str(found)
    assert "petal" in str(found)
    with pytest.raises(ValueError, match="k must be a positive integer"):
        worst_mistakes(model, dataset.val, k=0)
    with pytest.raises(ValueError, match=r"pair \(x, y\)"):
        worst_mistakes(model, (dataset.val.x,))
    with pytest.raises(ValueError, match="must have 5 output"):
        worst_mistakes(model, (dataset.val.x, dataset.val.y), task=Task.multiclass(5, one_hot=False))
