"""What can be wrong: checks before training and after it, and `python -m keras_practice.checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.data.lazily import attributes

if TYPE_CHECKING:
    from keras_practice.checks.basic import initial_loss, overfit_tiny
    from keras_practice.checks.before_training import preflight
    from keras_practice.checks.diagnosis import diagnose
    from keras_practice.checks.learning_curves import LearningCurve, learning_curve
    from keras_practice.checks.mistakes import Mistakes, worst_mistakes
    from keras_practice.checks.report import CheckFailedError, Finding, Report
    from keras_practice.checks.simplifying import Ladder, Rung, simplify

__all__ = [
    "CheckFailedError",
    "Finding",
    "Ladder",
    "LearningCurve",
    "Mistakes",
    "Report",
    "Rung",
    "diagnose",
    "initial_loss",
    "learning_curve",
    "overfit_tiny",
    "preflight",
    "simplify",
    "worst_mistakes",
]

__getattr__ = attributes(
    __name__,
    {
        "CheckFailedError": "report",
        "Finding": "report",
        "Ladder": "simplifying",
        "LearningCurve": "learning_curves",
        "Mistakes": "mistakes",
        "Report": "report",
        "Rung": "simplifying",
        "diagnose": "diagnosis",
        "initial_loss": "basic",
        "learning_curve": "learning_curves",
        "overfit_tiny": "basic",
        "preflight": "before_training",
        "simplify": "simplifying",
        "worst_mistakes": "mistakes",
    },
)
