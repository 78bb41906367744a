"""Looking into Keras's own training and test step while it runs.

Keras compiles `model.train_step` and `model.test_step`, which anyone may
override, into `model.train_function` and `model.test_function`. A tap stands
around such a step for the length of a `fit`: it sees the batch, and at tracing
time it may stand around what the step calls, so that what it looks at is
computed in the step itself, many steps to a call and under XLA too.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.layers import inner_layers

Step = Callable[[Any], Any]
Tap = Callable[[Step, Any], Any]
"""Called as `tap(step, data)`; returns `step(data)`, which it calls once."""

Due = Callable[[], bool]
Done = Callable[[], None]

Which = Literal["train_step", "test_step"]

_ATTRIBUTE = "_keras_practice_taps"


class _TappedStep:
    """The taps on one step of one model, and what was there before them.

    Keras calls `model.train_function`. While there are taps, that is `_call`, which
    takes, for every call anew, the function that was traced with the taps that are
    due; with none due, it is Keras's own.
    """

    def __init__(self, model: keras.Model, which: Which) -> None:
        self.model = model
        self.which = which
        self.taps: dict[Tap, tuple[Due | None, Done | None]] = {}
        self.due: tuple[Tap, ...] = ()
        self.waiting: list[Callable[[], None]] = []
        self.stands = False
        self.step: Step = getattr(model, which)
        self.own: Step | None = None  # One that was set on this very model.
        self.functions: dict[tuple[Tap, ...], Any] = {}

    @property
    def _function_name(self) -> str:
        return self.which.replace("_step", "_function")

    def begin(self) -> None:
        """Stands in between; functions that were traced since the model was compiled are taken again."""
        if self.stands:
            return
        self.stands = True
        model, name = self.model, self._function_name
        getattr(model, f"make_{name}")()  # Where there is none yet.
        untapped = getattr(model, name)
        if untapped is not self.functions.get(()):  # Compiled anew since, or never tapped.
            self.step, self.functions = getattr(model, self.which), {(): untapped}
            self.own = vars(model).get(self.which)
        vars(model)[self.which] = self._stepped
        setattr(model, name, self._call)

    def end(self) -> None:
        """Leaves the model as it was, if nobody needs anything any more."""
        if not self.stands or self.taps or self.waiting:
            return
        self.stands = False
        model = self.model
        vars(model).pop(self.which)
        if self.own is not None:
            vars(model)[self.which] = self.own
        setattr(model, self._function_name, self.functions[()])

    def _call(self, iterator: Any) -> Any:
        if self.waiting and build_for(self.model, getattr(iterator, "element_spec", None)):
            self._begin_waiting()
        taps = dict(self.taps)
        self.due = tuple(tap for tap, (due, _) in taps.items() if due is None or due())
        if self.due not in self.functions:
            name = self._function_name
            getattr(self.model, f"make_{name}")(force=True)
            self.functions[self.due] = getattr(self.model, name)
            setattr(self.model, name, self._call)
        result = self.functions[self.due](iterator)
        for _, done in taps.values():
            if done is not None:
                done()
        if self.waiting:
            self._begin_waiting()
        return result

    def _begin_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for begin in waiting:
            begin()

    def _stepped(self, data: Any) -> Any:
        """The step with the taps that are due; run when a function is traced."""
        step = self.step
        for tap in self.due:
            step = functools.partial(tap, step)
        return step(data)


def _tapped_step(model: keras.Model, which: Which) -> _TappedStep:
    # Not by setattr: Keras would track the dictionary as a part of the model.
    steps: dict[str, _TappedStep] = vars(model).setdefault(_ATTRIBUTE, {})
    return steps.setdefault(which, _TappedStep(model, which))


def tap_step(
    model: keras.Model, which: Which, tap: Tap, due: Due | None = None, done: Done | None = None
) -> None:
    """Puts a tap around a model's step; to be called in `on_train_begin`.

    With `due`, that is asked before each call of the step's function whether the tap
    is wanted in it; where it is not, Keras's own function runs, and the tap costs nothing.
    `done` is called after each call in which there was a step. A callback that has no
    other business with batches leaves Keras free to take the logs in another thread.
    """
    tapped = _tapped_step(model, which)
    tapped.begin()
    tapped.taps.setdefault(tap, (due, done))


def untap_step(model: keras.Model, which: Which, tap: Tap) -> None:
    """Takes a tap off again; to be called in `on_train_end`."""
    tapped = _tapped_step(model, which)
    tapped.taps.pop(tap, None)
    tapped.end()


def when_built(model: keras.Model, begin: Callable[[], None]) -> None:
    """Calls `begin` once a model and its optimizer have their variables; to be called in `on_train_begin`.

    That is at once, or, where Keras makes the variables in the first step only, before that
    step. It is after it for the rare model that cannot be built from the shapes of a batch.
    """
    if build_for(model, None):
        begin()
        return
    tapped = _tapped_step(model, "train_step")
    tapped.begin()
    if begin not in tapped.waiting:  # As after a fit that broke off before its first step.
        tapped.waiting.append(begin)


def no_longer(model: keras.Model, begin: Callable[[], None]) -> None:
    """Forgets what `when_built` was told, where it did not come to it; to be called in `on_train_end`."""
    tapped = _tapped_step(model, "train_step")
    tapped.waiting = [other for other in tapped.waiting if other != begin]
    tapped.end()


def is_built(model: keras.Model) -> bool:
    """Whether a model has all its variables."""
    return bool(model.built) and all(layer.built for layer in inner_layers(model))


def build_for(model: keras.Model, batch: Any) -> bool:
    """Makes the variables of a model and its optimizer, as its first step would; no number is computed.

    Args:
        model: A compiled model.
        batch: `tf.TensorSpec`s in the structure of a batch `(x, y, ...)`, or `None`. Where the model cannot
            be built from them, such as one that asks for numbers, it is left unbuilt.

    Returns:
        Whether they are made, or were.
    """
    if is_built(model):
        _build_optimizer(model)
        return True
    x = keras.utils.unpack_x_y_sample_weight(batch)[0]
    specs = keras.tree.flatten(x)
    known = all(isinstance(spec, tf.TensorSpec) and spec.shape.rank for spec in specs)
    if not specs or not known:
        return False
    symbolic = keras.tree.map_structure(
        lambda spec: keras.KerasTensor((None, *spec.shape[1:]), keras.backend.standardize_dtype(spec.dtype)),
        x,
    )
    try:
        model(symbolic, training=True)
    except Exception:  # The user's own code, which has not been asked to take shapes alone.
        return False
    _build_optimizer(model)
    return True


def _build_optimizer(model: keras.Model) -> None:
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


class _Hook:
    """What stands around one method of one object, in each thread for itself.

    Under a distribution strategy Keras traces a step in one thread a replica, and
    these take turns in the middle of it.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.users = 0
        self.local = threading.local()

    @property
    def arounds(self) -> list[Callable[..., Any]]:
        if not hasattr(self.local, "arounds"):
            self.local.arounds = []
        found: list[Callable[..., Any]] = self.local.arounds
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        method = self.method
        for around in self.arounds:
            method = functools.partial(around, method)
        return method(*args, **kwargs)


