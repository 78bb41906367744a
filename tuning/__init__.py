"""What is searched: spaces, random search, and `python -m keras_practice.tuning`.

Names are imported on first use, so that `--help` need not wait for TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_practice.tuning.search import RandomSearch
    from keras_practice.tuning.settings import Settings
    from keras_practice.tuning.study import InputError, tune

__all__ = ["InputError", "RandomSearch", "Settings", "tune"]

_HOMES = {"RandomSearch": "search", "Settings": "settings", "tune": "study", "InputError": "study"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
