"""How results look: figures, pages, and tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.core.lazy import attributes

if TYPE_CHECKING:
    from keras_practice.rendering.figures import Line, Panel, figure
    from keras_practice.rendering.pages import render
    from keras_practice.rendering.tables import aligned

__all__ = ["Line", "Panel", "aligned", "figure", "render"]

# A command's `--help` that takes a table from here need not wait for matplotlib.
__getattr__ = attributes(
    __name__,
    {"Line": "figures", "Panel": "figures", "aligned": "tables", "figure": "figures", "render": "pages"},
)
