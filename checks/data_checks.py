"""What can be wrong with the data that a model is to learn from."""

from __future__ import annotations

from keras_practice.checks.information_checks import uninformative_input
from keras_practice.checks.leakage_checks import leakage
from keras_practice.checks.order_checks import class_imbalance, ordered_data
from keras_practice.checks.row_checks import constant_feature, non_finite_data, sample_weight
from keras_practice.checks.scale_checks import input_scale
from keras_practice.checks.subject import Check
from keras_practice.checks.target_checks import target_scale

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
