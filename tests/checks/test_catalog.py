"""One list of checks, and what follows from it."""

import re
from pathlib import Path

import pytest

from keras_practice.checks import Finding
from keras_practice.checks.catalog import CATALOG, rank_of

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"
NAMES = [check.name for check in CATALOG]


def test_every_name_is_there_once_and_has_its_rank():
    assert len(set(NAMES)) == len(NAMES)
    assert [rank_of(name) for name in NAMES] == list(range(len(NAMES)))


def test_a_misspelt_name_is_an_error_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"Got 'learning-rate-hihg'; did you mean 'learning-rate-high'\?"):
        Finding("learning-rate-hihg", "error", "optimizer", "", "", "", "")
    with pytest.raises(ValueError, match=r"Got 'nothing at all'\.$"):
        rank_of("nothing at all")


def rows_of(heading):
    """The cells of the table under a heading of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def test_the_page_lists_every_check_of_preflight_in_its_group():
    listed = [
        (name, row[0]) for row in rows_of("The findings") for name in re.findall(r"`([a-z-]+)`", row[1])
    ]
    assert sorted(listed) == sorted((c.name, c.group) for c in CATALOG if c.group != "curves")


def test_the_page_says_what_the_catalog_says_of_curves():
    listed = rows_of("What `diagnose` finds in the curves")
    assert listed == [[f"`{c.name}`", c.says] for c in CATALOG if c.group == "curves"]


def test_what_a_check_says_is_a_line_of_its_own():
    said = [check.says for check in CATALOG]
    assert len(set(said)) == len(said)
    assert all(20 < len(line) < 80 and not line.endswith(".") for line in said)


def test_every_check_is_found_by_some_rule_or_training():
    """A name that no code gives a finding is dead."""
    room = Path(__file__).parents[2] / "checks"
    code = "".join(path.read_text() for path in room.rglob("*.py") if path.name != "catalog.py")
    assert [name for name in NAMES if f'"{name}"' not in code] == []
