"""The worked examples: their figures, at full size where that is quick and small where it is not."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def last_number(line):
    return float(line.split("lecture")[0].split()[-1])


def test_xor_is_solved_exactly():
    xor = load("xor")
    np.testing.assert_allclose(xor.least_squares(), 0.5, atol=1e-6)
    np.testing.assert_array_equal(xor.by_hand(), [0, 1, 1, 0])


@pytest.mark.slow
def test_xor_is_learned_from_some_starts():
    learned, error = load("xor").trained(starts=8)
    assert 0 < learned < 8
    assert error < 1e-3


def test_iris(capsys):
    load("iris").main()
    then, now, net = (last_number(line) for line in capsys.readouterr().out.splitlines())
    assert then > 0.83
    assert now > 0.83
    assert net >= 0.96


@pytest.mark.slow
def test_the_gradient_vanishes_in_one_net_alone(capsys):
    load("vanishing_gradient").main()
    sigmoid, standard = (
        line.replace(",", "").split()
        for line in capsys.readouterr().out.splitlines()
        if "first over last" in line
    )
    assert float(sigmoid[3]) < 1e-4
    assert 0.1 < float(standard[3]) < 100
    assert float(sigmoid[-1]) < 0.3
    assert float(standard[-1]) > 0.8


@pytest.mark.slow
def test_both_ways_lead_to_the_same_weights(capsys):
    load("normal_equations").main()
    difference = last_number(capsys.readouterr().out)
    assert difference < 1e-3


@pytest.fixture
def little_mnist(tmp_path):
    """Two hundred pictures of each digit: a bar whose place and direction tell it apart."""
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 10
    x = rng.integers(0, 60, size=(1200, 28, 28), dtype=np.uint8)
    for digit in range(5):
        x[y == digit, 4 + 5 * digit : 6 + 5 * digit, :] = 255
        x[y == digit + 5, :, 4 + 5 * digit : 6 + 5 * digit] = 255
    np.savez(tmp_path / "mnist.npz", x_train=x[:1000], y_train=y[:1000], x_test=x[1000:], y_test=y[1000:])
    return tmp_path / "mnist.npz"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("softmax_regression", [], "softmax regression: test accuracy 1.0000"),
        ("mnist", ["--recipe", "mlp"], "mlp: test accuracy 1.0000"),
        ("mnist", ["--recipe", "convnet"], "convnet: test accuracy 1.0000"),
        ("mnist_dense", [], "ratio"),
    ],
)
def test_the_mnist_examples_run(name, arguments, expected, little_mnist, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--data", str(little_mnist)])
    load(name).main()
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert any(line.strip().startswith(f"python examples/{path.name}") for line in lines)


@pytest.mark.slow
def test_the_watched_example_leaves_its_report(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["watching.py", "--epochs", "2", "--out", str(out)])
    load("watching").main()
    assert "All epochs are done: 2 of 2" in (out / "report.html").read_text()
    assert (out / "report.png").stat().st_size > 10_000
    assert f"make tensorboard LOGS={out}" in capsys.readouterr().out


def test_the_preflight_example_names_both_faults(capsys):
    report = load("preflight").main()
    assert [f.check for f in report.findings if f.severity == "error"][:2] == [
        "ignores-input",
        "learning-rate-low",
    ]
    assert "98% of the 48 numbers of x" in capsys.readouterr().out.replace("\n", " ")
