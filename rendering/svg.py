"""Drawings as SVG, element by element: what they hold is escaped where the tree is written out.

Colours are CSS values; `var(--ink)`, `var(--soft)` and `var(--grid)` follow the page, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from keras_practice.rendering.words import printable

NAMESPACE = "http://www.w3.org/2000/svg"


def inline(root: Element) -> Markup:
    """The drawing as a page takes it in. Nothing else is let into a page unescaped.

    Args:
        root: An `svg` element.

    Raises:
        ValueError: If it is another element.
    """
    if root.tag != "svg":
        raise ValueError(f"root must be an svg element. Got {root.tag!r}.")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def drawing(width: float, height: float, name: str, parts: Iterable[Element]) -> Markup:
    """A drawing that is as wide as its place.

    Args:
        width: Of its own system of coordinates, from the upper left corner.
        height: The same.
        name: What it shows, for those who cannot see it.
        parts: From back to front.
    """
    return inline(
        element(
            "svg",
            *parts,
            xmlns=NAMESPACE,
            viewBox=f"0 0 {width:.0f} {height:.0f}",
            width="100%",
            role="img",
            aria_label=printable(name),
            font_family="system-ui, sans-serif",
        )
    )


def element(tag: str, *children: Element, words: str = "", **attributes: Any) -> Element:
    """An element; `stroke_width=2` is its attribute `stroke-width`.

    Args:
        tag: Its kind.
        children: What is in it.
        words: Text before the children. Defaults to `""`.
        attributes: By name.
    """
    made = Element(tag, {name.replace("_", "-"): str(value) for name, value in attributes.items()})
    made.text = words
    made.extend(children)
    return made


def title(*lines: str) -> Element:
    """What is shown where the pointer rests on the element that it is in."""
    return element("title", words="\n".join(map(printable, lines)))


def line(
    x0: float, y0: float, x1: float, y1: float, colour: str, width: float, opacity: float = 1.0
) -> Element:
    """A straight line."""
    ends = {name: f"{at:.1f}" for name, at in (("x1", x0), ("y1", y0), ("x2", x1), ("y2", y1))}
    return element("line", **ends, stroke=colour, stroke_width=width, opacity=opacity)


def path(points: Sequence[tuple[float, float]], *children: Element, **look: Any) -> Element:
    """Straight lines from point to point."""
    drawn = " ".join(f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))
    return element("path", *children, d=drawn, fill="none", stroke_linejoin="round", **look)


def text(x: float, y: float, words: str, anchor: str, *, bold: bool = False, soft: bool = False) -> Element:
    """Words on a line; bold ones are larger, as a heading is.

    Args:
        x: Where they are anchored.
        y: Their base line.
        words: What is written.
        anchor: Which part of them is at `x`: `"start"`, `"middle"` or `"end"`.
        bold: Whether they stand out. Defaults to `False`.
        soft: Whether they stand back. Defaults to `False`.
    """
    weight: dict[str, Any] = {"font_weight": 600} if bold else {}
    return element(
        "text",
        words=printable(words),
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        text_anchor=anchor,
        font_size=13 if bold else 11.5,
        **weight,
        fill=f"var(--{'soft' if soft else 'ink'})",
    )
