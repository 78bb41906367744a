import keras
import numpy as np
import pytest

from keras_practice.callbacks import F1Score, best_weights, direction


def drive(callback, values):
    """Calls a callback's hooks with one score an epoch; the model's weight holds the epoch's number."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(loss="mse")
    model.stop_training = False
    callback.set_model(model)
    callback.on_train_begin()
    epochs = 0
    for epoch, value in enumerate(values):
        epochs += 1
        model.set_weights([np.full((1, 1), float(epoch))])
        callback.on_epoch_end(epoch, {callback.monitor: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return epochs, int(model.get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("monitor", "values", "epochs", "best"),
    [
        ("val_loss", [3, 1, 2, 2, 2, 2], 4, 1),
        ("val_f1", [0.1, 0.5, 0.4, 0.4, 0.9], 4, 1),
        ("val_auc", [0.1, 0.2, 0.3, 0.4], 4, 3),
        ("val_loss", [3, 1, 0.99995, 0.9999, 0.99992], 4, 1),
    ],
)
def test_the_best_epochs_weights_come_back(monitor, values, epochs, best):
    assert drive(best_weights(monitor, patience=2), values) == (epochs, best)


def test_one_callback_serves_two_fits():
    callback = best_weights(patience=2)
    assert drive(callback, [1, 2, 2, 2]) == (3, 0)
    assert drive(callback, [9, 8, 7, 6]) == (4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be a positive integer"),
        ({"patience": 1.5}, "patience must be a positive integer"),
        ({"min_delta": -1}, "min_delta must be zero or"),
        ({"mode": "up"}, "mode must be"),
        ({"monitor": "val_happiness"}, "better high or low"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        best_weights(**options)


def test_an_unknown_score_may_be_stated():
    assert best_weights("val_happiness", mode="max").mode == "max"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("output_1_loss", "min"),
        ("val_f1", "max"),
        ("val_f1_score", "max"),
        ("val_fbeta_score", "max"),
        ("val_auc", "max"),
        ("val_auc_3", "max"),
        ("val_precision", "max"),
        ("val_recall", "max"),
        ("val_sparse_categorical_accuracy", "max"),
        ("val_top_k_categorical_accuracy", "max"),
        ("val_mean_io_u", "max"),
        ("val_r2", "max"),
        ("val_r2_score", "max"),
        ("val_cosine_similarity", "max"),
        ("val_species_accuracy", "max"),
        ("val_mae", "min"),
        ("val_rmse", "min"),
        ("val_root_mean_squared_error", "min"),
        ("val_kl_divergence", "min"),
        ("val_false_positives", "min"),
        ("val_categorical_crossentropy", "min"),
    ],
)
def test_directions(score, expected):
    assert direction(score) == expected


@pytest.mark.parametrize("score", ["", "val_", "val_score", "happiness", "lossless", "val_accuracy_gap"])
def test_an_unknown_direction_is_an_error_and_not_a_guess(score):
    with pytest.raises(ValueError, match="better high or low"):
        direction(score)


def public_metrics():
    found = []
    for name in dir(keras.metrics):
        item = getattr(keras.metrics, name)
        if not (isinstance(item, type) and issubclass(item, keras.metrics.Metric)):
            continue
        for arguments in (
            {},
            {"num_classes": 3},
            {"num_classes": 3, "target_class_ids": [0]},
            {"recall": 0.5},
            {"precision": 0.5},
            {"specificity": 0.5},
            {"sensitivity": 0.5},
            {"target_class_ids": [0]},
        ):
            try:
                found.append(item(**arguments))
                break
            except (TypeError, ValueError):
                continue
    return [m for m in found if hasattr(m, "_direction")]


def test_every_keras_metric_is_known_and_agrees_with_keras():
    metrics = public_metrics()
    assert len(metrics) > 25
    for metric in metrics:
        assert direction(metric.name) == {"up": "max", "down": "min"}[metric._direction], metric.name


def test_a_name_of_ones_own_is_looked_up_in_the_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=[F1Score(name="quality"), keras.metrics.MeanSquaredError(name="gap")])
    assert direction("val_quality", model) == "max"
    assert direction("val_gap", model) == "min"
    assert direction("val_loss", model) == "min"
    with pytest.raises(ValueError, match="better high or low"):
        direction("val_quality")
