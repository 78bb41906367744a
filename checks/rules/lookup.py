"""Numbers that are looked up in a table that has no such row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity
from keras_practice.checks.inspection.lookups import Lookup
from keras_practice.checks.inspection.samples import Samples


def index_range(lookups: Iterable[Lookup], samples: Samples) -> Iterator[Finding]:
    """Indices beyond the rows of an embedding or encoding, and below 0.

    Source:
        A53.
    """
    told: set[int] = set()
    for lookup in lookups:
        if id(lookup.layer) in told:
            continue
        told.add(id(lookup.layer))
        high, low = float(lookup.asked.max()), float(lookup.asked.min())
        name, size = lookup.layer.name, lookup.size
        wrong = high if high >= size else low
        embeds = isinstance(lookup.layer, keras.layers.Embedding)
        # A number from -size on takes a row from the end, as Python does; one-hot rows of it are all 0.
        runs = low >= -size if embeds else getattr(lookup.layer, "output_mode", "") == "one_hot"
        severity: Severity = "warning" if high < size and runs else "error"
        place = _place(samples, wrong)
        what = "indices to be looked up" if embeds else "class numbers to be encoded"
        argument = "input_dim" if embeds else "num_tokens"
        yield Finding(
            "index-range",
            severity,
            f"{name}{f', {place}' if place else ''}",
            f"{what} run from {low:g} to {high:g}{f' in {place}' if place else ''}, and {name} has {size:,} "
            f"rows: 0 to {size - 1:,} is expected.",
            "numbers counted from 1, a vocabulary larger than the table, or a column that was not numbered."
            if high >= size
            else "a mark such as -1 for what is missing, of which a lookup takes the last row or none.",
            f"set {argument}={int(high) + 1:,}, or number the values from 0 without gaps."
            if high >= size
            else "add 1 to all numbers, keep 0 for what is missing, and make room for one more with "
            f"{argument}={max(size, int(high) + 2):,}.",
            "A53",
        )


def _place(samples: Samples, wrong: float) -> str:
    """Where a number stands among the inputs; `""` where the model has made it itself."""
    for name, array in samples.inputs.items():
        if array.dtype.kind not in "iuf":
            continue
        flat = array.reshape(len(array), -1)
        columns = np.flatnonzero((flat == wrong).any(axis=0))
        if len(columns):
            return name if flat.shape[1] == 1 else f"{name}, column {int(columns[0])}"
    return ""
