"""What is searched: learning rates, batch sizes and spaces, and `keras-practice tune`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.core.lazy import attributes

if TYPE_CHECKING:
    from keras_practice.core.errors import InputError
    from keras_practice.tuning.reports.figures import search_figure
    from keras_practice.tuning.search.folds import cross_validation
    from keras_practice.tuning.search.pruning import MedianPruning
    from keras_practice.tuning.search.random_search import RandomSearch
    from keras_practice.tuning.settings import Settings
    from keras_practice.tuning.space.parameters import Choice, Fixed, Range, Space
    from keras_practice.tuning.space.presets import space
    from keras_practice.tuning.staged import Staged, Step, staged
    from keras_practice.tuning.staged_figure import staged_figure
    from keras_practice.tuning.study import tune
    from keras_practice.tuning.sweeps.batch_size import batch_size_sweep
    from keras_practice.tuning.sweeps.batch_size_results import BatchSizeResult
    from keras_practice.tuning.sweeps.learning_rate import SweepResult, learning_rate_sweep
    from keras_practice.tuning.sweeps.range_test import RangeResult, learning_rate_range
    from keras_practice.tuning.sweeps.rules import RateSearch, halve_or_double, magnitudes

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
        "BatchSizeResult": "sweeps.batch_size_results",
        "Choice": "space.parameters",
        "Fixed": "space.parameters",
        "MedianPruning": "search.pruning",
        "Range": "space.parameters",
        "Space": "space.parameters",
        "Staged": "staged",
        "Step": "staged",
        "cross_validation": "search.folds",
        "search_figure": "reports.figures",
        "space": "space.presets",
        "staged": "staged",
        "staged_figure": "staged_figure",
        "InputError": "keras_practice.core.errors",
        "RandomSearch": "search.random_search",
        "RangeResult": "sweeps.range_test",
        "RateSearch": "sweeps.rules",
        "Settings": "settings",
        "SweepResult": "sweeps.learning_rate",
        "batch_size_sweep": "sweeps.batch_size",
        "halve_or_double": "sweeps.rules",
        "learning_rate_range": "sweeps.range_test",
        "learning_rate_sweep": "sweeps.learning_rate",
        "magnitudes": "sweeps.rules",
        "tune": "study",
    },
)
