"""One traced function that takes a model through an epoch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.private_api.tensorflow import traced
from keras_practice.core.variables import assign_unchecked, read_values
from keras_practice.training.batches import MAX_STEPS, Batches, Epoch, collected
from keras_practice.training.inlining import inlined
from keras_practice.training.traced_numbers import NumberSlot, held

# With fewer steps to an epoch there is nothing to be won.
_MIN_INLINED = 4


class EpochFunction:
    """Stands in for `model.train_function` or `model.test_function`.

    Called with an iterator over the data, it takes as many steps as Keras's would; called
    with an `Epoch`, it resets the metrics and takes the epoch's.

    Args:
        model: A compiled model.
        which: `"train"` or `"test"`.
        at: The numbers that are inputs of the graph.
        inline: Whether to put steps into the loop themselves where that changes nothing.
    """

    def __init__(self, model: keras.Model, which: str, at: Sequence[NumberSlot], inline: bool) -> None:
        self._model, self._at = model, at
        self._keras_step = getattr(model, f"{which}_step")
        # A function of its own, as in Keras, gets from TensorFlow the same optimisation, to the bit.
        self._call = tf.function(self._step, autograph=False, jit_compile=model.jit_compile or None)
        self._run = tf.function(self._steps, autograph=False, reduce_retracing=True)
        self._inline = inline and not model.jit_compile
        self._puts: dict[str, Callable[..., list[tf.Operation]] | None] = {}
        self._traced: dict[str, Any] = {}
        self._same: dict[tuple[str, int], bool] = {}

    def __call__(self, data: Any) -> dict[str, Any]:
        """Takes the steps, and returns the logs."""
        model = self._model
        numbers = tf.constant([place.get() for place in self._at], tf.float64)
        calls, anew = (data.calls, data.whole) if isinstance(data, Epoch) else (None, False)
        if calls is None:
            calls = collected(data, model.steps_per_execution)
        elif not anew:
            model.reset_metrics()
        logs: dict[str, Any] = {}
        for batches in calls:
            put, count = self._put(batches, numbers, anew)
            for first in range(0, count, MAX_STEPS):
                last = min(first + MAX_STEPS, count)
                logs = self._run_steps(
                    _parts(batches), tf.constant(first), tf.constant(last), numbers, anew, put
                )
            if count < batches.count:
                self._traced[put](numbers, _batch_at(tf.constant(count), *_parts(batches)))
                logs = model.get_metrics_result()
        return logs

    def _run_steps(self, *arguments: Any) -> dict[str, Any]:
        """The logs after the steps from `first` up to `last`."""
        *_, put = arguments
        with _one_thread() if put else contextlib.nullcontext():
            logs: dict[str, Any] = self._run(*arguments)
            return logs

    def _step(self, numbers: tf.Tensor, batch: Any) -> None:
        with held(self._at, tf.unstack(numbers, num=len(self._at))):
            self._keras_step(batch)

    def _steps(self, parts: Any, first: Any, last: Any, numbers: tf.Tensor, anew: bool, put: str) -> Any:
        """The steps from `first` up to `last`, which is what is traced."""
        if anew:
            self._model.reset_metrics()
        inline = self._puts.get(put)

        def one_step(index: tf.Tensor) -> tf.Tensor:
            batch = _batch_at(index, *parts)
            if inline is None:
                self._call(numbers, batch)
                return index + 1
            with tf.control_dependencies(inline(numbers, *tf.nest.flatten(batch))):
                return tf.identity(index + 1)

        if parts[1] is None:
            self._call(numbers, parts[0])
        else:
            tf.while_loop(lambda index: index < last, one_step, [first])
        return self._model.get_metrics_result()

    def _put(self, batches: Batches, numbers: tf.Tensor, anew: bool) -> tuple[str, int]:
        """The kind of step to put into the loop for these batches, and how many batches the loop takes.

        The kind is "" where the loop is to call steps. That the last batch is left over is
        no rarity: it has fewer samples, for which TensorFlow may have other kernels.
        """
        called = "", batches.count
        if batches.bounds is None:
            return called
        spec = tf.nest.map_structure(
            lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), batches.data
        )
        kind = repr(spec)
        if kind not in self._traced:
            self._make_metrics(_batch_at(tf.constant(0), *_parts(batches)))
            with _one_thread():  # Traced for it, choices and loops stay what it can run.
                self._traced[kind] = traced(self._call, tf.TensorSpec(numbers.shape, numbers.dtype), spec)
        sizes = np.diff(batches.bounds.numpy())
        if not self._inline or batches.count < _MIN_INLINED or (sizes[:-1] != sizes[0]).any():
            return called
        if kind not in self._puts:
            self._puts[kind] = inlined(self._traced[kind])
        if self._puts[kind] is None:
            return called
        for index in (0, batches.count - 1):
            tried = kind, int(sizes[index])
            if tried not in self._same:
                if anew:
                    self._model.reset_metrics()  # As the loop does, which the called step is to equal.
                self._same[tried] = self._computes_the_same(
                    tf.constant(index), _parts(batches), numbers, anew, kind
                )
            if not self._same[tried]:
                return (kind, index) if index else called
        return kind, batches.count

    def _make_metrics(self, batch: Any) -> None:
        """Makes the variables of the metrics, which the first step would.

        TensorFlow traces a function in which variables are made twice, and never forgets
        the first graph; nor could a loop be traced that resets metrics not made yet.
        """
        model = self._model
        state = model.non_trainable_variables
        before = read_values(state)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        predicted = model(x, training=False)
        model.compute_loss(x, y, predicted, weight, training=False)
        model.compute_metrics(x, y, predicted, weight)
        model.reset_metrics()
        assign_unchecked(state, before)  # Recurrent dropout draws whether or not it is wanted.

    def _computes_the_same(self, at: tf.Tensor, parts: Any, numbers: tf.Tensor, anew: bool, put: str) -> bool:
        """Whether a step in the loop leaves the same bits as one that is called; all is left as it was."""
        call = self._traced[put]
        state = call.variables
        before = read_values(state)

        def after(act: Callable[[], Any]) -> list[bytes]:
            act()
            found = [variable.numpy().tobytes() for variable in state]
            assign_unchecked(state, before)
            return found

        called = after(lambda: call(numbers, _batch_at(at, *parts)))
        return called == after(lambda: self._run_steps(parts, at, at + 1, numbers, anew, put))


def _parts(batches: Batches) -> Any:
    return batches.data, batches.bounds, batches.order


def _batch_at(index: tf.Tensor, data: Any, bounds: tf.Tensor, order: tf.Tensor | None) -> Any:
    begin, end = bounds[index], bounds[index + 1]
    if order is None:
        return tf.nest.map_structure(lambda part: part[begin:end], data)
    rows = order[begin:end]
    return tf.nest.map_structure(lambda part: tf.gather(part, rows), data)


def _one_thread() -> contextlib.AbstractContextManager[None]:
    """The way to run a graph of many small operations that calls no functions.

    On a CPU they take less time than handing them to another thread does. The
    operations themselves still use every core. A function that is called runs in
    another thread, and where all are waiting for one, as the only one of a machine
    with one core does, they wait for ever.
    """
    if has_gpu():
        return contextlib.nullcontext()
    executor: contextlib.AbstractContextManager[None] = tf.experimental.function_executor_type(
        "SINGLE_THREADED_EXECUTOR"
    )
    return executor


@functools.cache
def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))
