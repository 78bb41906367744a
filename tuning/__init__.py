"""What is searched: learning rates, batch sizes and spaces, and `python -m keras_practice.tuning`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.data.lazily import attributes

if TYPE_CHECKING:
    from keras_practice.tuning.batch_size_results import BatchSizeResult
    from keras_practice.tuning.batch_sizes import batch_size_sweep
    from keras_practice.tuning.figures import search_figure, staged_figure
    from keras_practice.tuning.folds import cross_validation
    from keras_practice.tuning.protocol import Staged, Step, staged
    from keras_practice.tuning.pruning import MedianPruning
    from keras_practice.tuning.rate_range import RangeResult, learning_rate_range
    from keras_practice.tuning.rate_rules import RateSearch, halve_or_double, magnitudes
    from keras_practice.tuning.search import RandomSearch
    from keras_practice.tuning.settings import Settings
    from keras_practice.tuning.spaces import Choice, Fixed, Range, Space, space
    from keras_practice.tuning.study import InputError, tune
    from keras_practice.tuning.sweep import SweepResult, learning_rate_sweep

__all__ = [
    "BatchSizeResult",
    "Choice",
    "Fixed",
    "InputError",
    "MedianPruning",
    "RandomSearch",
    "Range",
    "RangeResult",
    "RateSearch",
    "Settings",
    "Space",
    "Staged",
    "Step",
    "SweepResult",
    "batch_size_sweep",
    "cross_validation",
    "halve_or_double",
    "learning_rate_range",
    "learning_rate_sweep",
    "magnitudes",
    "search_figure",
    "space",
    "staged",
    "staged_figure",
    "tune",
]

__getattr__ = attributes(
    __name__,
    {
        "BatchSizeResult": "batch_size_results",
        "Choice": "spaces",
        "Fixed": "spaces",
        "MedianPruning": "pruning",
        "Range": "spaces",
        "Space": "spaces",
        "Staged": "protocol",
        "Step": "protocol",
        "cross_validation": "folds",
        "search_figure": "figures",
        "space": "spaces",
        "staged": "protocol",
        "staged_figure": "figures",
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
