"""What is searched: learning rates, batch sizes and spaces, and `python -m keras_practice.tuning`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.data.lazily import attributes

if TYPE_CHECKING:
    from keras_practice.tuning.batch_size_results import BatchSizeResult
    from keras_practice.tuning.batch_sizes import batch_size_sweep
    from keras_practice.tuning.rate_range import RangeResult, learning_rate_range
    from keras_practice.tuning.rate_rules import RateSearch, halve_or_double, magnitudes
    from keras_practice.tuning.search import RandomSearch
    from keras_practice.tuning.settings import Settings
    from keras_practice.tuning.study import InputError, tune
    from keras_practice.tuning.sweep import SweepResult, learning_rate_sweep

__all__ = [
    "BatchSizeResult",
    "InputError",
    "RandomSearch",
    "RangeResult",
    "RateSearch",
    "Settings",
    "SweepResult",
    "batch_size_sweep",
    "halve_or_double",
    "learning_rate_range",
    "learning_rate_sweep",
    "magnitudes",
    "tune",
]

__getattr__ = attributes(
    __name__,
    {
        "BatchSizeResult": "batch_size_results",
        "InputError": "study",
        "RandomSearch": "search",
        "RangeResult": "rate_range",
        "RateSearch": "rate_rules",
        "Settings": "settings",
        "SweepResult": "sweep",
        "batch_size_sweep": "batch_sizes",
        "halve_or_double": "rate_rules",
        "learning_rate_range": "rate_range",
        "learning_rate_sweep": "sweep",
        "magnitudes": "rate_rules",
        "tune": "study",
    },
)
