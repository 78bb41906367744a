"""What can be wrong with the data that a model is to learn from."""

from __future__ import annotations

from keras_practice.checks.inspection.context import Check
from keras_practice.checks.rules.information import uninformative_input
from keras_practice.checks.rules.leakage import leakage
from keras_practice.checks.rules.order import class_imbalance, ordered_data
from keras_practice.checks.rules.row import constant_feature, non_finite_data, sample_weight
from keras_practice.checks.rules.scale import input_scale
from keras_practice.checks.rules.target import target_scale

CHECKS: tuple[Check, ...] = (
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
