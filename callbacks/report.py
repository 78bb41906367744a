"""One page that shows a run while it trains, and afterwards."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_practice.callbacks.environment import environment
from keras_practice.core.files import replacing
from keras_practice.core.private_api import siblings
from keras_practice.rendering.figures import Line, Panel, figure, save, svg
from keras_practice.rendering.pages import page

_RELOAD = 10  # seconds
_SHARE = 20  # a drawing of d seconds is followed by at least 20 d without one
_IN_WORDS = {"val_loss": "validation loss", "loss": "training loss"}  # by which the best epoch is known
_LEARNING_RATE = ("learning_rate", "lr")


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
        self._settings = _settings(self.model, self.params or {})
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
        groups = {"": _curves(self.epochs, self.history)}
        notes: list[str] | None = None
        for callback in self._beside if self.epochs else []:  # Before, they may not have begun.
            if callable(getattr(callback, "panels", None)):
                groups.setdefault(type(callback).__name__, []).extend(callback.panels())
            if isinstance(getattr(callback, "notes", None), list):
                notes = (notes or []) + callback.notes
        title = self.title or f"Training of {self.model.name}"
        parts = [
            _header(title, self._state(running), self._progress(running), running),
            _scores(self.epochs, self.history),
            _charts(groups),
            _noticed(notes),
            _reading() if self.epochs else "",
            _setup(self._settings),
            _layers(self.model),
        ]
        with replacing(self.path / "report.png") as beside:
            save(figure([panel for group in groups.values() for panel in group], title), beside)
        with replacing(self.path / "report.html") as beside:
            text = page(title, "\n".join(parts), _RELOAD if running else None)
            beside.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")

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

    def _progress(self, running: bool) -> str:
        """A bar, the time so far and the time that is left."""
        planned = (self.params or {}).get("epochs", 0)
        if not self.epochs or not planned:
            return ""
        done = self.epochs[-1] + 1
        left = self.seconds / len(self.epochs) * (planned - done)
        times = f"{_duration(self.seconds)} elapsed"
        if running and left > 0:
            times += f", about {_duration(left)} left"
        bar = f'<progress max="{planned}" value="{done}" aria-label="Epochs done"></progress>'
        return f"{bar}<p>{times}</p>"


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


def _curves(epochs: Sequence[int], history: Mapping[str, Sequence[float]]) -> list[Panel]:
    """The loss first, then a panel a score, then what only the validation set has, then the learning rate."""
    x = np.asarray(epochs) + 1

    def line(name: str, label: str) -> Line:
        return Line(label, x, np.asarray(history[name]))

    panels, shares = [], []
    for score in _score_names(history):
        both = [
            line(name, label)
            for name, label in ((score, "training"), (f"val_{score}", "validation"))
            if name in history
        ]
        if len(both) == 1 and both[0].label == "validation" and _is_share(both[0].y):
            shares.append(line(f"val_{score}", score))
            continue
        if score == "loss":
            both += _best_mark(epochs, history)
        panels.append(Panel(_spoken(score), tuple(both), log=_is_wide(both)))
    if shares:
        panels.append(Panel("Validation scores", tuple(shares), ordered=False))
    panels += [
        Panel("Learning rate", (line(name, "learning rate"),), log=True)
        for name in _LEARNING_RATE
        if name in history
    ]
    return panels


def _score_names(history: Mapping[str, Any]) -> list[str]:
    """Names without `val_`, the loss first, each once."""
    names = dict.fromkeys(name.removeprefix("val_") for name in history if name not in _LEARNING_RATE)
    return sorted(names, key=lambda name: name != "loss")


def _is_share(values: Any) -> bool:
    finite = values[np.isfinite(values)]
    return bool(np.all((finite >= 0) & (finite <= 1)))


def _is_wide(curves: Sequence[Line]) -> bool:
    """Whether a linear axis would hide all but the largest values."""
    values = np.concatenate([curve.y for curve in curves])
    values = values[np.isfinite(values)]
    return bool(values.size and 0 < 100 * values.min() < values.max())


def _best(history: Mapping[str, Sequence[float]]) -> tuple[str, int] | None:
    """By which loss the best epoch is known, and its place among the epochs."""
    for name in _IN_WORDS:
        values = np.asarray(history.get(name, ()), dtype=float)
        if np.isfinite(values).any():
            return name, int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return None


def _best_mark(epochs: Sequence[int], history: Mapping[str, Sequence[float]]) -> list[Line]:
    best = _best(history)
    if best is None:
        return []
    name, at = best
    return [Line("best", np.asarray([epochs[at] + 1]), np.asarray([history[name][at]]), "dashed")]


def _settings(model: keras.Model, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What belongs to the result, by heading."""
    optimizer, surroundings = model.optimizer, environment()
    return {
        "Run": {
            "model": model.name,
            "parameters": f"{model.count_params():,}" if model.built else "not known before the first batch",
            "loss": _named(model.loss),
            "epochs": params.get("epochs"),
            "batches an epoch": params.get("steps") or "not known in advance",
            "steps per execution": model.steps_per_execution,
            "compiled with XLA": model.jit_compile,
        },
        "Optimizer": {"class": type(optimizer).__name__, **_flat(optimizer.get_config())},
        "Software and machine": _flat({**surroundings.pop("versions"), **surroundings}),
    }


