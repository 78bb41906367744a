import html.parser
import itertools
import json
import re
import xml.etree.ElementTree

import keras_tuner
import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util

from keras_practice.callbacks.environment import environment
from keras_practice.tuning.records import Training, TrialRow
from keras_practice.tuning.reports import charts
from keras_practice.tuning.reports.figures import search_figure
from keras_practice.tuning.reports.importance import _ranks, edges, importances, noise
from keras_practice.tuning.reports.page import Report, write_report
from keras_practice.tuning.search import hparams
from keras_practice.tuning.space.dimensions import Dimension, dimensions_of

UP = keras_tuner.Objective("val_f1", "max")
RATE = Dimension("learning_rate", "log", 1e-5, 1e-1)
DROPOUT = Dimension("dropout", "linear", 0.0, 0.6)
UNITS = Dimension("units", "choice", values=("128-64", "64", "64-32"))
SIZE = Dimension("batch_size", "choice", values=(16, 32, 64, 128))
NORM = Dimension("batch_norm", "choice", values=(True, False))
AXES = (RATE, DROPOUT, UNITS, SIZE, NORM)


def trial(number, values, score, *, status="COMPLETED", reason="", scores=(), seed=0):
    """A trial whose trainings, one a fold, gave these scores."""
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    epochs = np.arange(1, 7)
    history = {
        "val_f1": [float(score or 0) * (1 - 0.6**epoch) for epoch in epochs],
        "val_loss": [float(0.9**epoch) for epoch in epochs],
        "loss": [float(0.8**epoch) for epoch in epochs],
    }
    return TrialRow(
        trial=f"{number:02d}",
        seed=seed,
        status=status,
        hyperparameters=values,
        score=score,
        scores={} if score is None else {"val_f1": score, "val_loss": 1 - score, "val_accuracy": score},
        deviations={} if spread is None else {"val_f1": spread, "val_loss": spread, "val_accuracy": spread},
        best_epoch=6,
        seconds=1.5,
        reason=reason,
        trainings=tuple(Training(fold, 1, seed, one, history) for fold, one in enumerate(scores, start=1)),
    )


