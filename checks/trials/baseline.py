"""What was seen of a model before any training, and what a training is held against."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from keras_practice.checks.inspection.context import loss_name
from keras_practice.checks.trials.short_training import Evaluation, Run, ShortTraining
from keras_practice.checks.trials.train_loop import NO_STEPS, LossCurve, TrainLoop

# A loss this far below that of the best constant answer needs the inputs: noise does not get there.
LEARNED = 0.1
# Standard errors; by chance one of a million tries gets there.
SURE = 5.0
_PROBE_STEPS = 4


@dataclass(frozen=True)
class Baseline:
    """What was seen before any training.

    Attributes:
        classes: Whether every loss is a cross-entropy.
        constant: Loss of the best answer that is the same for every sample; `None` where not known.
        uninformed: The same for an answer that knows nothing of the labels.
        penalty: What the layers add to the loss.
        start: The model in inference.
        seconds: What that took, with tracing.
        first: The first loss: in inference, or in training mode where that is lower.
        highest_start: The higher of the two.
        reference: What every loss is held against: that of a constant answer, or else `first`.
        probe: A few steps in training mode that change no weight; empty before `probed`.
    """

    classes: bool
    constant: float | None
    uninformed: float | None
    penalty: float
    start: Evaluation
    seconds: float
    first: float
    highest_start: float
    reference: float
    probe: LossCurve

    @property
    def goal(self) -> float:
        """A loss that shows knowledge of the inputs."""
        return self.reference - LEARNED * abs(self.reference)

    def learned(self, run: Run) -> bool:
        """Whether the loss shows knowledge of the inputs: well below that of any constant answer."""
        if not math.isfinite(run.end):
            return False
        return run.end <= self.goal and (self.constant is not None or self.moved(run))

    def moved(self, run: Run) -> bool:
        """Whether it surely knows more of its samples at the end than at the start."""
        if not math.isfinite(run.end):
            return False
        (before, error_before), (after, error) = self.start.knowledge, run.evaluation.knowledge
        if self.constant is None and self.first - run.curve.end > LEARNED * abs(self.first):
            return True
        return after - before > SURE * math.hypot(error_before, error)

    def diverged(self, run: Run) -> bool:
        """Whether the loss has grown beyond any that there was before, or is no number."""
        return not math.isfinite(run.end) or run.end > 2 * max(abs(self.highest_start), abs(self.reference))

    def probed(self, training: ShortTraining, loop: TrainLoop) -> Baseline:
        """With the losses and gradients of a few batches in training mode."""
        with training.preserved():
            probe = loop.run(training.order(_PROBE_STEPS), 0.0)
        first, highest = sorted((self.start.loss, float(probe.losses.mean())))
        reference = first if self.constant is None else self.constant
        return replace(self, first=first, highest_start=highest, reference=reference, probe=probe)


def baseline_of(training: ShortTraining) -> Baseline:
    """Looks at a model in inference, before any training."""
    constant = training.constant_loss(training.seen)
    uninformed = training.constant_loss(training.seen, uninformed=True)
    begin = time.monotonic()
    start = training.evaluate()
    return Baseline(
        classes=all("crossentropy" in loss_name(head.loss) for head in training.context.heads),
        constant=constant,
        uninformed=uninformed,
        penalty=training.penalty,
        start=start,
        seconds=time.monotonic() - begin,
        first=start.loss,
        highest_start=start.loss,
        # One constant answer is what every loss is held against; the start is second best.
        reference=start.loss if constant is None else constant,
        probe=NO_STEPS,
    )
