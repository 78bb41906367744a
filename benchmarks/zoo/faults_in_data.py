"""Programs whose data or labels are at fault."""

from __future__ import annotations

import numpy as np
from keras import Input, Sequential, layers
from keras.optimizers import SGD, Adam

from keras_practice import data, recipes
from keras_practice.data import Task
from zoo import samples as given
from zoo.program import Program, faulty

# Inputs and targets.


@faulty("input-scale")
def pixels_to_255_under_sgd(seed, fault=True):
    """Pixels from 0 to 255 into a ReLU net under SGD."""
    digits = given.digits(seed).with_x(lambda x: x * 255 if fault else x)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile(SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("input-scale")
def pixels_to_255_into_sigmoids(seed, fault=True):
    """Pixels from 0 to 255 into two layers of sigmoids, which they saturate."""
    digits = given.digits(seed).with_x(lambda x: x * 255 if fault else x)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(32, "sigmoid"),
            layers.Dense(32, "sigmoid"),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits, epochs=40)


@faulty("input-scale")
def pixels_to_255_into_a_convnet(seed, fault=True):
    """Pixels from 0 to 255 into a convolutional net under SGD with momentum."""
    shapes = given.shapes(seed).with_x(lambda x: x * 255 if fault else x)
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(SGD(0.02, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, shapes)


@faulty("input-scale")
def pixels_scaled_twice(seed, fault=True):
    """Pixels that were divided by 255 in two places."""
    digits = given.digits(seed).with_x(lambda x: x / 255 if fault else x)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile(SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("input-scale")
def wine_in_its_own_units(seed, fault=True):
    """A table of mixed units (0.1 to 1,700) that was not standardised."""
    wine = given.unscaled("wine", seed) if fault else given.bundled("wine", seed)
    model = Sequential([Input((13,)), layers.Dense(32, "relu"), layers.Dense(3, "softmax")])
    model.compile(SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, wine, epochs=40, batch_size=16)


@faulty("input-scale")
def tumours_in_their_own_units_into_tanh(seed, fault=True):
    """Areas of thousands beside smoothness of hundredths, into tanh units."""
    tumours = given.unscaled("breast_cancer", seed) if fault else given.bundled("breast_cancer", seed)
    model = Sequential([Input((30,)), layers.Dense(16, "tanh"), layers.Dense(1, "sigmoid")])
    model.compile(SGD(0.05), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, tumours, epochs=30)


@faulty("input-scale")
def a_time_stamp_among_the_columns(seed, fault=True):
    """Seconds since 1970 beside standardised columns."""
    rare = given.balanced(seed)
    rng = np.random.default_rng(seed)

    def with_time(x):
        time = rng.uniform(1.5e9, 1.7e9, (len(x), 1)) if fault else rng.normal(size=(len(x), 1))
        return np.concatenate([x, time.astype(np.float32)], axis=1)

    model = Sequential(
        [Input((9,)), layers.Dense(64, "relu"), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, rare.with_x(with_time))


@faulty("target-scale")
def prices_in_euros_under_sgd(seed, fault=True):
    """House prices in euros with a squared error: the first step is a leap."""
    houses = given.houses(seed, scaled_y=not fault)
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(SGD(0.01), "mse", metrics=["mae"])
    return Program(model, houses)


@faulty("target-scale")
def prices_in_euros_under_adam(seed, fault=True):
    """House prices in euros, which Adam's small steps never reach."""
    houses = given.houses(seed, scaled_y=not fault)
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile("adam", "mae")
    return Program(model, houses)


@faulty("target-scale")
def blood_sugar_by_recipe_in_raw_units(seed, fault=True):
    """The standard recipe on targets from 25 to 346."""
    diabetes = given.bundled("diabetes", seed)
    if fault:
        diabetes = diabetes.with_y(data.load("diabetes", seed=seed).target_scaling.invert)
    model = recipes.compile_for(recipes.mlp((10,), Task.regression(), units=(32, 16)), Task.regression())
    return Program(model, diabetes)


@faulty("target-scale")
def concentrations_in_moles(seed, fault=True):
    """Targets of a millionth, which vanish in the noise of the output."""
    houses = given.houses(seed).with_y(lambda y: y * 1e-6 if fault else y)
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(Adam(1e-3), "mse")
    return Program(model, houses)


@faulty("non-finite-data")
def a_table_with_missing_cells(seed, fault=True):
    """Missing cells that were read as NaN."""
    houses = given.houses(seed)
    x = houses.x.copy()
    if fault:
        x[np.random.default_rng(seed).random(x.shape) < 0.005] = np.nan
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    return Program(model, houses.trained_on(x, houses.y))


@faulty("non-finite-data")
def the_logarithm_of_zero(seed, fault=True):
    """Pixels taken to a logarithm, where black ones become minus infinity."""
    digits = given.digits(seed)
    with np.errstate(divide="ignore"):
        digits = digits.with_x(lambda x: np.log(x) if fault else np.log(x + 0.1))
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("non-finite-data")
def targets_with_gaps(seed, fault=True):
    """A curve with two values that were not measured."""
    curves = given.forecast(seed)
    y = curves.y.copy()
    if fault:
        y[[17, 400]] = np.nan
    model = Sequential([Input((24, 1)), layers.GRU(16), layers.Dense(1)])
    model.compile("adam", "mse")
    return Program(model, curves.trained_on(curves.x, y))


@faulty("constant-feature", "uninformative-input")  # Every column constant: both names say so.
def an_image_buffer_that_was_never_filled(seed, fault=True):
    """All training images are black, as the loader allocated them."""
    digits = given.digits(seed)
    x = np.zeros_like(digits.x) if fault else digits.x
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits.trained_on(x, digits.y))


@faulty("constant-feature", "uninformative-input")  # The same for a table.
def one_row_appended_over_and_over(seed, fault=True):
    """A loop that appends the same row each time, with the labels of all."""
    wine = given.bundled("wine", seed)
    x = np.repeat(wine.x[:1], len(wine.x), axis=0) if fault else wine.x
    model = Sequential([Input((13,)), layers.Dense(32, "relu"), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, wine.trained_on(x, wine.y), epochs=40, batch_size=16)


@faulty("uninformative-input")
def rows_shuffled_without_their_labels(seed, fault=True):
    """Training inputs that were shuffled and labels that were not."""
    digits = given.digits(seed)
    order = np.random.default_rng(seed).permutation(len(digits.x))
    x = digits.x[order] if fault else digits.x
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits.trained_on(x, digits.y))


@faulty("uninformative-input")
def the_wrong_columns_of_a_table(seed, fault=True):
    """Columns of noise where the ones with the information were meant."""
    houses = given.houses(seed)
    rng = np.random.default_rng(seed)
    houses = houses.with_x(lambda x: rng.normal(size=x.shape).astype(np.float32) if fault else x)
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    return Program(model, houses)


@faulty("uninformative-input")
def labels_of_another_recording(seed, fault=True):
    """Wave forms with labels in an order that has nothing to do with them."""
    waves = given.waves(seed)
    y = np.random.default_rng(seed).permutation(waves.y) if fault else waves.y
    model = Sequential(
        [
            Input((48, 1)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, waves.trained_on(waves.x, y), epochs=30)


@faulty("ordered-data")
def classes_one_after_the_other(seed, fault=True):
    """Rows sorted by class and `shuffle=False`: each class drives out the one before."""
    digits = given.sorted_by_label(given.digits(seed))
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits, shuffle=not fault)


@faulty("ordered-data")
def validation_takes_whole_classes(seed, fault=True):
    """`validation_split` of rows sorted by class: the last classes are never trained."""
    digits = given.digits(seed)
    if fault:
        digits = given.sorted_by_label(digits)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits, validation_split=0.3)


@faulty("ordered-data")
def folders_of_images_in_turn(seed, fault=True):
    """Images folder by folder, one class after the other, without shuffling."""
    shapes = given.sorted_by_label(given.shapes(seed))
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, shapes, shuffle=not fault)


# All rows of one class leave nothing to tell apart. "class-imbalance" is its utmost case; to "label-range",
# the classes of the head are not among the labels.
@faulty("class-imbalance", "label-range")
def a_filter_that_left_one_class(seed, fault=True):
    """A filter that kept the rows of a single class."""
    tumours = given.bundled("breast_cancer", seed)
    kept = tumours.y == 0 if fault else tumours.y >= 0
    model = Sequential([Input((30,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, tumours.trained_on(tumours.x[kept], tumours.y[kept]))


# Labels.


@faulty("label-range")
def digits_numbered_from_one(seed, fault=True):
    """Classes 1 to 10 for ten outputs, which are numbered from 0."""
    digits = given.digits(seed).with_y(lambda y: y + 1 if fault else y)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)


@faulty("label-range")
def spare_class_minus_one(seed, fault=True):
    """Unlabelled rows kept as class -1."""
    waves = given.waves(seed)
    y = waves.y.copy()
    if fault:
        y[::10] = -1
    model = Sequential([Input((48, 1)), layers.LSTM(24), layers.Dense(3, "softmax")])
    model.compile(Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, waves.trained_on(waves.x, y), epochs=25)


# -1 lies outside of 0 to 1 ("label-range"), and is the way hinge losses write a no ("label-encoding").
@faulty("label-range", "label-encoding")
def minus_one_and_one_with_crossentropy(seed, fault=True):
    """Labels -1 and 1, as for a hinge loss, with binary cross-entropy."""
    points = given.bundled("hastie", seed)
    points = points.trained_on(points.x[:2_000], points.y[:2_000])
    points = points.with_y(lambda y: 2 * y - 1 if fault else y)
    model = Sequential([Input((10,)), layers.Dense(64, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, points)


@faulty("label-encoding")
def numbers_with_categorical_crossentropy(seed, fault=True):
    """Class numbers with `categorical_crossentropy`, which wants rows of 0 and 1."""
    digits = given.digits(seed)
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "categorical_crossentropy" if fault else "sparse_categorical_crossentropy")
    return Program(model, digits)


@faulty("label-encoding")
def numbers_in_a_column_with_categorical_crossentropy(seed, fault=True):
    """Class numbers of shape `(rows, 1)` with `categorical_crossentropy`."""
    waves = given.waves(seed)
    waves = waves.trained_on(waves.x, waves.y[:, None])
    model = Sequential(
        [
            Input((48, 1)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.Conv1D(32, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(Adam(5e-3), "categorical_crossentropy" if fault else "sparse_categorical_crossentropy")
    return Program(model, waves, epochs=30)


@faulty("label-encoding")
def rows_of_zeros_and_ones_with_sparse(seed, fault=True):
    """One-hot labels with `sparse_categorical_crossentropy`, which wants class numbers."""
    iris = given.one_hot(given.bundled("iris", seed), 3)
    model = Sequential([Input((4,)), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy" if fault else "categorical_crossentropy")
    return Program(model, iris, epochs=40)


@faulty("label-scale", "label-range")  # Labels of 0 and 255 are on the scale of pixels, beyond 0 to 1.
def masks_of_0_and_255(seed, fault=True):
    """Masks read from an image file, 0 and 255, with binary cross-entropy for each pixel."""
    outlines = given.outlines(seed).with_y(lambda y: y * 255 if fault else y)
    model = Sequential(
        [
            Input((16, 16, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 1, activation="sigmoid"),
        ]
    )
    model.compile(Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    return Program(model, outlines, epochs=8)


@faulty("label-scale", "label-range")  # The scaler also took the labels, to values beyond 0 and 1.
def a_scaler_over_features_and_labels(seed, fault=True):
    """A StandardScaler over the whole table, the column of yes and no included."""
    tumours = given.bundled("breast_cancer", seed)
    y = (tumours.y - tumours.y.mean()) / tumours.y.std() if fault else tumours.y
    model = Sequential([Input((30,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return Program(model, given.probabilities_of_yes(tumours).trained_on(tumours.x, y), epochs=60)


# Class numbers that became fractions: no class is meant by 0.3 ("label-scale", "label-encoding").
@faulty("label-scale", "label-encoding")
def class_numbers_divided_with_the_pixels(seed, fault=True):
    """Class numbers divided along with the pixels; the sparse loss cuts all of them to 0."""
    digits = given.digits(seed)
    y = (digits.y / 10).astype(np.float32) if fault else digits.y
    model = Sequential(
        [Input((8, 8, 1)), layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits.trained_on(digits.x, y))


# The labels say several at once, the head one of six: a matter of the task, and of head and loss.
@faulty("label-task", "output-loss")
def softmax_for_several_labels(seed, fault=True):
    """Several labels a row, with a softmax, which can name one alone."""
    model = Sequential(
        [Input((15,)), layers.Dense(64, "relu"), layers.Dense(6, "softmax" if fault else "sigmoid")]
    )
    model.compile("adam", "categorical_crossentropy" if fault else "binary_crossentropy")
    return Program(model, given.tags(seed))


@faulty("label-task", "output-loss")  # Numbers meet a loss for yes and no.
def cross_entropy_for_a_number(seed, fault=True):
    """A standardised number to predict, with a sigmoid and cross-entropy."""
    model = Sequential([Input((5,)), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid" if fault else None)])
    model.compile("adam", "binary_crossentropy" if fault else "mse", metrics=["accuracy" if fault else "mae"])
    return Program(model, given.houses(seed))


@faulty("label-task", "output-loss")  # Class numbers meet a loss for quantities.
def class_numbers_as_quantities(seed, fault=True):
    """Ten classes as one number from 0 to 9 with a squared error, rounded to tell the class."""
    digits = given.digits(seed)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(1) if fault else layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "mse" if fault else "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Program(model, digits)