def searched(count, seed=0, folds=1, noise_level=0.02):
    """Trials whose score follows from the learning rate and, less so, from dropout; the rest is noise."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        values = {
            "learning_rate": float(10 ** rng.uniform(-5, -1)),
            "dropout": float(rng.uniform(0, 0.6)),
            "units": str(rng.choice(UNITS.values)),
            "batch_size": int(rng.choice(SIZE.values)),
            "batch_norm": bool(rng.random() < 0.5),
        }
        place = RATE.place(values["learning_rate"])
        true = 0.95 - 0.8 * (place - 0.6) ** 2 - 0.25 * values["dropout"]
        scores = true + rng.normal(0, noise_level, folds)
        if number % 13 == 5:
            rows.append(
                trial(number, values, None, status="FAILED", reason="diverged: the loss was not finite")
            )
        elif number % 11 == 7:
            rows.append(
                trial(number, values, float(scores[0]), status="PRUNED", reason="pruned after epoch 2")
            )
        else:
            rows.append(trial(number, values, float(scores.mean()), scores=list(map(float, scores))))
    return sorted(rows, key=lambda row: (row.score is None, row.status == "PRUNED", -(row.score or 0)))


def report(rows, axes=AXES, objective=UP, title="Search: mlp on digits"):
    ok = rows[0].score is not None
    best = {
        "hyperparameters": rows[0].hyperparameters,
        "fixed": {"optimizer": "adam"},
        "validation": {"val_f1": rows[0].score, "val_loss": 0.1},
        "test": {"f1": 0.9, "accuracy": 0.91},
    }
    facts = environment()
    return Report(
        title,
        "Random search over everything.",
        rows,
        axes,
        objective,
        best if ok else None,
        {"data": "digits", "epochs": 6, "objective": None, "set": []},
        {**facts.pop("versions"), **facts},
    )


class Page(html.parser.HTMLParser):
    """What a page loads, runs and says; tags that are not closed in order are an error."""

    VOID = frozenset(("meta", "br", "img", "input", "link", "progress"))

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words, self.addresses = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        self.words.append(words)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(report(searched(40)), path)
    return path.read_text()


def test_the_page_stands_alone(text):
    page = Page(text)
    assert "script" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    assert "http" not in re.sub(r'xmlns="http://www.w3.org/2000/svg"', "", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert len(text) < 300_000


def test_the_page_has_every_part_and_every_trial(text):
    page, rows = Page(text), searched(40)
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "The best",
        "What to make of it",
        "All trials",
        "What mattered",
        "val_f1 against each hyperparameter",
        "Curves of the best trials",
        "Trials",
        "What to do next",
        "How it was made",
    ]
    said = " ".join(page.words)
    for row in rows:
        assert said.count(f"Trial {row.trial}: ") == 2 + len(AXES)  # Twice in parallel, once a scatter.
    assert len(re.findall(r"<tr[^>]*><td>\d+</td>", text)) == 40
    assert "3 failed" in said or "3 failed" in said.replace("  ", " ")
    assert "diverged: the loss was not finite" in said
    assert environment()["versions"]["keras"] in said


def test_every_drawing_is_sound_xml(text):
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 2 + 1 + len(AXES) + 3
    for drawing in drawings:
        root = xml.etree.ElementTree.fromstring(drawing)
        width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
        for element in root.iter():
            for name, most in (("x", width), ("cx", width), ("x1", width), ("y", height), ("cy", height)):
                if name in element.attrib and "transform" not in element.attrib:
                    assert -1 <= float(element.attrib[name]) <= most + 1, (element.tag, element.attrib)


def test_strings_of_the_user_are_escaped(tmp_path):
    evil = "<script>alert('x')</script>\x07&"
    rows = searched(12)
    values = [{**row.hyperparameters, "units": evil} for row in rows]
    rows = [
        trial(n, v, r.score, status=r.status, reason=evil)
        for n, (v, r) in enumerate(zip(values, rows, strict=True))
    ]
    odd = Dimension("units", "choice", values=(evil, "64"))
    write_report(report(rows, (RATE, odd), title=evil), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    Page(text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        xml.etree.ElementTree.fromstring(drawing)


def test_a_search_of_which_nothing_is_left_has_a_page(tmp_path):
    rows = [trial(n, {"learning_rate": 0.01}, None, status="FAILED", reason="no memory") for n in range(3)]
    write_report(report(rows, (RATE,)), tmp_path / "report.html")
    said = " ".join(Page((tmp_path / "report.html").read_text()).words)
    assert "3 times: no memory" in said
    one = [trial(0, {}, 0.5)]
    write_report(report(one, ()), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<h2>All trials</h2>" not in text
    assert "<h2>Trials</h2>" in text


def test_what_mattered_is_found_and_agrees_with_scikit_learn():
    several = [importances(searched(60, seed=seed), AXES, UP) for seed in range(3)]
    found = several[1]
    assert found.of[0].name == "learning_rate"
    values = {
        axis.name: np.mean([one.value for each in several for one in each.of if one.name == axis.name])
        for axis in AXES
    }
    assert {one.name for each in several for one in each.of[:2]} == {"learning_rate", "dropout"}
    assert found.explained > 0.5
    assert "fairly sure" in found.sureness
    # The reference: permutation importance in one forest, trained on hundreds of other trials.
    many = [row for row in searched(600, seed=9) if row.score is not None]
    x = np.array([[axis.place(row.hyperparameters[axis.name]) for axis in AXES] for row in many])
    y = np.argsort(np.argsort([row.score for row in many]))
    forest = RandomForestRegressor(20, random_state=0).fit(x[:300], y[:300])
    reference = permutation_importance(forest, x[300:], y[300:], random_state=0).importances_mean / 2
    for axis, share in zip(AXES, reference, strict=True):
        assert values[axis.name] == pytest.approx(share, abs=0.12), axis.name


def test_noise_is_not_taken_for_importance():
    rng = np.random.default_rng(0)
    rows = [
        trial(
            n, {"learning_rate": float(10 ** rng.uniform(-5, -1)), "dropout": float(rng.uniform(0, 0.6))}, s
        )
        for n, s in enumerate(rng.random(20))
    ]
    found = importances(rows, (RATE, DROPOUT), UP)
    assert "do not trust" in found.sureness
    assert found.explained < 0.1
    few = importances(rows[:5], (RATE, DROPOUT), UP)
    assert few.of == ()
    assert "5 trials are too few" in few.sureness


@pytest.mark.parametrize("direction", ["max", "min"])
def test_failed_trials_rank_last(direction):
    rows = [trial(0, {}, 0.9), trial(1, {}, None, status="FAILED"), trial(2, {}, 0.1)]
    ranks = _ranks(rows, keras_tuner.Objective("val_f1", direction))
    assert list(ranks) == ([3, 1, 2] if direction == "max" else [2, 1, 3])


def test_failed_trials_count_as_the_worst():
    rates = np.geomspace(1e-5, 1e-1, 30)
    rows = [
        trial(
            n,
            {"learning_rate": float(rate), "dropout": float(n % 7) / 12},
            None if rate > 1e-3 else 0.9 - 1e-3 * (n % 5),
            status="FAILED" if rate > 1e-3 else "COMPLETED",
        )
        for n, rate in enumerate(rates)
    ]
    found = importances(rows, (RATE, DROPOUT), UP)
    assert found.of[0].name == "learning_rate"
    assert found.of[0].value > 0.3


@pytest.mark.parametrize(
    ("axis", "value", "sentence"),
    [
        (
            RATE,
            0.09,
            "learning rate, 0.09, lies at the upper end of what was searched, 1e-5 to 0.1: search above 0.1",
        ),
        (RATE, 1.1e-5, "lies at the lower end"),
        (RATE, 1e-3, None),
        (DROPOUT, 0.0, None),  # There is nothing below.
        (DROPOUT, 0.59, "upper end"),
        (SIZE, 128, "upper end"),
        (SIZE, 64, None),
        (UNITS, "64", None),
        (NORM, True, None),
        (Dimension("pieces", "choice", values=(2, 3)), 3, None),
    ],
)
def test_a_best_value_at_the_end_of_its_range_is_told(axis, value, sentence):
    told = edges(trial(0, {axis.name: value}, 0.9), [axis])
    assert len(told) == (sentence is not None)
    if sentence:
        assert sentence in told[0]


def test_the_noise_of_seeds_is_told_where_it_is_known():
    once = searched(5)
    assert "unknown, since each trial was trained once" in noise(once, UP)
    rng = np.random.default_rng(0)

    def with_repeats(number, mean):
        row = trial(number, {}, mean, scores=[mean] * 4)
        trainings = [
            Training(f, r, 0, float(mean + rng.normal(0, 0.01)), {}) for f in (1, 2) for r in (1, 2, 3, 4)
        ]
        return TrialRow(**{**row.__dict__, "trainings": tuple(trainings)})

    clear = noise([with_repeats(0, 0.9), with_repeats(1, 0.7)], UP)
    spread = float(re.search(r"standard deviation of ([\d.]+)\. ", clear)[1])
    assert spread == pytest.approx(0.01, rel=0.5)
    assert "leads by 0.2, more than chance explains in 8 trainings each" in clear
    close = noise([with_repeats(0, 0.9), with_repeats(1, 0.8995), with_repeats(2, 0.5)], UP)
    assert "cannot be told from one other trial (01)" in close


def test_folds_are_compared_in_pairs():
    """Each fold shifts all trials alike, by far more than the trials differ."""
    shifts = np.linspace(-0.3, 0.3, 5)
    rows = [
        trial(n, {}, 0.7 - 0.02 * n, scores=list(0.7 - 0.02 * n + shifts + 1e-4 * np.cos(np.arange(5) + n)))
        for n in range(3)
    ]
    assert "more than chance explains" in noise(rows, UP)


def test_labels_on_a_narrow_axis_do_not_run_into_each_other():
    widths = ("128-64", "64", "64-32", "256-128", "256-128-64", "512-256")
    long, short = (
        Dimension("units", "choice", values=widths),
        Dimension("batch_size", "choice", values=(16, 32, 64, 128)),
    )
    rows = [trial(n, {"units": width, "batch_size": 32}, 0.5 + n / 10) for n, width in enumerate(widths)]
    for axis in (long, short, RATE, DROPOUT):
        shown = charts._laid(axis, 300)
        for first, second in itertools.pairwise(shown):
            if first[2] == second[2]:
                assert 300 * (second[0] - first[0]) >= 6.4 * max(len(first[1]), len(second[1]))
    assert [row for _, _, row in charts._laid(long, 300)] == [0, 1, 0, 1, 0, 1]
    assert [row for _, _, row in charts._laid(short, 300)] == [0] * 4
    many = Dimension("units", "choice", values=tuple(f"{n}-{n}-{n}" for n in range(100, 130)))
    assert len(charts._laid(many, 300)) < 9
    for drawing in (charts.parallel(rows, (long, short), UP, upright=False), charts.scatter(rows, long, UP)):
        for width in widths:
            assert f">{width}</text>" in drawing


def test_an_exploded_loss_gets_a_logarithmic_axis():
    down = keras_tuner.Objective("val_loss", "min")
    rows = [trial(n, {}, score) for n, score in enumerate((0.1, 3.0, 1e4))]
    assert charts.score_axis(rows, down).kind == "log"
    assert charts.score_axis(rows[:2], down).kind == "linear"
    assert charts.score_axis(rows[:1], down).low < 0.1 < charts.score_axis(rows[:1], down).high


@pytest.mark.parametrize("axis", [RATE, DROPOUT, UNITS, NORM, None])
def test_the_picture_takes_any_hyperparameter(axis, tmp_path):
    rows = searched(20, folds=3)
    figure = search_figure(rows, UP, "a $title$", axis)
    axes = figure.axes[0]
    assert axes.get_xlabel().startswith("trial" if axis is None else axis.name.replace("_", " "))
    assert axes.get_xscale() == ("log" if axis is RATE else "linear")
    figure.savefig(tmp_path / "search.png")


def test_tensorboard_has_the_hyperparameters_and_the_best_scores(tmp_path):
    hp = keras_tuner.HyperParameters()
    rate = hp.Float("learning_rate", 1e-5, 1e-1, sampling="log")
    hp.Choice("units", ["64", "32"])
    hp.Int("pieces", 2, 5)
    hp.Boolean("batch_norm")
    hparams.write_experiment(tmp_path, hp.space, UP)
    hparams.write_experiment(tmp_path, hp.space, UP)  # As a resumed search does.
    assert len(list(tmp_path.glob("events*"))) == 1
    hparams.write_trial(
        tmp_path / "0", {**hp.values, "tuner/epochs": 3}, {"val_f1": 0.75, "seconds": 2.0}, "0"
    )

    def plugin(folder):
        events = event_accumulator.EventAccumulator(str(folder)).Reload()
        content = events.summary_metadata
        return events, content

    events, content = plugin(tmp_path)
    experiment = metadata.parse_experiment_plugin_data(content["_hparams_/experiment"].plugin_data.content)
    assert [info.name for info in experiment.hparam_infos] == [
        "learning_rate",
        "units",
        "pieces",
        "batch_norm",
    ]
    assert experiment.hparam_infos[0].domain_interval.max_value == pytest.approx(0.1)
    assert experiment.metric_infos[0].name.tag == "best/val_f1"
    events, content = plugin(tmp_path / "0")
    session = metadata.parse_session_start_info_plugin_data(
        content["_hparams_/session_start_info"].plugin_data.content
    )
    assert session.hparams["learning_rate"].number_value == pytest.approx(rate)
    assert set(session.hparams) == {"learning_rate", "units", "pieces", "batch_norm"}
    scalar = events.Tensors("best/val_f1")[0]
    assert float(tensor_util.make_ndarray(scalar.tensor_proto)) == pytest.approx(0.75)


def test_axes_hold_the_values_of_all_conditions():
    hp = keras_tuner.HyperParameters()
    hp.Choice("kind", ["a", "b", "c"])
    for kind, width, rate in (("a", 4, 1e-3), ("b", 16, 1e-1)):
        with hp.conditional_scope("kind", [kind]):
            hp.Choice("width", [width, 8])
            hp.Float("rate", rate / 10, rate, sampling="log")
    with hp.conditional_scope("kind", ["a"]):
        hp.Float("mixed", 0, 1)
    with hp.conditional_scope("kind", ["b"]):
        hp.Choice("mixed", [2, 3])
    kind, width, rate = dimensions_of(hp.space)
    assert (kind.name, width.values) == ("kind", (4, 8, 16))
    assert (rate.kind, rate.low, rate.high) == ("log", pytest.approx(1e-4), pytest.approx(0.1))


def test_trials_without_a_conditional_hyperparameter_are_shown_all_the_same(tmp_path):
    rows = searched(12)
    rows = [rows[0], *(TrialRow(**{**row.__dict__, "hyperparameters": {"dropout": 0.3}}) for row in rows[1:])]
    write_report(report(rows), tmp_path / "report.html")
    Page((tmp_path / "report.html").read_text())


def test_axes_follow_from_a_search(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Float("learning_rate", 1e-5, 1e-1, sampling="log")
    hp.Boolean("batch_norm")
    hp.Fixed("l2", 0.1)
    assert dimensions_of(hp.space) == (RATE, Dimension("batch_norm", "choice", values=(False, True)))
    assert json.dumps([axis.name for axis in dimensions_of(hp.space)])
