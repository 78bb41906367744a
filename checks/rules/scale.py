"""Checks of the scale of inputs, as the first layers with weights meet them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import SEVERITIES, Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import Call
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.inspection.targets import (
    FEW_ROWS,
    all_finite,
    as_rows,
    columns_of,
    holds,
    numbers_in,
    some_of,
    some_samples,
    takes_ids,
    tried_samples,
)
from keras_practice.core.types import Array

# He-normal weights pass a unit scale on as 1.4, and features of deviation 10 as 14; units beyond this
# start where a sigmoid is shut (e^-15).
_LOUD = 15.0
# Here a softmax is sure of its guess, and its gradient (e^-45) is below what float32 resolves beside 1.
_DEAFENING = 45.0
# With plain gradient descent, how far a unit moves grows with the square of the input; 0.1 is what a bold
# rate of 0.1 does on standardised inputs.
_BOLD_STEP = 10.0
# The length of a sample's deviation from the mean: a unit output needs weights of one over this, and
# weights start below 1.
_FAINT, _SILENT = 0.1, 0.01
# A mean this many deviations from 0 makes the loss surface as many squared times longer than wide.
_OFFSET, _FAR_OFFSET = 30.0, 300.0
# A factor that suits bytes, and numbers that are none.
_OF_BYTES, _NO_BYTES = 1 / 100, 3.0
# Columns of deviation 0.1 and 10 are healthy side by side.
_UNEVEN = 100.0
# A row this loud beside ordinary rows is an outlier or a code for "missing".
_OUTLIER = 100.0
BOUNDED = ("sigmoid", "tanh", "softmax", "softsign", "hard_sigmoid", "relu6")
_SCALE_SOURCE = "A38; LeCun, Bottou, Orr and Mueller 1998, 'Efficient BackProp'; He et al. 2015"
_SCALE_FIX = (
    "standardise the columns with the training set's mean and deviation, or adapt a "
    "keras.layers.Normalization and put it first (pixels: keras.layers.Rescaling(1 / 255))."
)


@dataclass(frozen=True)
class _Reading:
    """What a layer with weights reads of the data, and what its fresh weights make of it."""

    where: str
    layer: keras.layers.Layer
    values: Array
    gain: float
    softened: bool  # A normalising layer comes next and cancels the scale.


@dataclass(frozen=True)
class _Fault:
    severity: Severity
    evidence: str
    cause: str


@np.errstate(all="ignore")  # Infinities are the matter of `non_finite_data`.
def input_scale(context: CheckContext) -> Iterable[Finding]:
    """Inputs on a scale on which fresh weights cannot work, as the first layer with weights meets them.

    Fan-in scaled weights pass a unit scale on as a unit scale; the bounds follow from
    what the units of the first layer then start from. What embeddings, lookups and
    normalising layers take, and what the model rescales itself, is not judged.

    Source:
        A38; LeCun et al. 1998, "Efficient BackProp"; He et al. 2015.
    """
    found = []
    for reading in _readings(context):
        faults = list(_scale_faults(context, reading))
        if not faults:
            continue
        fault = min(faults, key=lambda f: SEVERITIES.index(f.severity))
        severity: Severity = "info" if reading.softened and fault.severity != "info" else fault.severity
        found.append(
            Finding(
                "input-scale", severity, reading.where, fault.evidence, fault.cause, _SCALE_FIX, _SCALE_SOURCE
            )
        )
    found += _rescaled_twice(context)
    if context.val is not None:
        found += _other_scale_in_validation(context.train, context.val)
    return gravest_first(found)


def _readings(context: CheckContext) -> Iterator[_Reading]:
    calls, sample = context.forward_pass.calls, tried_samples(context)
    arrays = {name: a for name, a in sample.inputs.items() if a.dtype.kind in "biuf"}
    wide = some_samples(context.train, context.seed).inputs
    weighted = [c for c in calls if c.layer.weights and not isinstance(c.layer, keras.layers.Normalization)]
    first = True
    seen: set[tuple[int, str]] = set()
    for i, call in enumerate(weighted):
        numbers = numbers_in(call.inputs)
        sources = {name: a for name, a in arrays.items() for b in numbers if holds(b, a)}
        leads, first = first, False
        # A frozen layer was trained for the scale that it is given.
        frozen = not call.layer.trainable_variables
        if frozen or cancels_scale(call.layer) or takes_ids(call.layer) or not numbers:
            continue
        softened = i + 1 < len(weighted) and cancels_scale(weighted[i + 1].layer)
        gain = _gain(call)
        for name in sources:
            if (id(call.layer), name) not in seen:
                seen.add((id(call.layer), name))
                values = next(b for b in numbers if holds(b, arrays[name]))
                whole = values.size == arrays[name].size or values.shape[-1] == arrays[name].shape[-1]
                yield _Reading(
                    f"{name} into {call.name}",
                    call.layer,
                    wide[name] if whole else values,
                    gain,
                    softened,
                )
        if leads and not sources:
            yield _Reading(f"input of {call.name}", call.layer, numbers[0], gain, softened)


def _scale_faults(context: CheckContext, reading: _Reading) -> Iterator[_Fault]:
    array = reading.values
    if array.size == 0 or (array.ndim < 2 and len(array) < 2):
        return
    rows = as_rows(array).astype(np.float64)
    if not np.isfinite(rows).all():
        return
    loudness = np.sqrt(np.mean(rows**2, axis=1))
    typical = float(np.median(loudness))
    yield from _too_loud(context, reading, typical)
    if len(rows) < FEW_ROWS:
        return
    if typical * reading.gain <= _LOUD and float(loudness.max()) > _OUTLIER * max(1.0, typical):
        many = int(np.sum(loudness > _OUTLIER * max(1.0, typical)))
        yield _Fault(
            "warning",
            f"{many} of {len(rows):,} rows have values up to {np.abs(rows).max():.3g}, "
            f"where a typical row has {typical:.3g}.",
            "outliers, or a number such as -999 that stands for a missing value.",
        )
    yield from _too_faint(context, rows)
    yield from _uneven_columns(array)


def _too_loud(context: CheckContext, reading: _Reading, typical: float) -> Iterator[_Fault]:
    start = typical * reading.gain
    # A model of one linear layer finds the weights for any scale, slowly.
    deep = len(layers_with_kernels(context)) > 1
    if start <= (_LOUD if deep else _DEAFENING):
        return
    optimizer = context.model.optimizer
    descends = isinstance(optimizer, keras.optimizers.SGD) and not clips(optimizer)
    diverges = descends and learning_rate_of(context) * typical**2 >= _BOLD_STEP
    severity: Severity = "error" if (start > _DEAFENING and deep) or diverges else "warning"
    yield _Fault(
        severity,
        f"a typical value is {typical:.3g}, so that the first units start at about {start:.3g}, "
        f"where about 1 is expected.",
        "raw values (pixels from 0 to 255, prices, counts) that were not scaled"
        + (
            ", or a Normalization layer that was not adapted."
            if any(isinstance(c.layer, keras.layers.Normalization) for c in context.forward_pass.calls)
            else "."
        ),
    )


def _too_faint(context: CheckContext, rows: Array) -> Iterator[_Fault]:
    mean = rows.mean(axis=0)
    spread = float(np.sqrt(np.sum(np.mean((rows - mean) ** 2, axis=0))))
    offset = float(np.linalg.norm(mean))
    if spread <= 1e-7 * max(offset, 1e-30):
        return  # Constant; another check's matter.
    deep = len(layers_with_kernels(context)) > 1
    if spread < _FAINT:
        yield _Fault(
            "error" if spread < _SILENT and deep else "warning",
            f"samples differ by {spread:.2g} only (all columns together), where about the square root of "
            f"the number of columns, {math.sqrt(rows.shape[1]):.2g}, is expected.",
            "values in too large a unit, or scaled twice.",
        )
    if offset > _OFFSET * spread:
        yield _Fault(
            "error" if offset > _FAR_OFFSET * spread and deep else "warning",
            f"the mean is {offset / spread:.3g} deviations away from 0, where about 0 to 3 are expected.",
            "values that vary little around a large number, such as years, which were not centred.",
        )


def _uneven_columns(array: Array) -> Iterator[_Fault]:
    if array.ndim > 3:
        return  # The channels of an image share a unit.
    columns = columns_of(array).astype(np.float64)
    middle = np.median(columns, axis=0)
    deviations = columns.std(axis=0)
    # A column that is nearly always the same, as a pixel at the border, has no scale to speak of.
    varies = np.mean(columns != middle, axis=0) >= 0.1
    reach = np.abs(columns - middle).max(axis=0)
    if varies.sum() < 2:
        return
    small = int(np.flatnonzero(varies)[reach[varies].argmin()])
    large = int(deviations.argmax())
    ratio = float(deviations[large] / reach[small]) if reach[small] > 0 else 0.0
    if ratio > _UNEVEN:
        yield _Fault(
            "warning",
            f"column {large} has a deviation of {deviations[large]:.3g} and column {small} never moves "
            f"by more than {reach[small]:.3g}: {ratio:.3g} times less, where up to 100 is harmless.",
            "columns in different units side by side; the small ones are not heard.",
        )


def _rescaled_twice(context: CheckContext) -> Iterator[Finding]:
    """A layer that takes bytes to about 1, where no bytes come."""
    for call in context.forward_pass.calls:
        if not isinstance(call.layer, keras.layers.Rescaling) or not call.inputs or not call.inputs[0].size:
            continue
        scale, highest = np.max(np.abs(np.asarray(call.layer.scale))), float(np.abs(call.inputs[0]).max())
        if scale <= _OF_BYTES and highest <= _NO_BYTES:
            yield Finding(
                "input-scale",
                "error",
                call.name,
                f"this layer multiplies by {scale:.3g}, and what comes is at most {highest:.3g}, where up to "
                "255 is expected.",
                "pixels that were scaled before the model, and are scaled again in it.",
                f"take {call.name} away, or feed the model bytes.",
                _SCALE_SOURCE,
            )


def _other_scale_in_validation(train: Samples, val: Samples) -> Iterator[Finding]:
    for name, theirs in val.inputs.items():
        ours = train.inputs.get(name)
        if ours is None or ours.dtype.kind not in "biuf" or theirs.dtype.kind not in "biuf":
            continue
        a, b = columns_of(some_of(ours)).astype(np.float64), columns_of(some_of(theirs)).astype(np.float64)
        if a.shape[1] != b.shape[1] or min(len(a), len(b)) < FEW_ROWS or not all_finite(a, b):
            continue
        fault = _shifted(a, b)
        if fault is not None:
            yield Finding(
                "input-scale",
                fault.severity,
                f"validation {name}",
                fault.evidence,
                fault.cause,
                "put validation data through the same scaling, with the training set's figures.",
                "A38, A39; LeCun, Bottou, Orr and Mueller 1998, 'Efficient BackProp'",
            )


def _shifted(train: Array, val: Array) -> _Fault | None:
    deviation = train.std(axis=0)
    varies = deviation > 1e-7 * np.maximum(np.abs(train.mean(axis=0)), 1e-30)
    if not varies.any():
        return None
    train, val, deviation = train[:, varies], val[:, varies], deviation[varies]
    stretch = float(np.median(val.std(axis=0) / deviation))
    shift = float(np.median(np.abs(val.mean(axis=0) - train.mean(axis=0)) / deviation))
    outside = float(np.mean((val < train.min()) | (val > train.max())))
    cause = "validation data that did not go through the scaling that the training data went through."
    evidence = (
        f"validation columns have {stretch:.3g} times the training columns' deviation and a mean "
        f"{shift:.3g} deviations away, and {outside:.0%} of their values are outside the training range, "
        f"where about 1, 0 and 0% are expected."
    )
    # Data of another day may drift by a deviation or two; a factor of ten is another unit.
    if stretch > 10 or (0 < stretch < 0.1) or shift > 10:
        return _Fault("error", evidence, cause)
    # Among 50 rows of the same source, an extreme one lies outside now and then, not one value in ten.
    if shift > 3 or (outside > 0.1 and len(train) >= 50):
        return _Fault("warning", evidence, cause)
    return None


def cancels_scale(layer: keras.layers.Layer) -> bool:
    """Whether a layer makes up for any scale of its input."""
    if isinstance(layer, keras.layers.Normalization):
        return False  # It is followed by what it does.
    return any(v.name in ("gamma", "moving_mean") for v in layer.variables) or isinstance(
        layer, (keras.layers.BatchNormalization, keras.layers.LayerNormalization)
    )


def _gain(call: Call) -> float:
    """How much louder a layer's units are than its input, by its weights."""
    for variable in call.layer.trainable_variables:
        if "kernel" in variable.name and len(variable.shape) > 1:
            kernel = np.asarray(variable, dtype=np.float64)
            fan_in = kernel.size / kernel.shape[-1]
            gain = math.sqrt(fan_in * float(np.mean(kernel**2)))
            return gain if gain > 0 and math.isfinite(gain) else 1.0
    came, went = numbers_in(call.inputs), numbers_in(call.outputs)
    loud = max((float(np.sqrt(np.mean(a.astype(np.float64) ** 2))) for a in came), default=0.0)
    return float(np.sqrt(np.mean(went[0].astype(np.float64) ** 2))) / loud if loud and went else 1.0


def loudness_of(array: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(array.astype(np.float64) ** 2)))


def learning_rate_of(context: CheckContext) -> float:
    """The optimiser's learning rate now."""
    rate = getattr(context.model.optimizer, "learning_rate", 1e-3)
    return float(np.asarray(rate))


def clips(optimizer: Any) -> bool:
    """Whether an optimiser limits the gradient."""
    return any(getattr(optimizer, name, None) for name in ("clipnorm", "clipvalue", "global_clipnorm"))


def layers_with_kernels(context: CheckContext) -> set[int]:
    """Ids of the trainable layers that multiply by weights."""
    return {
        id(call.layer)
        for call in context.forward_pass.calls
        if any("kernel" in variable.name for variable in call.layer.trainable_variables)
    }
