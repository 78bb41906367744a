"""One page that shows a run while it trains, and afterwards."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_practice.callbacks.report_page import Progress, curves, layers, settings, training_page
from keras_practice.core.files import replacing
from keras_practice.core.private_api.keras import siblings
from keras_practice.rendering.figures import figure, save

_RELOAD = 10  # seconds
_SHARE = 20  # a drawing of d seconds is followed by at least 20 d without one


class LiveReport(keras.callbacks.Callback):
    """Keeps a page and a picture of the run up to date: `report.html` and `report.png`.

    The page shows the curves of the training and the validation set together,
    the scores of the best and of the last epoch, and the settings. It is one
    file that loads nothing from anywhere, can be opened at any time, and
    reloads itself while the run lasts. A run that breaks off leaves the last
    page, which says when it was written.

    Other callbacks in the same `fit` add to it: one that has a method
    `panels()` which returns `Panel`s has them drawn, one that has a list of
    sentences `notes` has them under "What was noticed". The report should stand
    after them in the list, otherwise what it shows of them is one epoch behind
    until the end of the run.

    A drawing takes up to a second or so. After one that took d seconds the next
    waits for at least 20 d, so that drawing costs at most about 5 % of the
    training time and the page may be that far behind. The first epoch's end and
    the end of training are always drawn. Where the page cannot be written once
    training has begun, a warning says so and training goes on.

    A score that has several values, such as one a class, is shown by their mean.
    Without validation data the page shows the training curves and says what
    cannot be seen. Each `fit` starts its report anew in the same folder.

    Args:
        path: Folder of the two files; it is made where it is missing.
        title: Heading of the page. Defaults to `""`: the model's name.

    Attributes:
        epochs: Numbers of the epochs so far, from 0.
        history: Values of each score by its name in the logs, one an epoch; NaN
            where the epoch had none.
        seconds: Time that the epochs took together.

    Raises:
        ValueError: If `path` is a file.
        OSError: At the beginning of training, if the folder cannot be written to.

    Source:
        A44, A45, A49.
    """

    def __init__(self, path: str | Path, title: str = "") -> None:
        super().__init__()
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"path must be a folder. Got the file {str(path)!r}.")
        self.title = title
        self.epochs: list[int] = []
        self.history: dict[str, list[float]] = {}
        self.seconds = 0.0
        self._beside: list[keras.callbacks.Callback] = []

    def set_model(self, model: keras.Model) -> None:
        """Called by Keras with the model; finds the callbacks that may add to the report."""
        super().set_model(model)
        self._beside = siblings(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the report with a page that has no curve yet."""
        self.epochs, self.history, self.seconds = [], {}, 0.0
        self._settings = settings(self.model, self.params or {})
        self._latest: tuple[int, dict[str, Any]] | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._draw(running=True)
        except OSError as error:
            raise OSError(f"path must be a folder that can be written to. Got {str(self.path)!r}.") from error
        self._pace = _Pace()
        self._began = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the epoch's scores, and draws if it is time."""
        self._record()
        self._latest = epoch, {} if logs is None else logs
        self._record()
        self.seconds += time.monotonic() - self._began
        if self._pace.is_due():
            with self._pace.timing(), _warning_of_errors():
                self._draw(running=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Draws the last version, which says why training ended."""
        self._record()
        with _warning_of_errors():
            self._draw(running=False)

    def _record(self) -> None:
        """Takes the latest logs; again later, since callbacks further down the list may add to them."""
        if self._latest is None:
            return
        epoch, logs = self._latest
        if epoch not in self.epochs:
            self.epochs.append(epoch)
            for values in self.history.values():
                values.append(float("nan"))
        at = self.epochs.index(epoch)
        for name, value in logs.items():
            values = self.history.setdefault(name, [float("nan")] * len(self.epochs))
            values[at] = float(np.mean(value))

    def _draw(self, running: bool) -> None:
        groups = {"": curves(self.epochs, self.history)}
        notes: list[str] | None = None
        for callback in self._beside if self.epochs else []:  # Before, they may not have begun.
            if callable(getattr(callback, "panels", None)):
                groups.setdefault(type(callback).__name__, []).extend(callback.panels())
            if isinstance(getattr(callback, "notes", None), list):
                notes = (notes or []) + callback.notes
        title = self.title or f"Training of {self.model.name}"
        with replacing(self.path / "report.png") as beside:
            save(figure([panel for group in groups.values() for panel in group], title), beside)
        text = training_page(
            title=title,
            state=self._state(running),
            reload=_RELOAD if running else None,
            progress=self._progress(running),
            epochs=self.epochs,
            history=self.history,
            groups=groups,
            notes=notes,
            settings=self._settings,
            layers=layers(self.model),
        )
        with replacing(self.path / "report.html") as beside:
            beside.write_text(text, encoding="utf-8")

    def _state(self, running: bool) -> str:
        """How far the run is, or why it ended."""
        if not self.epochs:
            return "The first epoch is under way." if running else "No epoch was run."
        done, planned = self.epochs[-1] + 1, (self.params or {}).get("epochs", 0)
        stoppers = [type(other).__name__ for other in self._beside if getattr(other, "stopped_epoch", 0)]
        if running:
            state = f"Epoch {done} of {planned} is done."
        elif done >= planned:
            state = f"All epochs are done: {done} of {planned}."
        else:
            by = f" by {stoppers[0]}" if stoppers else ""
            state = f"Stopped early{by} after epoch {done} of {planned}."
        finite = np.isfinite(self.history.get("loss", [0.0])[-1])
        return state if finite else f"{state} The loss is no longer a finite number."

    def _progress(self, running: bool) -> Progress | None:
        """How far the run is, where it is known how far it will go."""
        planned = (self.params or {}).get("epochs", 0)
        if not self.epochs or not planned:
            return None
        done = self.epochs[-1] + 1
        left = self.seconds / len(self.epochs) * (planned - done)
        return Progress(planned, done, self.seconds, left if running and left > 0 else None)


@contextmanager
def _warning_of_errors() -> Iterator[None]:
    """A full disk costs the report, and not the training."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"The report could not be written: {error}", stacklevel=3)


class _Pace:
    """When it is time to draw again.

    An object of its own, since a run that is resumed brings back a callback's
    numbers, and a clock belongs to its process.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    @contextmanager
    def timing(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        ended = time.monotonic()
        self._next = ended + _SHARE * (ended - began)
