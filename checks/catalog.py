"""Every check by name: which stands before which, and what a short training has to do with it.

The rank in a report, what a training that fails confirms, the groups of the fault zoo and the table in
docs/checks.md follow from this one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Group = Literal["data", "labels", "output", "model", "optimiser", "behaviour", "curves"]


@dataclass(frozen=True)
class Check:
    """What can be found, by its name.

    Attributes:
        name: As in `Finding.check`.
        group: What it is about; `"curves"` are those of `diagnose`, after a training.
        suspect: Whether structure or data only make it likely, so that a training that fails makes
            an error of a warning. Defaults to `False`.
        shown_by_training: Whether it is a training of another kind that shows it; with such a cause
            found, suspects stay what they were. Defaults to `False`.
    """

    name: str
    group: Group
    suspect: bool = False
    shown_by_training: bool = False


# From causes to symptoms: what stands further up explains what stands below it.
CATALOG: tuple[Check, ...] = (
    Check("non-finite-data", "data"),
    Check("sample-weight", "data"),
    Check("label-range", "labels", suspect=True),
    Check("label-encoding", "labels", suspect=True),
    Check("label-scale", "labels", suspect=True),
    Check("label-task", "labels", suspect=True),
    Check("output-units", "output", suspect=True),
    Check("output-loss", "output", suspect=True),
    Check("output-range", "output", suspect=True),
    Check("double-activation", "model", suspect=True),
    Check("disconnected", "model", suspect=True),
    Check("ignores-input", "behaviour", suspect=True),
    Check("frozen", "model", suspect=True),
    Check("initial-weights", "model", suspect=True),
    Check("no-nonlinearity", "model", suspect=True),
    Check("batch-norm-batch", "model", suspect=True),
    Check("dropout-rate", "model", suspect=True),
    Check("over-regularized", "model", suspect=True),
    Check("saturating-activation", "model", suspect=True),
    Check("capacity", "model", suspect=True),
    Check("input-scale", "data", suspect=True),
    Check("target-scale", "data", suspect=True),
    Check("batch-leak", "behaviour"),
    Check("optimizer-config", "optimiser", suspect=True, shown_by_training=True),
    Check("learning-rate-high", "optimiser", shown_by_training=True),
    Check("learning-rate-low", "optimiser", shown_by_training=True),
    Check("ordered-data", "data"),
    Check("uninformative-input", "data", suspect=True),
    Check("leakage", "data"),
    Check("class-imbalance", "data", suspect=True),
    Check("constant-feature", "data"),
    Check("loss-reduction", "output"),
    Check("no-clipping", "optimiser"),
    Check("metric-task", "output"),
    Check("raises", "behaviour"),
    Check("dead-units", "behaviour"),
    Check("train-eval-gap", "behaviour"),
    Check("exploding-gradient", "behaviour"),
    Check("vanishing-gradient", "behaviour"),
    Check("initial-loss", "behaviour"),
    Check("loss-diverges", "behaviour"),
    Check("loss-stuck", "behaviour"),
    Check("tiny-overfit", "behaviour"),
    Check("high-bias", "curves"),
    Check("high-variance", "curves"),
    Check("overfitting", "curves"),
    Check("plateau", "curves"),
    Check("noisy-curve", "curves"),
    Check("too-few-epochs", "curves"),
    Check("still-improving", "curves"),
)
_RANKS = {check.name: rank for rank, check in enumerate(CATALOG)}


def rank_of(name: str) -> int:
    """How far down a check stands among the causes, from 0.

    Raises:
        ValueError: If there is no check of this name.
    """
    if name not in _RANKS:
        near = get_close_matches(name, _RANKS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"A check must be one of checks.catalog. Got {name!r}{hint}")
    return _RANKS[name]
