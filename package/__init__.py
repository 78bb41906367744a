"""Model builders, callbacks, checks and tuning that carry the practice of good lectures on deep learning.

The rooms are imported on first use:

    import keras_practice as kp

    model = kp.recipes.mlp((64,), kp.data.Task("multiclass", 10))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_practice import callbacks, checks, data, recipes, rendering, training, tuning

__version__ = "0.1.0"

__all__ = ["__version__", "callbacks", "checks", "data", "recipes", "rendering", "training", "tuning"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"keras_practice.{name}")
    raise AttributeError(f"module 'keras_practice' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
