import re

import pytest
from run_tables import close_to, files_of, read

from keras_practice.tuning import InputError, Settings, tune
from keras_practice.tuning.__main__ import main
from keras_practice.tuning.engine_choice import ENGINES, chosen_engine


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(InputError, match="engine must be one of local, ray. Got 'dask'."):
        tune(Settings(data="iris"), tmp_path / "run", engine="dask")


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({}, "this process"),
        ({"workers": 1}, "this process"),
        ({"workers": 3}, "3 workers"),
        ({"chief": "8470"}, "a chief on 127.0.0.1:8470"),
    ],
)
def test_this_program_trains_alone_or_with_workers(options, how):
    assert str(chosen_engine("local", **options)) == how


def test_a_new_engine_is_a_file_and_a_line(tmp_path, monkeypatch, capsys):
    command = ["--data", "iris", "--recipe", "linear", "--trials", "3", "--epochs", "2"]
    assert main([*command, "--out", str(tmp_path / "here")]) == 0
    monkeypatch.setitem(ENGINES, "reversed", "reversed_engine")
    capsys.readouterr()
    assert main([*command, "--engine", "reversed", "--out", str(tmp_path / "there")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "3 trials from the last to the first"
    rows = read(tmp_path / "there")
    assert rows == close_to(read(tmp_path / "here"))
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    rates = [float(re.findall(r"learning_rate ([\d.e-]+)", line)[0]) for line in lines[2:5]]
    assert rates == pytest.approx([rows[name]["learning_rate"] for name in "210"], rel=0.01)


def test_a_space_of_ones_own_is_searched_on_a_new_engine_too(tmp_path, monkeypatch):
    monkeypatch.setitem(ENGINES, "reversed", "reversed_engine")
    settings = Settings(data="iris", recipe="linear", trials=2, epochs=1)
    space = {"l2": 0.0, "learning_rate": 0.01}
    draw = lambda hp: {**space, "batch_size": hp.Choice("batch_size", [30, 45])}  # noqa: E731
    assert tune(settings, tmp_path / "run", space=draw, engine="reversed")
    assert {row["batch_size"] for row in read(tmp_path / "run").values()} == {30.0, 45.0}
