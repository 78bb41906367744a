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


def test_the_page_about_preflight_lists_every_check_of_it():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(check.name for check in CATALOG if check.group != "curves")


def test_every_check_is_found_by_some_rule_or_training():
    """A name that no code gives a finding is dead."""
    room = Path(__file__).parents[2] / "checks"
    code = "".join(path.read_text() for path in room.rglob("*.py") if path.name != "catalog.py")
    assert [name for name in NAMES if f'"{name}"' not in code] == []
