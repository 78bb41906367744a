"""Which engine runs the trials, by the name that `--engine` knows it under."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_practice.tuning.engines.base import Engine

# Modules with a function `engine(workers, chief, address)`, imported when they are asked for: the
# command's `--help` names them all and waits for none.
ENGINES = {
    "local": "keras_practice.tuning.engines.chief_worker.engine",
    "ray": "keras_practice.tuning.engines.ray",
}


def chosen_engine(
    name: str, workers: int | None = None, chief: str | None = None, ray_address: str | None = None
) -> Engine:
    """The engine that a search asks for.

    Args:
        name: One of `ENGINES`.
        workers: Trials at a time. Defaults to `None`, the engine's own choice.
        chief: `[HOST:]PORT` to hand trials out at. Defaults to `None`.
        ray_address: Address of a Ray cluster. Defaults to `None`.

    Raises:
        ValueError: If there is no such engine, or it does not go with the rest.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}. Got {name!r}.")
    if ray_address is not None and name != "ray":
        raise ValueError(f"An address of Ray's must come with the engine ray. Got {ray_address}.")
    make: Callable[..., Engine] = importlib.import_module(ENGINES[name]).engine
    return make(workers, chief, ray_address)
