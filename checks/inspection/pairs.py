"""Outputs beside their labels and their losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.loss_probe import LossProbe, probe_of, same_rank
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.types import Array


@dataclass(frozen=True)
class Pair:
    """An output and its labels, as the rules read them.

    Attributes:
        head: The output.
        probe: Its loss.
        sampled: The labels of the samples whose outputs are known.
        linear: Whether the output is known to be a layer's bare sum.
        reconstructs: Whether the labels are the model's input.
        complete: Whether all labels are known.
        stated: Whether the user says that these are classes, by a task or by an accuracy.
        position: Number of the output.
    """

    head: Head
    probe: LossProbe
    sampled: Array
    linear: bool
    reconstructs: bool
    complete: bool
    stated: bool
    position: int

    @property
    def labels(self) -> Array:
        """All labels."""
        return self.head.labels

    @property
    def outputs(self) -> Array:
        """The outputs seen."""
        return self.head.outputs

    @property
    def units(self) -> int:
        """Width of the output."""
        return self.head.units

    @property
    def last(self) -> str | None:
        """The last activation."""
        return self.head.activations[0] if self.head.activations else None

    def finding(self, check: str, severity: Severity, evidence: str, cause: str, fix: str) -> Finding:
        """A finding about this output."""
        return Finding(check, severity, f"output {self.head.name!r}", evidence, cause, fix, SOURCES[check])

    @property
    def matched(self) -> Array | None:
        """The sampled labels in the shape of the outputs; `None` if there is not one label an output."""
        labels, outputs = same_rank(self.sampled, self.outputs)
        return labels.reshape(self.outputs.shape) if labels.shape == outputs.shape else None


SOURCES = {
    "label-range": "A16; Goodfellow, Bengio and Courville 2016, section 6.2",
    "label-encoding": "A16",
    "label-scale": "A38, A16",
    "label-task": "A15, A16; Goodfellow, Bengio and Courville 2016, section 6.2",
    "output-loss": "A15, A16; Goodfellow, Bengio and Courville 2016, section 6.2",
    "output-range": "A15; Goodfellow, Bengio and Courville 2016, section 6.2",
    "output-units": "A15",
    "loss-reduction": "A27; Goyal et al. 2017",
    "metric-task": "A40",
}


def pairs_of(context: CheckContext, stated: Callable[[Head], bool]) -> Iterator[Pair | Finding]:
    """The outputs that have a loss; a finding in place of one whose labels or loss cannot be read."""
    for position, head in enumerate(context.heads):
        where = f"output {head.name!r}"
        if head.labels.dtype.kind not in "biuf":
            example = str(head.labels.ravel()[0])
            words = f"labels are of type {head.labels.dtype}, such as {example!r}; numbers are expected."
            cause, fix = (
                "class names in place of class numbers.",
                "number them with keras.layers.StringLookup.",
            )
            if head.loss is not None:
                yield Finding("label-encoding", "error", where, words, cause, fix, SOURCES["label-encoding"])
            continue
        if not _is_known(head.loss):
            words = f"there is no loss {head.loss!r}; the name of a loss in keras.losses is expected."
            cause, fix = "a misspelt name.", "look the name up in keras.losses."
            yield Finding("output-loss", "error", where, words, cause, fix, SOURCES["output-loss"])
            continue
        probe = probe_of(head.loss, head.labels[:2], head.outputs)
        if probe is not None:
            yield _pair(context, position, head, probe, stated(head))


def _is_known(loss: Any) -> bool:
    """Whether there is a loss of that name, where it is one."""
    if not isinstance(loss, str) or loss.lower() in ("crossentropy", "ce"):
        return True
    try:
        keras.losses.get(loss)
    except ValueError:
        return False
    return True


def _pair(context: CheckContext, position: int, head: Head, probe: LossProbe, stated: bool) -> Pair:
    samples = Samples(head.labels, head.labels, None, None, True)
    sampled = samples.spread(len(head.outputs), context.seed).y  # The draw that the forward pass saw.
    linear = not head.activations and any(
        call.activation is None and hasattr(call.layer, "kernel") and _equal(call.outputs, head.outputs)
        for call in context.forward_pass.calls
    )
    reconstructs = any(_equal((values,), head.labels) for values in context.train.inputs.values())
    return Pair(head, probe, sampled, linear, reconstructs, context.train.complete, stated, position)


def _equal(arrays: tuple[Array, ...], other: Array) -> bool:
    return len(arrays) == 1 and arrays[0].shape == other.shape and np.array_equal(arrays[0], other)