@contextmanager
def hooked(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Within the block and this thread, `owner.name(...)` calls `around(method, ...)`."""
    # Not by setattr: Keras looks into what is set on a layer.
    attributes = vars(owner)
    hook = attributes.get(name)
    if not isinstance(hook, _Hook):
        hook = _Hook(getattr(owner, name))
        attributes[name] = hook
    hook.users += 1
    hook.arounds.append(around)
    try:
        yield
    finally:
        hook.arounds.remove(around)
        hook.users -= 1
        if hook.users == 0:
            del attributes[name]


@contextmanager
def outputs_kept(layers: Sequence[keras.layers.Layer]) -> Iterator[dict[int, tf.Tensor]]:
    """Within the block, collects what the layers return, by index and in the order of their calls.

    A layer that is called twice is seen the first time; one that is called inside
    a loop, as a recurrent cell is, cannot be seen outside it.
    """
    outputs: dict[int, tf.Tensor] = {}

    def keep(index: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if tf.is_tensor(first) and first.dtype.is_floating:
            outputs.setdefault(index, first)
        return output

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            stack.enter_context(hooked(layer, "call", functools.partial(keep, index)))
        yield outputs


def usable_here(outputs: dict[int, tf.Tensor]) -> dict[int, tf.Tensor]:
    """Those of the tensors that belong to the step itself, not to a loop or function inside it."""
    if tf.executing_eagerly():
        return outputs
    here = tf.compat.v1.get_default_graph()
    return {index: tensor for index, tensor in outputs.items() if tensor.graph is here}


def layer_names(model: keras.Model) -> dict[int, str]:
    """The layer that each trainable array belongs to, by the array's id, in the arrays' order.

    A name that two layers bear, or an array of no layer, is given by its path.
    """
    layers = inner_layers(model)
    names = [layer.name for layer in layers]
    owners = {
        id(variable): layer.name
        for layer in layers
        for variable in layer.trainable_variables
        if names.count(layer.name) == 1
    }
    return {
        id(weight): owners.get(id(weight)) or weight.path.rpartition("/")[0] or weight.path
        for weight in model.trainable_variables
    }


def innermost(optimizer: Any) -> Any:
    """The optimiser inside those that only scale the loss."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def scales_loss(optimizer: Any) -> bool:
    """Whether an optimiser scales the loss for mixed precision, and skips steps whose gradient overflows."""
    return hasattr(optimizer, "inner_optimizer")


def true_scale(model: keras.Model) -> tf.Tensor:
    """What the gradients in a replica's step must be multiplied by to be those of its own loss."""
    optimizer, scale = model.optimizer, tf.ones(())
    if scales_loss(optimizer):
        known = optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale
        scale = tf.cast(tf.convert_to_tensor(known), tf.float32)
    return float(model.distribute_strategy.num_replicas_in_sync) / scale


def flat_gradient(gradient: Any, size: int) -> tf.Tensor:
    """A gradient of `size` numbers in float32, one after another."""
    if isinstance(gradient, tf.IndexedSlices):  # Of an embedding: only the rows that were looked up.
        rows = gradient.dense_shape[0]
        gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
    return tf.reshape(tf.cast(gradient, tf.float32), [size])


def when(condition: tf.Tensor, action: Callable[[], None]) -> None:
    """Does something in those steps in which a condition holds.

    In the others next to nothing is done: the action is one operation, a call,
    where TensorFlow would otherwise pass by each of its operations in every step.
    """
    if tf.executing_eagerly():
        if condition:
            action()
        return
    call = tf.function(action, autograph=False, experimental_attributes={"_noinline": True})

    def act() -> tf.Tensor:
        call()
        return tf.constant(0)

    tf.cond(condition, act, lambda: tf.constant(0))


def step_variable(model: keras.Model, value: Any) -> tf.Variable:
    """A variable that a step may write, one a replica."""
    with model.distribute_strategy.scope():
        return tf.Variable(
            value,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )


def replica_values(model: keras.Model, variable: tf.Variable) -> np.ndarray[Any, Any]:
    """The values of a step variable, `(replicas, ...)`."""
    parts = model.distribute_strategy.experimental_local_results(variable)
    return np.stack([part.numpy() for part in parts])
