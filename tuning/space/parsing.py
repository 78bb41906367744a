"""Hyperparameters as the command line spells them: `dropout=0:0.5`, `units=choice:64-32,128-64`."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_practice import recipes
from keras_practice.tuning.space.parameters import Choice, Fixed, Parameter, Range

_SAYS = {
    "widths": "widths joined by '-', such as 128-64",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a word",
}


def kinds_of(recipe: str) -> dict[str, str]:
    """What can be set in a recipe, by name: `"widths"`, `"bool"`, `"int"`, `"float"` or `"str"`."""
    kinds = {
        name: _kind(parameter)
        for name, parameter in list(inspect.signature(recipes.get(recipe)).parameters.items())[2:]
        if name != "name"
    }
    return {**kinds, "learning_rate": "float", "optimizer": "str", "batch_size": "int"}


def parse(texts: Sequence[str], recipe: str) -> dict[str, Parameter]:
    """Reads what `--set` was given.

    Args:
        texts: Each `NAME=LOW:HIGH`, `NAME=log:LOW:HIGH`, `NAME=choice:A,B` or
            `NAME=VALUE`; the kind of value follows from the recipe's argument.
        recipe: Name of a recipe.

    Returns:
        Parameters by name.

    Raises:
        ValueError: If a name is unknown or comes twice, or a value does not suit it.
    """
    kinds, parameters = kinds_of(recipe), dict[str, Parameter]()
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ValueError(
                f"--set must be NAME=VALUE, NAME=LOW:HIGH, NAME=log:LOW:HIGH or NAME=choice:A,B. "
                f"Got {text!r}."
            )
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"Unknown hyperparameter {name!r} of {recipe}{hint} There are: {', '.join(kinds)}."
            )
        if name in parameters:
            raise ValueError(f"Each hyperparameter must be set once. Got {name} twice.")
        try:
            parameters[name] = _parameter(name, value, kinds[name])
        except ValueError as error:
            raise ValueError(f"--set {text}: {error}") from error
    return parameters


def _parameter(name: str, text: str, kind: str) -> Parameter:
    head, colon, rest = text.partition(":")
    if colon and head == "choice":
        return Choice(tuple(_value(name, part.strip(), kind) for part in rest.split(",")))
    if not colon:
        return Fixed(_value(name, text, kind))
    if kind not in ("int", "float"):
        raise ValueError(f"{name} must be {_SAYS[kind]}, and has no range. Got {text!r}.")
    ends = (rest if head == "log" else text).split(":")
    if len(ends) != 2:
        raise ValueError(f"A range must be LOW:HIGH or log:LOW:HIGH. Got {text!r}.")
    low, high = (_value(name, end.strip(), kind) for end in ends)
    return Range(low, high, log=head == "log")


def _value(name: str, text: str, kind: str) -> Any:
    try:
        if kind == "widths":
            return tuple(_integer(part) for part in text.split("-"))
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return _integer(text)
        if kind == "float":
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        if not re.fullmatch(r"[\w.+-]+", text):
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(f"{name} must be {_SAYS[kind]}. Got {text!r}.") from None
    return text


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError
    return int(text)


def _kind(parameter: inspect.Parameter) -> str:
    """What an argument takes, by its annotation, or by its default where it has none."""
    annotation = str(parameter.annotation).partition("|")[0]
    names: Mapping[str, str] = {"Sequence": "widths", "bool": "bool", "int": "int", "float": "float"}
    for start, kind in names.items():
        if annotation.strip().startswith(start):
            return kind
    default = type(parameter.default).__name__
    return "widths" if default in ("tuple", "list") else default if default in _SAYS else "str"