def _named(loss: Any) -> str:
    """Name of a loss: a string, a function, an object, or several of them by output."""
    if isinstance(loss, Mapping):
        return ", ".join(f"{output}: {_named(part)}" for output, part in loss.items())
    if isinstance(loss, (list, tuple)):
        return ", ".join(map(_named, loss))
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", None)
    return (name or type(loss).__name__).replace("_", " ")


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings without folds: `{"a": {"b": 1}}` is `{"a b": 1}`; what is not set is left out."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{above}{name} "))
        elif value is not None:
            flat[f"{above}{name}"] = value
    return flat


def _header(title: str, state: str, progress: str, running: bool) -> str:
    written = time.strftime("%Y-%m-%d %H:%M:%S")
    kind = "running" if running else "finished"
    watch = f" The page reloads itself every {_RELOAD} seconds; a time long past means a run that broke off."
    return f"""<header>
<h1>{escape(title)}</h1>
<p class="state"><span class="pill {kind}">{kind}</span> {escape(state)}</p>
{progress}
<p class="soft">Last updated at <time>{written}</time>.{watch if running else ""}</p>
</header>"""


def _scores(epochs: Sequence[int], history: Mapping[str, Sequence[float]]) -> str:
    """The values of both sets at the best and at the last epoch."""
    if not epochs:
        return ""
    best, last = _best(history), len(epochs) - 1
    tables = []
    if best is not None:
        name, at = best
        tables.append(_score_table(f"Best epoch: {epochs[at] + 1} (lowest {_IN_WORDS[name]})", history, at))
    tables.append(_score_table(f"Last epoch: {epochs[last] + 1}", history, last))
    seen = any(key.startswith("val_") for key in history)
    blind = "" if seen else '<p class="hint">No validation data: overfitting cannot be seen.</p>'
    return f'<section><h2>Scores</h2>{blind}<div class="grid">{"".join(tables)}</div></section>'


def _score_table(heading: str, history: Mapping[str, Sequence[float]], at: int) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(score)}</th>'
        + "".join(f"<td>{_number(history, key, at)}</td>" for key in (score, f"val_{score}"))
        + "</tr>"
        for score in _score_names(history)
    )
    return f"""<div class="card"><h3>{escape(heading)}</h3><table class="numbers"><thead><tr><td></td>
<th scope="col" class="training">training</th><th scope="col" class="validation">validation</th></tr></thead>
<tbody>{rows}</tbody></table></div>"""


def _charts(groups: Mapping[str, Sequence[Panel]]) -> str:
    """The curves of the run, then those of each callback under its name."""
    parts = []
    for name, panels in groups.items():
        if panels:
            cards = "".join(f'<div class="card">{svg(panel)}</div>' for panel in panels)
            heading = f"Watched by {escape(name)}" if name else "Curves"
            parts.append(f'<section><h2>{heading}</h2><div class="grid">{cards}</div></section>')
    return "\n".join(parts)


def _noticed(notes: Sequence[str] | None) -> str:
    if notes is None:
        return ""
    listed = "".join(f"<li>{escape(str(note))}</li>" for note in notes)
    found = f'<ul class="card">{listed}</ul>' if listed else '<p class="soft">Nothing so far.</p>'
    return f"<section><h2>What was noticed</h2>{found}</section>"


def _reading() -> str:
    return """<section><h2>How to read the loss curves</h2><ul class="card">
<li>Both fall and stay close: the network is learning. Where both are flat, it has learned what it can.</li>
<li>Training falls while validation rises: it overfits. The best epoch is before the rise; more data,
dropout, weight decay or a smaller network help.</li>
<li>Both stay high: it underfits. A larger network, less regularisation or longer training help.</li>
<li>The loss jumps up and down or grows: the learning rate is too high. It falls very slowly: too low.</li>
</ul></section>"""


def _setup(settings: Mapping[str, Mapping[str, Any]]) -> str:
    cards = "".join(
        f'<div class="card"><h3>{escape(heading)}</h3><table class="facts">'
        + "".join(
            f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(_text(value))}</td></tr>'
            for name, value in facts.items()
        )
        + "</table></div>"
        for heading, facts in settings.items()
    )
    return f'<section><h2>Settings</h2><div class="grid">{cards}</div></section>'


def _layers(model: keras.Model) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(layer.name)}</th><td>{escape(type(layer).__name__)}</td>'
        f"<td>{layer.count_params() if layer.built else 0:,}</td></tr>"
        for layer in model.layers
    )
    return f"""<section><details class="card"><summary>{len(model.layers)} layers</summary>
<table><thead><tr><th scope="col">name</th><th scope="col">kind</th>
<th scope="col">parameters</th></tr></thead><tbody>{rows}</tbody></table></details></section>"""


def _spoken(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _number(history: Mapping[str, Sequence[float]], name: str, at: int) -> str:
    value = history[name][at] if name in history else float("nan")
    return "&ndash;" if np.isnan(value) else f"{value:.4g}"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
