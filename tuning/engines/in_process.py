"""The plain engine: trials one after another, in this process."""

from __future__ import annotations

from pathlib import Path

from keras_practice.tuning.engines.base import Engine
from keras_practice.tuning.progress import Progress
from keras_practice.tuning.search.recipe_search import RecipeSearch


class InProcess(Engine):
    """Trains one trial after another here."""

    def run(self, search: RecipeSearch, folder: Path, progress: Progress, total: int) -> None:
        """Runs the trials that are left; returns when all have ended.

        Args:
            search: The search, which tells of everything itself.
            folder: Folder of its results.
            progress: What hears how far it is.
            total: Number of trials, if no space ends before.
        """
        search.search(verbose=0)

    def __str__(self) -> str:
        return "this process"
