"""What is learned from: data sets in three splits, and the task that they state."""

from keras_practice.data.catalog import load, names
from keras_practice.data.dataset import Dataset, Scaling, Split, from_arrays
from keras_practice.data.registry import Registry
from keras_practice.data.task import Task

__all__ = ["Dataset", "Registry", "Scaling", "Split", "Task", "from_arrays", "load", "names"]
