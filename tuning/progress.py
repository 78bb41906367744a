"""What hears how far a search is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from keras_practice.tuning.records import TrialRow


class Progress(Protocol):
    """What a search and its engine tell as they go on."""

    def epoch(self, epoch: int) -> None:
        """An epoch is done.

        Args:
            epoch: Counted from 0 through all trainings of the trials that run.
        """

    def trial(self, row: TrialRow, rows: Sequence[TrialRow]) -> None:
        """A trial has ended.

        Args:
            row: The trial.
            rows: All trials so far, best first.
        """

    def note(self, text: str) -> None:
        """Something about the run itself, in a sentence.

        Args:
            text: The sentence.
        """


class Silent:
    """Progress that nobody hears of."""

    def epoch(self, epoch: int) -> None:
        """Says nothing."""

    def trial(self, row: TrialRow, rows: Sequence[TrialRow]) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""


SILENT = Silent()
