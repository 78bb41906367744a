"""Numbers that are looked up in a table that has no such row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from keras_practice.checks.findings import Finding, Severity
from keras_practice.checks.inspection.lookups import Lookup
from keras_practice.checks.inspection.samples import Samples

_ARGUMENTS = {"embedding": "input_dim", "encoding": "num_tokens", "gather": "rows", "one-hot": "depth"}


def index_range(lookups: Iterable[Lookup], samples: Samples) -> Iterator[Finding]:
    """Indices beyond the rows of an embedding or encoding, and below 0.

    Source:
        A53.
    """
    told: set[str] = set()
    for lookup in lookups:
        if lookup.name in told:
            continue
        told.add(lookup.name)
        high, low = float(lookup.asked.max()), float(lookup.asked.min())
        name, size = lookup.name, lookup.size
        wrong = high if high >= size else low
        encodes = lookup.kind in ("encoding", "one-hot")
        # An embedding takes a row from the end, as Python does; one-hot rows of what is not there are all 0.
        runs = lookup.runs_below_zero and (encodes or low >= -size)
        severity: Severity = "warning" if lookup.kind == "one-hot" or (high < size and runs) else "error"
        place = _place(samples, wrong)
        what = "class numbers to be encoded" if encodes else "indices to be looked up"
        argument = _ARGUMENTS[lookup.kind]
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
