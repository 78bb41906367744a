"""Keras's own `fit`, with a whole epoch in one call of one traced function.

`fit` runs as ever: epochs, callbacks, logs, validation, early stopping. Replaced is what it
calls for a batch, `model.train_function` and `model.test_function`, for as long as it runs:

- Arrays are put on the device once. Keras is given a data set of one element that only
  says "an epoch"; the function then takes the batches out of the arrays, in the order in
  which Keras would have. Batches of other data are collected and trained on in one call.
- The steps are Keras's own `train_step` and `test_step`, one after another in a loop of
  the graph, so that the results are those of plain `fit`.
- The functions outlast the `fit`, and numbers that change from one `fit` to the next are
  inputs of the graph (see `numbers`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.callbacks import ValidationScores
from keras_practice.tuning.batches import (
    Batches,
    DeviceArrays,
    batches_of,
    collected,
    one_epoch,
    packed,
    samples,
    says_an_epoch,
    untuned,
    worth_collecting,
)
from keras_practice.tuning.numbers import Place, held, places
from keras_practice.tuning.signature import signature

# Ctrl-C is only heard between two calls.
_MOST_STEPS = 512

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
        self._places: list[Place] = []
        self._values: list[float] = []
        self._held: list[int] = []
        self._functions: dict[str, Any] = {}
        self._batches: dict[str, Batches] = {}
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
        with self._kept_functions(), self._planned(arguments) as planned:
            return keras.Model.fit(self.model, **planned)

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
            self._batches = {}

    def _make_function(self, which: str, force: bool = False) -> Any:
        """As `keras.Model.make_train_function` and `make_test_function`."""
        name = f"{which}_function"
        if force or getattr(self.model, name) is None:
            setattr(self.model, name, self._function(which))
        return getattr(self.model, name)

    def _function(self, which: str) -> Callable[[Any], Any]:
        """A function as Keras wants it: takes an iterator over the data, returns the logs."""
        model, self.version = self.model, next(_VERSIONS)
        step = getattr(model, f"{which}_step")
        held_here = list(self._held)
        at = [self._places[index] for index in held_here]

        @tf.function(autograph=False, reduce_retracing=True)
        def run(batches: Any, first: tf.Tensor, last: tf.Tensor, numbers: tf.Tensor) -> Any:
            data, bounds, order = batches
            # A function of its own, as in Keras, gets from TensorFlow the same optimisation, to the bit.
            call = tf.function(step, autograph=False, jit_compile=model.jit_compile or None)

            def one_step(index: tf.Tensor) -> tf.Tensor:
                begin, end = bounds[index], bounds[index + 1]
                if order is None:
                    call(tf.nest.map_structure(lambda part: part[begin:end], data))
                else:
                    rows = order[begin:end]
                    call(tf.nest.map_structure(lambda part: tf.gather(part, rows), data))
                return index + 1

            with held(at, tf.unstack(numbers, num=len(at))):
                if bounds is None:
                    call(data)
                else:
                    tf.while_loop(lambda index: index < last, one_step, [first])
            return model.get_metrics_result()

        def function(iterator: Any) -> Any:
            numbers = tf.constant([self._values[index] for index in held_here], tf.float64)
            for batches in self._next(which, iterator):
                parts = batches.data, batches.bounds, batches.order
                for first in range(0, batches.count, _MOST_STEPS):
                    last = min(first + _MOST_STEPS, batches.count)
                    with _executor():
                        logs = run(parts, tf.constant(first), tf.constant(last), numbers)
            return logs

        return function

    def _next(self, which: str, iterator: Any) -> list[Batches]:
        if says_an_epoch(iterator):
            next(iterator)
            return [self._batches[which]]
        return collected(iterator, self.model.steps_per_execution)

    @contextlib.contextmanager
    def _planned(self, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The arguments for Keras's `fit`, such that each epoch and each validation is one call.

        Where a callback wants to see batches, they stay as many to a call as the model was compiled for.
        """
        model, before = self.model, self.model.steps_per_execution
        callbacks = arguments.get("callbacks")
        listed = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
        self._share_scoring(listed)
        planned = dict(arguments)
        limit = getattr(keras.config, "max_steps_per_epoch", lambda: None)()
        if limit is None and not any(map(_needs_batches, listed)):
            self._plan_training(planned, listed)
            self._plan_validation(planned)
            for name, steps in (("x", "steps_per_epoch"), ("validation_data", "validation_steps")):
                if arguments.get(steps) is None:
                    several = worth_collecting(planned.get(name))
                    if several > 1:
                        planned[name] = untuned(planned[name])
                        model.steps_per_execution = max(model.steps_per_execution, several)
        try:
            yield planned
        finally:
            model.steps_per_execution = before

    def _plan_training(self, planned: dict[str, Any], callbacks: Sequence[Any]) -> None:
        """Puts `one_epoch` in the place of arrays."""
        data = packed(*(planned.get(name) for name in ("x", "y", "sample_weight")))
        shuffle = planned.get("shuffle", True)
        otherwise = planned.get("class_weight") is not None or planned.get("steps_per_epoch") is not None
        if data is None or type(shuffle) is not bool or otherwise:
            return
        share = planned.get("validation_split", 0.0)
        if share and planned.get("validation_data") is None:
            at = math.floor(samples(data) * (1.0 - share))
            if not 0 < at < samples(data):
                return  # Keras says what is wrong.
            planned["validation_data"] = keras.tree.map_structure(lambda part: part[at:], data)
            data = keras.tree.map_structure(lambda part: part[:at], data)
        size = planned.pop("batch_size", None) or 32
        for name in ("y", "sample_weight", "validation_split"):
            planned.pop(name, None)
        self._batches["train"] = batches_of(self._arrays.get(data), size, shuffle)
        planned["x"], planned["steps_per_epoch"], planned["shuffle"] = one_epoch(), 1, False
        planned["validation_batch_size"] = planned.get("validation_batch_size") or size
        verbose = planned.get("verbose", "auto")
        planned["callbacks"] = keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            add_progbar=verbose != 0,
            model=self.model,
            verbose=verbose,
            epochs=planned.get("epochs", 1),
            steps=self._batches["train"].count,
        )

    def _plan_validation(self, planned: dict[str, Any]) -> None:
        """Puts `one_epoch` in the place of validation arrays; other data have batches of their own."""
        validation = planned.get("validation_data")
        size = planned.get("validation_batch_size") or planned.get("batch_size") or 32
        if isinstance(validation, (tuple, list)):
            data = packed(*validation)
            if data is None or planned.get("validation_steps") is not None or planned.get("batch_size"):
                return
            self._batches["test"] = batches_of(self._arrays.get(data), size, shuffle=False)
            planned["validation_data"], planned["validation_steps"] = one_epoch(), 1
        planned.pop("validation_batch_size", None)

    def _share_scoring(self, callbacks: Sequence[Any]) -> None:
        """Has scores of one validation set taken in one traced function, whoever asks for them."""
        for callback in callbacks:
            if not isinstance(callback, ValidationScores):
                continue
            for known in self._scored:
                if _same_set(known, callback) and callback._recorder is None:
                    callback._recorder = known._recorder
                    break
            else:
                self._scored = [*self._scored[-3:], callback]


def _executor() -> contextlib.AbstractContextManager[None]:
    """The way to run a graph of many small operations.

    On a CPU they take less time than handing them to another thread does. The
    operations themselves still use every core.
    """
    if _has_gpu():
        return contextlib.nullcontext()
    executor: contextlib.AbstractContextManager[None] = tf.experimental.function_executor_type(
        "SINGLE_THREADED_EXECUTOR"
    )
    return executor


@functools.cache
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _needs_batches(callback: Any) -> bool:
    """Whether a callback does anything between the batches of an epoch."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        return False
    if isinstance(callback, keras.callbacks.TensorBoard) and callback.update_freq == "epoch":
        return bool(getattr(callback, "_should_trace", True))
    return not isinstance(callback, keras.callbacks.Callback) or any(
        name in vars(callback) or getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
        for name in _BATCH_HOOKS
    )


def _same_set(one: ValidationScores, other: ValidationScores) -> bool:
    a, b = one._val, other._val
    return a is b or (np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y))
