import configparser
import subprocess
import sys
from fnmatch import fnmatch
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_practice.rendering import Line, Panel, pages, render
from keras_practice.rendering.figures import svg

ROOT = Path(__file__).parents[2]
DRAWING = svg(Panel("A <curve>", (Line("loss", np.arange(3), np.arange(3)),)))
NASTY = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover='alert(1)",
    "</title></style></svg><svg onload=alert(1)>",
    "<!-- ",
    "&lt;b&gt; &amp; &#60;",
    "{{ title }} {% raw %} {# #}",
)


def training(word):
    return {
        "title": word,
        "reload": 10,
        "state": word,
        "progress": {"planned": 9, "done": 3, "said": word},
        "written": word,
        "scores": {word: [(word, word, word)]},
        "validated": False,
        "drawings": {"": [DRAWING], f"a {word}": [DRAWING]},
        "notes": [word],
        "settings": {word: {word: word}},
        "layers": [(word, word, 1234)],
    }


def checks(word):
    finding = SimpleNamespace(
        check=word, severity=word, where=word, evidence=word, cause=word, fix=word, source=word
    )
    return {
        "title": word,
        "passed": False,
        "counts": word,
        "unlooked": (word, word),
        "findings": (finding, finding),
        "figures": {word: word},
    }


def search(word):
    row = {"rank": 1, "trial": word, "cells": [word, word], "remark": word, "look": word}
    found = {
        "best": [(word, {word: word}, word)],
        "hints": [word],
        "parallel": {"upright": DRAWING, "lying": DRAWING},
        "sureness": word,
        "bars": DRAWING,
        "scatters": [DRAWING],
        "deviations": True,
        "curves": [DRAWING],
        "first_of_several": True,
    }
    return {
        "title": word,
        "how": word,
        "counts": word,
        "objective": SimpleNamespace(name=word, direction="max"),
        "found": found,
        "reasons": [],
        "table": {"heads": ["", word], "rows": [row], "others": [row]},
        "settings": {word: {word: word}},
    }


def failed_search(word):
    return {**search(word), "found": None, "reasons": [(word, 3)]}


PAGES = {
    "training": ("training_report.html", training),
    "checks": ("checks_report.html", checks),
    "search": ("search_report.html", search),
    "failed search": ("search_report.html", failed_search),
}
each_page = pytest.mark.parametrize("page", PAGES)


class Skeleton(HTMLParser):
    """A page's tags with the names of their attributes, apart from its words and the attributes' values."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.values = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, [name for name, _ in attributes]))
        self.values += [value for _, value in attributes]

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_comment(self, words):
        self.tags.append("comment")

    def handle_data(self, words):
        self.words += words


def skeleton(page, word):
    template, content = PAGES[page]
    return Skeleton(render(template, **content(word)))


@each_page
@pytest.mark.parametrize("word", NASTY)
def test_no_word_becomes_markup(page, word):
    plain, nasty = skeleton(page, "word"), skeleton(page, word)
    assert nasty.tags == plain.tags
    assert nasty.words.count(word) == plain.words.lower().count("word")
    assert sum(word in value for value in nasty.values) == sum("word" in value for value in plain.values)


@each_page
@settings(max_examples=40, deadline=None)
@given(word=st.text(min_size=1))
def test_no_text_at_all_becomes_markup(page, word):
    text = render(PAGES[page][0], **PAGES[page][1](word))
    assert Skeleton(text).tags == skeleton(page, "word").tags
    text.encode()


@each_page
def test_without_autoescape_words_would_become_markup(page, monkeypatch):
    """The tests above can fail."""
    monkeypatch.setattr(pages.templates(), "autoescape", False)
    monkeypatch.setattr(pages.templates(), "cache", None)
    assert skeleton(page, NASTY[0]).tags != skeleton(page, "word").tags


@each_page
def test_a_drawing_that_is_not_ours_is_text(page):
    template, content = PAGES[page]
    given = content("word")
    stranger = "<svg onload='alert(1)'></svg>"

    def replaced(value):
        if isinstance(value, dict):
            return {name: replaced(part) for name, part in value.items()}
        if isinstance(value, list):
            return [replaced(part) for part in value]
        return stranger if value is DRAWING else value

    text = render(template, **{name: replaced(value) for name, value in given.items()})
    assert ("svg", ["onload"]) not in Skeleton(text).tags
    assert Skeleton(text).words.count(stranger) == sum(
        tag == "/svg" for tag in Skeleton(render(template, **given)).tags
    )


def names():
    for page, (_, content) in PAGES.items():
        for name in content("word"):
            optional = {"search": ("reasons",), "failed search": ("objective",)}.get(page, ())
            if name not in (*optional, "title", "reload"):
                yield page, name


@pytest.mark.parametrize(("page", "missing"), list(names()))
def test_what_was_not_given_is_an_error_and_no_blank(page, missing):
    template, content = PAGES[page]
    given = content("word")
    del given[missing]
    with pytest.raises(jinja2.UndefinedError, match=missing):
        render(template, **given)


def test_a_part_that_was_not_given_is_an_error_too():
    given = search("word")
    del given["table"]["rows"][0]["remark"]
    with pytest.raises(jinja2.UndefinedError, match="remark"):
        render("search_report.html", **given)


def test_a_page_reloads_only_where_it_is_told_to():
    text = render("checks_report.html", **checks("word"))
    assert "refresh" not in text
    assert '<meta http-equiv="refresh" content="7">' in render(
        "checks_report.html", **checks("word"), reload=7
    )


def test_letters_that_no_page_may_hold_are_blanks():
    text = render("checks_report.html", **checks("a\ud800b\x00c\x07d\n層\N{ZERO WIDTH JOINER}"))
    assert "a b c d\n層\N{ZERO WIDTH JOINER}" in text
    text.encode()


def test_every_template_is_in_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["keras_practice.rendering"].replace(" ", "").split(",")
    files = [file for file in (ROOT / "rendering" / "templates").iterdir() if file.is_file()]
    assert {template for template, _ in PAGES.values()} < {file.name for file in files}
    for file in files:
        assert any(fnmatch(f"templates/{file.name}", pattern) for pattern in patterns), file.name
        assert (resources.files("keras_practice.rendering") / "templates" / file.name).is_file()
        assert file.suffix != ".html" or pages.templates().get_template(file.name)


def test_the_templates_are_read_at_the_first_page_and_once():
    program = """
import sys
import keras_practice.rendering
from keras_practice.rendering import aligned
assert "jinja2" not in sys.modules and "matplotlib" not in sys.modules
from keras_practice.rendering import pages
assert pages.templates.cache_info().currsize == 0
pages.render("checks_report.html", title="", passed=True, counts="", unlooked=(), findings=(), figures={})
pages.render("checks_report.html", title="", passed=True, counts="", unlooked=(), findings=(), figures={})
assert pages.templates.cache_info().misses == 1
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
