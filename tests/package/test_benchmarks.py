"""The figures on record are the README's, and the fault zoo's gate closes where it should."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = json.loads((BENCHMARKS / "results.json").read_text())
VERDICTS = json.loads((BENCHMARKS / "zoo" / "verdicts.json").read_text())


def load(path):
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run, gate = load(BENCHMARKS / "run.py"), load(BENCHMARKS / "zoo" / "gate.py")


def readme_rows():
    """The rows of the README's tables of figures: what was measured, the other cells, and the command."""
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = {}
    for start, line in enumerate(lines):
        if line.startswith(("| figure |", "| programs |")):
            for row in lines[start + 2 :]:
                if not row.startswith("|"):
                    break
                name, *cells = (cell.strip() for cell in row.strip().strip("|").split("|"))
                command = cells.pop().strip("`") if line.startswith("| figure |") else None
                rows[name] = (" ".join(cells), command)
    return rows


def agrees(value, text):
    """Whether a text has this value, at the text's own digits; words must stand there as they are."""
    if not re.fullmatch(r"[\d.e+-]+", value):
        return value in text
    for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text):
        mantissa, _, exponent = number.partition("e")
        digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
        if abs(float(number) - float(value)) <= 0.5000001 * 10.0**-digits:
            return True
    return False


def test_every_figure_of_the_readme_is_on_record_and_the_other_way_round():
    assert Counter(entry["row"] for entry in RESULTS.values()) == Counter(list(readme_rows()))


@pytest.mark.parametrize("name", RESULTS)
def test_the_readme_says_what_is_on_record(name):
    entry = RESULTS[name]
    text, command = readme_rows()[entry["row"]]
    assert command in (None, entry["command"])
    for figure, found in entry["figures"].items():
        assert agrees(found["value"], text), figure


def test_a_figure_agrees_at_the_digits_that_are_shown():
    assert agrees("1.0849", "1.08 times")
    assert not agrees("1.0949", "1.08 times")
    assert agrees("1.68e-06", "1.7e-6 (sigmoid)")
    assert not agrees("2.68e-06", "1.7e-6 (sigmoid)")
    assert agrees("4.7e+00", "4.7")
    assert agrees("23.7", "24 times faster")
    assert agrees("0 1 1 0", "0 1 1 0, exactly")
    assert not agrees("0 1 1 1", "0 1 1 0, exactly")


@pytest.mark.parametrize("name", RESULTS)
def test_every_command_can_be_run_and_every_figure_found(name):
    entry = RESULTS[name]
    python, script, *_ = shlex.split(entry["command"])
    assert python == "python"
    assert (ROOT / script).is_file()
    assert set(entry["measured"]) == {"date", "machine", "python", "keras", "tensorflow", "numpy"}
    for figure in entry["figures"].values():
        assert "note" in entry or "pattern" in figure
        assert re.compile(figure.get("pattern", "()")).groups == 1


def test_figures_are_found_in_what_a_command_prints():
    printed = (
        "Python 3.11.7, Keras 3.15.1, TensorFlow 2.21.0\n"
        "plain             201 steps/s   steps_per_execution 1\n"
        "compile_for       433 steps/s   steps_per_execution 32\n"
        "ratio 2.15, largest difference of the weights 0.0e+00\n"
    )
    assert list(run.figures_in(printed, RESULTS["steps"]).values()) == ["433", "201"]
    printed = """

tuning part
  faulty      diagnosed 81 of 81 (100.0 %)
              detected 80 of 81 (98.8 %)
    data      diagnosed 16 of 16 (100.0 %), detected 16 of 16 (100.0 %)
  healthy     false alarms 2 of 59 (3.4 %)

held-out part
  faulty      diagnosed 40 of 41 (97.6 %)
              detected 41 of 41 (97.6 %)
  healthy     false alarms 1 of 21 (4.8 %)
"""
    assert list(run.figures_in(printed, RESULTS["zoo-tuning"]).values()) == ["81", "80", "2"]
    assert list(run.figures_in(printed, RESULTS["zoo-held-out"]).values()) == ["40", "41", "1"]
    printed = "two ReLU units      [0. 1. 1. 0.]   lecture: [0 1 1 0], exactly\n"
    assert run.figures_in(printed, RESULTS["xor"]) == {"two ReLU units": "0 1 1 0"}
    with pytest.raises(ValueError, match="must print 'ratio'"):
        run.figures_in("nothing", RESULTS["build"])


