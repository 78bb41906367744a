import sys
from types import SimpleNamespace

import pytest
from rich.table import Table
from rich.text import Text

from keras_practice.rendering.tables import aligned, plain

ROWS = [["", "name", "value", "said"], ["1", "a", "12.5", ""], ["10", "longer", "3", "best"]]


def test_columns_are_two_blanks_apart_and_lines_end_with_a_letter():
    assert aligned(ROWS) == ["    name    value  said", "1   a       12.5", "10  longer  3      best"]


def test_figures_end_below_each_other():
    assert aligned(ROWS, right=(0, 2)) == [
        "    name    value  said",
        " 1  a        12.5",
        "10  longer      3  best",
    ]


@pytest.mark.parametrize("rows", [[], [[]]])
def test_no_cells(rows):
    assert aligned(rows) == ["" for _ in rows]


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        aligned([["a", "b"], ["c"]])


def show(console):
    table = Table("one", "two", box=None, pad_edge=False)
    table.add_row(Text("[b]"), Text("many words " * 5, style="bold red"))
    console.print(table)
    console.print()


def test_a_table_as_text(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert plain(show, width=40) == (
        "one  two\n[b]  many words many words many words\n     many words many words"
    )


def test_a_notebook_gets_text_too(monkeypatch):
    """There rich would write HTML to the cell, and nothing to the file."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setenv("JUPYTER_COLUMNS", "20")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert plain(show, width=40).startswith("one  two\n")
