"""Look-up by name, with the nearest name in the error."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one sort, in the order in which they were added.

    Args:
        sort: What is named, for error messages, such as `"recipe"`.
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Adds `entry` under `name` and returns it."""
        if name in self._entries:
            raise ValueError(f"Each {self.sort} needs a name of its own. Got {name!r} twice.")
        self._entries[name] = entry
        return entry

    def register(self, function: T) -> T:
        """Decorator that adds a function under its own name."""
        return self.add(function.__name__, function)  # type: ignore[attr-defined]

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._entries)

    def get(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            ValueError: If there is none; the message has the nearest name.
        """
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(str(name).lower(), self._entries, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"Unknown {self.sort} {name!r}{hint} There are: {', '.join(self._entries)}.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
