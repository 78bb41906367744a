"""A power law with an offset, fitted to errors at growing sizes."""

from __future__ import annotations

import numpy as np

from keras_practice.core.types import Array

# Exponents of learning curves in practice lie between these (Hestness et al. 2017: 0.07 to 0.35 and up
# to 0.5; sample theory: 0.5 to 1).
_EXPONENTS = np.linspace(0.05, 1.2, 24)
_FAR = 1.5  # Deviations from which an error counts as an outlier.


def power_law(sizes: Array, errors: Array, deviations: Array, floor: float) -> tuple[float, float, float]:
    """`(a, b, c)` of `a + b n^-c` with `a >= floor` and `b >= 0`, with little weight on outliers."""
    powers = (sizes / sizes[0]) ** -_EXPONENTS[:, None]  # (exponents, sizes)
    above = errors - floor
    weights = np.broadcast_to(deviations**-2.0, powers.shape)
    for _ in range(4):
        a, b = _two_non_negative(powers, above, weights)
        off = np.abs(a + b * powers - above) / deviations
        # Huber's weights: errors that lie far off count by their distance, not its square.
        weights = np.minimum(1, _FAR / np.maximum(off, 1e-12)) / deviations**2
    costs = np.sum(np.where(off <= _FAR, off**2 / 2, _FAR * off - _FAR**2 / 2), axis=1)
    best = int(costs.argmin())
    c = float(_EXPONENTS[best])
    return floor + float(a[best, 0]), float(b[best, 0]) * float(sizes[0]) ** c, c


def _two_non_negative(powers: Array, errors: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted least squares of `a + b * powers` in each row, with neither below 0."""

    def total(values: Array) -> Array:
        return np.asarray(np.sum(weights * values, axis=1, keepdims=True))

    ones = np.ones_like(powers)
    n, x, xx, y, xy = (total(v) for v in (ones, powers, powers**2, errors * ones, errors * powers))
    determinant = np.maximum(n * xx - x * x, 1e-300)
    a, b = (xx * y - x * xy) / determinant, (n * xy - x * y) / determinant
    # With one of them at its bound, the other has the best value by itself.
    alone = np.maximum(xy / xx, 0)
    b = np.where(a < 0, alone, b)
    a = np.where(b < 0, np.maximum(y / n, 0), np.maximum(a, 0))
    return a, np.maximum(b, 0)


def law_at(law: tuple[float, float, float], n: float) -> float:
    """The value of a law `(a, b, c)` at `n`."""
    a, b, c = law
    return float(a + b * n**-c)
