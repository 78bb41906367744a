"""What the page of a run shows: its curves, its scores and its settings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_practice.callbacks.environment import environment
from keras_practice.rendering.figures import Line, Panel, svg
from keras_practice.rendering.pages import render
from keras_practice.rendering.words import sentence_case

_IN_WORDS = {"val_loss": "validation loss", "loss": "training loss"}  # by which the best epoch is known
_LEARNING_RATE = ("learning_rate", "lr")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        planned: Epochs that it will have.
        done: Epochs that it has had.
        seconds: Time that those took.
        left: Seconds that the others will take; `None` where it is over.
    """

    planned: int
    done: int
    seconds: float
    left: float | None

    @property
    def said(self) -> str:
        """The time so far, and the time that is left."""
        left = "" if self.left is None else f", about {_duration(self.left)} left"
        return f"{_duration(self.seconds)} elapsed{left}"


def training_page(
    *,
    title: str,
    state: str,
    reload: int | None,
    progress: Progress | None,
    epochs: Sequence[int],
    history: Mapping[str, Sequence[float]],
    groups: Mapping[str, Sequence[Panel]],
    notes: Sequence[str] | None,
    settings: Mapping[str, Mapping[str, Any]],
    layers: Sequence[tuple[str, str, int]],
) -> str:
    """The page as HTML.

    Args:
        title: Its heading.
        state: How far the run is, or why it ended, as a sentence.
        reload: Seconds after which the page of a run that goes on loads itself anew;
            `None` once it is over.
        progress: The same in numbers; `None` where the end is unknown.
        epochs: Their numbers, from 0.
        history: Values by the score's name, one an epoch; NaN where there was none.
        groups: Panels of the run, under `""`, and of each callback, under its name.
        notes: What callbacks noticed; `None` where none looked.
        settings: What belongs to the result, by heading and name.
        layers: Name, kind and number of parameters of each.

    Source:
        A44, A45, A49.
    """
    return render(
        "training_report.html",
        title=title,
        state=state,
        reload=reload,
        progress=progress,
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        scores=_scores(epochs, history),
        validated=any(key.startswith("val_") for key in history),
        drawings={name: [svg(panel) for panel in panels] for name, panels in groups.items() if panels},
        notes=notes,
        settings={
            heading: {name: _text(value) for name, value in facts.items()}
            for heading, facts in settings.items()
        },
        layers=layers,
    )


def layers(model: keras.Model) -> list[tuple[str, str, int]]:
    """Name, kind and number of parameters of each layer."""
    return [
        (layer.name, type(layer).__name__, layer.count_params() if layer.built else 0)
        for layer in model.layers
    ]


def curves(epochs: Sequence[int], history: Mapping[str, Sequence[float]]) -> list[Panel]:
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
        panels.append(Panel(sentence_case(score.replace("_", " ")), tuple(both), log=_is_wide(both)))
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


def settings(model: keras.Model, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
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


def _scores(
    epochs: Sequence[int], history: Mapping[str, Sequence[float]]
) -> dict[str, list[tuple[str, str, str]]]:
    """Name and values of both sets at the best and at the last epoch, by heading; empty before the first."""
    best, tables = _best(history), {}
    if epochs and best is not None:
        name, at = best
        tables[f"Best epoch: {epochs[at] + 1} (lowest {_IN_WORDS[name]})"] = _scores_at(history, at)
    if epochs:
        tables[f"Last epoch: {epochs[-1] + 1}"] = _scores_at(history, len(epochs) - 1)
    return tables


def _scores_at(history: Mapping[str, Sequence[float]], at: int) -> list[tuple[str, str, str]]:
    return [
        (score, _number(history, score, at), _number(history, f"val_{score}", at))
        for score in _score_names(history)
    ]


def _number(history: Mapping[str, Sequence[float]], name: str, at: int) -> str:
    value = history[name][at] if name in history else float("nan")
    return "\N{EN DASH}" if np.isnan(value) else f"{value:.4g}"


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
