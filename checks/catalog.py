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
        says: What is there if it is found, in one line.
        suspect: Whether structure or data only make it likely, so that a training that fails makes
            an error of a warning. Defaults to `False`.
        shown_by_training: Whether it is a training of another kind that shows it; with such a cause
            found, suspects stay what they were. Defaults to `False`.
    """

    name: str
    group: Group
    says: str
    suspect: bool = False
    shown_by_training: bool = False


# From causes to symptoms: what stands further up explains what stands below it.
CATALOG: tuple[Check, ...] = (
    Check("non-finite-data", "data", "NaN or infinity among the inputs or the labels"),
    Check("sample-weight", "data", "sample weights that count nothing, or against a sample"),
    Check("index-range", "data", "numbers to be looked up in a table that has no such row"),
    Check("label-range", "labels", "labels outside what the loss can mean", suspect=True),
    Check(
        "label-encoding",
        "labels",
        "class numbers where one-hot rows are meant, the reverse, or another shape",
        suspect=True,
    ),
    Check("label-scale", "labels", "class labels that were scaled like features", suspect=True),
    Check("label-task", "labels", "labels of another kind than loss and output are made for", suspect=True),
    Check("output-units", "output", "an output of another width or shape than the labels", suspect=True),
    Check("output-loss", "output", "a last activation, a loss and labels that are at odds", suspect=True),
    Check("output-range", "output", "targets that the last activation cannot reach", suspect=True),
    Check("double-activation", "model", "an activation on what another one has cut already", suspect=True),
    Check("disconnected", "model", "weights that get no gradient", suspect=True),
    Check("ignores-input", "behaviour", "an input that has no bearing on the output", suspect=True),
    Check("frozen", "model", "layers that are not trained", suspect=True),
    Check("initial-weights", "model", "first weights that are equal, or on a wrong scale", suspect=True),
    Check("no-nonlinearity", "model", "layers of weights with nothing between them that bends", suspect=True),
    Check("batch-norm-batch", "model", "batch normalisation over too few values", suspect=True),
    Check("dropout-rate", "model", "so much dropout that little is left", suspect=True),
    Check("over-regularized", "model", "a penalty that outweighs what can be learned", suspect=True),
    Check("saturating-activation", "model", "units at the flat ends of their activation", suspect=True),
    Check("capacity", "model", "a model too narrow or too small for the data", suspect=True),
    Check("input-scale", "data", "inputs on a scale that the first weights are not made for", suspect=True),
    Check("target-scale", "data", "targets that the output reaches only after many epochs", suspect=True),
    Check("batch-leak", "behaviour", "an output that depends on the other samples of the batch"),
    Check(
        "optimizer-config",
        "optimiser",
        "a setting of the optimiser outside what works",
        suspect=True,
        shown_by_training=True,
    ),
    Check("learning-rate-high", "optimiser", "a learning rate too high to learn at", shown_by_training=True),
    Check(
        "learning-rate-low", "optimiser", "a learning rate too low to get anywhere", shown_by_training=True
    ),
    Check("ordered-data", "data", "samples that come sorted, and are not shuffled"),
    Check("uninformative-input", "data", "inputs that do not tell the labels", suspect=True),
    Check("leakage", "data", "a label among the inputs, or the same samples on both sides of a split"),
    Check("class-imbalance", "data", "a class that is rare, or missing in a split", suspect=True),
    Check("constant-feature", "data", "a column or a label that never changes"),
    Check("loss-reduction", "output", "a loss that averages before it compares, or adds up over the batch"),
    Check("no-clipping", "optimiser", "recurrent layers without a limit on the gradient"),
    Check("metric-task", "output", "a metric that says nothing about this output"),
    Check("raises", "behaviour", "a training step that raises an exception"),
    Check("dead-units", "behaviour", "units that are 0 for every sample"),
    Check("train-eval-gap", "behaviour", "a model that is good in training mode alone"),
    Check("exploding-gradient", "behaviour", "a gradient too large for a step to stay where it is valid"),
    Check("vanishing-gradient", "behaviour", "a gradient that does not reach the first layers"),
    Check("initial-loss", "behaviour", "a first loss far from what chance gives"),
    Check("loss-diverges", "behaviour", "a loss that grows, or is no number"),
    Check("loss-stuck", "behaviour", "a loss that stays at a constant answer's"),
    Check("tiny-overfit", "behaviour", "a few samples that cannot be learned by heart"),
    Check("high-bias", "curves", "errors on the training data themselves"),
    Check("high-variance", "curves", "errors on new data that the training data do not show"),
    Check("overfitting", "curves", "a validation loss that rises while the training loss falls"),
    Check("plateau", "curves", "a training loss that does not move, or no longer does"),
    Check("noisy-curve", "curves", "a validation loss that jumps from epoch to epoch"),
    Check("too-few-epochs", "curves", "a training too short to be read"),
    Check("still-improving", "curves", "a training that ended while it was getting better"),
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
