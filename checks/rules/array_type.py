"""Arrays that `fit` refuses before the model sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import keras

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.inspection.targets import named_arrays


def refused_by_fit(samples: Samples) -> Iterator[Finding]:
    """Arrays of a type that Keras has no name for, such as objects and NumPy's strings.

    A data set gives tensors, whose types are all known.

    Source:
        A53.
    """
    if samples.batch is not None:
        return
    labels = named_arrays(samples.y, "y")
    given: set[str] = set()
    if samples.forms is not None:
        forms = keras.tree.pack_sequence_as(samples.x, list(samples.forms))
        named: Mapping[str, Any] = replace(samples, x=forms).inputs
        given = {name for name, form in named.items() if form.kind == "strings"}
    for name, array in {**samples.inputs, **labels}.items():
        if name in given:
            continue
        try:
            keras.backend.standardize_dtype(array.dtype)
        except ValueError as problem:
            text = array.dtype.kind in "OUS" and isinstance(array.reshape(-1)[0], (str, bytes))
            if name in labels and text:
                continue  # Class names, of which another check says more.
            yield Finding(
                "raises",
                "error",
                name,
                f"fit refuses an array of dtype {array.dtype} ({problem}).",
                "an array of strings or objects, or rows of different lengths."
                if array.dtype.kind in "OUS"
                else "a type of dates or numbers that Keras does not know.",
                f"pass tensors, as tf.constant({name}, dtype=tf.string), or a tf.data.Dataset of them."
                if text
                else "make numbers of it, all rows of the same shape, as with astype('float32').",
                "A53",
            )
