"""The checks of a model's structure and first weights; nothing is trained.

They read the graph of one forward pass: which arrays meet the data, in which order, and
what stands between them. One gradient on a few samples says which arrays the loss can move.
"""

from __future__ import annotations

from keras_practice.checks.inspection.context import Check
from keras_practice.checks.rules.activation import double_activation, no_nonlinearity, saturating_activation
from keras_practice.checks.rules.path import capacity, disconnected, frozen, ignores_input
from keras_practice.checks.rules.regularization import batch_norm_batch, dropout_rate, over_regularized
from keras_practice.checks.rules.weight import initial_weights

CHECKS: tuple[Check, ...] = (
    frozen,
    disconnected,
    ignores_input,
    no_nonlinearity,
    double_activation,
    saturating_activation,
    initial_weights,
    dropout_rate,
    batch_norm_batch,
    over_regularized,
    capacity,
)
