"""What every engine is: something that runs the trials of a search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from keras_practice.core.errors import InputError
from keras_practice.tuning.progress import Progress
from keras_practice.tuning.search.recipe_search import RecipeSearch


class EngineError(InputError):
    """An engine that cannot run, said in one sentence."""


class Engine(ABC):
    """Runs the trials of a search; `str()` of it says how.

    A new one is a file with a function `engine(workers, chief, address)` and a line in
    `engine_choice.ENGINES`. It asks `search.oracle` for trials and either trains them here, as
    `search.search` does, or has them trained by a `RemoteTrials` elsewhere and hands what came
    of it to `receive`.

    Attributes:
        trains_elsewhere: Whether other processes train, with which this one shares a GPU.
            Defaults to `False`.
        takes_any_space: Whether it can train over a space of the user's own. Defaults to `True`.
    """

    trains_elsewhere: ClassVar[bool] = False
    takes_any_space: ClassVar[bool] = True

    @abstractmethod
    def run(self, search: RecipeSearch, folder: Path, progress: Progress, total: int) -> None:
        """Runs the trials that are left; returns when all have ended.

        A trial's scores do not depend on where it is trained. Which trials Hyperband and the
        Bayesian search choose, and where one is pruned, depends on those that have ended by then.

        Args:
            search: The search; those of its trials that an earlier run has ended are not run again.
            folder: Folder of its results.
            progress: What hears how far it is; the search itself tells it of trials that have ended.
            total: Number of trials, if no space ends before.

        Raises:
            EngineError: If it cannot run.
        """
