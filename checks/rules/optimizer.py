"""Checks of the optimiser's settings; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.flow import all_layers
from keras_practice.core.steps import innermost

# A generous training; a rate that moves nothing in so many epochs never will.
_EPOCHS = 100
# Schedules are looked at so often over it.
_POINTS = 11
# For their sum, more closely at the start.
_FINE = 400
_FEW_STEPS = 100
_FEW_FULL_STEPS = 20
# From here on an average is slower than usual.
_SLOW_MOMENTUM = 0.995
_LONG_FIT = 2_000  # steps


@dataclass(frozen=True)
class _Usual:
    """Learning rates that suit an optimiser.

    Attributes:
        rate: The one to begin with.
        high, extreme: Above these a warning and an error are due.
        scale_free: Whether a step is as long as the rate, whatever the gradient's size.
    """

    rate: float
    high: float
    extreme: float
    scale_free: bool


# A step of 0.1 in each weight is as long as the weights themselves (0.04 to 0.2 at 50 to 1,000 inputs).
_ADAM = _Usual(1e-3, 0.03, 0.1, True)
_USUAL = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "nadam": _ADAM,
    "rmsprop": _ADAM,
    "lamb": _Usual(1e-3, 0.1, 1.0, True),
    "adamax": _Usual(1e-3, 0.05, 0.3, True),
    "lion": _Usual(1e-4, 0.003, 0.01, True),  # A third to a tenth of Adam's (Chen et al. 2023).
    # Its steps shrink with all gradients so far, and so begin larger.
    "adagrad": _Usual(1e-2, 0.5, 3.0, True),
    # It finds the length of its steps itself, and the rate is a factor of that.
    "adadelta": _Usual(1.0, 10.0, 100.0, False),
    "sgd": _Usual(1e-2, 1.0, 10.0, False),
}


def learning_rate_high(context: CheckContext) -> Iterable[Finding]:
    """A learning rate far above what suits the optimiser.

    Source:
        A23, A24; Kingma and Ba 2015.
    """
    name, usual = _usual(context)
    rates = _rates(context)
    if usual is None or not rates:
        return []
    highest = max(rates)
    if not all(math.isfinite(rate) for rate in rates):
        return [_rate_finding("learning-rate-high", "error", name, math.nan, usual.rate)]
    effective = highest
    if name == "sgd" and (momentum := _setting(context, "momentum")) < _SLOW_MOMENTUM:
        effective *= max(1.0, _lengthens(momentum) / 10)  # More than that is the momentum's own fault.
    # Where weights are large, as in nets of a few inputs, so may the steps be.
    whole = _weight_size(context) if usual.scale_free else 0.0
    if effective >= usual.extreme and effective >= whole:
        # With clipping the step is bounded, and a large rate can be meant.
        severity: Severity = "warning" if _longest_step(context, highest) < 1 and name == "sgd" else "error"
    elif effective > usual.high:
        severity = "warning"
    else:
        return []
    return [_rate_finding("learning-rate-high", severity, name, highest, usual.rate)]


def _lengthens(momentum: float) -> float:
    """How many times longer the steps of plain SGD become."""
    return 1 / (1 - momentum) if 0 < momentum < 1 else 1.0


def learning_rate_low(context: CheckContext) -> Iterable[Finding]:
    """A learning rate that is zero, negative, moves nothing in a hundred epochs, or runs out at once.

    Source:
        A23, A42.
    """
    name, usual = _usual(context)
    rates = _rates(context)
    if not rates or not all(math.isfinite(rate) for rate in rates):
        return []
    steps = _steps(context)
    if min(rates) < 0:
        return [_rate_finding("learning-rate-low", "error", name, min(rates), usual.rate if usual else 1e-3)]
    total = float(np.mean(rates)) * steps
    if max(rates) == 0:
        return [_rate_finding("learning-rate-low", "error", name, 0.0, usual.rate if usual else 1e-3)]
    if (short := _runs_out(context, name)) is not None:
        return [short]
    if usual is None:
        return []
    size = _weight_size(context)
    severity: Severity | None = None
    if usual.scale_free:
        # All steps together, each in the same direction, against the weights' own size.
        reach = total / size
        severity = "error" if reach < 0.01 else "warning" if reach < 0.1 and max(rates) <= 1e-5 else None
        moved = (
            f"{_EPOCHS} epochs can move a weight by {total:.1g} at most, where weights are about {size:.1g}"
        )
    else:
        # Gradients are of any size; a rate that is small by orders is what can be said.
        ratio = max(rates) / usual.rate
        # Adadelta's steps are in the weights' own units, as many times smaller as the rate is below 1.
        hopeless = total < _FEW_FULL_STEPS * usual.rate if name == "adadelta" else total < 0.01
        severity = "error" if ratio <= (1e-2 if name == "adadelta" else 1e-4) and hopeless else None
        if severity is None and ratio <= (1e-2 if name == "adadelta" else 1e-3):
            severity = "warning"
        moved = f"{steps:,} steps ({_EPOCHS} epochs) of it add up to {total:.1g}"
    if severity is None:
        return []
    return [_rate_finding("learning-rate-low", severity, name, max(rates), usual.rate, moved)]


def _runs_out(context: CheckContext, name: str) -> Finding | None:
    """A schedule that is over before the data have been seen once: steps were taken for epochs."""
    schedule = _schedule(context)
    if schedule is None:
        return None
    steps = np.unique(np.geomspace(1, _steps(context), _FINE).astype(np.int64)) - 1
    rates = np.array([float(np.asarray(schedule(int(step)))) for step in steps])
    highest = float(np.abs(rates).max())
    if not np.all(np.isfinite(rates)) or highest == 0:
        return None
    # All steps together, in steps at the highest rate.
    full = float(np.sum(rates[:-1] * np.diff(steps))) / highest
    epoch = _steps(context) // _EPOCHS
    if full >= min(epoch, _FEW_STEPS):
        return None
    return Finding(
        "learning-rate-low",
        "error",
        "optimizer",
        f"the learning rate of {name} starts at {rates[0]:.3g} and is {rates[-1]:.2g} in the end; all steps "
        f"of {_EPOCHS} epochs add up to {full:.3g} at its highest, where an epoch has {epoch:,} and "
        "several epochs are expected.",
        "a schedule that counts steps, and was given a number of epochs.",
        f"multiply the schedule's decay_steps by the {epoch:,} steps of an epoch.",
        "A22, A23",
    )


def _rate_finding(
    check: str, severity: Severity, name: str, rate: float, usual: float, note: str = ""
) -> Finding:
    high = check.endswith("high")
    if high:
        cause = "steps longer than the way to the minimum, which lose what is learned."
    elif rate < 0:
        cause = "a wrong sign: the loss is made larger."
    else:
        cause = "steps too small to get anywhere in a usual training."
    return Finding(
        check,
        severity,
        "optimizer",
        f"the learning rate of {name} is {rate:.3g}"
        + (f", and {note}" if note else "")
        + f"; about {usual:.3g} is expected to begin with.",
        cause,
        f"start at learning_rate={usual:g}, then try others, each 3 times {'smaller' if high else 'larger'}.",
        "A23, A24" if high else "A23, A42",
    )


def _usual(context: CheckContext) -> tuple[str, _Usual | None]:
    name = type(innermost(context.model.optimizer)).__name__
    return name.lower() if name.lower() in _USUAL else name, _USUAL.get(name.lower())


def _steps(context: CheckContext) -> int:
    samples = context.train.total or len(context.train)
    return _EPOCHS * max(1, math.ceil(samples / max(1, context.batch_size)))


def _rates(context: CheckContext) -> list[float]:
    """The learning rate over a hundred epochs; one number where it does not change."""
    optimizer = innermost(context.model.optimizer)
    if optimizer is None:
        return []
    schedule = _schedule(context)
    try:
        if schedule is not None:
            points = np.unique(np.linspace(0, _steps(context), _POINTS).astype(np.int64))
            return [float(np.asarray(schedule(int(step)))) for step in points]
        return [float(np.asarray(optimizer.learning_rate))]
    except (AttributeError, TypeError, ValueError):
        return []  # An optimiser of the user's own, without a rate that can be read.


def _schedule(context: CheckContext) -> Any:
    """The schedule of the learning rate; `None` for a number."""
    # The public property gives a schedule's value now, and not its course.
    schedule = getattr(innermost(context.model.optimizer), "_learning_rate", None)
    return schedule if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) else None


def _setting(context: CheckContext, name: str) -> float:
    return _number(innermost(context.model.optimizer), name) or 0.0


def _number(optimizer: Any, name: str) -> float | None:
    value = getattr(optimizer, name, None)
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _longest_step(context: CheckContext, rate: float) -> float:
    """The most that clipping lets a step move an array, relative to the array's norm."""
    optimizer = innermost(context.model.optimizer)
    norms = [_number(optimizer, name) for name in ("clipnorm", "global_clipnorm")]
    norms = [norm for norm in norms if norm]
    arrays = [np.asarray(w, dtype=np.float64) for w in context.model.trainable_variables if len(w.shape) > 1]
    if not norms or not arrays:
        return math.inf
    typical = float(np.median([np.linalg.norm(array) for array in arrays]))
    return rate * min(n for n in norms if n) / typical if typical else math.inf


