import io

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_practice import data, recipes
from keras_practice.checks.after_training.learning_curve import LearningCurve, learning_curve
from keras_practice.data import Task

SIZES = np.array([50, 100, 200, 400, 800, 1600])


def curve(law, train=0.0, scatter=0.01, repeats=3, seed=0, sizes=SIZES, **changed):
    """A curve whose validation error follows a law, with scatter relative to it."""
    rng = np.random.default_rng(seed)
    val = np.array([law(n) for n in sizes])[:, None] * (1 + scatter * rng.normal(size=(len(sizes), repeats)))
    means = np.clip(val.mean(axis=1), 0, 1)
    values = {
        "train_errors": np.full((len(sizes), repeats), train),
        "val_errors": val,
        "chance": 0.9,
        "doubts": np.sqrt(means * (1 - means) / 20_000),
        **changed,
    }
    return LearningCurve(sizes, **values)


@pytest.mark.parametrize(
    "law", [lambda n: 2 * n**-0.5, lambda n: 0.05 + 3 * n**-0.7, lambda n: 0.02 + 5 * n**-0.9]
)
@pytest.mark.parametrize("factor", [2, 10])
def test_a_power_law_is_carried_on(law, factor):
    n = factor * SIZES[-1]
    held = 0
    for seed in range(5):
        low, middle, high = curve(law, seed=seed).extrapolate(n)
        assert low <= middle <= high
        assert middle == pytest.approx(law(n), rel=0.1 if factor == 2 else 0.4)
        held += low <= law(n) <= high
    assert held >= 4


def test_more_scatter_makes_a_wider_interval():
    def width(scatter):
        low, _, high = curve(lambda n: 2 * n**-0.5, scatter=scatter).extrapolate(3_200)
        return high - low

    assert width(0.15) > 2 * width(0.01)


def test_one_outlier_does_not_turn_the_curve():
    law = lambda n: 0.02 + 2 * n**-0.6  # noqa: E731
    whole = curve(law)
    spoiled = whole.val_errors.copy()
    spoiled[2] *= 1.6
    other = curve(law, val_errors=spoiled)
    assert other.extrapolate(3_200)[1] == pytest.approx(law(3_200), rel=0.25)


def test_the_asymptote_is_not_below_the_training_error():
    assert curve(lambda n: 0.1 + 2 * n**-0.5, train=0.1).extrapolate(1e9)[1] >= 0.099


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (curve(lambda n: 2 * n**-0.5), "should become 0.035"),
        (curve(lambda n: 0.2 + 30 * n**-1.1), "levelled off"),
        (curve(lambda n: 0.62, train=0.6), "the error on the training data themselves is 0.6"),
        (curve(lambda n: 0.2, train=0.2, scatter=0.0), "has come down to the training error"),
        (curve(lambda n: 1 / n, sizes=SIZES[:3]), "3 sizes are too few"),
        (curve(lambda n: np.nan), "some trainings gave NaN"),
        (curve(lambda n: 2 * n**-0.5, scatter=0.5, seed=2), "cannot be said for sure"),
        (curve(lambda n: 2 * n**-0.5, unfinished=True), "give more epochs"),
    ],
)
def test_the_verdict_says_what_to_do(made, words):
    assert words in made.verdict
    assert made.verdict in str(made)


def test_what_cannot_be_said_is_not_said():
    assert np.isnan(curve(lambda n: 1 / n, sizes=SIZES[:3]).extrapolate(1e4)).all()
    with pytest.raises(ValueError, match="positive number"):
        curve(lambda n: 1 / n).extrapolate(0)
    with pytest.raises(ValueError, match="must have shape"):
        LearningCurve(SIZES, np.ones((6, 2)), np.ones((5, 2)), 0.9, np.ones(6))


@pytest.mark.parametrize("made", [curve(lambda n: 2 * n**-0.5), curve(lambda n: np.nan)])
def test_the_picture_has_both_errors_and_what_is_expected(made):
    picture = made.plot()
    assert isinstance(picture, Figure)
    axes = picture.subfigs[1].axes[0]
    assert axes.get_xscale() == "log"
    assert len(axes.get_lines()) == (3 if made.extrapolates else 2)
    picture.savefig(io.BytesIO())


BLOBS = np.random.default_rng(0)
CENTRES = BLOBS.normal(size=(3, 6))


def blobs(count, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=count)
    return (CENTRES[y] + 0.9 * rng.normal(size=(count, 6))).astype("float32"), y


def small():
    task = Task.multiclass(3)
    return recipes.compile_for(recipes.mlp((6,), task, units=(8,), dropout=0.0), task, learning_rate=1e-2)


def test_every_size_is_trained_by_the_same_model_from_the_same_weights():
    built, seen = [], []

    def build():
        built.append(small())
        fit = built[-1].fit

        def watched(batches, **options):
            seen.append((built[-1].get_weights()[0], int(built[-1].optimizer.iterations), options))
            return fit(batches, **options)

        built[-1].fit = watched
        return built[-1]

    made = learning_curve(
        build, blobs(90, 1), blobs(200, 2), sizes=[90, 30, 12], epochs=20, repeats=2, verbose=True
    )
    assert made.sizes.tolist() == [12, 30, 90]
    assert made.val_errors.shape == (3, 2)
    assert len(built) == 2
    assert all(iterations == 0 for _, iterations, _ in seen)
    starts = [weights for weights, _, _ in seen]
    assert np.array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[3])  # Another repeat.
    updates = {options["epochs"] * options["steps_per_epoch"] for _, _, options in seen}
    assert len(updates) == 1  # Small sets are trained as long as large ones.
    assert np.all(made.val_errors[-1] < 0.5 * made.chance)


def test_the_same_seed_gives_the_same_curve():
    one, other = (
        learning_curve(small, blobs(60, 1), blobs(60, 2), sizes=[20, 60], epochs=5, repeats=1, verbose=False)
        for _ in range(2)
    )
    assert np.array_equal(one.val_errors, other.val_errors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [0]}, "between 1 and the 40"),
        ({"sizes": [41]}, "between 1 and the 40"),
        ({"repeats": 0}, "repeats must be a positive integer"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"build": lambda: keras.Sequential([keras.layers.Dense(3)])}, "compiled"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    build = options.pop("build", small)
    with pytest.raises(ValueError, match=message):
        learning_curve(build, blobs(40, 1), blobs(40, 2), **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_real_data_give_a_falling_curve(name):
    dataset = data.load(name)

    def build():
        return recipes.compile_for(
            recipes.mlp(dataset.input_shape, dataset.task, units=(32,)), dataset.task, learning_rate=3e-3
        )

    made = learning_curve(build, dataset.train, dataset.val, epochs=20, repeats=2, verbose=False)
    means = made.val_errors.mean(axis=1)
    assert means[-1] < 0.7 * means[0]
    assert made.train_errors[-1].mean() < means[-1]
    assert made.extrapolate(2 * made.sizes[-1])[1] < 1.1 * means[-1]
