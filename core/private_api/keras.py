"""What Keras keeps to itself."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any

import keras
from keras.src.utils import naming


def siblings(callback: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """The live list of callbacks that `callback` is being set up in, itself among them.

    To be called in `set_model`. Keras gives a callback no reference to its list:
    the list is found as the caller of `set_model`. Outside a
    `keras.callbacks.CallbackList` the result is empty.
    """
    frame = inspect.currentframe()
    try:
        caller = frame
        while caller is not None:
            owner = caller.f_locals.get("self")
            if isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks:
                found: list[keras.callbacks.Callback] = owner.callbacks
                return found
            caller = caller.f_back
        return []
    finally:
        del frame  # A frame that refers to itself would keep everything in it alive.


def move_to_front(callback: keras.callbacks.Callback) -> None:
    """Makes a callback the first of its list; to be called in `set_model`.

    Keras hands every callback the same logs in list order and gives none a way
    to come first.
    """
    beside = siblings(callback)
    if beside:
        beside.insert(0, beside.pop(beside.index(callback)))


def fit_frame(model: keras.Model, frame: FrameType | None) -> FrameType | None:
    """The call of this model's `fit` that a frame is inside of, `None` where there is none.

    Keras does not tell whether, and where, a model is being trained.
    """
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return frame
        frame = frame.f_back
    return None


def batches_of_fit(model: keras.Model) -> Any:
    """What Keras's running `fit` of a model draws its batches from, `None` outside of it.

    `fit` keeps it in a local variable, and draws a data set, generator or `PyDataset`
    nowhere else.
    """
    frame = fit_frame(model, inspect.currentframe())
    return frame.f_locals.get("epoch_iterator") if frame is not None else None


def batch_spec_of_fit(model: keras.Model) -> Any:
    """The structure, shapes and types of a batch of the running `fit`; `None` where that is not known.

    A callback begins before there is a batch, and Keras gives it none.
    """
    return getattr(getattr(batches_of_fit(model), "_distributed_dataset", None), "element_spec", None)


def mask_of(tensor: Any) -> Any:
    """The mask that a layer has put on its output, `None` for none; Keras keeps it on the tensor."""
    return getattr(tensor, "_keras_mask", None)


def restart_automatic_names() -> None:
    """Has the names that Keras counts up, as in `dense_3` or `auc_1`, begin anew.

    `keras.backend.clear_session` does so, and has TensorFlow forget what it has prepared.
    """
    naming.reset_uids()


def begin_fit_at(model: keras.Model, epoch: int | None) -> None:
    """Has the running `fit` begin at an epoch; `None` leaves it to `initial_epoch`.

    Keras has no public way. `fit` reads this attribute, which
    `keras.callbacks.BackupAndRestore` sets, after all `on_train_begin`.
    """
    model._initial_epoch = epoch


def traces_batches(callback: keras.callbacks.TensorBoard) -> bool:
    """Whether Keras's TensorBoard profiles batches, and so must see them.

    It keeps nothing of `profile_batch` but this; where it does not, it surely does.
    """
    return bool(getattr(callback, "_should_trace", True))


def learning_rate_schedule(optimizer: Any) -> Any:
    """An optimiser's learning-rate schedule, `None` where the rate is a number.

    The public property gives a schedule's value at the moment, and not its course.
    """
    schedule = getattr(optimizer, "_learning_rate", None)
    return schedule if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) else None


def decays(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Whether weight decay touches a variable; what was excluded can be set, but not asked for."""
    return bool(optimizer._use_weight_decay(variable))


def excludes_weights(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether some weights are to be spared by weight decay, which no config tells."""
    return any(
        "exclude_from_weight_decay" in name and not name.endswith("_cache") and bool(value)
        for name, value in vars(optimizer).items()
    )
