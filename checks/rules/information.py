"""Checks of whether the inputs tell the labels at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import sklearn.ensemble

from keras_practice.checks.findings import Finding, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.inspection.targets import (
    Target,
    all_finite,
    as_rows,
    fed_to_embedding,
    is_constant,
    is_regression,
    label_columns,
    targets_of,
)
from keras_practice.checks.rules.leakage import covers_its_domain
from keras_practice.core.types import Array

# Neighbours, linear and forest each need this many standard errors to count as signal (p = 0.01) ...
_SIGNAL = 2.33
# ... and all below this (p = 0.2) to count as chance.
_CHANCE = 0.84
_MIN_TO_JUDGE = 100
_ENOUGH_TO_BE_SURE = 500


def uninformative_input(context: CheckContext) -> Iterable[Finding]:
    """Labels that three quick learners cannot tell from the inputs: noise, or rows out of step.

    Nearest neighbours, ridge regression and a small forest predict each half of up to
    2,000 rows from the other; how well is compared with what permuted labels give.

    Source:
        A53; Ojala and Garriga 2010, "Permutation tests for studying classifier performance".
    """
    found: list[Finding] = []
    for head in targets_of(context)[:2]:
        found += _judge_information(context, head)
    return gravest_first(found)


def _judge_information(context: CheckContext, head: Target) -> Iterator[Finding]:
    y = head.labels
    if y.dtype.kind not in "biuf" or y.ndim > 2 or len(y) < _MIN_TO_JUDGE or head.loss is None:
        return
    targets = label_columns(head, y)
    if not all_finite(targets) or is_constant(targets) or covers_its_domain(context.train):
        return
    kinds = [a.dtype.kind for a in context.train.inputs.values()]
    if any(kind not in "biuf" for kind in kinds):
        return
    rng = np.random.default_rng(context.seed)
    order = _balanced(targets, is_regression(head), rng)
    width = sum(math.prod(a.shape[1:]) for a in context.train.inputs.values())
    # Neighbours need many rows, and many columns cost as much as many rows.
    most = 2_000 if width <= 64 else 1_000
    scores, used = _evidence(context, targets, order[:most], rng)
    if not scores or max(scores.values()) > _SIGNAL:
        return
    # Chance alone leaves one learner between "chance" and "signal" now and then: ask other rows.
    if max(scores.values()) > _CHANCE and len(order) >= 2 * most:
        scores, used = _evidence(context, targets, order[most : 2 * most], rng)
        if not scores or max(scores.values()) > _SIGNAL:
            return
    sure = (
        max(scores.values()) <= _CHANCE
        and used >= _ENOUGH_TO_BE_SURE
        and _sees_what_the_model_sees(context)
        and not _is_discrete(context.train)
    )
    listed = ", ".join(f"{name} {score:+.1f}" for name, score in scores.items())
    yield Finding(
        "uninformative-input",
        "error" if sure else "warning",
        f"x and y of {head.name}",
        f"quick learners tell the labels of {used:,} rows from their inputs no better than "
        f"from shuffled rows (standard errors above chance: {listed}), where a signal gives "
        f"more than {_SIGNAL:g}.",
        "labels out of step with their rows (one of x and y shuffled or filtered alone), or random labels.",
        "look at some rows beside their labels, and go back to where x and y were last together.",
        "A53; Ojala and Garriga 2010, 'Permutation tests for studying classifier performance'",
    )


def _evidence(
    context: CheckContext, targets: Array, rows: Array, rng: np.random.Generator
) -> tuple[dict[str, float], int]:
    """Standard errors above chance by learner, stopping at the first that is sure; and the rows used."""
    features = _features(context, context.train.take(rows))
    if features is None:
        return {}, 0
    wanted = targets[rows].astype(np.float64)
    keep = wanted.std(axis=0) > 0
    if not keep.any() or is_constant(features):
        return {}, 0
    wanted = (wanted[:, keep] - wanted[:, keep].mean(axis=0)) / wanted[:, keep].std(axis=0)
    wanted = np.clip(wanted, -4, 4)  # No single row decides.
    half = rng.permutation(len(rows)) < len(rows) // 2
    scores: dict[str, float] = {}
    learners: tuple[tuple[str, Callable[[Array, Array], Array]], ...] = (
        ("neighbours", lambda a, b: _neighbours(features, wanted, a, b)),
        ("linear", lambda a, b: _ridge(features, wanted, a, b)),
        ("forest", lambda a, b: _forest(features, wanted, a, b, context.seed)),
    )
    for name, predict in learners:
        zs = [_above_chance(predict(a, ~a), wanted[~a]) for a in (half, ~half)]
        # The halves are not independent: their mean spreads at most as one of them does.
        scores[name] = float(sum(zs) / 2)
        if scores[name] > 4:
            break
    return scores, len(rows)


def _above_chance(predicted: Array, wanted: Array) -> float:
    """How far agreement is above that of permuted labels, in standard errors of the permutation."""
    p, w = predicted - predicted.mean(axis=0), wanted - wanted.mean(axis=0)
    variance = float(np.sum((p.T @ p) * (w.T @ w))) / max(len(p) - 1, 1)
    return float(np.sum(p * w)) / math.sqrt(variance) if variance > 1e-12 else 0.0


def _neighbours(features: Array, wanted: Array, known: Array, asked: Array, count: int = 7) -> Array:
    there = features[known]
    near = np.sum(there**2, axis=1) - 2 * (features[asked] @ there.T)
    count = min(count, near.shape[1] - 1)
    chosen = np.argpartition(near, count, axis=1)[:, :count]
    return np.asarray(wanted[known][chosen].mean(axis=1))


def _ridge(features: Array, wanted: Array, known: Array, asked: Array) -> Array:
    x, y = features[known], wanted[known]
    wide = x.shape[1] > len(x)
    moments = (x @ x.T if wide else x.T @ x).astype(np.float64)
    # As many columns as rows could learn the rows by heart; the penalty grows with the columns.
    penalty = max(float(np.trace(moments)) * 0.1 / math.sqrt(len(x)), 1e-9)
    moments[np.diag_indices(len(moments))] += penalty
    weights = x.T @ np.linalg.solve(moments, y) if wide else np.linalg.solve(moments, x.T @ y)
    return np.asarray(features[asked] @ weights)


def _forest(features: Array, wanted: Array, known: Array, asked: Array, seed: int) -> Array:
    forest = sklearn.ensemble.ExtraTreesRegressor(
        16, min_samples_leaf=5, max_features="sqrt", random_state=seed, n_jobs=1
    )
    forest.fit(features[known], wanted[known] if wanted.shape[1] > 1 else wanted[known, 0])
    return np.asarray(forest.predict(features[asked])).reshape(int(asked.sum()), -1)


def _features(context: CheckContext, samples: Samples) -> Array | None:
    """The inputs as columns of unit scale: numbers as they are, ids counted, sequences summed up too."""
    parts = []
    for name, array in samples.inputs.items():
        if fed_to_embedding(context, array, name):
            parts.append(_counted(array))
            continue
        parts.append(as_rows(array).astype(np.float32))
        if array.ndim >= 3:
            parts.append(_summed_up(array))
    if any(not all_finite(part) for part in parts):
        return None
    return np.concatenate([_standardised(part) for part in parts], axis=1)


def _standardised(columns: Array) -> Array:
    deviation = columns.std(axis=0)
    # A column that hardly ever moves, as a pixel at the border, must not drown the others.
    floor = 0.1 * float(np.median(deviation[deviation > 0])) if np.any(deviation > 0) else 1.0
    scaled = (columns - columns.mean(axis=0)) / np.maximum(deviation, max(floor, 1e-30))
    return np.asarray(np.clip(scaled, -5, 5), dtype=np.float32)


def _summed_up(array: Array) -> Array:
    """What does not depend on where in a sequence or an image it is."""
    values = array.reshape(len(array), -1, array.shape[-1]).astype(np.float32)
    if values.shape[2] > 64:
        values = values.reshape(len(values), -1, 1)
    change = np.diff(values, axis=1) if values.shape[1] > 1 else values
    deviation = values.std(axis=1)
    parts = [
        values.mean(axis=1),
        deviation,
        values.max(axis=1),
        values.min(axis=1),
        np.abs(change).mean(axis=1),
        np.abs(change).max(axis=1),
        change.std(axis=1) / np.maximum(deviation, 1e-6),
        (np.abs(values).max(axis=1)) / np.maximum(deviation, 1e-6),
    ]
    return np.concatenate(parts, axis=1)


def _counted(array: Array) -> Array:
    """How often each id occurs in a row; with few ids, also where."""
    ids = as_rows(array).astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    values = values[np.argsort(-counts, kind="stable")[:300]]
    if len(values) * ids.shape[1] <= 300:
        placed = ids[:, :, None] == values
        return np.asarray(placed.reshape(len(ids), -1), dtype=np.float32)
    by_value = np.argsort(values)
    place = np.clip(np.searchsorted(values[by_value], ids), 0, len(values) - 1)
    hit = values[by_value][place] == ids
    table = np.zeros((len(ids), len(values)), np.float32)
    lines = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    np.add.at(table, (lines[hit], place[hit]), 1)
    return np.sqrt(table)


def _balanced(targets: Array, regression: bool, rng: np.random.Generator) -> Array:
    """Rows in random order, those of rare classes first in turn with the others."""
    order = rng.permutation(len(targets))
    if regression or targets.shape[1] < 1:
        return order
    keys = targets[order].argmax(axis=1) if targets.shape[1] > 1 else targets[order, 0]
    turn = np.empty(len(order))
    for key in np.unique(keys):
        chosen = np.flatnonzero(keys == key)
        turn[chosen] = np.arange(len(chosen))
    return np.asarray(order[np.argsort(turn, kind="stable")])


def _sees_what_the_model_sees(context: CheckContext) -> bool:
    """Whether a model has no way to find what columns side by side do not show, as a shape that moves."""
    plain = (keras.layers.Dense, keras.layers.BatchNormalization, keras.layers.Normalization)
    return all(
        isinstance(call.layer, plain) for call in context.forward_pass.calls if call.layer.trainable_variables
    )


def _is_discrete(samples: Samples) -> bool:
    """Whether every column has a few values only, which may hide a parity that no sample shows."""
    for array in samples.spread(500).inputs.values():
        flat = as_rows(array)
        if any(len(np.unique(column)) > 4 for column in flat.T[:: max(1, flat.shape[1] // 32)]):
            return False
    return True
