import json
import random
import subprocess
import sys
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice import checks, data, recipes
from keras_practice.checks.__main__ import main
from keras_practice.checks.findings import Finding
from keras_practice.checks.preflight import in_order

DIGITS = data.load("digits")
X, Y = DIGITS.train.x[:400], DIGITS.train.y[:400]


def net(loss="sparse_categorical_crossentropy", last="softmax", units=10, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.2, name="drop"),
            keras.layers.Dense(units, activation=last, name="head"),
        ]
    )
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def errors(report):
    return [finding.check for finding in report.findings if finding.severity == "error"]


def test_a_sound_model_passes():
    report = checks.preflight(net(), X, Y, budget_s=10)
    assert report.passed, str(report)
    assert report.figures["samples"] == 400
    report.raise_if_failed()


@pytest.mark.parametrize("run", [False, True])
def test_nothing_is_changed(run):
    model = net()
    model.fit(X, Y, epochs=1, verbose=0)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [np.array(variable.numpy()) for variable in variables]
    own = dict(vars(model))
    random.seed(1)
    np.random.seed(1)
    python, legacy = random.getstate(), np.random.get_state()[1].tolist()
    trainable = [layer.trainable for layer in model.layers]
    checks.preflight(model, X, Y, run=run, budget_s=5)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
    assert [layer.trainable for layer in model.layers] == trainable
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == legacy
    assert set(vars(model)) == set(own)
    assert model.train_step == type(model).train_step.__get__(model)


def test_training_goes_on_as_if_it_had_not_been_there():
    weights = []
    for looked in (False, True):
        model = net()
        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(400, seed=2).batch(32)
        if looked:
            checks.preflight(model, dataset, run=True, budget_s=5)
        model.fit(dataset, epochs=2, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_that_is_not_built_is_built():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    assert checks.preflight(model, X, Y, run=False).passed
    assert model.built


class Numbers(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        rows = slice(40 * index, 40 * index + 40)
        return X[rows], Y[rows]


@pytest.mark.parametrize(
    "data_set",
    [tf.data.Dataset.from_tensor_slices((X, Y)).batch(40), Numbers()],
    ids=["tf.data", "PyDataset"],
)
def test_data_sets_are_looked_at_like_arrays(data_set):
    assert checks.preflight(net(), data_set, run=False).passed
    wrong = checks.preflight(net(units=5), data_set, run=False)
    assert "label-range" in errors(wrong) or "output-units" in errors(wrong)


def test_a_symptom_stands_below_its_cause():
    found = [
        Finding(name, severity, "w", "e", "c", "f", "s")
        for name, severity in (
            ("loss-stuck", "error"),
            ("input-scale", "warning"),
            ("vanishing-gradient", "error"),
            ("initial-weights", "error"),
            ("output-loss", "error"),
        )
    ]
    names = [finding.check for finding in in_order([*found, found[0]])]
    assert names == ["output-loss", "initial-weights", "vanishing-gradient", "loss-stuck", "input-scale"]


def finding(where, severity="warning", check="dropout-rate"):
    return Finding(check, severity, where, f"seen in {where}.", "c", "f", "s")


def test_one_fault_in_many_layers_is_one_finding():
    (joined,) = in_order([finding(f"layer{i}") for i in range(5)])
    assert joined.where == "layer0, layer1, layer2 and 2 more"
    assert "In layer0: seen in layer0." in joined.evidence
    assert len(in_order([finding("a"), finding("b")])) == 2
    assert len(in_order([finding("a"), finding("b"), finding("c", check="capacity")])) == 3


def test_of_one_fault_the_gravest_finding_stands():
    for found in ([finding("a"), finding("a", "error")], [finding("a", "error"), finding("a")]):
        assert [(f.where, f.severity) for f in in_order(found)] == [("a", "error")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 1.0}, r"validation_split must be in \[0, 1\). Got 1.0"),
        ({"batch_size": 0}, "batch_size must be a positive integer. Got 0"),
        ({"batch_size": True}, "batch_size must be a positive integer. Got True"),
        ({"budget_s": 0}, "budget_s must be a positive number of seconds. Got 0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        checks.preflight(net(), X, Y, **options)


def test_a_model_that_is_not_compiled_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="must be compiled"):
        checks.preflight(model, np.ones((4, 2)), np.ones((4, 1)))


# The report.


def report_of(*findings):
    return checks.Report(tuple(findings), {"seconds": 1.25})


ERROR = Finding(
    "output-loss", "error", "head <b>", "seen 1, expected 0.", "a cause.", "do this.", "A16; Bridle 1990"
)


def test_the_table_holds_every_word():
    text = str(report_of(ERROR))
    for word in ("1 error", "output-loss", "head <b>", "Seen 1, expected 0.", "a cause.", "do this.", "A16"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_dictionary_is_json():
    report = report_of(ERROR)
    assert json.loads(json.dumps(report.to_dict())) == {
        "passed": False,
        "unlooked": [],
        "findings": [
            {
                "check": "output-loss",
                "severity": "error",
                "where": "head <b>",
                "evidence": "seen 1, expected 0.",
                "cause": "a cause.",
                "fix": "do this.",
                "source": "A16; Bridle 1990",
            }
        ],
        "figures": {"seconds": 1.25},
    }


def test_the_page_is_whole_and_escapes_what_is_the_users():
    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.words = [], ""

        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "img", "link", "b")
            if tag not in ("meta", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, text):
            self.words += text

    reader = Reader()
    reader.feed(report_of(ERROR).html("My <net>"))
    assert reader.open == []
    for word in ("My <net>", "not passed", "head <b>", "Seen 1, expected 0.", "do this.", "seconds"):
        assert word in reader.words
    assert "passed" in report_of().html()


# The command.


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "keras_practice.checks", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    recipes.compile_for(recipes.mlp(X.shape[1:], DIGITS.task), DIGITS.task).save(folder / "good.keras")
    net(last=None).save(folder / "wrong.keras")
    np.savez(folder / "digits.npz", x=X, y=Y)
    np.savez(folder / "other.npz", a=X)
    return folder


@pytest.mark.slow
def test_the_command_tells_by_its_exit_code(files, capsys):
    good = run(files / "good.keras", files / "digits.npz", "--budget", 5)
    assert (good.returncode, good.stderr) == (0, ""), good.stdout + good.stderr
    page, facts = files / "report.html", files / "report.json"
    wrong = [files / "wrong.keras", files / "digits.npz", "--no-run", "--html", page, "--json", facts]
    capsys.readouterr()
    assert main(list(map(str, wrong))) == 1
    told = capsys.readouterr()
    assert told.err == ""
    assert "output-loss" in told.out
    assert "output-loss" in page.read_text()
    assert json.loads(facts.read_text())["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.keras", "digits.npz"), "The model file must exist."),
        (("good.keras", "nowhere.npz"), "The data file must exist."),
        (("good.keras", "other.npz"), "must hold arrays x and y. Got a."),
        (("digits.npz", "digits.npz"), ""),
        (("good.keras", "digits.npz", "--batch-size", "0"), "batch_size must be a positive integer. Got 0."),
        (("good.keras", "digits.npz", "--batch-size", "x"), "invalid int value"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(files, arguments, message, capsys):
    paths = [str(files / part) if part.endswith((".keras", ".npz")) else part for part in arguments]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(paths)
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert message in told.err
    assert len(told.err.splitlines()) == 1
