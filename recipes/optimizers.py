"""Optimisers by name, with the clipping that the lectures ask for."""

from __future__ import annotations

from typing import Any

import keras

from keras_practice.core.arguments import check_positive, check_share
from keras_practice.data import Registry

_OPTIMIZERS: Registry[type[keras.optimizers.Optimizer]] = Registry("optimizer")
for _name, _class in {
    "adam": keras.optimizers.Adam,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "adamax": keras.optimizers.Adamax,
    "nadam": keras.optimizers.Nadam,
    "adamw": keras.optimizers.AdamW,
}.items():
    _OPTIMIZERS.add(_name, _class)


def optimizer(
    name: str = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> keras.optimizers.Optimizer:
    """An optimiser by name.

    Args:
        name: `"adam"`, `"sgd"`, `"rmsprop"`, `"adagrad"`, `"adadelta"`,
            `"adamax"`, `"nadam"` or `"adamw"`. Defaults to `"adam"`.
        learning_rate: A positive number, or a schedule. Defaults to `1e-3`.
        momentum: For `"sgd"` and `"rmsprop"`, in `[0, 1)`. Defaults to `None`:
            0.9 for `"sgd"`, the lecture's figure, and none for `"rmsprop"`.
        nesterov: Whether `"sgd"` looks ahead by its momentum. Defaults to `False`.
        clipnorm: Largest norm of the gradient of one weight array. 1.0 is the
            lecture's figure. Defaults to `None`, no clipping.
        clipvalue: Largest absolute value of a gradient's entry. 0.5 is the
            lecture's figure. Defaults to `None`.
        global_clipnorm: Largest norm of the gradient of all weights together,
            which keeps the gradient's direction. Defaults to `None`.

    Returns:
        A fresh Keras optimiser.

    Raises:
        ValueError: If the name is unknown, a number is outside its range, more
            than one clipping is asked for, or the optimiser has no momentum to set.

    Source:
        A20, A21; Kingma and Ba 2015 (Adam), Sutskever et al. 2013 (momentum),
        Pascanu et al. 2013 (clipping).
    """
    make = _OPTIMIZERS.get(name)
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        check_positive("learning_rate", learning_rate)
    clipping = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
    clipping = {key: value for key, value in clipping.items() if value is not None}
    for key, value in clipping.items():
        check_positive(key, value)
    if len(clipping) > 1:
        raise ValueError(f"Gradients are clipped in one way at a time. Got {' and '.join(clipping)}.")
    options: dict[str, Any] = {}
    if momentum is not None:
        check_share("momentum", momentum)
        if name not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for sgd and rmsprop; {name} has its own. Got {momentum}.")
    if nesterov and name != "sgd":
        raise ValueError(f"nesterov is for sgd (nadam is Adam's form of it). Got {name!r}.")
    if name == "sgd":
        options = {"momentum": 0.9 if momentum is None else momentum, "nesterov": nesterov}
        if nesterov and not options["momentum"]:
            raise ValueError("nesterov needs a momentum above 0. Got 0.")
    elif momentum is not None:
        options = {"momentum": momentum}
    return make(learning_rate=learning_rate, **options, **clipping)
