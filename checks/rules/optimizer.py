"""Settings of the optimiser beside its learning rate; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.optimizer_settings import (
    EPOCHS,
    lengthens,
    number_of,
    rates_of,
    steps_of,
    weight_size,
)
from keras_practice.checks.rules.learning_rate import SLOW_MOMENTUM, USUAL
from keras_practice.core.layers import all_layers
from keras_practice.core.steps import innermost

_LONG_FIT = 2_000  # steps


def optimizer_config(context: CheckContext) -> Iterable[Finding]:
    """Momentum, betas, epsilon, clipping and averages outside what works.

    Source:
        A20, A21; Kingma and Ba 2015; Sutskever et al. 2013; Pascanu et al. 2013.
    """
    optimizer = innermost(context.model.optimizer)
    if optimizer is None:
        return []
    found = [
        *_momentum(context, optimizer),
        *_betas(optimizer),
        *_epsilon(optimizer),
        *_clipping(context, optimizer),
        *_averages(context, optimizer),
    ]
    return gravest_first(found)


def _config(severity: Severity, evidence: str, cause: str, fix: str, source: str) -> Finding:
    return Finding("optimizer-config", severity, "optimizer", evidence, cause, fix, source)


def _momentum(context: CheckContext, optimizer: Any) -> Iterator[Finding]:
    for name, usual in (("momentum", 0.9), ("beta_1", 0.9)):
        value = number_of(optimizer, name)
        if value is None or 0 <= value < SLOW_MOMENTUM:
            continue
        broken = not 0 <= value < 1
        # An average over more steps than there are goes on where the first ones went.
        hopeless = broken or lengthens(value) > max(steps_of(context), _LONG_FIT)
        if name == "momentum" and not broken:
            rate = max(rates_of(context), default=0.0)
            hopeless = hopeless or rate * lengthens(value) / 10 >= USUAL["sgd"].extreme
        yield _config(
            "error" if hopeless else "warning",
            f"{name} is {value:.6g}; {usual} is expected, and less than 1 in any case.",
            "steps that never come to rest."
            if broken
            else f"an average over {lengthens(value):,.0f} steps, which turns too slowly.",
            f"use {name}={usual}.",
            "A20; Sutskever et al. 2013",
        )


def _betas(optimizer: Any) -> Iterator[Finding]:
    for name, least, usual in (("beta_2", 0.5, 0.999), ("rho", 0.1, 0.9)):
        value = number_of(optimizer, name)
        if value is None or (least <= value < 1):
            continue
        broken = not 0 <= value < 1
        yield _config(
            "error" if broken else "warning",
            f"{name} is {value:.4g}; {usual} is expected, and less than 1 in any case.",
            "an average of squared gradients that "
            + ("never forgets or never fills." if broken else "sees the last step or two alone."),
            f"use {name}={usual}.",
            "A20; Kingma and Ba 2015",
        )


def _epsilon(optimizer: Any) -> Iterator[Finding]:
    value = number_of(optimizer, "epsilon")
    kind = type(optimizer).__name__.lower()
    if value is None or kind not in ("adam", "adamw", "nadam", "rmsprop", "adamax", "lamb"):
        return
    if value < 0 or not math.isfinite(value):
        yield _config(
            "error",
            f"epsilon is {value:.3g}; a small positive number is expected.",
            "a wrong sign, which lets the divisor become 0.",
            "use epsilon=1e-7, Keras's default.",
            "A20; Kingma and Ba 2015",
        )
    elif value >= 0.1:
        yield _config(
            "error" if value > 100 else "warning",
            f"epsilon is {value:.3g}; 1e-7 is expected, up to 1 for some large nets.",
            "steps that shrink with the gradient wherever it is smaller than epsilon.",
            "use epsilon=1e-7, Keras's default.",
            "A20; Kingma and Ba 2015",
        )


# Clipped so tightly, all steps of a usual training with SGD add up to less than the weights.
_TIGHT = 1e-4


def _clipping(context: CheckContext, optimizer: Any) -> Iterator[Finding]:
    usual = USUAL.get(type(optimizer).__name__.lower())
    for name, normal in (("clipnorm", 1.0), ("clipvalue", 0.5), ("global_clipnorm", 1.0)):
        value = number_of(optimizer, name)
        if value is None:
            continue
        if value <= 0:
            yield _config(
                "error",
                f"{name} is {value:.3g}; about {normal} is expected.",
                "clipping to nothing, or with a wrong sign.",
                f"use {name}={normal}.",
                "A21; Pascanu et al. 2013",
            )
        elif value <= _TIGHT:
            rates = rates_of(context)
            reach = value * steps_of(context) * (float(np.mean(rates)) if rates else 1e-2)
            slow = usual is not None and not usual.scale_free and reach < 0.1 * weight_size(context)
            yield _config(
                "error" if slow else "warning",
                f"{name} is {value:.3g}; about {normal} is expected.",
                f"clipping so tight that {EPOCHS} epochs move a weight by {reach:.1g} at most."
                if slow
                else "clipping so tight that it sets the length of every step.",
                f"use {name}={normal}.",
                "A21; Pascanu et al. 2013",
            )


def _averages(context: CheckContext, optimizer: Any) -> Iterator[Finding]:
    if getattr(optimizer, "use_ema", False):
        momentum = number_of(optimizer, "ema_momentum") or 0.0
        every = number_of(optimizer, "ema_overwrite_frequency")
        if every and momentum < 1 and every * (1 - momentum) < 0.1:
            yield _config(
                "error" if every * (1 - momentum) < 1e-3 else "warning",
                f"the weights are set back to their average every {every:.0f} step(s), in which it takes up "
                f"{every * (1 - momentum):.2g} of what was learned; 1 or more is expected.",
                "an average that is slower than it is written over the weights.",
                "leave ema_overwrite_frequency at None, or raise it to 1 / (1 - ema_momentum).",
                "A20; Polyak and Juditsky 1992",
            )
    gathered = number_of(optimizer, "gradient_accumulation_steps")
    steps = steps_of(context) // EPOCHS
    if gathered and gathered > 10 * steps:
        yield _config(
            "warning",
            f"gradient_accumulation_steps is {gathered:.0f}, and an epoch has {steps} steps; "
            "several updates an epoch are expected.",
            "weights that change once in many epochs.",
            "use a gradient_accumulation_steps below the steps of an epoch.",
            "A26",
        )


# Through so many steps a gradient can grow by any factor (Pascanu et al. 2013, section 2.1).
_LONG = 100


def no_clipping(context: CheckContext) -> Iterable[Finding]:
    """Recurrent layers trained without a limit on the gradient.

    Source:
        A21; Pascanu et al. 2013, "On the difficulty of training recurrent neural networks".
    """
    optimizer = innermost(context.model.optimizer)
    if optimizer is None:
        return []
    if any(number_of(optimizer, name) for name in ("clipnorm", "clipvalue", "global_clipnorm")):
        return []
    layers = [
        layer for layer in all_layers(context.model) if _is_recurrent(layer) and layer.trainable_weights
    ]
    if not layers:
        return []
    # Adam's steps are of bounded length, whatever the gradient.
    simple = any(isinstance(layer, keras.layers.SimpleRNN) for layer in layers) or isinstance(
        optimizer, keras.optimizers.SGD
    )
    length = max((_length(context, layer) for layer in layers), default=0)
    return [
        Finding(
            "no-clipping",
            "warning" if simple or length >= _LONG else "info",
            ", ".join(str(layer.name) for layer in layers[:4]),
            f"gradients go back through {length or 'many'} steps, and 0 of clipnorm, clipvalue and "
            "global_clipnorm are set; 1 is expected.",
            "recurrent layers, whose gradient may explode in a single batch.",
            "give the optimiser clipnorm=1.0.",
            "A21; Pascanu et al. 2013",
        )
    ]


def _is_recurrent(layer: Any) -> bool:
    return isinstance(
        layer, (keras.layers.RNN, keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
    )


def _length(context: CheckContext, layer: Any) -> int:
    for call in context.forward_pass.calls:
        inside = getattr(call.layer, "forward_layer", None) is layer
        if (call.layer is layer or inside) and call.inputs and call.inputs[0].ndim > 2:
            return int(call.inputs[0].shape[1])
    return 0
