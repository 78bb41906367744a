"""Data sets by name: those that need no download, and Keras's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import sklearn.datasets

from keras_practice.core.arguments import is_integer
from keras_practice.core.files import read_npz
from keras_practice.core.types import Array
from keras_practice.data.dataset import Dataset, Scale, from_arrays
from keras_practice.data.registry import Registry
from keras_practice.data.task import Task


@dataclass(frozen=True)
class _Raw:
    """A data set before it is split and scaled."""

    x: Array
    y: Array
    task: Task | None = None  # Inferred.
    scale: Scale = "standard"
    feature_names: tuple[str, ...] = ()
    test_data: tuple[Array, Array] | None = None


_OFFLINE: Registry[Callable[[int], _Raw]] = Registry("data set")
_KERAS = ("mnist", "fashion_mnist", "cifar10")
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple(str(n) for n in range(10))
_KERAS_CLASSES = {"mnist": _DIGITS, "fashion_mnist": _CLOTHES, "cifar10": _CIFAR}


def names() -> tuple[str, ...]:
    """Names that `load` takes: first those that work offline, then Keras's own."""
    return _OFFLINE.names() + _KERAS


def load(
    name: str, seed: int = 0, val: float = 0.2, test: float = 0.2, path: str | Path | None = None
) -> Dataset:
    """Loads a data set, split and scaled.

    `digits iris wine breast_cancer diabetes` come with scikit-learn; `hastie`
    (12,000 samples, 10 features), `xor` (four noisy corners), `spirals` (three
    arms) and `waves` (sequences of 48 steps) are made from `seed`. `mnist
    fashion_mnist cifar10` are downloaded by Keras, or read from `path`, and keep
    the test set that they come with. A name that ends in `.npz` is a file of your
    own, with arrays `x` and `y`, or `x_train y_train x_test y_test`.

    Images have shape `(height, width, channels)` and values in [0, 1]; sequences
    have shape `(steps, channels)`; other features are standardised.

    Args:
        name: One of `names()`, or the path of an `.npz` file.
        seed: Fixes the split, and the samples of a made data set. Defaults to `0`.
        val: Share of the samples for validation, in `(0, 1)`. Defaults to `0.2`.
        test: Share of the samples for the test, in `(0, 1)`. Not used where the
            data set has a test set of its own. Defaults to `0.2`.
        path: A local `.npz` file in the layout of Keras's data sets, for
            `mnist fashion_mnist cifar10`. Defaults to `None`, downloaded.

    Raises:
        ValueError: If there is no such data set (with the nearest name), `path`
            does not suit it, or the file's content cannot be learned from.
        OSError: If the file cannot be read or the data set cannot be downloaded;
            the message says what to do.

    Source:
        A38, A39.
    """
    if not is_integer(seed) or not 0 <= seed < 2**32 - 1:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 2. Got {seed!r}.")
    if str(name).endswith(".npz"):
        if path is not None:
            raise ValueError(f"A data set that is a file needs no path beside it. Got {path}.")
        raw = _from_file(Path(name))
        name = Path(name).stem
    elif name in _KERAS:
        raw = _keras_images(name, path)
    else:
        if name not in _OFFLINE.names():
            everything: Registry[None] = Registry("data set")
            for known in names():
                everything.add(known, None)
            everything.get(name)  # Raises, with the nearest of all names.
        if path is not None:
            raise ValueError(f"path is for {', '.join(_KERAS)}; {name} needs none. Got {path}.")
        raw = _OFFLINE.get(name)(seed)
    return from_arrays(
        raw.x,
        raw.y,
        task=raw.task,
        test_data=raw.test_data,
        name=name,
        seed=int(seed),
        val=val,
        test=test,
        scale=raw.scale,
        feature_names=raw.feature_names,
    )


def _tabular(bunch: Any) -> _Raw:
    classes = tuple(str(c) for c in bunch.target_names)
    return _Raw(
        bunch.data,
        bunch.target,
        Task.infer(bunch.target, class_names=classes),
        feature_names=tuple(str(f) for f in bunch.feature_names),
    )


@_OFFLINE.register
def digits(seed: int) -> _Raw:
    """1,797 handwritten digits, 8x8, ten classes."""
    bunch = sklearn.datasets.load_digits()
    return _Raw(bunch.images[..., None], bunch.target, Task.multiclass(10, _DIGITS), "range")


@_OFFLINE.register
def iris(seed: int) -> _Raw:
    """150 flowers, 4 features, three classes."""
    return _tabular(sklearn.datasets.load_iris())


@_OFFLINE.register
def wine(seed: int) -> _Raw:
    """178 wines, 13 features, three classes."""
    return _tabular(sklearn.datasets.load_wine())


