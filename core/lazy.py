"""Names that are imported on first use, so that a command's `--help` need not wait for TensorFlow."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package whose public names win over modules of the same name.

    Python binds every imported submodule in its package: without this, `checks.preflight`
    would be the function or the module, by who came first.
    """

    _public: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in self._public and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def attributes(
    package: str, homes: Mapping[str, str], moved: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """A package's `__getattr__` that finds its public names in their modules.

    Args:
        package: The package's `__name__`.
        homes: The module in the package, by public name; `keras_practice...` where it is another room's.
        moved: The new place, `package.module.name`, of names that stood here until the last
            release: they are found with a warning. Defaults to `None`.
    """
    moved = moved or {}
    room = sys.modules[package]
    room.__class__ = type("_Room", (_Room,), {"_public": frozenset(homes)})

    def find(name: str) -> Any:
        if name in homes:
            home = homes[name]
            below = home.startswith("keras_practice.")
            return getattr(importlib.import_module(home if below else f"{package}.{home}"), name)
        if name in moved:
            home, new = moved[name].rsplit(".", 1)
            value = getattr(importlib.import_module(home), new)
            warnings.warn(
                f"{package}.{name} is now {moved[name]}; the old name goes with the next release.",
                DeprecationWarning,
                stacklevel=2,
            )
            room.__dict__[name] = value  # Said once: `from package import name` asks twice.
            return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
