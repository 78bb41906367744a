import io
from pathlib import Path

import pytest
from rich.console import Console

from keras_practice.tuning import Settings
from keras_practice.tuning.records import TrialRow
from keras_practice.tuning.reports.display import Display


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_on_a_terminal(width):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, color_system=None)
    display = Display(Settings(trials=2), "val_f1", 2, console)
    scores_of = {"val_f1": 0.9, "val_loss": 0.1, "val_accuracy": 0.9}
    rows = [
        TrialRow(
            str(n), n, "COMPLETED", {"dropout": 0.1, "learning_rate": 0.01}, 0.9, scores_of, scores_of, 3
        )
        for n in range(2)
    ]
    display.finish(rows, {"trial": "0", "hyperparameters": {}, "test": {}}, Path("out"))
    lines = written.getvalue().splitlines()
    assert "…" not in written.getvalue()
    assert any("0.9000 ±0.9000" in line for line in lines)
    assert ("accuracy" in written.getvalue()) == (width > 80)
