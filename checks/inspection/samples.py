"""The samples that `fit` would see, drawn from whatever it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.inspection.batches import Batches, read_batches
from keras_practice.checks.inspection.forms import Form, is_array, read_array
from keras_practice.core.types import Array


@dataclass(frozen=True)
class Samples:
    """Samples in the order in which they come.

    Attributes:
        x: Inputs: an array `(samples, ...)`, or a list, tuple or dict of such.
        y: Labels in the same way; `None` for inputs alone.
        weight: Sample weights, `(samples,)` or `(samples, steps)`, or one such array an output;
            `None` for none.
        total: How many samples there are in all; `None` where that is not known.
        complete: Whether all of them were read.
        shuffled: For a data set, whether it comes in a random order, which `fit` leaves
            as it is; `None` for arrays.
        batch: Samples in the first batch of a data set; `None` for arrays.
        by_batch: Whether `fit` reorders whole batches and not the rows in them, as it does with
            a `PyDataset`.
        bare: Whether inputs alone come without a tuple around them.
        forms: How a model gets each array of `x`, where not as it is here; `None` for all as they are.
    """

    x: Any
    y: Any
    weight: Any
    total: int | None
    complete: bool
    shuffled: bool | None = None
    batch: int | None = None
    by_batch: bool = False
    bare: bool = True
    forms: tuple[Form, ...] | None = None

    def __len__(self) -> int:
        return len(keras.tree.flatten(self.x)[0])

    @property
    def inputs(self) -> dict[str, Array]:
        """The arrays of `x` by name: the key in a dict, `x` alone, else `x[0]`, `x[1]`, ..."""
        if isinstance(self.x, dict):
            return {str(name): values for name, values in self.x.items()}
        arrays = keras.tree.flatten(self.x)
        return {"x": arrays[0]} if len(arrays) == 1 else {f"x[{i}]": a for i, a in enumerate(arrays)}

    @property
    def labels(self) -> list[Array]:
        """The arrays of `y`; none for inputs alone."""
        return [] if self.y is None else [np.asarray(part) for part in keras.tree.flatten(self.y)]

    @property
    def weights(self) -> list[Array]:
        """The arrays of sample weights; none without any."""
        return [] if self.weight is None else [np.asarray(part) for part in keras.tree.flatten(self.weight)]

    @property
    def fed(self) -> Any:
        """`x` as the model gets it: ragged and sparse tensors as such."""
        if self.forms is None:
            return self.x
        arrays = keras.tree.flatten(self.x)
        given = [form.given(tf.convert_to_tensor(a)) for form, a in zip(self.forms, arrays, strict=True)]
        return keras.tree.pack_sequence_as(self.x, given)

    def take(self, rows: Any) -> Samples:
        """Some of them: a slice, or an array of positions."""

        def choose(nest: Any) -> Any:
            return None if nest is None else keras.tree.map_structure(lambda a: a[rows], nest)

        forms = None if self.forms is None else tuple(form.take(rows) for form in self.forms)
        x, y, weight = choose(self.x), choose(self.y), choose(self.weight)
        return replace(self, x=x, y=y, weight=weight, complete=False, forms=forms)

    def spread(self, count: int, seed: int = 0) -> Samples:
        """About `count` of them, drawn at random without a repeat, in their order."""
        if len(self) <= count:
            return self
        rng = np.random.default_rng(seed)
        return self.take(np.sort(rng.choice(len(self), count, replace=False)))


def samples_of(
    x: Any,
    y: Any,
    weight: Any = None,
    *,
    class_weight: Mapping[int, float] | None = None,
    steps: int | None = None,
    alone: bool = False,
) -> Samples:
    """Reads arrays as they are, and about 4,096 samples of a `tf.data.Dataset` or `PyDataset`.

    The next pass over a data set is the same as if it had not been read: a
    `tf.data.Dataset` is copied first, with shuffles of the copy's own. (Where it is too
    large to copy, beyond 2 GB in memory, or draws from a `tf.random.Generator`, what is
    random in it goes on from where the reading left it.) A generator is read only with
    `steps`, since what is read from it is gone. Rows are taken as they are; batches of
    different lengths are filled with zeros, as `padded_batch` does.

    Args:
        x: Inputs, as `fit` takes them.
        y: Labels, unless `x` brings them.
        weight: Sample weights. Defaults to `None`.
        class_weight: The weight of each class, by its number. Defaults to `None`.
        steps: Batches that are an epoch. Defaults to `None`, all there are.
        alone: Whether inputs may come without labels. Defaults to `False`.

    Raises:
        ValueError: If x and y do not have the same number of samples, there is none,
            or `y` or `weight` is given beside a data set that brings its own.
    """
    if isinstance(x, Samples):
        return x
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset, Iterator)):
        for name, given in (("y", y), ("sample_weight", weight)):
            if given is not None:
                whose = "labels" if name == "y" else "weights"
                raise ValueError(
                    f"A data set brings its {whose} itself; leave {name} out. Got {name} beside a {_name(x)}."
                )
        if isinstance(x, Iterator) and steps is None:
            raise ValueError(
                "x must be arrays, a tf.data.Dataset or a PyDataset, which can be read twice, or a generator "
                f"with the number of batches to read from it, as steps=10. Got a {_name(x)}."
            )
        return _of_batches(read_batches(x, steps, alone=alone), class_weight)
    if y is None and not alone:
        raise ValueError(f"y must be given beside {_name(x)} inputs. Got none.")
    # `fit` takes a list of numbers for one array, and a list of arrays for several inputs.
    read = _read(x)
    x = keras.tree.map_structure(lambda part: part.array, read)
    forms = tuple(part.form for part in keras.tree.flatten(read))
    y = None if y is None else keras.tree.map_structure(lambda part: part.array, _read(y))
    lengths = [len(part) if part.ndim else 0 for part in keras.tree.flatten([x, *_some(y)])]
    if len(set(lengths)) != 1 or 0 in lengths:
        counts = " and ".join(map(str, lengths))
        raise ValueError(f"x and y must have one row a sample each, and at least one. Got {counts}.")
    samples = Samples(x, y, _weights(weight, y, lengths[0]), lengths[0], True)
    known = forms if any(form.kind != "dense" for form in forms) else None
    return _weighted(replace(samples, bare=not isinstance(x, (list, tuple)), forms=known), class_weight)


def in_turn(classes: Array) -> Array:
    """Positions of samples such that the classes take turns, each in the order in which it comes."""
    turn = np.empty(len(classes), np.int64)
    for c in np.unique(classes):
        turn[classes == c] = np.arange(np.sum(classes == c))
    return np.argsort(turn, kind="stable")


def _of_batches(batches: Batches, class_weight: Mapping[int, float] | None) -> Samples:
    known = batches.forms if any(form.kind != "dense" for form in batches.forms) else None
    return _weighted(Samples(**vars(batches) | {"forms": known}), class_weight)


def _weights(weight: Any, y: Any, count: int) -> Any:
    """Sample weights as `fit` hands them on: one array for several outputs is repeated for each."""
    if weight is None:
        return None
    if isinstance(weight, dict) or (isinstance(weight, (list, tuple)) and any(map(is_array, weight))):
        read = keras.tree.map_structure(np.asarray, weight)
    else:
        read = np.asarray(weight)
        if isinstance(y, (dict, list, tuple)):
            read = keras.tree.map_structure(lambda _: np.asarray(weight), y)
    for part in keras.tree.flatten(read):
        if part.ndim == 0 or len(part) != count:
            raise ValueError(
                f"sample_weight must have one row a sample, {count} in all. Got shape {part.shape}."
            )
    return read


def _weighted(samples: Samples, class_weight: Mapping[int, float] | None) -> Samples:
    """With the weights of classes as sample weights, as `fit` takes them."""
    if class_weight is None:
        return samples
    if samples.weight is not None:
        raise ValueError("Only one of sample_weight and class_weight may be given, as to fit. Got both.")
    if samples.y is None or len(samples.labels) != 1 or isinstance(samples.y, (dict, list, tuple)):
        raise ValueError(
            f"class_weight is for a model with one output, as in fit. Got labels for {len(samples.labels)}."
        )
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            "class_weight must be a dictionary of a weight for each class number. "
            f"Got a {_name(class_weight)}."
        )
    labels = samples.labels[0]
    if labels.ndim > 1:
        labels = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(axis=-1)
    if labels.dtype.kind not in "biuf" or not np.all(np.isfinite(labels)):
        raise ValueError(f"class_weight is for labels that are numbers. Got dtype {labels.dtype}.")
    numbers, places = np.unique(np.round(labels).astype(np.int64), return_inverse=True)
    weights = np.array([class_weight.get(int(number), 1.0) for number in numbers], np.float32)
    return replace(samples, weight=weights[places.reshape(labels.shape)])


def _some(nest: Any) -> list[Any]:
    return [] if nest is None else [nest]


def _read(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {name: _read(part) for name, part in nest.items()}
    if isinstance(nest, (list, tuple)) and nest and is_array(nest[0]):
        return type(nest)(read_array(part) for part in nest)
    return read_array(nest)


def _name(value: Any) -> str:
    return type(value).__name__
