"""Every rule that judges without a training, in the order in which `preflight` asks them."""

from __future__ import annotations

from keras_practice.checks.inspection.context import Rule
from keras_practice.checks.rules.activation import double_activation, no_nonlinearity, saturating_activation
from keras_practice.checks.rules.information import uninformative_input
from keras_practice.checks.rules.leakage import leakage
from keras_practice.checks.rules.learning_rate import learning_rate_high, learning_rate_low
from keras_practice.checks.rules.optimizer import no_clipping, optimizer_config
from keras_practice.checks.rules.order import class_imbalance, ordered_data
from keras_practice.checks.rules.output import check_outputs
from keras_practice.checks.rules.path import capacity, disconnected, frozen, ignores_input
from keras_practice.checks.rules.regularization import batch_norm_batch, dropout_rate, over_regularized
from keras_practice.checks.rules.row import constant_feature, non_finite_data, sample_weight
from keras_practice.checks.rules.scale import input_scale
from keras_practice.checks.rules.target import target_scale
from keras_practice.checks.rules.weight import initial_weights

DATA: tuple[Rule, ...] = (
    non_finite_data,
    sample_weight,
    uninformative_input,
    input_scale,
    target_scale,
    class_imbalance,
    ordered_data,
    leakage,
    constant_feature,
)
OUTPUT: tuple[Rule, ...] = (check_outputs,)
# They read the graph of one forward pass: which arrays meet the data, in which order, and what stands between
# them. One gradient on a few samples says which arrays the loss can move.
MODEL: tuple[Rule, ...] = (
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
OPTIMIZER: tuple[Rule, ...] = (learning_rate_high, learning_rate_low, optimizer_config, no_clipping)

RULES: tuple[Rule, ...] = (*DATA, *OUTPUT, *MODEL, *OPTIMIZER)
