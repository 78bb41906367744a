"""Scores of predictions on a whole set, exact and fast enough for every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from keras_practice.callbacks.f1 import Average
from keras_practice.core.types import Array
from keras_practice.data import Task

CLASS_SCORES = ("accuracy", "f1", "precision", "recall", "auc", "coverage", "coverage_accuracy")
REGRESSION_SCORES = ("mae", "rmse", "r2")


def scores(
    y: Any,
    predictions: Any,
    task: Task,
    *,
    average: Average = "macro",
    threshold: float | Sequence[float] = 0.5,
    confidence: float = 0.9,
) -> dict[str, Any]:
    """Scores of predictions on a whole set, equal to scikit-learn's.

    A class that neither occurs nor is predicted counts as 0, as with
    scikit-learn's `labels=range(num_classes), zero_division=0`.

    Args:
        y: Labels, `(samples,)`, `(samples, 1)` or `(samples, outputs)`; steps or
            pixels in between count as more samples.
        predictions: The model's outputs, `(samples, ..., outputs)`: probabilities,
            or numbers for regression.
        task: What is predicted.
        average: How classes are averaged in `f1`, `precision` and `recall`, as in
            `F1Score`; with `None` these and `auc` are arrays of one number a
            class, `(num_classes,)`. Defaults to `"macro"`.
        threshold: Probability above which a sigmoid says yes: one, or one for
            each label. Defaults to `0.5`.
        confidence: Probability of the decision from which a sample is covered.
            Defaults to `0.9`.

    Returns:
        For classes: `accuracy` (for several labels, the share of single decisions
        that are right), `f1`, `precision`, `recall`, `auc` (area under the ROC
        curve, one class against the rest, mean over the classes of which `y` has
        both members and others), `coverage` (share of the samples, or single
        decisions, that are predicted with at least `confidence`) and
        `coverage_accuracy` (accuracy on that share, NaN where it is empty). For
        regression: `mae`, `rmse` and `r2`. All are NaN where a prediction is not
        finite.

    Source:
        A40; Goodfellow, Bengio and Courville 2016, section 11.1 (coverage).
    """
    predictions = np.asarray(predictions, dtype=np.float64).reshape(-1, task.outputs)
    y = np.asarray(y).reshape(len(predictions), -1)
    if not np.all(np.isfinite(predictions)):
        return _undefined(task, average)
    if not task.is_classification:
        return {
            "mae": float(np.mean(np.abs(y - predictions))),
            "rmse": float(np.sqrt(np.mean((y - predictions) ** 2))),
            "r2": _r2(y, predictions),
        }
    truth, decided, certainty = _decide(y, predictions, task, threshold)
    right, sure = truth == decided, certainty >= confidence
    members = truth[:, None] == np.arange(task.num_classes) if truth.ndim == 1 else truth == 1
    chosen = decided[:, None] == np.arange(task.num_classes) if truth.ndim == 1 else decided == 1
    hits, guesses, actual = (part.sum(axis=0).astype(float) for part in (members & chosen, chosen, members))
    precision, recall, f1 = _precision_recall_f1(hits, guesses, actual, average)
    # The ROC curve of "no" is that of "yes" read backwards.
    ranked = members[:, 1:] if task.kind == "binary" else members
    areas = np.broadcast_to(_areas(ranked, predictions), task.num_classes)
    return {
        "accuracy": float(right.mean()),
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "auc": areas if average is None else _mean_of_defined(areas),
        "coverage": float(sure.mean()),
        "coverage_accuracy": float(right[sure].mean()) if sure.any() else float("nan"),
    }


def confusion_matrix(y: Any, predictions: Any, task: Task, threshold: float = 0.5) -> Array:
    """Counts of samples by true class (rows) and predicted class (columns).

    Args:
        y: Labels, as in `scores`.
        predictions: Probabilities, as in `scores`.
        task: A binary or multiclass task.
        threshold: Probability above which a sigmoid says yes. Defaults to `0.5`.

    Returns:
        Integers, `(num_classes, num_classes)`.

    Raises:
        ValueError: If the task has no classes that exclude each other.

    Source:
        A40.
    """
    if task.kind not in ("binary", "multiclass"):
        raise ValueError(f"A confusion matrix needs classes that exclude each other. Got {task}.")
    p = np.asarray(predictions, dtype=np.float64).reshape(-1, task.outputs)
    truth, decided, _ = _decide(np.asarray(y).reshape(len(p), -1), p, task, threshold)
    classes = task.num_classes
    return np.bincount(truth * classes + decided, minlength=classes**2).reshape(classes, classes)


def best_threshold(y: Any, probabilities: Any, average: Average = "macro") -> float:
    """The threshold of one sigmoid that gives the highest F1.

    All thresholds that make a difference are tried: halfway between neighbouring
    probabilities. Among equally good ones the one nearest to 0.5 is taken. It
    fits these samples; on others the F1 will be somewhat lower.

    Args:
        y: 0 or 1, `(samples,)`.
        probabilities: `(samples,)`, in `[0, 1]`.
        average: `"binary"` for the F1 of "yes", else as in `scores`. Defaults to
            `"macro"`, the mean of "no" and "yes".

    Returns:
        A threshold in `(0, 1)`; 0.5 where a probability is not finite.

    Source:
        A40; Lipton, Elkan and Naryanaswamy 2014.
    """
    p, truth = np.asarray(probabilities, dtype=np.float64).ravel(), np.asarray(y).ravel() == 1
    if not np.all(np.isfinite(p)):
        return 0.5
    order = np.argsort(p)
    values, first = np.unique(p[order], return_index=True)
    cuts = np.concatenate([[values[0] / 2], (values[:-1] + values[1:]) / 2, [(values[-1] + 1) / 2]])
    below = np.concatenate([first, [len(p)]])  # How many samples a cut leaves out.
    yes_below = np.concatenate([[0], np.cumsum(truth[order])])[below]
    yes, total = truth.sum(), len(p)
    no_hits = below - yes_below
    hits = np.stack([no_hits, yes - yes_below]).astype(float)
    chosen = np.stack([below, total - below]).astype(float)
    actual = np.broadcast_to(np.array([[total - yes], [yes]], dtype=float), hits.shape)
    f1 = _precision_recall_f1(hits, chosen, actual, average)[2]
    usable = (cuts > 0) & (cuts < 1)
    if not usable.any():
        return 0.5
    best = usable & (f1 >= f1[usable].max() - 1e-12)
    return float(cuts[best][np.argmin(np.abs(cuts[best] - 0.5))])


def _undefined(task: Task, average: Average) -> dict[str, Any]:
    names = CLASS_SCORES if task.is_classification else REGRESSION_SCORES
    values: dict[str, Any] = dict.fromkeys(names, float("nan"))
    if average is None and task.is_classification:
        values |= {name: np.full(task.num_classes, np.nan) for name in ("f1", "precision", "recall", "auc")}
    return values


def _r2(y: Array, predictions: Array) -> float:
    """Share of the variance that is explained, outputs weighted by their own variance."""
    if len(y) < 2:
        return float("nan")
    # A column that never varies, such as a pixel that is always black, does not count as learned.
    spread = np.sum((y - y.mean(axis=0)) ** 2, axis=0)
    left = np.sum((y - predictions) ** 2, axis=0)
    if not spread.any():
        return 0.0 if left.any() else 1.0
    return float(1 - left[spread > 0].sum() / spread.sum())


def _decide(y: Array, p: Array, task: Task, threshold: Any) -> tuple[Array, Array, Array]:
    """Truth, decision and the decision's probability: `(samples,)`, or `(samples, labels)`."""
    if task.kind == "multiclass":
        return task.class_indices(y), p.argmax(axis=1), p.max(axis=1)
    decided = (p > np.asarray(threshold)).astype(int)
    certainty = np.where(decided == 1, p, 1 - p)
    if task.kind == "multilabel":
        return y.astype(int), decided, certainty
    return task.class_indices(y), decided[:, 0], certainty[:, 0]


