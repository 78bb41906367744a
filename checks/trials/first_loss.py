"""How far the first loss is from what chance gives: one judgement for all checks."""

from __future__ import annotations

from enum import Enum

# Fresh weights scatter the outputs: up to 1.4 times ln(C) is usual in sound nets.
_ABOVE_CHANCE = 1.5
# Targets that were not centred start at their mean's square; that is the uninformed loss itself.
_ABOVE_ZERO = 5.0
# Beyond that by this factor a start that training makes up for is still worth a warning.
_FAR_ABOVE = 2.0
_BELOW_CHANCE = 0.5


class FirstLoss(Enum):
    """What a first loss is, beside that of an answer that is the same for every sample."""

    EXPECTED = "about as expected"
    HIGH = "above it, as training may make up for"
    FAR = "far above it"
    LOW = "well below it"


def judge_first_loss(loss: float, uninformed: float, constant: float, *, classes: bool) -> FirstLoss:
    """Holds a finite first loss against what chance gives.

    Args:
        loss: The first loss, without penalties.
        uninformed: That of a constant answer that knows nothing.
        constant: That of the best constant answer.
        classes: Whether the loss is a cross-entropy, of which the usual scatter is known; for
            others the scatter of fresh outputs adds to the targets' own.
    """
    highest = max(uninformed, constant) * (_ABOVE_CHANCE if classes else _ABOVE_ZERO)
    if loss > highest > 0:
        return FirstLoss.FAR if loss > _FAR_ABOVE * highest else FirstLoss.HIGH
    if loss < _BELOW_CHANCE * min(constant, uninformed):
        return FirstLoss.LOW
    return FirstLoss.EXPECTED
