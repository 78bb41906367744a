"""What is watched: scores, what goes on inside, stopping, crash safety, the report, and the standard set."""

from keras_practice.callbacks.direction import direction
from keras_practice.callbacks.environment import environment
from keras_practice.callbacks.explosion import StopOnExplosion
from keras_practice.callbacks.f1 import F1Score
from keras_practice.callbacks.monitor import TrainingMonitor
from keras_practice.callbacks.report import LiveReport
from keras_practice.callbacks.resuming import resumable
from keras_practice.callbacks.scores import confusion_matrix, scores
from keras_practice.callbacks.standard import standard
from keras_practice.callbacks.stopping import StopOnTarget, TimeBudget, best_weights
from keras_practice.callbacks.validation_scores import ValidationScores
from keras_practice.core.lazy import attributes

__all__ = [
    "F1Score",
    "LiveReport",
    "StopOnExplosion",
    "StopOnTarget",
    "TimeBudget",
    "TrainingMonitor",
    "ValidationScores",
    "best_weights",
    "confusion_matrix",
    "direction",
    "environment",
    "resumable",
    "scores",
    "standard",
]

__getattr__ = attributes(
    __name__,
    {},
    moved={
        "Line": "keras_practice.rendering.Line",
        "Panel": "keras_practice.rendering.Panel",
        "lockstep": "keras_practice.training.lockstep",
    },
)
