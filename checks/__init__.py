"""What can be wrong: checks before training and after it."""

from keras_practice.checks.basic import initial_loss, overfit_tiny
from keras_practice.checks.report import CheckFailedError, Finding, Report

__all__ = ["CheckFailedError", "Finding", "Report", "initial_loss", "overfit_tiny"]
