"""Weights of a trial on disk, in Keras's own format, at a fraction of its cost.

`model.save_weights` spends its time on finding out what there is to be saved and under which
name. Models that share a graph have the same answer, so it is found out once: later files
are copies of one of Keras's, with other numbers in their places.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import h5py
import keras
import numpy as np

from keras_practice.core.variables import all_variables, assign_unchecked, read_values

# A larger file takes longer to fill than to find out about, and is not kept in memory.
_LARGEST = 2**24


class Checkpoints:
    """Writes the weights of models, several times the same model's."""

    def __init__(self) -> None:
        self._forms: WeakKeyDictionary[keras.Model, _Form | None] = WeakKeyDictionary()

    def write(self, model: keras.Model, values: Sequence[Any], path: str | Path) -> None:
        """Writes what `model.save_weights(path)` would, had the model these values.

        Args:
            model: A model, built. The file may be made by giving it the values.
            values: One tensor for each of `all_variables(model)`.
            path: A name that ends in `.weights.h5`.
        """
        form = self._forms.get(model)
        if form is not None and form.fits(model):
            form.write([np.asarray(value) for value in values], path)
            return
        assign_unchecked(all_variables(model), values)
        model.save_weights(path)
        # Most models are written once only.
        self._forms[model] = _Form.of(model) if model in self._forms else None


class _Form:
    """A file of Keras's, and which of the variables each number in it is of."""

    def __init__(self, model: keras.Model, file: bytes, places: dict[str, int]) -> None:
        self._file, self._places = file, places
        self._variables = [*map(id, all_variables(model))]

    @classmethod
    def of(cls, model: keras.Model) -> _Form | None:
        """The form of a model's files; `None` if they are large or hold anything but variables."""
        before = read_values(all_variables(model))
        if sum(int(np.prod(value.shape)) * value.dtype.size for value in before) > _LARGEST:
            return None
        marks = [np.full(value.shape, mark, value.dtype.as_numpy_dtype) for mark, value in enumerate(before)]
        assign_unchecked(all_variables(model), marks)
        try:
            found = _saved(model)
        finally:
            assign_unchecked(all_variables(model), before)
        places: dict[str, int] = {}

        def look(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                value = np.asarray(item)
                mark = int(value.flat[0]) if value.size and value.dtype.kind in "fiu" else -1
                right = 0 <= mark < len(marks) and np.array_equal(value, marks[mark])
                places[name] = mark if right else -1

        with h5py.File(io.BytesIO(found), "r") as file:
            file.visititems(look)
        if -1 in places.values() or len(set(places.values())) < len(places):
            return None
        return cls(model, found, places)

    def fits(self, model: keras.Model) -> bool:
        """Whether the model has the variables that it had."""
        return self._variables == [*map(id, all_variables(model))]

    def write(self, values: Sequence[Any], path: str | Path) -> None:
        """Writes a file with these values."""
        target = Path(path)
        target.write_bytes(self._file)
        with h5py.File(target, "r+") as file:
            for name, place in self._places.items():
                file[name][...] = values[place]


def _saved(model: keras.Model) -> bytes:
    """What Keras writes for a model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "form.weights.h5"
        model.save_weights(file)
        return file.read_bytes()
