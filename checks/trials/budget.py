"""The time that is left for trainings, and what a step of them takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Share of the remaining time that one training may take, so that others can follow.
_SHARE_OF_TIME = 0.3
_MIN_STEP_SECONDS = 1e-5
_TIMED_STEPS = 9
_A_MOMENT = 0.5  # seconds


class Budget:
    """How long trainings may go on.

    Args:
        deadline: When to be done, as the clock tells it.
        clock: Gives the time in seconds. Defaults to `time.monotonic`.
    """

    def __init__(self, deadline: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.deadline = deadline
        self.clock = clock
        self.step_seconds = 0.0

    @property
    def over(self) -> bool:
        """Whether the deadline is past."""
        return self.clock() > self.deadline

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long would be done in time."""
        return self.clock() + seconds <= self.deadline

    def spares(self, seconds: float) -> bool:
        """The same, where what takes a moment is always done."""
        return seconds < _A_MOMENT or self.allows(seconds)

    def time_for(self, steps: int) -> bool:
        """Whether so many steps would be done in time, by what a step was seen to take."""
        return self.clock() + steps * self.step_seconds < self.deadline

    def affordable_steps(self, train: Callable[[int], Any], most: int) -> int:
        """Measures what a step takes, and says how many fit a share of the time that is left.

        Args:
            train: Trains for a number of steps.
            most: The answer is no more than this.

        Returns:
            0 where there is no time for a single call.
        """
        times = [self.clock()]
        for steps in (1, 1, _TIMED_STEPS):  # The first call is traced; each has its own costs.
            if steps > 1 and not self.spares(steps * (times[2] - times[1]) / _SHARE_OF_TIME):
                break
            train(steps)
            times.append(self.clock())
        call = times[2] - times[1]
        self.step_seconds = call
        if len(times) > 3:
            self.step_seconds = max((times[3] - times[2] - call) / (_TIMED_STEPS - 1), _MIN_STEP_SECONDS)
        left = _SHARE_OF_TIME * (self.deadline - times[-1])
        return min(most, int(left / self.step_seconds)) if left > call else 0
