import numpy as np
import pytest

from keras_practice.checks.trials.first_loss import FirstLoss, judge_first_loss

CHANCE = float(np.log(3))


@pytest.mark.parametrize(
    ("share", "classes", "expected"),
    [
        (1.4, True, FirstLoss.EXPECTED),
        (1.6, True, FirstLoss.HIGH),
        (3.1, True, FirstLoss.FAR),
        (0.6, True, FirstLoss.EXPECTED),
        (0.4, True, FirstLoss.LOW),
        (4.9, False, FirstLoss.EXPECTED),
        (5.1, False, FirstLoss.HIGH),
        (10.1, False, FirstLoss.FAR),
        (0.4, False, FirstLoss.LOW),
    ],
)
def test_how_far_a_first_loss_is_from_chance(share, classes, expected):
    assert judge_first_loss(share * CHANCE, CHANCE, CHANCE, classes=classes) is expected


def test_a_start_between_knowing_nothing_and_the_best_constant_answer_is_as_expected():
    # Of one case in a hundred, which a bias may know from the start.
    for loss in (0.056, 0.3, 0.693):
        assert judge_first_loss(loss, 0.693, 0.056, classes=True) is FirstLoss.EXPECTED
    assert judge_first_loss(0.02, 0.693, 0.056, classes=True) is FirstLoss.LOW


def test_a_loss_that_is_negative_or_zero_at_best_is_not_called_high():
    assert judge_first_loss(0.1, 0.0, 0.0, classes=False) is FirstLoss.EXPECTED
