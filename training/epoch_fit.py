"""`fit` with a whole epoch in one call of one traced function.

Epochs, callbacks, logs, validation and early stopping are those of Keras's `fit`. Different
is what is called for them, `model.train_function` and `model.test_function`:

- Arrays are put on the device once, and the function takes the batches out of them, in the
  order in which Keras would have. Batches of a data set are collected and trained on in one call.
- The steps are Keras's own `train_step` and `test_step`, one after another in a loop of
  the graph, so that the results are those of plain `fit`.
- The functions outlast the `fit`, and numbers that change from one `fit` to the next are
  inputs of the graph (see `numbers`).

Where a callback wants to see batches, or the data are neither arrays nor a data set of known
length, it is Keras's own `fit` that calls these functions.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.callbacks import ValidationScores
from keras_practice.core.private_api.keras import traces_batches
from keras_practice.training.batches import (
    DeviceArrays,
    Epochs,
    epochs_of_arrays,
    epochs_of_dataset,
    packed,
    samples,
)
from keras_practice.training.epoch_function import EpochFunction, has_gpu
from keras_practice.training.signature import signature
from keras_practice.training.traced_numbers import NumberSlot, places

_VERSIONS = itertools.count()
_FIT = inspect.signature(keras.Model.fit)
_BATCH_HOOKS = tuple(
    f"on_{phase}batch_{moment}" for phase in ("", "train_", "test_") for moment in ("begin", "end")
)


class EpochFit:
    """Stands in for the `fit` of one model, and keeps the functions that it traces.

    Args:
        model: A compiled model that has a `signature`.
        arrays: The arrays on the device, which other models may use too.

    Attributes:
        version: A number that is another one whenever a function was made.
    """

    def __init__(self, model: keras.Model, arrays: DeviceArrays) -> None:
        self.model = model
        self._arrays = arrays
        self._signature: str | None = None
        self._places: list[NumberSlot] = []
        self._values: list[float] = []
        self._held: list[int] = []
        self._functions: dict[str, Any] = {}
        self._scored: list[ValidationScores] = []
        self.version = next(_VERSIONS)
        # Not by setattr: Keras would look into it.
        vars(model)["fit"] = self.fit

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`."""
        arguments = dict(_FIT.bind(self.model, *args, **kwargs).arguments)
        del arguments["self"]
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._look_at_numbers()
        callbacks = arguments.get("callbacks")
        listed = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
        self._share_scoring(listed)
        with self._kept_functions():
            planned = None if any(map(_needs_batches, listed)) else self._planned(arguments)
            if planned is None:
                return keras.Model.fit(self.model, **arguments)
            return self._run(*planned, listed, arguments)

    def _look_at_numbers(self) -> None:
        """Finds the numbers that are no longer what they were when the functions were traced.

        Such a number is an input from then on, and the functions are traced once more.
        """
        now, found = signature(self.model), places(self.model)
        values = [place.get() for place in found]
        if now != self._signature or found != self._places:
            self._signature, self._places, self._held, self._functions = now, found, [], {}
        else:
            pairs = zip(values, self._values, strict=True)
            changed = [index for index, (value, before) in enumerate(pairs) if value != before]
            if not set(changed) <= set(self._held):
                self._held, self._functions = sorted({*self._held, *changed}), {}
        self._values = values

    @contextlib.contextmanager
    def _kept_functions(self) -> Iterator[None]:
        """Within the block Keras calls the functions that are kept here; outside, the model is as any."""
        model = self.model
        for which in ("train", "test"):
            vars(model)[f"make_{which}_function"] = functools.partial(self._make_function, which)
            setattr(model, f"{which}_function", self._functions.get(which))
        try:
            yield
        finally:
            for which in ("train", "test"):
                del vars(model)[f"make_{which}_function"]
                self._functions[which] = getattr(model, f"{which}_function")
                setattr(model, f"{which}_function", None)

    def _make_function(self, which: str, force: bool = False) -> Any:
        """As `keras.Model.make_train_function` and `make_test_function`."""
        name = f"{which}_function"
        if force or getattr(self.model, name) is None:
            setattr(self.model, name, self._function(which))
        return getattr(self.model, name)

    def _function(self, which: str) -> EpochFunction:
        self.version = next(_VERSIONS)
        at = [self._places[index] for index in self._held]
        # A small step that is run many times is worth some preparation.
        return EpochFunction(self.model, which, at, inline=which == "train" and not has_gpu())

    def _planned(self, arguments: dict[str, Any]) -> tuple[Epochs, Epochs | None] | None:
        """Where the batches of training and of validation come from; `None` where Keras has to say it."""
        given = {name: value for name, value in arguments.items() if value is not None}
        unlimited = getattr(keras.config, "max_steps_per_epoch", lambda: None)() is None
        unlimited = unlimited and getattr(keras.config, "max_epochs", lambda: None)() is None
        elsewhere = {"class_weight", "steps_per_epoch", "validation_steps"} & given.keys()
        shuffle, frequency = given.get("shuffle", True), given.get("validation_freq", 1)
        if not unlimited or elsewhere or type(shuffle) is not bool or type(frequency) is not int:
            return None
        if isinstance(given.get("x"), tf.data.Dataset):
            if {"y", "sample_weight", "batch_size"} & given.keys() or given.get("validation_split"):
                return None
            train = epochs_of_dataset(given["x"])
        else:
            data = packed(*(given.get(name) for name in ("x", "y", "sample_weight")))
            if data is None:
                return None
            share = given.get("validation_split", 0.0)
            if share and "validation_data" not in given:
                at = math.floor(samples(data) * (1.0 - share))
                if not 0 < at < samples(data):
                    return None  # Keras says what is wrong.
                given["validation_data"] = keras.tree.map_structure(lambda part: part[at:], data)
                data = keras.tree.map_structure(lambda part: part[:at], data)
            train = epochs_of_arrays(self._arrays.get(data), given.get("batch_size", 32), shuffle)
        validation = given.get("validation_data")
        if train is None:
            return None
        if validation is None:
            return train, None
        if isinstance(validation, tf.data.Dataset):
            held_out = epochs_of_dataset(validation)
        else:
            data = packed(*validation) if isinstance(validation, (tuple, list)) else None
            size = given.get("validation_batch_size") or given.get("batch_size", 32)
            held_out = None
            if data is not None:
                held_out = epochs_of_arrays(self._arrays.get(data), size, shuffle=False)
        return None if held_out is None else (train, held_out)

    def _run(
        self, train: Epochs, validation: Epochs | None, listed: list[Any], arguments: dict[str, Any]
    ) -> keras.callbacks.History:
        """What Keras's `fit` does, with an epoch's batches handed over together."""
        model, epochs = self.model, arguments.get("epochs", 1)
        verbose = arguments.get("verbose", "auto")
        callbacks = keras.callbacks.CallbackList(
            listed,
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=train.count,
        )
        model.stop_training = False
        model.make_train_function()
        callbacks.on_train_begin()
        logs: dict[str, Any] = {}
        for epoch in range(arguments.get("initial_epoch", 0), epochs):
            callbacks.on_epoch_begin(epoch)
            callbacks.on_train_batch_begin(0)
            logs = model.train_function(train.next())
            callbacks.on_train_batch_end(train.count - 1, logs)
            logs = _as_numbers(logs)
            if validation is not None and (epoch + 1) % arguments.get("validation_freq", 1) == 0:
                model.make_test_function()
                model.stop_evaluating = False
                callbacks.on_test_begin()
                callbacks.on_test_batch_begin(0)
                scores = model.test_function(validation.next())
                callbacks.on_test_batch_end(validation.count - 1, scores)
                scores = _as_numbers(scores)
                callbacks.on_test_end(scores)
                logs |= {f"val_{name}": value for name, value in scores.items()}
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        if epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs)
        return model.history

    def _share_scoring(self, callbacks: Sequence[Any]) -> None:
        """Has scores of one validation set taken in one traced function, whoever asks for them."""
        for callback in callbacks:
            if not isinstance(callback, ValidationScores):
                continue
            for known in self._scored:
                if callback.share_function(known):
                    break
            else:
                self._scored = [*self._scored[-3:], callback]


def _as_numbers(logs: dict[str, Any]) -> dict[str, Any]:
    """Logs with Python numbers in the place of scalars."""
    found = {}
    for name, value in logs.items():
        array = np.asarray(value)
        found[name] = array.item() if array.ndim == 0 else array
    return found


def _needs_batches(callback: Any) -> bool:
    """Whether a callback does anything between the batches of an epoch."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        return False
    if isinstance(callback, keras.callbacks.TensorBoard) and callback.update_freq == "epoch":
        return traces_batches(callback)
    return not isinstance(callback, keras.callbacks.Callback) or any(
        name in vars(callback) or getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
        for name in _BATCH_HOOKS
    )
