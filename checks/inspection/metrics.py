"""The metrics that a model was compiled with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_practice.checks.inspection.forward_pass import Head


@dataclass(frozen=True)
class CompiledMetric:
    """A metric as the user gave it to `compile`.

    Attributes:
        output: The output that it belongs to.
        name: Its class or function, in lower case without underscores, as in `"binaryaccuracy"`;
            a string as the user wrote it.
        config: Its arguments, as far as they are known.
        by_name: Whether the user gave a string.
    """

    output: str
    name: str
    config: Mapping[str, Any]
    by_name: bool


def metrics_of(model: keras.Model, heads: tuple[Head, ...]) -> tuple[CompiledMetric, ...]:
    """The metrics that the user compiled; none where the model's own `compile` does not tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's word that a lambda is unsafe to save.
        try:
            config = model.get_compile_config() or {}
        except Exception:  # A user's metric or optimiser that cannot be written down.
            config = {}
    found: list[CompiledMetric] = []
    for group in (config.get("metrics"), config.get("weighted_metrics")):
        found += (_metric(head.name, item) for head, item in _by_output(group, heads))
    return tuple(found)


def _by_output(group: Any, heads: tuple[Head, ...]) -> Iterator[tuple[Head, Any]]:
    if not group:
        return
    for i, head in enumerate(heads):
        if isinstance(group, dict):
            given = group.get(head.name, [*group.values()] if len(heads) == 1 else None)
        elif len(heads) == 1:
            given = group
        else:
            given = group[i] if len(group) == len(heads) else None
        for item in given if isinstance(given, (list, tuple)) else [given]:
            for each in item if isinstance(item, (list, tuple)) else [item]:
                if each is not None:
                    yield head, each


def _metric(output: str, item: Any) -> CompiledMetric:
    if isinstance(item, dict):
        config = item.get("config")
        if isinstance(config, Mapping):
            return CompiledMetric(output, _plain(item.get("class_name")), config, False)
        return CompiledMetric(output, _plain(config), {}, False)
    return CompiledMetric(output, _plain(item), {}, True)


def _plain(name: Any) -> str:
    return str(name).replace("_", "").lower()
