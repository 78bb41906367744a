"""The layers of a model, as far in as is wanted, and what activation each ends in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def every_layer(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it, these models too, in the model's order."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from every_layer(layer)


def inner_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of the models in it, in the model's order, without these models."""
    return [layer for layer in every_layer(model) if not isinstance(layer, keras.Model)]


def all_layers(
    layer: keras.layers.Layer, closed: tuple[type[keras.layers.Layer], ...] = ()
) -> list[keras.layers.Layer]:
    """A layer or model and every layer in it, those in attributes, lists and wrappers included, each once.

    Args:
        layer: A layer or model.
        closed: Kinds of layers that are not looked into.
    """
    found: dict[int, keras.layers.Layer] = {}

    def visit(value: Any) -> None:
        if isinstance(value, keras.layers.Layer):
            if id(value) not in found:
                found[id(value)] = value
                if not isinstance(value, closed):
                    visit([*getattr(value, "layers", ()), *vars(value).values()])
        elif isinstance(value, (list, tuple)):
            for part in value:
                visit(part)
        elif isinstance(value, dict):
            visit(list(value.values()))

    visit(layer)
    return list(found.values())


def activation_name(layer: keras.layers.Layer) -> str | None:
    """Name of the activation function that a layer ends in; `None` for none, or for the identity."""
    for kind, name in (
        (keras.layers.LeakyReLU, "leaky_relu"),
        (keras.layers.PReLU, "prelu"),
        (keras.layers.ReLU, "relu"),
        (keras.layers.ELU, "elu"),
        (keras.layers.Softmax, "softmax"),
    ):
        if isinstance(layer, kind):
            return name
    function = getattr(layer, "activation", None)
    if function is None:
        return None
    name = str(getattr(function, "__name__", type(function).__name__)).lower()
    return None if name == "linear" else name
