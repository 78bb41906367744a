"""What the trials say: which hyperparameters mattered, and how far that can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras_tuner
import numpy as np

from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.space.dimensions import Dimension, label

_LEAST = 8  # With fewer trials, a held-out fifth is one trial or none.
_SHUFFLES = 40
_EDGE = 0.05


@dataclass(frozen=True)
class Importance:
    """How much one hyperparameter mattered.

    Attributes:
        name: Its name.
        value: Share of the variance of the trials' ranks that goes through it,
            alone or together with others: half of what the squared error gains
            when its values are shuffled. 0 where nothing is lost.
        deviation: Standard deviation of that share over the repetitions.
    """

    name: str
    value: float
    deviation: float


@dataclass(frozen=True)
class Importances:
    """The importance of every hyperparameter.

    Attributes:
        of: The most important first; empty where there are too few trials.
        explained: Share of the variance of held-out trials' ranks that the forest
            predicts (R squared); 0 or less: nothing. NaN where there is none.
        trials: Number of trials that it has seen.
    """

    of: tuple[Importance, ...]
    explained: float
    trials: int

    @property
    def sureness(self) -> str:
        """In a sentence, how far it can be trusted."""
        if not self.of:
            return f"{self.trials} trials are too few to tell what mattered; at least {_LEAST} are needed."
        seen = f"A forest that has seen {self.trials} trials"
        if self.explained <= 0.1:
            return (
                f"{seen} cannot predict how a trial that it has not seen will rank (R² "
                f"{self.explained:.2f}): do not trust this order; more trials would help."
            )
        share = f"predicts {100 * self.explained:.0f} % of the ranking of trials that it has not seen"
        if self.explained < 0.5:
            return f"{seen} {share}: a rough guide, in which neighbours may change places."
        if self.trials < 30:
            return f"{seen} {share}: the first is fairly sure, but with so few trials the others are not."
        return f"{seen} {share}: the order is fairly sure."


def importances(
    rows: Sequence[TrialRow], axes: Sequence[Dimension], objective: keras_tuner.Objective, seed: int = 0
) -> Importances:
    """Permutation importance in a random forest that predicts a trial's rank from its hyperparameters.

    The forest is judged on trials that it has not seen, a fifth at a time. Ranks
    keep one exploded loss from outweighing all else; trials that failed rank
    last, trials that were pruned by the score that they had reached.

    Args:
        rows: The trials.
        axes: The hyperparameters that were searched.
        objective: The score, with its direction.
        seed: Fixes the forest and the shuffling. Defaults to `0`.

    Source:
        Breiman 2001, "Random forests", section 10 (permutation importance).
    """
    ended = [row for row in rows if row.status != "RUNNING" and _complete(row, axes)]
    if len(ended) < _LEAST or not axes:
        return Importances((), math.nan, len(ended))
    x = np.array([[axis.place(row.hyperparameters[axis.name]) for axis in axes] for row in ended])
    y = _ranks(ended, objective)
    if np.ptp(y) == 0:
        return Importances((), math.nan, len(ended))
    # Imported here: a search that is not reported on need not wait for it.
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import RepeatedKFold

    repeats, generator = 3, np.random.default_rng(seed)
    squares = np.zeros((repeats, 1 + len(axes)))  # The forest's own errors first.
    for number, (train, held) in enumerate(
        RepeatedKFold(n_splits=5, n_repeats=repeats, random_state=seed).split(x)
    ):
        forest = RandomForestRegressor(60, min_samples_leaf=2 if len(train) > 20 else 1, random_state=seed)
        forest.fit(x[train], y[train])
        # Every held-out trial with values that the others have, all in one call.
        copies = [x[held]]
        for column in range(len(axes)):
            others = generator.choice(x[train, column], min(_SHUFFLES, len(train)), replace=False)
            shuffled = np.repeat(x[held], len(others), axis=0)
            shuffled[:, column] = np.tile(others, len(held))
            copies.append(shuffled)
        predicted = np.split(forest.predict(np.concatenate(copies)), np.cumsum([len(c) for c in copies])[:-1])
        truth = y[held]
        squares[number // 5, 0] += np.sum((predicted[0] - truth) ** 2)
        for column, values in enumerate(predicted[1:], start=1):
            errors = (values.reshape(len(held), -1) - truth[:, None]) ** 2
            squares[number // 5, column] += errors.mean(axis=1).sum()
    # Two values drawn apart differ by twice the variance that goes through them.
    shares = (squares[:, 1:] - squares[:, :1]) / (2 * np.sum((y - y.mean()) ** 2))
    found = [
        Importance(axis.name, max(0.0, float(share.mean())), float(share.std(ddof=1)))
        for axis, share in zip(axes, shares.T, strict=True)
    ]
    explained = 1 - float(squares[:, 0].mean() / np.sum((y - y.mean()) ** 2))
    return Importances(tuple(sorted(found, key=lambda one: -one.value)), explained, len(ended))


def _complete(row: TrialRow, axes: Sequence[Dimension]) -> bool:
    return all(axis.name in row.hyperparameters for axis in axes)


def _ranks(rows: Sequence[TrialRow], objective: keras_tuner.Objective) -> Any:
    from scipy.stats import rankdata

    worst = -math.inf if objective.direction == "max" else math.inf
    scores = np.array([worst if row.score is None else row.score for row in rows], dtype=float)
    return rankdata(scores if objective.direction == "max" else -scores)


def edges(best: TrialRow, axes: Sequence[Dimension]) -> list[str]:
    """A sentence for each hyperparameter whose best value lies at an end of what was searched.

    An end at 0 that cannot be passed, as of dropout, is none; nor has a choice of
    words one, or a choice of two numbers.

    Args:
        best: The best trial.
        axes: The hyperparameters that were searched.
    """
    sentences = []
    for axis in axes:
        value = best.hyperparameters.get(axis.name)
        if value is None or not axis.ordered or (axis.kind == "choice" and len(axis.values) < 3):
            continue
        low, high = (axis.values[0], axis.values[-1]) if axis.kind == "choice" else (axis.low, axis.high)
        place = axis.place(value)
        upper = place > 1 - _EDGE
        if not upper and (place >= _EDGE or low == 0):
            continue
        further = f"{'above' if upper else 'below'} {label(high if upper else low)}"
        sentences.append(
            f"The best {axis.name.replace('_', ' ')}, {label(value)}, lies at the "
            f"{'upper' if upper else 'lower'} end of what was searched, {label(low)} to {label(high)}: "
            f"search {further} too."
        )
    return sentences


def noise(rows: Sequence[TrialRow], objective: keras_tuner.Objective) -> str:
    """In a sentence or two, whether the best trial is better than chance would have it.

    Trainings of two trials on the same fold are compared in pairs, so that a fold
    that is hard for all does not count as noise.

    Args:
        rows: The trials, best first.
        objective: The score.
    """
    good = [row for row in rows if row.status == "COMPLETED" and row.score is not None]
    if not good or len(good[0].trainings) < 2:
        return (
            "How much the score changes with the seed alone is unknown, since each trial was trained once: "
            "small differences may be luck. --repeats 3 shows it."
        )
    folds = max(training.fold for training in good[0].trainings)
    within = [
        statistics.variance(values)
        for row in good
        for fold in range(1, folds + 1)
        if len(values := [t.score for t in row.trainings if t.fold == fold]) > 1
    ]
    told = "How much the score changes with the seed alone is unknown (--repeats 3 shows it). "
    if within:
        spread = math.sqrt(statistics.fmean(within))
        told = (
            f"From one seed to another, a trial's {objective.name} has a standard deviation of {spread:.2g}. "
        )
    if len(good) < 2:
        return told.strip()
    tied = [row for row in good[1:] if not _ahead(good[0], row)]
    lead = abs((good[0].score or 0.0) - (good[1].score or 0.0))
    count = len(good[0].trainings)
    if not tied:
        return (
            f"{told}The best trial leads by {lead:.2g}, more than chance explains in {count} trainings each."
        )
    others = "one other trial" if len(tied) == 1 else f"{len(tied)} other trials"
    return (
        f"{told}The best trial leads by {lead:.2g}; in {count} trainings each it cannot be told from "
        f"{others} ({', '.join(row.trial for row in tied[:8])}{', ...' if len(tied) > 8 else ''}): "
        f"among these, take the simplest."
    )


def _ahead(best: TrialRow, other: TrialRow) -> bool:
    """Whether the mean of the paired differences is beyond what chance gives in one of twenty cases."""
    from scipy.stats import ttest_rel

    theirs = {(training.fold, training.repeat): training.score for training in other.trainings}
    pairs = [
        (training.score, theirs[training.fold, training.repeat])
        for training in best.trainings
        if (training.fold, training.repeat) in theirs
    ]
    if len(pairs) < 2:
        return False
    first, second = np.array(pairs).T
    if np.ptp(first - second) == 0:
        return bool(first[0] != second[0])
    return bool(ttest_rel(first, second).pvalue < 0.05)
