"""Cross-validation: every sample outside the test split is validated on once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from keras_practice.core.arguments import check_integer
from keras_practice.data import Dataset, Scaling, Split


def cross_validation(dataset: Dataset, folds: int, seed: int = 0) -> tuple[Dataset, ...]:
    """The training and validation samples, parted anew `folds` times; the test split stays apart.

    Each sample is in exactly one of the validation splits. Classes keep their
    shares, and identical samples stay together. Features that have a scale of
    their own each are scaled anew by each fold's training samples.

    Args:
        dataset: The data set.
        folds: Number of parts, at least 2.
        seed: Fixes them. Defaults to `0`.

    Returns:
        One data set a fold, of the same task and name, with the same test samples.

    Raises:
        ValueError: If there are too few distinct samples, of a class where there
            are classes.

    Source:
        A39; Hastie, Tibshirani and Friedman 2009, section 7.10.
    """
    return tuple(fold_of(dataset, held) for held in held_out(dataset, folds, seed))


def held_out(dataset: Dataset, folds: int, seed: int) -> tuple[Any, ...]:
    """Which of the training and validation samples, in this order, each fold validates on.

    Args:
        dataset: The data set.
        folds: Number of parts, at least 2.
        seed: Fixes them.

    Returns:
        An array of truth values for each fold, `(samples,)`.

    Raises:
        ValueError: As `cross_validation` does.
    """
    folds = check_integer("folds", folds, least=2)
    x, y = _joined(dataset)
    numbers: dict[bytes, int] = {}
    groups = np.asarray([numbers.setdefault(row.tobytes(), len(numbers)) for row in x])
    _, leaders = np.unique(groups, return_index=True)
    parter, classes = KFold(folds, shuffle=True, random_state=seed), np.zeros(len(leaders), dtype=int)
    # With a label for every step, a sample has no single class.
    apart = dataset.task.kind in ("binary", "multiclass") and (y.ndim == 1 or dataset.task.one_hot)
    if apart:
        parter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        classes = dataset.task.class_indices(y)[leaders]
    rarest = int(np.bincount(classes)[np.unique(classes)].min())
    if rarest < folds:
        where = " of the rarest class" if apart else ""
        raise ValueError(
            f"There must be a distinct sample{where} for each fold. Got {rarest} for {folds} folds."
        )
    return tuple(np.isin(groups, groups[leaders[chosen]]) for _, chosen in parter.split(leaders, classes))


def fold_of(dataset: Dataset, held: Any) -> Dataset:
    """One fold.

    Args:
        dataset: The data set.
        held: Which samples it validates on; see `held_out`.
    """
    x, y = _joined(dataset)
    # What rebuilds its input has the features as its target, which must keep their scale.
    rescaled = dataset.scaling.shift.ndim > 0 and dataset.target_scaling is not dataset.scaling
    own = Scaling.fit(x[~held], "standard" if rescaled else "none")

    def split(features: Any, labels: Any, like: Split) -> Split:
        return Split(own.apply(features), labels, like.task, like.role)

    # x = (raw - shift) / scale, then (x - own.shift) / own.scale: one scaling from the raw features.
    scaling = Scaling(
        dataset.scaling.shift + dataset.scaling.scale * own.shift, dataset.scaling.scale * own.scale
    )
    return replace(
        dataset,
        train=split(x[~held], y[~held], dataset.train),
        val=split(x[held], y[held], dataset.val),
        test=split(dataset.test.x, dataset.test.y, dataset.test),
        scaling=scaling,
    )


def _joined(dataset: Dataset) -> tuple[Any, Any]:
    """All samples outside the test split: those of training, then those of validation."""
    return (
        np.concatenate([dataset.train.x, dataset.val.x]),
        np.concatenate([dataset.train.y, dataset.val.y]),
    )
