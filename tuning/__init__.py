"""What is searched: spaces, random search, and `python -m keras_practice.tuning`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.data.lazily import attributes

if TYPE_CHECKING:
    from keras_practice.tuning.search import RandomSearch
    from keras_practice.tuning.settings import Settings
    from keras_practice.tuning.study import InputError, tune

__all__ = ["InputError", "RandomSearch", "Settings", "tune"]

__getattr__ = attributes(
    __name__, {"InputError": "study", "RandomSearch": "search", "Settings": "settings", "tune": "study"}
)