@_OFFLINE.register
def breast_cancer(seed: int) -> _Raw:
    """569 biopsies, 30 features, yes or no."""
    return _tabular(sklearn.datasets.load_breast_cancer())


@_OFFLINE.register
def diabetes(seed: int) -> _Raw:
    """442 patients, 10 features, a number."""
    bunch = sklearn.datasets.load_diabetes()
    return _Raw(bunch.data, bunch.target, Task.regression(), feature_names=tuple(bunch.feature_names))


@_OFFLINE.register
def hastie(seed: int) -> _Raw:
    """12,000 points in 10 dimensions: is the squared norm above its median?"""
    x, y = sklearn.datasets.make_hastie_10_2(n_samples=12_000, random_state=seed)
    return _Raw(x, (y > 0).astype(np.int64), Task.binary(("inside", "outside")))


@_OFFLINE.register
def xor(seed: int) -> _Raw:
    """1,000 noisy points around the four corners of a square."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 2, size=(1_000, 2))
    x = corners + rng.normal(scale=0.15, size=corners.shape)
    return _Raw(
        x, corners[:, 0] ^ corners[:, 1], Task.binary(("same", "different")), feature_names=("a", "b")
    )


@_OFFLINE.register
def spirals(seed: int) -> _Raw:
    """1,500 points on three interleaved arms."""
    rng = np.random.default_rng(seed)
    arms, per_arm = 3, 500
    arm = np.repeat(np.arange(arms), per_arm)
    radius = np.sqrt(rng.uniform(0.01, 1.0, size=arms * per_arm))  # Even over the disc.
    angle = 2 * np.pi * (arm / arms + radius) + rng.normal(scale=0.15, size=radius.shape)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _Raw(x, arm, Task.multiclass(arms, ("first", "second", "third")), feature_names=("x", "y"))


@_OFFLINE.register
def waves(seed: int) -> _Raw:
    """1,200 noisy waves of 48 steps with unknown pitch, phase and loudness: sine, square or sawtooth."""
    rng = np.random.default_rng(seed)
    shape = np.arange(1_200) % 3
    pitch, phase, loudness = (rng.uniform(low, high, (1_200, 1)) for low, high in ((2, 5), (0, 1), (0.5, 2)))
    turns = (pitch * np.arange(48) / 48 + phase) % 1
    sine = np.sin(2 * np.pi * turns)
    wave = np.choose(shape[:, None], [sine, np.sign(sine), 2 * turns - 1])
    x = loudness * wave + rng.normal(scale=0.2, size=wave.shape)
    return _Raw(x[..., None], shape, Task.multiclass(3, ("sine", "square", "sawtooth")), "none")


def _keras_images(name: str, path: str | Path | None) -> _Raw:
    if path is not None:
        (x, y), test_data = _keras_arrays(Path(path))
    else:
        try:
            (x, y), test_data = getattr(keras.datasets, name).load_data()
        except Exception as error:  # Keras raises a bare Exception when a download fails.
            raise OSError(
                f"{name} could not be downloaded. Connect to the internet, or give the path of an .npz "
                f"file with x_train, y_train, x_test and y_test. Got {type(error).__name__}: {error}"
            ) from error

    def images(pixels: Array) -> Array:
        if pixels.ndim not in (3, 4):
            raise ValueError(
                f"Images must have shape (samples, height, width[, channels]). Got {pixels.shape}."
            )
        return pixels[..., None] if pixels.ndim == 3 else pixels

    x_test, y_test = test_data
    return _Raw(
        images(x),
        y.reshape(-1),
        Task.multiclass(10, _KERAS_CLASSES[name]),
        "range",
        test_data=(images(x_test), y_test.reshape(-1)),
    )


def _keras_arrays(path: Path) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    arrays = read_npz(path)
    needed = ("x_train", "y_train", "x_test", "y_test")
    if missing := [key for key in needed if key not in arrays]:
        raise ValueError(f"{path} must hold arrays {', '.join(needed)}. Missing: {', '.join(missing)}.")
    return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])


def _from_file(path: Path) -> _Raw:
    arrays = read_npz(path)
    test_data = None
    if "x" in arrays and "y" in arrays:
        x, y = arrays["x"], arrays["y"]
    elif "x_train" in arrays:
        (x, y), test_data = _keras_arrays(path)
    else:
        raise ValueError(
            f"{path} must hold arrays x and y, or x_train, y_train, x_test and y_test. "
            f"Got {', '.join(arrays) or 'none'}."
        )
    scale: Scale = "range" if x.dtype == np.uint8 and x.ndim >= 3 else "standard"
    return _Raw(x, y, scale=scale, test_data=test_data)
