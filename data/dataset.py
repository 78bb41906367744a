"""A data set as a model meets it: three splits, scaled by the training split alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.types import Array
from keras_practice.data.task import Task

Role = Literal["train", "val", "test"]
Scale = Literal["standard", "range", "none"]


@dataclass(frozen=True)
class Scaling:
    """An affine change of scale, `(x - shift) / scale`, learned from training data.

    Attributes:
        shift: What is subtracted: a number, or one number a feature.
        scale: What is divided by, in the same shape.

    Source:
        A38; LeCun, Bottou, Orr and Mueller 1998, "Efficient BackProp".
    """

    shift: Array
    scale: Array

    @classmethod
    def fit(cls, x: Array, how: Scale) -> Scaling:
        """Learns the scaling of `x`, `(samples, ...)`.

        Args:
            x: The training data.
            how: `"standard"` gives each feature mean 0 and deviation 1 (a
                constant feature becomes 0); `"range"` maps the lowest and the
                highest value of all features together to 0 and 1, which keeps
                the relations between the pixels of an image; `"none"` changes
                nothing.
        """
        if how == "standard":
            scale = x.std(axis=0, dtype=np.float64)
            shift = x.mean(axis=0, dtype=np.float64)
            # A constant feature's deviation is rounding noise, not a scale.
            constant = scale <= 1e-12 * np.maximum(np.abs(shift), 1.0)
            return cls(shift, np.where(constant, 1.0, scale))
        if how == "range":
            low, high = float(x.min()), float(x.max())
            return cls(np.asarray(low), np.asarray(high - low if high > low else 1.0))
        if how == "none":
            return cls(np.asarray(0.0), np.asarray(1.0))
        raise ValueError(f"scale must be 'standard', 'range' or 'none'. Got {how!r}.")

    def apply(self, x: Any) -> Array:
        """Scales new data of the same features; returns float32."""
        shift, scale = self.shift, self.scale
        if shift.ndim == 0:  # In one step, so that a large image set is copied once.
            scaled = np.asarray(x).astype(np.float32)
            scaled -= np.float32(shift)
            scaled /= np.float32(scale)
            return scaled
        return ((np.asarray(x, dtype=np.float64) - shift) / scale).astype(np.float32)

    def invert(self, x: Any) -> Array:
        """Takes scaled values back to the original units; returns float32."""
        return (np.asarray(x, dtype=np.float64) * self.scale + self.shift).astype(np.float32)


@dataclass(frozen=True, repr=False)
class Split:
    """Samples that serve one purpose: training, validation or test.

    Attributes:
        x: Features, `(samples, ...)`, float32.
        y: Labels, `(samples,)` or `(samples, outputs)`.
        task: What is predicted.
        role: `"train"`, `"val"` or `"test"`.
    """

    x: Array
    y: Array
    task: Task
    role: Role = "train"

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"x and y must have one row a sample each. Got {len(self.x)} and {len(self.y)}.")

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("CPU:0"):  # The whole split may not fit on a GPU; batches are sent there.
            return tf.constant(self.x), tf.constant(self.y)

    def __deepcopy__(self, memo: dict[int, Any]) -> Split:
        return self  # Nothing in it changes; tuners copy callbacks that hold a split.

    def batches(self, batch_size: int = 32, *, shuffle: bool | None = None, seed: int = 0) -> tf.data.Dataset:
        """Batches for `fit`: shuffled anew every epoch, and prefetched.

        Args:
            batch_size: Samples a batch. The last batch may be smaller. Defaults to `32`.
            shuffle: Whether each epoch has an order of its own, over the whole
                split. Defaults to `None`: the training split is shuffled, the
                others are not.
            seed: Fixes the sequence of orders, together with the global seed of
                `keras.utils.set_random_seed`. Defaults to `0`.

        Returns:
            A `tf.data.Dataset` of `(x, y)` that knows its length.

        Raises:
            ValueError: If `batch_size` is not a positive integer.

        Source:
            A39.
        """
        batch_size = check_positive_integer("batch_size", batch_size)
        x, y = self._tensors
        # Gathering a batch by its indices costs a fraction of batching row by row.
        indices = tf.data.Dataset.range(len(self))
        if self.role == "train" if shuffle is None else shuffle:
            indices = indices.shuffle(len(self), seed=seed, reshuffle_each_iteration=True)
        return (
            indices.batch(batch_size)
            .map(lambda i: (tf.gather(x, i), tf.gather(y, i)), num_parallel_calls=1)
            .prefetch(tf.data.AUTOTUNE)
        )

    def __repr__(self) -> str:
        return f"Split({self.role}, x={self.x.shape}, y={self.y.shape}, task={self.task})"


@dataclass(frozen=True, repr=False)
class Dataset:
    """A data set in three splits, ready to train on.

    Attributes:
        train, val, test: The splits. Validation data choose the model; test data
            are looked at once, at the end.
        task: What is predicted, with the class frequencies of the training split.
        name: The data set's name.
        feature_names: One name a feature; empty for images.
        scaling: How features were scaled, learned from the training split:
            `dataset.scaling.apply(new_x)`.
        target_scaling: The same for regression targets, `None` for classes:
            `dataset.target_scaling.invert(model.predict(x))` has the original units.
    """

    train: Split
    val: Split
    test: Split
    task: Task
    name: str
    feature_names: tuple[str, ...] = ()
    scaling: Scaling = field(default_factory=lambda: Scaling(np.asarray(0.0), np.asarray(1.0)))
    target_scaling: Scaling | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(int(n) for n in self.train.x.shape[1:])

    def rebuilding_input(self) -> Dataset:
        """The same samples with the input itself as the target, as an autoencoder learns them.

        Returns:
            A data set whose task is the regression of the input's last axis.

        Source:
            A18.
        """
        task = Task.regression(self.input_shape[-1])

        def rebuild(split: Split) -> Split:
            return Split(split.x, split.x, task, split.role)

        return replace(
            self,
            train=rebuild(self.train),
            val=rebuild(self.val),
            test=rebuild(self.test),
            task=task,
            target_scaling=self.scaling,
        )

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name}: {len(self.train)} train, {len(self.val)} val, {len(self.test)} test, "
            f"input {self.input_shape}, {self.task})"
        )


def from_arrays(
    x: Any,
    y: Any,
    *,
    task: Task | None = None,
    test_data: tuple[Any, Any] | None = None,
    name: str = "custom",
    seed: int = 0,
    val: float = 0.2,
    test: float = 0.2,
    scale: Scale = "standard",
    feature_names: Sequence[str] = (),
) -> Dataset:
    """Splits and scales arrays into a `Dataset`.

    Classes keep their shares in every split (stratified); identical samples
    all go to one split, so that none is both learned from and judged on.
    Regression targets are standardised.

    Args:
        x: Features, `(samples, ...)`, finite numbers.
        y: Labels, `(samples,)`, `(samples, 1)` or `(samples, outputs)`.
        task: What is predicted. Defaults to `None`, inferred from `y`.
        test_data: A test set `(x, y)` that comes with the data; then `test` is
            not used, and training samples that occur in it are left out.
            Defaults to `None`, split off.
        name: The data set's name. Defaults to `"custom"`.
        seed: Fixes the split. Defaults to `0`.
        val: Share of the samples for validation, in `(0, 1)`. Defaults to `0.2`.
        test: Share of the samples for the test, in `(0, 1)`. Defaults to `0.2`.
        scale: `"standard"`, `"range"` (images) or `"none"`; see `Scaling.fit`.
            Learned from the training split alone.
        feature_names: One name a feature. Defaults to `()`.

    Raises:
        ValueError: If the arrays are empty, not finite, of different lengths, do
            not fit the task, hold a single class or too few samples for the splits.

    Source:
        A38, A39.
    """
    x, y = _feature_array(x), np.asarray(y)
    if len(x) != len(y):
        raise ValueError(f"x and y must have one row a sample each. Got {len(x)} and {len(y)}.")
    if task is None:
        task = Task.infer(y)
    task.check(y)
    if task.kind == "regression" and np.any(np.ptp(y.reshape(len(y), -1), axis=0) == 0):
        raise ValueError("Regression targets must vary. Got a constant column.")
    held_test = None
    if test_data is not None:
        x_test, y_test = _feature_array(test_data[0]), np.asarray(test_data[1])
        task.check(y_test)
        if x_test.shape[1:] != x.shape[1:] or len(x_test) != len(y_test):
            raise ValueError(
                f"The test set must have the training set's features and one label a row. "
                f"Got {x_test.shape} and {y_test.shape} beside {x.shape}."
            )
        held_test = x_test, y_test
    for which, share in (("val", val), ("test", test)):
        if not 0 < share < 1:
            raise ValueError(f"{which} must be in (0, 1), so that no split is empty. Got {share}.")
    if held_test is None and val + test >= 1:
        raise ValueError(f"val + test must be below 1, to leave samples for training. Got {val + test}.")

    groups = _identical_rows(x if held_test is None else np.concatenate([x, held_test[0]]))
    rows = np.arange(len(x))
    if held_test is None:
        rows, test_rows = _split_off(rows, groups, y, task, test, seed)
        x_test, y_test = x[test_rows], y[test_rows]
        val = val / (1 - test)
    else:
        rows = rows[~np.isin(groups[: len(x)], groups[len(x) :])]
        x_test, y_test = held_test
    train_rows, val_rows = _split_off(rows, groups, y, task, val, seed + 1)

    scaling = Scaling.fit(x[train_rows], scale)
    target_scaling = Scaling.fit(y[train_rows], "standard") if task.kind == "regression" else None
    y_train = y[train_rows]
    if task.is_classification:
        counts = task.class_counts(y_train)
        task = Task(
            task.kind, task.outputs, task.class_names, tuple(map(float, counts / len(y_train))), task.one_hot
        )

    def split(x_part: Array, y_part: Array, role: Role) -> Split:
        labels = target_scaling.apply(y_part) if target_scaling else _plain_labels(y_part, task)
        return Split(scaling.apply(x_part), labels, task, role)

    return Dataset(
        train=split(x[train_rows], y_train, "train"),
        val=split(x[val_rows], y[val_rows], "val"),
        test=split(x_test, y_test, "test"),
        task=task,
        name=name,
        feature_names=tuple(feature_names),
        scaling=scaling,
        target_scaling=target_scaling,
    )


def _feature_array(features: Any) -> Array:
    x: Array = np.asarray(features)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"Features must be numbers. Got dtype {x.dtype}.")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"Features must have shape (samples, ...) and not be empty. Got {x.shape}.")
    if x.dtype.kind == "f" and not np.all(np.isfinite(x)):
        bad = int(np.sum(~np.isfinite(x).reshape(len(x), -1).all(axis=1)))
        raise ValueError(f"Features must be finite. Got NaN or infinity in {bad} of {len(x)} samples.")
    return x


def _plain_labels(y: Array, task: Task) -> Array:
    """Integer classes as `(samples,)` int64; one-hot, yes/no and several labels as float32."""
    if task.kind == "multiclass" and not task.one_hot:
        return y.reshape(-1).astype(np.int64)
    return (y.reshape(-1) if task.kind == "binary" else y).astype(np.float32)


def _identical_rows(x: Array) -> Array:
    """Numbers the distinct rows of `x`: `(samples,)` integers, equal for identical rows."""
    x = np.ascontiguousarray(x.reshape(len(x), -1) + x.dtype.type(0))  # Adding 0 joins 0.0 and -0.0.
    first: dict[bytes, int] = {}
    return np.asarray([first.setdefault(row.tobytes(), len(first)) for row in x])


def _split_off(
    rows: Array, groups: Array, y: Array, task: Task, share: float, seed: int
) -> tuple[Array, Array]:
    """Splits `rows` in two, the second with `share` of them, stratified and whole groups at a time."""
    _, leaders = np.unique(groups[rows], return_index=True)
    stratify = task.class_indices(y)[rows[leaders]] if task.kind in ("binary", "multiclass") else None
    try:
        _, chosen = train_test_split(
            np.arange(len(leaders)), test_size=share, random_state=seed, stratify=stratify
        )
    except ValueError:
        smallest = (
            ""
            if stratify is None
            else (f", {int(np.bincount(stratify)[np.unique(stratify)].min())} of them in the rarest class")
        )
        raise ValueError(
            f"There must be enough distinct samples of each class for every split. "
            f"Got {len(leaders)} samples{smallest}, to hold out a share of {share:.2g}."
        ) from None
    held = np.isin(groups[rows], groups[rows[leaders[chosen]]])
    return rows[~held], rows[held]
