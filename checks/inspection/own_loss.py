"""The loss of a model as its own training step asks for it, and what of it is a penalty."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf


def trains_itself(model: keras.Model) -> bool:
    """Whether a model brings a training step of its own."""
    own = vars(model).get("train_step")
    return own is not None or type(model).train_step is not keras.Model.train_step


def computes_loss_itself(model: keras.Model) -> bool:
    """Whether a model brings a `compute_loss` of its own."""
    return type(model).compute_loss is not keras.Model.compute_loss


def compares_labels(model: keras.Model) -> bool:
    """Whether Keras's own step compares outputs with labels, so that there must be some."""
    return model.loss is not None and not trains_itself(model) and not computes_loss_itself(model)


def computed_loss(
    model: keras.Model, x: Any, y: Any, outputs: Any, weight: Any = None, training: bool = True
) -> Any:
    """The loss with all penalties, asked for as Keras does: by name, and the mode only where it is taken.

    One that is left a number a sample is added up, as a gradient adds it up.
    """
    takes_mode = "training" in inspect.signature(model.compute_loss).parameters
    mode = {"training": training} if takes_mode else {}
    loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weight, **mode)
    return loss if len(loss.shape) == 0 else tf.reduce_sum(loss)


def penalty_in(model: keras.Model) -> Any:
    """What the layers added to the loss in the model's last call, beside comparing outputs with labels.

    Where nothing is compiled and nothing computed, what they add is the loss itself, and
    penalties are those of the weights alone.
    """
    if model.loss is None and not computes_loss_itself(model):
        added = weight_penalties(model.trainable_variables)
    else:
        added = list(model.losses)
    return tf.add_n([tf.cast(part, tf.float32) for part in added] or [tf.zeros(())])


def fits_itself(model: keras.Model) -> bool:
    """Whether a model brings a loop of trainings of its own, in which more may happen than its steps."""
    return any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in ("fit", "train_on_batch", "make_train_function")
    )


def weight_penalties(weights: Iterable[Any]) -> list[Any]:
    """What the regularizers of weights add to the loss."""
    return [w.regularizer(w) for w in weights if getattr(w, "regularizer", None) is not None]
