import keras
import numpy as np
import pytest

from keras_practice import checks, data, recipes
from keras_practice.data import Task

DIGITS = data.load("digits")
X, Y = DIGITS.train.x, DIGITS.train.y


def compiled(dataset=DIGITS, **options):
    keras.utils.set_random_seed(0)
    model = recipes.mlp(dataset.input_shape, dataset.task, units=(32,), l2=1e-3)
    return recipes.compile_for(model, dataset.task, **options)


def state(model):
    """Everything of a model that a check might disturb."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.array(v.numpy()) for v in variables], model.get_compile_config(), model.stop_training


def assert_same(before, after):
    assert len(before[0]) == len(after[0])
    for one, other in zip(before[0], after[0], strict=True):
        assert one.tobytes() == other.tobytes()
    assert before[1:] == after[1:]


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes"])
def test_a_fresh_recipe_starts_at_chance_and_learns_a_few_by_heart(name):
    dataset = data.load(name)
    model = compiled(dataset)
    first = checks.initial_loss(model, dataset.train.x, dataset.train.y)
    assert first.passed, str(first)
    tiny = checks.overfit_tiny(model, dataset.train.x, dataset.train.y)
    assert tiny.passed, str(tiny)
    assert tiny.figures["steps"] <= 500


def test_the_expected_loss_is_what_the_formula_says():
    report = checks.initial_loss(compiled(), X, Y)
    assert report.figures["expected"] == pytest.approx(np.log(10), rel=1e-5)
    assert checks.initial_loss(compiled(), X, Y, tolerance=0.001).passed is False
    cancer = data.load("breast_cancer")
    report = checks.initial_loss(compiled(cancer), cancer.train.x, cancer.train.y)
    assert report.figures["expected"] == pytest.approx(np.log(2), rel=1e-5)


def test_fresh_nets_on_few_features_raise_no_alarm():
    iris, high = data.load("iris"), 0.0
    for seed in range(24):
        keras.utils.set_random_seed(seed)
        report = checks.initial_loss(compiled(iris), iris.train.x, iris.train.y)
        high = max(high, report.figures["loss"] / report.figures["expected"])
        assert report.passed, seed
        assert all(finding.severity == "info" for finding in report.findings), seed
    assert high > 1.5  # They do scatter.


def test_penalties_are_not_counted():
    plain, heavy = (
        recipes.compile_for(recipes.mlp((8, 8, 1), DIGITS.task, units=(32,), l2=l2), DIGITS.task)
        for l2 in (0.0, 10.0)
    )
    heavy.set_weights(plain.get_weights())
    losses = [checks.initial_loss(model, X, Y).figures["loss"] for model in (plain, heavy)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("factor", [30.0, np.nan])
def test_a_start_far_from_chance_is_an_error(factor):
    model = compiled()
    model.set_weights([w * factor for w in model.get_weights()])
    report = checks.initial_loss(model, X, Y)
    assert not report.passed
    assert report.findings[0].check == "initial-loss"
    with pytest.raises(checks.CheckFailedError, match="chance gives 2.303"):
        report.raise_if_failed()


def test_a_model_that_knows_the_labels_is_told():
    leaky = keras.Sequential([keras.Input((10,)), keras.layers.Softmax()])
    leaky.compile(loss="sparse_categorical_crossentropy")
    report = checks.initial_loss(leaky, 10 * np.eye(10)[Y], Y)
    assert not report.passed


def test_logits_are_understood():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert checks.initial_loss(model, X, Y).figures["expected"] == pytest.approx(np.log(10), rel=1e-5)


YES_NO = (Y == 0).astype(int)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["labels (n,)", "labels (n, 1)"])
@pytest.mark.parametrize(
    "loss",
    [
        "binary_crossentropy",
        keras.losses.BinaryCrossentropy(),
        keras.losses.binary_crossentropy,
        ["binary_crossentropy"],
    ],
    ids=["by name", "by object", "by function", "in a list"],
)
def test_labels_of_one_number_a_sample_are_taken_as_fit_takes_them(loss, shape):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, "sigmoid"))
    model.compile("adam", loss)
    y = YES_NO.reshape(shape)
    report = checks.initial_loss(model, X, y)
    assert report.figures["expected"] == pytest.approx(np.log(2), rel=1e-5)
    rows = np.random.default_rng(0).permutation(len(X))[:1024]
    seen = model.evaluate(X[rows], y[rows], batch_size=1024, verbose=0)
    assert report.figures["loss"] == pytest.approx(seen[0] if isinstance(seen, list) else seen, rel=1e-4)
    assert checks.overfit_tiny(model, X, y, n=4, steps=10).figures["steps"] <= 10


@pytest.mark.parametrize("factor", [1.0, 2.4, 3.2])
def test_a_start_is_judged_as_preflight_judges_it(factor):
    model = compiled()
    model.set_weights([w * factor for w in model.get_weights()])
    alone = checks.initial_loss(model, X, Y, tolerance=100.0)
    beside = checks.preflight(model, X, Y)
    expected = [f.severity for f in beside.findings if f.check == "initial-loss"]
    assert [f.severity for f in alone.findings] == expected


def test_a_start_that_knows_how_frequent_each_class_is_raises_no_alarm():
    rare = (np.arange(len(X)) % 50 == 0).astype(int)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    bias = keras.initializers.Constant(-np.log(49))
    model.add(keras.layers.Dense(1, "sigmoid", kernel_initializer="zeros", bias_initializer=bias))
    model.compile("adam", "binary_crossentropy")
    report = checks.initial_loss(model, X, rare)
    assert report.figures["loss"] < report.figures["expected"] / 2
    assert report.findings == ()


def test_the_optimizer_may_scale_the_loss():
    losses = []
    for scaled in (False, True):
        optimizer = keras.optimizers.SGD(0.1)
        model = compiled()
        model.compile(
            keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer,
            "sparse_categorical_crossentropy",
        )
        losses.append(checks.overfit_tiny(model, X, Y, steps=10).figures["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("check", [checks.initial_loss, checks.overfit_tiny])
def test_the_model_is_given_back_as_it_was(check, trained):
    model = compiled()
    if trained:
        model.fit(X[:64], Y[:64], verbose=0)
    before = state(model)
    check(model, X, Y)
    assert_same(before, state(model))


@pytest.mark.parametrize("check", [checks.initial_loss, checks.overfit_tiny])
def test_training_goes_on_as_if_no_check_had_been(check):
    ends = []
    for checked in (False, True):
        model = compiled()
        if checked:
            check(model, X, Y)
        keras.utils.set_random_seed(1)
        model.fit(X[:128], Y[:128], epochs=2, verbose=0)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_uncompiled_optimizer_is_not_built_by_a_check():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    checks.overfit_tiny(model, X, Y)
    assert not model.optimizer.built


def test_a_subclassed_model_is_checked_too():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(32, "relu")
            self.out = keras.layers.Dense(10, "softmax")

        def call(self, x, training=False):
            return self.out(self.hidden(keras.ops.reshape(x, (-1, 64))))

    model = Net()
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    assert checks.overfit_tiny(model, X, Y).passed


@pytest.mark.parametrize(
    "break_it",
    [
        lambda m: m.compile(keras.optimizers.SGD(1e-9), "sparse_categorical_crossentropy"),
        lambda m: m.compile(keras.optimizers.SGD(1e6), "sparse_categorical_crossentropy"),
        lambda m: setattr(m, "trainable", False),
    ],
    ids=["no step", "explosion", "frozen"],
)
def test_a_model_that_cannot_learn_fails(break_it):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    break_it(model)
    report = checks.overfit_tiny(model, X, Y, steps=40)
    assert not report.passed
    assert report.findings[0].check == "tiny-overfit"
    assert "where 1 is expected" in report.findings[0].evidence


def test_samples_come_from_all_classes():
    x = np.eye(10)[np.sort(Y)]  # Sorted by class: the first 20 rows are all zeros.
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(1e-9), "sparse_categorical_crossentropy")
    report = checks.overfit_tiny(model, x, np.sort(Y), n=20, steps=1)
    assert report.figures["loss"] > 1.5  # One class alone would be learned or guessed.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: checks.overfit_tiny(m, X, Y, n=0), "n must be a positive integer"),
        (lambda m: checks.overfit_tiny(m, X, Y, steps=0), "steps must be a positive integer"),
        (lambda m: checks.overfit_tiny(m, X, Y[:-1]), "one row a sample"),
        (lambda m: checks.initial_loss(m, X[:0], Y[:0]), "at least one"),
        (lambda m: checks.initial_loss(m, X, Y, task=Task.binary()), "must be 0 or 1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(compiled())


def test_an_uncompiled_model_is_refused():
    with pytest.raises(ValueError, match="must be compiled"):
        checks.initial_loss(recipes.mlp((4,), Task.binary()), np.zeros((2, 4)), np.array([0, 1]))


def test_reports_read_well():
    report = checks.initial_loss(compiled(), X, Y)
    assert str(report).startswith("passed: loss 2.")
    assert checks.Report().passed
