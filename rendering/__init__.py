"""How results look: figures, pages, and tables in a terminal."""

from keras_practice.rendering.figures import Line, Panel, figure
from keras_practice.rendering.pages import page

__all__ = ["Line", "Panel", "figure", "page"]