def _weight_size(context: CheckContext) -> float:
    """Root mean square of the trainable kernels, as they would be at the start of a training."""
    sizes = []
    for weight in context.model.trainable_variables:
        if len(weight.shape) > 1:
            values = np.asarray(weight, dtype=np.float64)
            sizes.append(float(np.sqrt(np.mean(values**2))) if values.size else 0.0)
    sizes = [size for size in sizes if math.isfinite(size) and size > 0]
    return float(np.median(sizes)) if sizes else 0.1


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
        value = _number(optimizer, name)
        if value is None or 0 <= value < _SLOW_MOMENTUM:
            continue
        broken = not 0 <= value < 1
        # An average over more steps than there are goes on where the first ones went.
        hopeless = broken or _lengthens(value) > max(_steps(context), _LONG_FIT)
        if name == "momentum" and not broken:
            rate = max(_rates(context), default=0.0)
            hopeless = hopeless or rate * _lengthens(value) / 10 >= _USUAL["sgd"].extreme
        yield _config(
            "error" if hopeless else "warning",
            f"{name} is {value:.6g}; {usual} is expected, and less than 1 in any case.",
            "steps that never come to rest."
            if broken
            else f"an average over {_lengthens(value):,.0f} steps, which turns too slowly.",
            f"use {name}={usual}.",
            "A20; Sutskever et al. 2013",
        )


