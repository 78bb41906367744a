"""The data that the programs learn from: bundled sets, and small ones made from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_practice import data
from zoo.program import Samples

Array = np.ndarray[Any, Any]


def bundled(name: str, seed: int) -> Samples:
    """A bundled data set, scaled: standardised columns, pixels from 0 to 1."""
    dataset = data.load(name, seed=seed)
    measure = "numbers" if dataset.task.kind == "regression" else "classes"
    return Samples(dataset.train.x, dataset.train.y, dataset.test.x, dataset.test.y, measure)


def unscaled(name: str, seed: int) -> Samples:
    """The same in its own units, targets as well."""
    dataset, samples = data.load(name, seed=seed), bundled(name, seed)
    samples = samples.with_x(dataset.scaling.invert)
    return samples.with_y(dataset.target_scaling.invert) if dataset.target_scaling else samples


def digits(seed: int) -> Samples:
    """Handwritten digits, 8 by 8, from 0 to 1."""
    return bundled("digits", seed)


def large_digits(seed: int, size: int, rows: int = 320) -> Samples:
    """The first digits, each pixel blown up, cut to `size` by `size`."""
    times = -(-size // 8)
    samples = digits(seed).with_x(lambda x: np.kron(x, np.ones((1, times, times, 1), np.float32)))
    samples = samples.with_x(lambda x: np.ascontiguousarray(x[:, :size, :size]))
    return samples.trained_on(samples.x[:rows], samples.y[:rows])


def one_hot(samples: Samples, classes: int) -> Samples:
    """Labels as rows of 0 and 1."""
    return samples.with_y(lambda y: np.eye(classes, dtype=np.float32)[np.asarray(y, dtype=int)])


def probabilities(samples: Samples, classes: int) -> Samples:
    """Scored by how near the outputs are to the right class's row, not by the decisions."""
    rows = np.eye(classes)[np.asarray(samples.y_test, dtype=int)]
    return Samples(samples.x, samples.y, samples.x_test, rows, "numbers")


def probabilities_of_yes(samples: Samples) -> Samples:
    """Scored by how near the outputs are to 0 and 1, not by the decisions."""
    return Samples(samples.x, samples.y, samples.x_test, samples.y_test, "numbers")


def sorted_by_label(samples: Samples) -> Samples:
    """Training rows class by class."""
    order = np.argsort(samples.y, kind="stable")
    return samples.trained_on(samples.x[order], samples.y[order])


def parted(x: Any, y: Array, measure: Any = "classes", share: float = 0.75) -> Samples:
    """The first rows for training, the others for the test."""
    cut = int(share * len(y))
    if isinstance(x, dict):
        first, last = (
            {name: part[rows] for name, part in x.items()} for rows in (slice(cut), slice(cut, None))
        )
        return Samples(first, y[:cut], last, y[cut:], measure)
    return Samples(x[:cut], y[:cut], x[cut:], y[cut:], measure)


def houses(seed: int, *, scaled_x: bool = True, scaled_y: bool = True) -> Samples:
    """Prices in euros by area (m2), rooms, age (years), distance to the centre (m) and floor."""
    rng = np.random.default_rng(seed)
    rows = 1_200
    area = rng.uniform(30, 250, rows)
    rooms = np.round(area / 30 + rng.uniform(0, 2, rows))
    age = rng.uniform(0, 100, rows)
    distance = rng.uniform(200, 20_000, rows)
    floor = rng.integers(0, 9, rows)
    near = np.exp(-distance / 6_000)
    price = area * (1_500 + 4_000 * near) * (1 - 0.004 * age) + 6_000 * rooms + 2_000 * floor
    price *= np.exp(rng.normal(scale=0.05, size=rows))
    x = np.stack([area, rooms, age, distance, floor], axis=1)
    if scaled_x:
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    if scaled_y:
        price = (price - price.mean()) / price.std()
    return parted(x.astype(np.float32), price.astype(np.float32), "numbers")


def tags(seed: int) -> Samples:
    """Six labels, none or several at once, of 15 features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1_600, 15))
    strength = x @ rng.normal(size=(15, 6)) / np.sqrt(15) + 0.7 * np.sin(2 * x[:, :6]) - 0.2
    return parted(x.astype(np.float32), (strength > 0).astype(np.float32), "labels")


def shapes(seed: int, size: int = 16) -> Samples:
    """Coloured discs, squares and crosses on a noisy ground, in any place."""
    images, _, kinds = _drawn(seed, size)
    return parted(images, kinds)


def outlines(seed: int) -> Samples:
    """The same images with the object's pixels as labels, 0 or 1 each."""
    images, masks, _ = _drawn(seed, 16)
    return parted(images, masks, "labels")


