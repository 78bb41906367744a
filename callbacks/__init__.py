"""What is watched: metrics, validation scores, stopping, and the standard set."""

from keras_practice.callbacks.direction import direction
from keras_practice.callbacks.f1 import F1Score
from keras_practice.callbacks.scores import ValidationScores, scores
from keras_practice.callbacks.standard import standard
from keras_practice.callbacks.stopping import best_weights

__all__ = ["F1Score", "ValidationScores", "best_weights", "direction", "scores", "standard"]