def test_a_local_file_takes_the_place_of_the_download():
    assert run.command_of(RESULTS["preflight"], "/here/m.npz")[1:] == [
        "benchmarks/preflight_cost.py",
        "--data",
        "/here/m.npz",
    ]
    assert run.command_of(RESULTS["mnist-mlp"], "m.npz")[-2:] == ["--data", "m.npz"]
    assert run.command_of(RESULTS["xor"], "m.npz")[1:] == ["examples/xor.py"]


def test_new_values_stand_beside_old_ones():
    assert run.beside("2.0", "3.0") == "1.50 times"
    assert run.beside("0 1 1 0", "0  1 1 0") == "the same"
    assert run.beside("0 1 1 0", "0 1 1 1") == "other"


def test_an_unknown_entry_is_refused():
    done = subprocess.run([sys.executable, run.__file__, "no-such"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Got no-such." in done.stderr


def test_the_gate_takes_quick_programs_of_every_kind_and_group():
    names = gate.quick_part(VERDICTS)
    assert len(names) == len(set(names)) == gate.COUNT
    everything = {(record["kind"], record["group"]) for record in VERDICTS.values()}
    assert {(VERDICTS[name]["kind"], VERDICTS[name]["group"]) for name in names} == everything
    assert sum(VERDICTS[name]["seconds"] for name in names) < 120
    assert sum(VERDICTS[name]["kind"] == "healthy" for name in names) >= 20


def outcome(name, kind, verdict, *errors):
    found = {"name": name, "kind": kind, "group": "data", "verdict": verdict, "seconds": 1.24}
    return SimpleNamespace(**found, checks=lambda *severities: [*errors])


ROWS = {
    "found": {"kind": "faulty", "verdict": "ok", "errors": ["leakage"]},
    "missed": {"kind": "faulty", "verdict": "missed", "errors": []},
    "sound": {"kind": "healthy", "verdict": "ok", "errors": []},
    "loud": {"kind": "healthy", "verdict": "false alarm", "errors": ["frozen"]},
}


@pytest.mark.parametrize(
    ("result", "was"),
    [
        (outcome("found", "faulty", "ok", "leakage"), None),
        (outcome("missed", "faulty", "missed"), None),
        (outcome("missed", "faulty", "ok", "leakage"), None),
        (outcome("missed", "faulty", "wrong cause", "frozen"), None),
        (outcome("sound", "healthy", "ok"), None),
        (outcome("found", "faulty", "missed"), "ok"),
        (outcome("found", "faulty", "wrong cause", "frozen", "leakage"), "ok"),
        (outcome("sound", "healthy", "false alarm", "frozen"), "ok"),
        (outcome("loud", "healthy", "false alarm", "frozen"), "false alarm"),
    ],
)
def test_the_gate_closes_on_false_alarms_and_on_what_is_no_longer_found(result, was):
    sentences = gate.worse(ROWS, [result])
    assert len(sentences) == (was is not None)
    for sentence in sentences:
        assert sentence.startswith(f"{result.name}: {result.verdict}, where it was {was}; errors ")


def test_the_gate_names_both_errors():
    (sentence,) = gate.worse(ROWS, [outcome("found", "faulty", "wrong cause", "frozen", "capacity")])
    assert sentence.endswith("errors frozen, capacity, where they were leakage")


def test_other_errors_with_the_same_verdict_are_named():
    assert gate.changed(ROWS, [outcome("found", "faulty", "ok", "leakage", "frozen")]) == ["found"]
    assert gate.changed(ROWS, [outcome("found", "faulty", "ok", "leakage")]) == []


def test_what_was_recorded_can_be_read_again():
    text = gate.records_of([outcome("b", "faulty", "ok", "x", "y", "z"), outcome("a", "healthy", "ok")])
    assert list(json.loads(text)) == ["a", "b"]
    assert json.loads(text)["b"] == {
        "kind": "faulty",
        "group": "data",
        "verdict": "ok",
        "errors": ["x", "y"],
        "seconds": 1.2,
    }
