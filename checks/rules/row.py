"""Checks of single numbers and columns: NaN, infinity, and what never changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import forward_pass_of
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.inspection.targets import (
    FEW_ROWS,
    as_rows,
    fed_to_embedding,
    named_arrays,
    numbers_in,
    some_of,
)
from keras_practice.core.types import Array

# Tables this wide are images laid flat, counts of words and the like, where some columns never move.
WIDE = 32


def non_finite_data(context: CheckContext) -> Iterable[Finding]:
    """NaN or infinity among inputs, labels and sample weights, in every row.

    A model that replaces NaN itself, before any layer with weights, is left alone.

    Source:
        A53.
    """
    found = []
    for where, array, is_input, samples in _all_arrays(context):
        bad = _bad_entries(array)
        if bad is None or (is_input and _replaced_by_the_model(context, samples, bad)):
            continue
        flat = as_rows(bad)
        lines: Array = np.any(flat, axis=1)
        column = f", column {int(flat.any(axis=0).argmax())}" if flat.shape[1] > 1 else ""
        own_loss = not is_input and any(h.loss is not None and not of_keras(h.loss) for h in context.heads)
        found.append(
            Finding(
                "non-finite-data",
                "warning" if own_loss else "error",
                where + column,
                f"{int(flat.sum()):,} NaN or infinite values in {int(lines.sum()):,} of {len(lines):,} rows, "
                f"the first in row {int(lines.argmax())}, where 0 are expected.",
                "missing values, or a division by zero or a logarithm of zero when the data were prepared.",
                "drop or fill in these rows before training; one NaN turns every weight into NaN.",
                "A53; Karpathy 2019, 'A recipe for training neural networks'",
            )
        )
    return gravest_first(found)


def _all_arrays(context: CheckContext) -> Iterator[tuple[str, Array, bool, Samples]]:
    for role, samples in (("training", context.train), ("validation", context.val)):
        if samples is None:
            continue
        for name, array in samples.inputs.items():
            yield f"{role} {name}", array, True, samples
        for name, array in named_arrays(samples.y, "y").items():
            yield f"{role} {name}", array, False, samples
        if samples.weight is not None:
            for name, array in named_arrays(samples.weight, "").items():
                yield f"{role} sample weights{name}", array, False, samples


def _bad_entries(array: Array) -> Array | None:
    """Where an array is not finite; `None` if it is everywhere."""
    if array.dtype.kind not in "fc":
        return None
    with np.errstate(all="ignore"):
        # One sum finds NaN and infinity in a pass; only its own overflow needs the second look.
        total = array.sum(dtype=np.float32 if array.dtype.itemsize == 2 else None)
    if np.isfinite(total):
        return None
    bad: Array = np.logical_not(np.isfinite(array))
    return bad if bad.any() else None


def _replaced_by_the_model(context: CheckContext, samples: Samples, bad: Array) -> bool:
    lines = np.flatnonzero(as_rows(bad).any(axis=1))[:4]
    calls = forward_pass_of(context.model, samples.take(lines).fed).calls
    weighted = [call for call in calls if call.layer.weights]
    return bool(weighted) and all(np.isfinite(a).all() for call in weighted for a in numbers_in(call.inputs))


def of_keras(loss: Any) -> bool:
    """Whether a loss is one of Keras's own."""
    function = getattr(loss, "fn", loss)
    owner = function if hasattr(function, "__name__") else type(function)
    return isinstance(loss, str) or str(owner.__module__).partition(".")[0] == "keras"


def sample_weight(context: CheckContext) -> Iterable[Finding]:
    """Sample weights of which none counts, or some turn the loss round.

    Source:
        A53.
    """
    found = []
    for name, weight in named_arrays(context.train.weight, "").items() if context.train.weights else ():
        if weight.dtype.kind not in "biuf" or not np.isfinite(weight).all():
            continue
        negative, positive = int(np.sum(weight < 0)), int(np.sum(weight > 0))
        if positive and not negative:
            continue
        found.append(_bad_weights(name, weight, positive, negative))
    return found


def _bad_weights(name: str, weight: Array, positive: int, negative: int) -> Finding:
    return Finding(
        "sample-weight",
        "error",
        f"training sample weights{name}",
        f"{positive:,} of {weight.size:,} sample weights are above 0 and {negative:,} below; all are "
        "expected to be 0 or more, and most of them above.",
        "weights that were computed from the wrong column, or rounded to 0.",
        "print some of the weights, and leave them out to see whether the model learns then.",
        "A53",
    )


@np.errstate(all="ignore")  # Infinities are the matter of `non_finite_data`.
def constant_feature(context: CheckContext) -> Iterable[Finding]:
    """Columns that have the same value in every row.

    Source:
        A38.
    """
    found = []
    inputs = context.train.inputs
    for name, array in inputs.items():
        if array.dtype.kind not in "biuf" or len(array) < FEW_ROWS or fed_to_embedding(context, array, name):
            continue
        flat = as_rows(array)
        # In a wide table some columns never move, which is no more than a remark: a part of it will do.
        flat = some_of(flat) if flat.shape[1] > WIDE else flat
        constant = _constant_columns(flat)
        if len(constant) == flat.shape[1] and len(flat) < len(array):
            flat = as_rows(array)
            constant = _constant_columns(flat)
        count, width = len(constant), flat.shape[1]
        if not count:
            continue
        severity, cause = _judge_constant(count, width, array.ndim, len(inputs))
        found.append(
            Finding(
                "constant-feature",
                severity,
                f"{name}, column {int(constant[0])}" if count == 1 else name,
                f"{count:,} of {width:,} features have one value in all {len(flat):,} rows looked at"
                + (f" (first {', '.join(map(str, constant[:5]))})" if 1 < count < width else "")
                + ", where 0 are expected.",
                cause,
                "leave out what never changes; look at how it was read."
                if count < width
                else "look at how x is loaded: nothing can be learnt from it.",
                "A38",
            )
        )
    return gravest_first(found)


def _constant_columns(flat: Array) -> Array:
    some = flat[np.linspace(0, len(flat) - 1, min(len(flat), 256)).astype(int)]
    candidates = np.flatnonzero(_still(some))
    if not len(candidates):
        return candidates
    # Few rows at a time: a column that moves is mostly found out by the first thousand.
    for start in range(0, len(flat), 4_096):
        block = flat[start : start + 4_096]
        part = block if len(candidates) == flat.shape[1] else block[:, candidates]
        candidates = candidates[_still(part) & _same(part[0], flat[0, candidates])]
        if not len(candidates):
            break
    return candidates


def _still(block: Array) -> Array:
    low, high = block.min(axis=0), block.max(axis=0)
    return _same(low, high)


def _same(a: Array, b: Array) -> Array:
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    # Rounding when a constant is centred and scaled is no change.
    return np.asarray(np.abs(a - b) <= np.finfo(a.dtype).eps * 4 * np.maximum(np.abs(a), np.abs(b)))


def _judge_constant(count: int, width: int, ndim: int, inputs: int) -> tuple[Severity, str]:
    if count == width:
        if inputs == 1:
            return "error", "inputs that were overwritten, cut off or read from the wrong place."
        return "warning", "an input that was not filled, or one that is not needed."
    if ndim > 2 or width > WIDE or count > max(2, width / 10):
        return "info", "borders of images, padding or rare words, which is normal."
    return "warning", "a column that carries nothing, or that lost its values when it was read."
