"""The stages on the way from the simplest case to the user's own, and what they say together."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

from keras_practice.rendering.tables import aligned

Fault = Literal["none", "data", "labels", "model", "optimizer", "training", "unknown"]


@dataclass(frozen=True)
class Stage:
    """One try: a net, an optimiser and some data.

    Attributes:
        key: Which one it is, such as `"few"`.
        net: `"small net"` or `"your model"`.
        data: What it was trained on, in words.
        optimizer: What it was trained by, in words.
        measure: `"accuracy"`, or `"r2"` for regression.
        reached: Accuracy or R squared: of the few samples, or of validation data; NaN
            where the loss was not finite.
        chance: The same of the best constant answer.
        steps: Updates of the weights, in the last start.
        starts: From how many initial weights it was tried.
        first_loss, last_loss: Training loss at both ends of the last start.
        learned: Whether it learned; `None` where the time was over before.
    """

    key: str
    net: str
    data: str
    optimizer: str
    measure: str
    reached: float
    chance: float
    steps: int
    starts: int
    first_loss: float
    last_loss: float
    learned: bool | None

    @property
    def words(self) -> str:
        """Net, optimiser and data in one phrase."""
        return f"{self.net} with {self.optimizer} on {self.data}"


@dataclass(frozen=True)
class SimplificationResult:
    """All tries, from the simplest to the user's own, and what they say together.

    Attributes:
        stages: The tries, in order; those after a broken one may be missing.
        fault: Where the fault is: `"data"`, `"labels"`, `"model"`, `"optimizer"`,
            `"training"` (a large set, but not a small one), `"none"` or `"unknown"`.
        conclusion: The same in words, with what to do next.
    """

    stages: tuple[Stage, ...]
    fault: Fault
    conclusion: str

    @property
    def ends_at(self) -> Stage | None:
        """The first stage at which nothing is learned; `None` where all learn."""
        return next((stage for stage in self.stages if stage.learned is False), None)

    @property
    def begins_at(self) -> Stage | None:
        """The first stage at which something is learned; `None` where none learns."""
        return next((stage for stage in self.stages if stage.learned), None)

    @property
    def rungs(self) -> tuple[Stage, ...]:
        """The old name of `stages`."""
        warnings.warn(
            "SimplificationResult.rungs is now stages; the old name goes with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.stages

    def __str__(self) -> str:
        rows = [["", "net", "optimizer", "data", "reached", "chance", "steps", ""]]
        for number, stage in enumerate(self.stages, start=1):
            verdict = {True: "learns", False: "does not learn", None: "out of time"}[stage.learned]
            reached = "not finite" if math.isnan(stage.reached) else f"{stage.measure} {stage.reached:.3f}"
            row = [str(number), stage.net, stage.optimizer, stage.data, reached, f"{stage.chance:.3f}"]
            rows.append([*row, str(stage.steps), verdict])
        return "\n".join([*aligned(rows), self.conclusion])
