"""Checks of what the model should not know: validation rows in training, labels among the inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.inspection.targets import (
    FEW_ROWS,
    LOOK,
    Target,
    all_finite,
    as_rows,
    enough_samples,
    fed_to_embedding,
    is_regression,
    label_columns,
    targets_of,
)
from keras_practice.checks.rules.row import WIDE
from keras_practice.core.types import Array


@np.errstate(all="ignore")  # Infinities are the matter of `non_finite_data`.
def leakage(context: CheckContext) -> Iterable[Finding]:
    """Training rows that are in the validation data too, and labels that are among the inputs.

    How many rows occur twice within the training set tells how many to expect.

    Source:
        A39; Kaufman et al. 2012, "Leakage in data mining".
    """
    train, val = splits_of(context)
    found: list[Finding] = []
    if val is not None:
        found += _shared_rows(context, train, val)
    for head in targets_of(context):
        found += _labels_among_inputs(context, head)
    return gravest_first(found)


def _shared_rows(context: CheckContext, train: Samples, val: Samples) -> Iterator[Finding]:
    if min(len(train), len(val)) < 10 or set(train.inputs) != set(val.inputs):
        return
    sizes = [(a.shape[1:], val.inputs[name].shape[1:]) for name, a in train.inputs.items()]
    if any(a != b for a, b in sizes) or covers_its_domain(train):
        return
    asked = val.spread(LOOK, context.seed)
    ours, theirs = _keys(train, asked)
    known, first, counts = np.unique(ours, return_index=True, return_counts=True)
    place = np.clip(np.searchsorted(known, theirs), 0, len(known) - 1)
    shared = known[place] == theirs
    twice = float(np.sum(counts[counts > 1])) / len(ours)
    share, count = float(np.mean(shared)), int(np.sum(shared))
    noise = 3 * math.sqrt(max(twice, 1 / len(ours)) / len(asked))
    if count < 3 or share <= twice + max(0.01, noise):
        return
    agree = _same_labels(train.y, asked.y, first[place[shared]], np.flatnonzero(shared))
    yield Finding(
        "leakage",
        "warning",
        "validation x",
        f"{share:.1%} of the validation rows looked at ({count:,} of {len(asked):,}) are training rows too, "
        f"where {twice:.1%} is expected from rows that occur twice in the training set; "
        f"{agree:.0%} of them have the same label in both.",
        "a split after rows were repeated or augmented, or the same data passed twice."
        if agree > 0.5
        else "the same rows with other labels: one of the two sets has its labels out of step.",
        "split by distinct rows (data.from_arrays does) before anything is repeated or augmented.",
        "A39; Kaufman et al. 2012, 'Leakage in data mining'",
    )


def _keys(train: Samples, val: Samples) -> tuple[Array, Array]:
    """A number for each row, equal for equal rows: over a few columns, then all where these agree."""
    few = _hashes(train, val, 16)
    ours, theirs = few
    mine = np.flatnonzero(np.isin(ours, theirs))
    yours = np.flatnonzero(np.isin(theirs, ours))
    spare = np.flatnonzero(_repeated(ours))
    again = np.union1d(mine, spare)
    if len(again):
        full_ours, full_theirs = _hashes(train.take(again), val.take(yours), None)
        ours, theirs = ours.copy(), theirs.copy()
        ours[again], theirs[yours] = full_ours, full_theirs
    return ours, theirs


def _repeated(keys: Array) -> Array:
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse.reshape(-1)] > 1)


def _hashes(train: Samples, val: Samples, most: int | None) -> tuple[Array, Array]:
    sums: list[Array] = [np.zeros(len(train), np.uint64), np.zeros(len(val), np.uint64)]
    rng = np.random.default_rng(0)
    for name, array in train.inputs.items():
        pair = [as_rows(a) for a in (array, val.inputs[name])]
        columns = _most_telling(pair[0], most)
        odd = rng.integers(0, 2**63, size=len(columns), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for i, flat in enumerate(pair):
            for start in range(0, len(flat), 8_192):
                block = flat[start : start + 8_192]
                part = block if len(columns) == flat.shape[1] else block[:, columns]
                sums[i][start : start + 8_192] += (_bits(part) * odd).sum(axis=1, dtype=np.uint64)
    return sums[0], sums[1]


def _most_telling(flat: Array, most: int | None) -> Array:
    if most is None or flat.shape[1] <= most:
        return np.arange(flat.shape[1])
    some = flat[np.linspace(0, len(flat) - 1, min(len(flat), 64)).astype(int)]
    if some.dtype.kind not in "biuf":
        return np.linspace(0, flat.shape[1] - 1, most).astype(int)
    return np.sort(np.argsort(-some.astype(np.float64).std(axis=0), kind="stable")[:most])


def _bits(part: Array) -> Array:
    if part.dtype.kind in "biuf":
        # Adding 0 joins 0.0 and -0.0; the product spreads the bits that differ.
        bits = (np.ascontiguousarray(part, dtype=np.float32) + np.float32(0)).view(np.uint32)
        mixed = bits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return np.asarray(mixed ^ (mixed >> np.uint64(29)))
    return np.asarray([[hash(str(v)) & (2**63 - 1) for v in row] for row in part], dtype=np.uint64)


def _same_labels(ours: Any, theirs: Any, at: Array, there: Array) -> float:
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    same = np.ones(len(at), bool)
    for a, b in pairs:
        a, b = as_rows(a[at]), as_rows(b[there])
        same &= (a == b).all(axis=1) if a.shape == b.shape else False
    return float(np.mean(same))


def covers_its_domain(samples: Samples) -> bool:
    """Whether the rows are most of the rows there can be, as with a few yes-or-no columns."""
    domain = 1.0
    if any(math.prod(array.shape[1:]) > WIDE for array in samples.inputs.values()):
        return False
    some = samples.spread(LOOK)
    for array in some.inputs.values():
        flat = as_rows(array)
        for column in flat.T:
            domain *= len(np.unique(column))
            if domain > 8 * len(samples):
                return False
    distinct = len(np.unique(_hashes(some, some.take(slice(0, 1)), None)[0]))
    return distinct >= domain / 8


def _labels_among_inputs(context: CheckContext, head: Target) -> Iterator[Finding]:
    y = head.labels
    if y.dtype.kind not in "biuf" or y.ndim > 2 or len(y) < FEW_ROWS or not all_finite(y):
        return
    width = sum(math.prod(array.shape[1:]) for array in context.train.inputs.values())
    count = min(len(y), enough_samples(width))
    rows = np.sort(np.random.default_rng(context.seed).choice(len(y), count, replace=False))
    targets = label_columns(head, y[rows])
    classes = not is_regression(head)
    for name, array in context.train.inputs.items():
        flat = as_rows(array[rows])
        # An autoencoder's labels are its inputs, and a single column may well decide alone.
        if (
            array.dtype.kind not in "biuf"
            or flat.shape[1] < 2
            or array.size == y.size
            or not all_finite(flat)
        ):
            continue
        if fed_to_embedding(context, array, name):
            continue
        column = _copy_of(flat, targets, as_rows(y[rows]), classes)
        if column is not None:
            yield Finding(
                "leakage",
                "warning",
                f"{name}, column {column}",
                f"this column is a copy of the labels of {head.name} in all {len(rows):,} rows looked at, "
                f"where 0 such columns are expected.",
                "labels left among the inputs, or a column that is known only after the fact.",
                "leave the column out, unless it will be known when the model is used.",
                "A39; Kaufman et al. 2012, 'Leakage in data mining'",
            )


def _copy_of(flat: Array, targets: Array, plain: Array, classes: bool) -> int | None:
    """The column that equals a label, also on another scale."""
    x, t = _unit(flat), _unit(np.concatenate([targets, plain], axis=1) if classes else plain)
    # The correlation of float32 copies is 1 up to about 1e-13. Steps of a series, which are no copies,
    # get close to 1 as well, and classes of few rows do not.
    with np.errstate(all="ignore"):
        copies = np.flatnonzero((np.abs(x.T @ t) > 1 - (1e-5 if classes else 1e-10)).any(axis=1))
    return int(copies[0]) if len(copies) else None


def _unit(columns: Array) -> Array:
    centred = columns.astype(np.float64) - columns.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(length > 1e-9, length, np.inf))


def splits_of(context: CheckContext) -> tuple[Samples, Samples | None]:
    """What `fit` trains on and what it validates on, once `validation_split` has taken its rows."""
    train = context.train
    end = math.floor(len(train) * (1 - context.validation_split))
    if context.val is not None or not train.complete or not 0 < end < len(train):
        return train, context.val
    return train.take(slice(0, end)), train.take(slice(end, None))