def _precision_recall_f1(hits: Array, chosen: Array, actual: Array, average: Average) -> tuple[Any, Any, Any]:
    """Of counts whose first axis is the class, averaged over it."""
    if average == "micro":
        hits, chosen, actual = (counts.sum(axis=0) for counts in (hits, chosen, actual))
    each = np.stack([_divide(hits, chosen), _divide(hits, actual), _divide(2 * hits, chosen + actual)])
    if average == "macro":
        each = each.mean(axis=1)
    elif average == "weighted":
        each = _divide((each * actual).sum(axis=1), actual.sum(axis=0))
    elif average == "binary":
        each = each[:, 1]
    return (each[0], each[1], each[2]) if each.ndim > 1 else (float(each[0]), float(each[1]), float(each[2]))


def _divide(numerator: Array, denominator: Array) -> Array:
    return np.asarray(numerator / np.where(denominator == 0, 1.0, denominator))


def _areas(members: Array, probabilities: Array) -> Array:
    """Area under each column's ROC curve: the share of pairs ranked right (Mann and Whitney)."""
    inside = members.sum(axis=0)
    others = len(members) - inside
    ranks = rankdata(probabilities, axis=0)
    above = np.sum(ranks * members, axis=0) - inside * (inside + 1) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where((inside > 0) & (others > 0), above / (inside * others), np.nan))


def _mean_of_defined(values: Array) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
