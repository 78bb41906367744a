"""Words as a picture and a page can hold them."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text on one line, without the characters that no XML may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def shortened(text: str, most: int) -> str:
    """The text on one line, cut with an ellipsis where it has more than so many letters."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def sentence_case(words: str) -> str:
    """The words with a capital first letter, and all others as they are."""
    return words[:1].upper() + words[1:]
