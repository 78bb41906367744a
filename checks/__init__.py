"""What can be wrong: checks before training and after it, and `keras-practice check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.core.lazy import attributes

if TYPE_CHECKING:
    from keras_practice.checks.after_training.diagnosis import diagnose
    from keras_practice.checks.after_training.learning_curve import LearningCurve, learning_curve
    from keras_practice.checks.after_training.mistakes import Mistakes, worst_mistakes
    from keras_practice.checks.after_training.simplify import simplify
    from keras_practice.checks.after_training.stages import SimplificationResult, Stage
    from keras_practice.checks.basic import initial_loss, overfit_tiny
    from keras_practice.checks.findings import CheckFailedError, Finding, Report
    from keras_practice.checks.preflight import preflight

__all__ = [
    "CheckFailedError",
    "Finding",
    "LearningCurve",
    "Mistakes",
    "Report",
    "SimplificationResult",
    "Stage",
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
        "CheckFailedError": "findings",
        "Finding": "findings",
        "LearningCurve": "after_training.learning_curve",
        "Mistakes": "after_training.mistakes",
        "Report": "findings",
        "SimplificationResult": "after_training.stages",
        "Stage": "after_training.stages",
        "diagnose": "after_training.diagnosis",
        "initial_loss": "basic",
        "learning_curve": "after_training.learning_curve",
        "overfit_tiny": "basic",
        "preflight": "preflight",
        "simplify": "after_training.simplify",
        "worst_mistakes": "after_training.mistakes",
    },
    moved={
        "Ladder": "keras_practice.checks.SimplificationResult",
        "Rung": "keras_practice.checks.Stage",
    },
)
