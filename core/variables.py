"""Training a model for a look, and giving it back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np


@contextmanager
def preserved(model: keras.Model, inputs: Any) -> Iterator[keras.Model]:
    """Lends a model's variables: weights, batch-norm statistics and random seeds are put back.

    So is the random state of Python and NumPy, from which Keras draws the seeds of new layers.

    A model that waits for its first batch is built, as `fit` would build it. The
    optimiser and the compiled metrics are not lent; a borrower brings its own.
    """
    if not model.built:
        model(inputs, training=False)
    variables = model.variables  # Those of seed generators included; metrics' are not among them.
    before = [np.array(variable.numpy()) for variable in variables]
    python, legacy = random.getstate(), np.random.get_state()
    try:
        yield model
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        random.setstate(python)
        np.random.set_state(legacy)
