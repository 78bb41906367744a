"""What is learned from: data sets in three splits, and the task that they state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.core.lazy import attributes

if TYPE_CHECKING:
    from keras_practice.data.catalog import load, names
    from keras_practice.data.dataset import Dataset, Scaling, Split, from_arrays
    from keras_practice.data.registry import Registry
    from keras_practice.data.task import Task

__all__ = ["Dataset", "Registry", "Scaling", "Split", "Task", "from_arrays", "load", "names"]

__getattr__ = attributes(
    __name__,
    {
        "Dataset": "dataset",
        "Registry": "registry",
        "Scaling": "dataset",
        "Split": "dataset",
        "Task": "task",
        "from_arrays": "dataset",
        "load": "catalog",
        "names": "catalog",
    },
)