def _betas(optimizer: Any) -> Iterator[Finding]:
    for name, least, usual in (("beta_2", 0.5, 0.999), ("rho", 0.1, 0.9)):
        value = _number(optimizer, name)
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
    value = _number(optimizer, "epsilon")
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
    usual = _USUAL.get(type(optimizer).__name__.lower())
    for name, normal in (("clipnorm", 1.0), ("clipvalue", 0.5), ("global_clipnorm", 1.0)):
        value = _number(optimizer, name)
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
            rates = _rates(context)
            reach = value * _steps(context) * (float(np.mean(rates)) if rates else 1e-2)
            slow = usual is not None and not usual.scale_free and reach < 0.1 * _weight_size(context)
            yield _config(
                "error" if slow else "warning",
                f"{name} is {value:.3g}; about {normal} is expected.",
                f"clipping so tight that {_EPOCHS} epochs move a weight by {reach:.1g} at most."
                if slow
                else "clipping so tight that it sets the length of every step.",
                f"use {name}={normal}.",
                "A21; Pascanu et al. 2013",
            )


def _averages(context: CheckContext, optimizer: Any) -> Iterator[Finding]:
    if getattr(optimizer, "use_ema", False):
        momentum = _number(optimizer, "ema_momentum") or 0.0
        every = _number(optimizer, "ema_overwrite_frequency")
        if every and momentum < 1 and every * (1 - momentum) < 0.1:
            yield _config(
                "error" if every * (1 - momentum) < 1e-3 else "warning",
                f"the weights are set back to their average every {every:.0f} step(s), in which it takes up "
                f"{every * (1 - momentum):.2g} of what was learned; 1 or more is expected.",
                "an average that is slower than it is written over the weights.",
                "leave ema_overwrite_frequency at None, or raise it to 1 / (1 - ema_momentum).",
                "A20; Polyak and Juditsky 1992",
            )
    gathered = _number(optimizer, "gradient_accumulation_steps")
    steps = _steps(context) // _EPOCHS
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
    if any(_number(optimizer, name) for name in ("clipnorm", "clipvalue", "global_clipnorm")):
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