def _drawn(seed: int, size: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, 900)
    masks, images = np.zeros((900, size, size), bool), rng.uniform(0, 0.3, (900, size, size, 3))
    rows, columns = np.mgrid[:size, :size]
    for kind, mask, image in zip(kinds, masks, images, strict=True):
        radius = rng.integers(size // 6 + 1, size // 3)
        centre = rng.integers(radius, size - radius, 2)
        down, right = np.abs(rows - centre[0]), np.abs(columns - centre[1])
        if kind == 0:
            mask[:] = down**2 + right**2 <= radius**2
        elif kind == 1:
            mask[:] = np.maximum(down, right) == radius
        else:
            mask[:] = (np.minimum(down, right) == 0) & (np.maximum(down, right) <= radius)
        image[mask] += rng.uniform(0.4, 0.7, 3)
    return images.astype(np.float32), masks[..., None].astype(np.float32), kinds


def reviews(seed: int) -> Samples:
    """Up to 24 word numbers, padded with 0: are there more good words (1 to 12) than bad ones (13 to 24)?"""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 60, (1_600, 24))
    lengths = rng.integers(8, 25, len(words))
    words[np.arange(24) >= lengths[:, None]] = 0
    balance = ((words >= 1) & (words <= 12)).sum(axis=1) - ((words >= 13) & (words <= 24)).sum(axis=1)
    kept = balance != 0
    return parted(words[kept].astype(np.int32), (balance[kept] > 0).astype(np.float32))


def waves(seed: int) -> Samples:
    """Sine, square or sawtooth: 48 steps."""
    return bundled("waves", seed)


def first_step(seed: int, steps: int = 40) -> Samples:
    """Noise of 40 steps, where the class is the sign of the first one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1_000, steps, 1))
    x[:, 0, 0] = np.where(rng.random(1_000) < 0.5, -2, 2)
    return parted(x.astype(np.float32), (x[:, 0, 0] > 0).astype(np.float32))


def forecast(seed: int) -> Samples:
    """24 steps of a swinging curve, and the value two steps after them."""
    rng = np.random.default_rng(seed)
    pitch, phase = rng.uniform(0.15, 0.6, (1_200, 1)), rng.uniform(0, 2 * np.pi, (1_200, 1))
    curve = np.sin(pitch * np.arange(26) + phase) + rng.normal(scale=0.05, size=(1_200, 26))
    return parted(curve[:, :24, None].astype(np.float32), curve[:, 25].astype(np.float32), "numbers")


def running(seed: int) -> Samples:
    """Every step's label: is the sum of the steps so far positive?"""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(800, 16, 1))
    return parted(x.astype(np.float32), (x.cumsum(axis=1) > 0).astype(np.float32), "labels")


def rising(seed: int) -> Samples:
    """Every step's class of three: lower than the step before, about the same, or higher."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(800, 16, 1))
    change = np.diff(x[..., 0], axis=1, prepend=0)
    return parted(x.astype(np.float32), (np.digitize(change, (-0.6, 0.6))).astype(np.int64))


def counts(seed: int) -> Samples:
    """Counts (many of them 0) by six features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1_600, 6))
    rate = np.exp(0.8 * x[:, 0] - 0.6 * x[:, 1] + 0.4 * np.abs(x[:, 2]))
    return parted(x.astype(np.float32), rng.poisson(rate).astype(np.float32), "numbers")


def pairs(seed: int) -> Samples:
    """Two numbers a side, `left` and `right`: is the sum on the left larger?"""
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, 1_200, 4)).astype(np.float32)
    return parted({"left": left, "right": right}, (left.sum(axis=1) > right.sum(axis=1)).astype(np.float32))


def ratings(seed: int) -> Samples:
    """Ratings from 1 to 5 of 40 users and 30 films."""
    rng = np.random.default_rng(seed)
    user, film = rng.integers(0, 40, 3_000), rng.integers(0, 30, 3_000)
    taste, kind = rng.normal(size=(40, 2)), rng.normal(size=(30, 2))
    liking = 3 + (taste[user] * kind[film]).sum(axis=1) + rng.normal(scale=0.2, size=3_000)
    stars = np.clip(np.round(liking), 1, 5).astype(np.float32)
    return parted({"user": user[:, None], "film": film[:, None]}, stars, "numbers")


def rare(seed: int, share: float = 0.05) -> Samples:
    """A yes in a `share` of the rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3_000, 8))
    signal = x[:, 0] + x[:, 1] * x[:, 2] + 0.2 * rng.normal(size=3_000)
    return parted(x.astype(np.float32), (signal > np.quantile(signal, 1 - share)).astype(np.float32))


def balanced(seed: int) -> Samples:
    """The same with a yes in half of the rows."""
    return rare(seed, 0.5)


def two_targets(seed: int) -> Samples:
    """Two numbers that have little to do with one another, of five features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1_200, 5))
    y = np.stack([x[:, 0] + np.abs(x[:, 1]), x[:, 2] * x[:, 3] - x[:, 0]], axis=1)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    return parted(x.astype(np.float32), y.astype(np.float32), "numbers")
