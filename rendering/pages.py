"""The package's pages: one file each, with nothing loaded from anywhere, from the templates beside this file.

The templates escape whatever they are given, so that no name, message or value of a user's can become
markup; drawings from `rendering.svg` are the one exception. They stop at a name that was not given.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from keras_practice.rendering.words import sentence_case

# Control characters and halves of letters.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(template: str, *, title: str, reload: int | None = None, **content: Any) -> str:
    """A page of HTML, for light and dark screens, wide and narrow ones.

    Args:
        template: Name of the file in `rendering/templates/`.
        title: Its title, as plain text.
        reload: Seconds after which it loads itself anew. Defaults to `None`, never.
        content: Everything else that the template shows, by name.

    Returns:
        The page, which any encoding of Unicode can hold.

    Raises:
        jinja2.UndefinedError: If the template asks for what was not given.
        jinja2.TemplateNotFound: If there is no such file.
    """
    return templates().get_template(template).render(title=title, reload=reload, **content)


@cache
def templates() -> jinja2.Environment:
    """Where the templates are found and how they are read; made at the first page."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_practice.rendering"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_writable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    found.filters["sentence_case"] = sentence_case
    return found


def _writable(value: Any) -> Any:
    """A blank in the place of each character that no page may hold."""
    text = isinstance(value, str) and not isinstance(value, Markup)
    return _UNWRITABLE.sub(" ", value) if text else value
