"""The callbacks that run beside one in the same `fit`."""

from __future__ import annotations

import inspect

import keras


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
