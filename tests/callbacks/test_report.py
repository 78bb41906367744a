import contextlib
import copy
import html
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import image
from shared import blank_pictures, reused

from keras_practice.callbacks.report import LiveReport
from keras_practice.rendering.figures import Line, Panel

NASTY = "<script>alert(1)</script> \"quoted\" 'single' & co"
NONE = "\u2013"
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(autouse=True)
def _without_pictures(request):
    """Few tests look at the picture; the charts in the page are drawn."""
    with contextlib.nullcontext() if "picture" in request.node.name else blank_pictures("png"):
        yield


class Page(HTMLParser):
    """What a page says, by tag, and whether its tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.attributes, self._open, self.words = text, [], [], [], {}
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, words):
        for tag in dict.fromkeys(self._open if "svg" not in self._open else ["svg"]):
            self.words[tag] = self.words.get(tag, "") + words

    def said(self, tag="main"):
        return " ".join(self.words.get(tag, "").split())

    @property
    def svgs(self):
        return re.findall(r"<svg.*?</svg>", self.text, flags=re.DOTALL)

    @property
    def charts(self):
        return [attributes["aria-label"] for tag, attributes in self.attributes if tag == "svg"]

    @property
    def reloads(self):
        return any(attributes.get("http-equiv") == "refresh" for _, attributes in self.attributes)

    def rows(self):
        """Cells of every table row."""
        rows = re.findall(r"<tr>(.*?)</tr>", self.text, flags=re.DOTALL)
        return [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row)] for row in rows
        ]


def build(name="small", loss="mse", optimizer=None, **options):
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(1, name="out")],
        name=name,
    )
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, **{"metrics": ["mae"], **options})
    return model


small_model = reused(build)


def drive(report, logs, epochs=None, model=None, beside=(), end=True):
    """Calls the hooks of a list of callbacks with one dictionary of logs an epoch."""
    model = model or small_model()
    callbacks = keras.callbacks.CallbackList(
        [*beside, report], model=model, epochs=len(logs) if epochs is None else epochs, steps=4
    )
    callbacks.on_train_begin()
    for epoch, values in enumerate(logs):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, dict(values))
    if end:
        callbacks.on_train_end()
    return Page((report.path / "report.html").read_text(encoding="utf-8"))


LOGS = [
    {"accuracy": 0.5, "loss": 1.0, "val_accuracy": 0.4, "val_loss": 1.25, "val_f1": 0.3, "val_auc": 0.6},
    {"accuracy": 0.7, "loss": 0.5, "val_accuracy": 0.6, "val_loss": 0.75, "val_f1": 0.5, "val_auc": 0.7},
    {"accuracy": 0.9, "loss": 0.25, "val_accuracy": 0.5, "val_loss": 0.875, "val_f1": 0.4, "val_auc": 0.65},
]


def data(samples=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 2)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def test_each_score_has_one_panel_with_both_sets_and_the_loss_comes_first(tmp_path):
    page = drive(LiveReport(tmp_path), LOGS)
    assert page.charts == ["Loss", "Accuracy", "Validation scores"]
    assert "training" in page.svgs[0]
    assert "validation" in page.svgs[0]
    assert "best" in page.svgs[0]
    assert {"f1", "auc"} <= set(re.findall(r">([^<>]+)</text>", page.svgs[2]))


def test_scores_of_the_validation_set_alone_that_are_no_shares_have_panels_of_their_own(tmp_path):
    logs = [{"loss": 1.0, "val_loss": 1.0, "val_rmse": 3.0, "val_r2": -0.5, "val_recall": 0.5}] * 2
    assert drive(LiveReport(tmp_path), logs).charts == ["Loss", "R2", "Rmse", "Validation scores"]


def test_the_table_has_the_best_and_the_last_epoch(tmp_path):
    page = drive(LiveReport(tmp_path), LOGS)
    rows = [row for row in page.rows() if len(row) == 3 and row[0] in ("loss", "accuracy", "f1")]
    assert rows == [
        ["loss", "0.5", "0.75"],
        ["accuracy", "0.7", "0.6"],
        ["f1", NONE, "0.5"],
        ["loss", "0.25", "0.875"],
        ["accuracy", "0.9", "0.5"],
        ["f1", NONE, "0.4"],
    ]
    assert "Best epoch: 2 (lowest validation loss)" in page.said("h3")
    assert "Last epoch: 3" in page.said("h3")


def test_without_validation_data_it_says_what_cannot_be_seen(tmp_path):
    sentence = "No validation data: overfitting cannot be seen."
    page = drive(LiveReport(tmp_path), [{"loss": 2.0}, {"loss": 1.0}])
    assert sentence in page.said()
    assert "Best epoch: 2 (lowest training loss)" in page.said("h3")
    assert "validation" not in page.svgs[0]
    assert sentence not in drive(LiveReport(tmp_path), LOGS).said()


def test_while_training_it_reloads_and_in_the_end_it_does_not(tmp_path):
    running = drive(LiveReport(tmp_path), LOGS[:2], epochs=9, end=False)
    assert running.reloads
    assert running.said("span") == "running"
    assert "left" in running.said("header")
    assert re.search(r"Last updated at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", running.said("header"))
    finished = drive(LiveReport(tmp_path), LOGS)
    assert not finished.reloads
    assert finished.said("span") == "finished"
    assert "All epochs are done: 3 of 3." in finished.said("header")
    assert "left" not in finished.said("header")


def test_a_run_that_broke_off_leaves_the_last_page(tmp_path):
    page = drive(LiveReport(tmp_path), LOGS[:1], epochs=9, end=False)
    assert "Epoch 1 of 9 is done." in page.said("header")
    assert "broke off" in page.said("header")


def test_early_stopping_is_named(tmp_path):
    stopper = keras.callbacks.EarlyStopping("loss", patience=1)
    logs = [{"loss": loss} for loss in (1.0, 2.0, 3.0)]
    page = drive(LiveReport(tmp_path), logs, epochs=9, beside=[stopper])
    assert "Stopped early by EarlyStopping after epoch 3 of 9." in page.said("header")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_run_says_so(tmp_path, loss):
    page = drive(LiveReport(tmp_path), [{"loss": 1.0}, {"loss": loss}], epochs=9)
    assert "no longer a finite number" in page.said("header")
    assert "Best epoch: 1" in page.said("h3")


def test_no_epoch_at_all(tmp_path):
    model = small_model()
    model.fit(*data(), epochs=0, verbose=0, callbacks=[LiveReport(tmp_path)])
    page = Page((tmp_path / "report.html").read_text())
    assert "No epoch was run." in page.said("header")
    assert not page.reloads
    assert page.svgs == []


class Watcher(keras.callbacks.Callback):
    def __init__(self, title="Watched", notes=()):
        super().__init__()
        self.title, self.given = title, notes

    def on_train_begin(self, logs=None):
        self.notes, self.seen = [], 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen += 1
        self.notes.extend(self.given)

    def panels(self):
        return [Panel(self.title, (Line("layer", np.arange(self.seen), np.ones(self.seen)),), "step")]


@pytest.mark.parametrize("place", ["first", "last"])
def test_other_callbacks_add_panels_and_sentences_wherever_they_stand(tmp_path, place):
    report, watcher = LiveReport(tmp_path), Watcher("Norms", ["Something odd."])
    callbacks = [report, watcher] if place == "first" else [watcher, report]
    for _ in range(2):
        small_model().fit(*data(), epochs=2, verbose=0, callbacks=callbacks)
        page = Page((tmp_path / "report.html").read_text())
        assert page.charts == ["Loss", "Mae", "Norms"]
        assert "Watched by Watcher" in page.said("h2")
        assert page.said("li").count("Something odd.") == 2


def test_nothing_noticed_is_said_only_where_someone_looks(tmp_path):
    assert "Nothing so far" in drive(LiveReport(tmp_path), LOGS, beside=[Watcher()]).said()
    assert "What was noticed" not in drive(LiveReport(tmp_path), LOGS).said()


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_learning_rate_that_another_callback_logs_is_drawn(tmp_path, place):
    report, schedule = LiveReport(tmp_path), keras.callbacks.LearningRateScheduler(lambda epoch: 0.1**epoch)
    callbacks = [schedule, report] if place == "before" else [report, schedule]
    small_model().fit(*data(), epochs=3, verbose=0, callbacks=callbacks)
    page = Page((tmp_path / "report.html").read_text())
    assert "Learning rate" in page.charts
    assert report.history["learning_rate"] == pytest.approx([1.0, 0.1, 0.01])


def test_the_settings_are_with_the_result(tmp_path):
    model = small_model("my_model")
    x, y = data()
    model.fit(x, y, batch_size=6, epochs=2, verbose=0, callbacks=[LiveReport(tmp_path)])
    page = Page((tmp_path / "report.html").read_text())
    settings = {row[0]: row[1] for row in page.rows() if len(row) == 2}
    assert settings["model"] == "my_model"
    assert settings["parameters"] == "13"
    assert settings["loss"] == "mse"
    assert settings["epochs"] == "2"
    assert settings["batches an epoch"] == "4"
    assert settings["class"] == "Adam"
    assert settings["learning rate"] == "0.01"
    assert settings["keras"] == keras.__version__
    assert settings["float type"] == "float32"
    assert ["hidden", "Dense", "9"] in page.rows()
    assert page.said("h1") == page.said("title") == "Training of my_model"


def mean_gap(y_true, y_pred):
    return keras.ops.mean(y_true - y_pred)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mean_squared_error", "mean squared error"),
        (keras.losses.Huber(), "huber loss"),
        (mean_gap, "mean gap"),
        (["mse"], "mse"),
        ({"out": keras.losses.MeanAbsoluteError()}, "out: mean absolute error"),
    ],
)
def test_a_loss_of_any_form_has_a_name(tmp_path, loss, expected):
    page = drive(LiveReport(tmp_path), LOGS, model=compiled(loss))
    assert ["loss", expected] in page.rows()


def compiled(loss):
    return build(loss=loss, optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)))


def test_names_are_text_and_never_markup(tmp_path):
    no_slash = NASTY.replace("/", "|")  # Keras allows none in a layer's name.
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1, name=no_slash)(inputs), name=no_slash)
    model.compile(loss="mse")
    logs = [{"loss": 1.0, NASTY: 0.5, f"val_{NASTY}": 0.25, "val_<b>": 0.5, "val_&": 0.5}] * 2
    watcher = Watcher(NASTY, [NASTY])
    type(watcher).__name__ = "<i>Watcher"
    try:
        page = drive(LiveReport(tmp_path, title=NASTY), logs, model=model, beside=[watcher])
    finally:
        type(watcher).__name__ = "Watcher"
    assert not {"script", "b", "i"} & set(page.tags)
    assert "alert(1)" not in {value for _, attributes in page.attributes for value in attributes}
    assert page.said("h1") == page.said("title") == NASTY
    assert page.said("li").startswith(NASTY)
    assert no_slash in page.said("table")
    assert "<i>Watcher" in page.said("h2")
    assert NASTY in page.charts
    for picture in page.svgs:
        ElementTree.fromstring(picture)


def test_letters_that_no_file_can_hold(tmp_path):
    page = drive(LiveReport(tmp_path, title="a\ud800b 層"), LOGS)
    assert "層" in page.said("h1")


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    page = drive(LiveReport(tmp_path), LOGS, beside=[Watcher()])
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg\")", page.text)
    assert "@import" not in page.text
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", page.text))
    assert not [name for _, attributes in page.attributes for name in attributes if name.startswith("on")]


def test_every_svg_is_well_formed_and_their_ids_do_not_meet(tmp_path):
    page = drive(LiveReport(tmp_path), LOGS, beside=[Watcher()])
    for picture in page.svgs:
        ElementTree.fromstring(picture)
    ids = re.findall(r'\bid="([^"]*)"', page.text)
    assert len(ids) == len(set(ids)) > 0


def test_the_picture_is_a_whole_png_of_1200_pixels(tmp_path):
    drive(LiveReport(tmp_path), LOGS)
    assert image.imread(tmp_path / "report.png").shape[1] == 1200
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.png"]


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Slowly(Watcher):
    """Takes time in every drawing, and in every epoch."""

    def __init__(self, clock, drawing=0.0, epoch=0.0):
        super().__init__()
        self.clock, self.drawing, self.epoch, self.drawn = clock, drawing, epoch, []

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.clock.now += self.epoch

    def panels(self):
        self.drawn.append(self.seen)
        self.clock.now += self.drawing
        return []


def test_drawing_waits_twenty_times_as_long_as_it_took(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    slowly = Slowly(clock, drawing=2.0, epoch=7.0)
    drive(LiveReport(tmp_path), [{"loss": 1.0}] * 20, beside=[slowly])
    assert slowly.drawn == [1, 7, 13, 19, 20]


def test_a_drawing_that_fails_leaves_the_page_before_it_whole(tmp_path, monkeypatch):
    class Broken(Watcher):
        def panels(self):
            return super().panels() if self.seen == 1 else [None]

    Clock(monkeypatch)
    with pytest.raises(AttributeError):
        drive(LiveReport(tmp_path), LOGS, beside=[Broken()])
    assert "Epoch 1 of 3" in Page((tmp_path / "report.html").read_text()).said("header")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.png"]


def test_a_write_that_breaks_off_leaves_the_page_before_it_whole(tmp_path, monkeypatch):
    report = LiveReport(tmp_path)
    before = drive(report, LOGS[:2], epochs=3, end=False)

    def half(path, text, **options):
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError("disk full")

    monkeypatch.setattr(type(tmp_path), "write_text", half)
    with pytest.warns(UserWarning, match="disk full"):
        report.on_train_end()
    assert (tmp_path / "report.html").read_text() == before.text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.png"]


def test_a_quick_drawing_comes_after_every_epoch(tmp_path, monkeypatch):
    slowly = Slowly(Clock(monkeypatch), drawing=0.1, epoch=7.0)
    drive(LiveReport(tmp_path), [{"loss": 1.0}] * 5, beside=[slowly])
    assert slowly.drawn == [1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(3, "12 s elapsed"), (50, "3 min 20 s elapsed"), (2000, "2 h 13 min elapsed")]
)
def test_the_time_so_far_and_the_time_left(tmp_path, monkeypatch, seconds, expected):
    clock = Clock(monkeypatch)
    report = LiveReport(tmp_path)
    page = drive(report, [{"loss": 1.0}] * 4, epochs=8, beside=[Slowly(clock, epoch=seconds)], end=False)
    assert report.seconds == 4 * seconds
    assert expected in page.said("header")
    assert expected.replace("elapsed", "left") in page.said("header")


def test_each_fit_starts_anew(tmp_path):
    report = LiveReport(tmp_path / "deep" / "folder")
    drive(report, LOGS)
    page = drive(report, [{"loss": 2.0}])
    assert report.history == {"loss": [2.0]}
    assert report.epochs == [0]
    assert page.charts == ["Loss"]


def test_epochs_without_a_validation_and_an_epoch_run_again(tmp_path):
    report = LiveReport(tmp_path)
    drive(report, [{"loss": 3.0}, {"loss": 2.0, "val_loss": 2.5}, {"loss": 1.0}])
    np.testing.assert_equal(
        report.history, {"loss": [3.0, 2.0, 1.0], "val_loss": [float("nan"), 2.5, float("nan")]}
    )
    report.on_epoch_begin(2)
    report.on_epoch_end(2, {"loss": 0.5})
    assert report.epochs == [0, 1, 2]
    assert report.history["loss"] == [3.0, 2.0, 0.5]


def test_a_score_of_several_values_is_shown_by_their_mean(tmp_path):
    report = LiveReport(tmp_path)
    drive(report, [{"loss": 1.0, "f1": np.array([0.25, 0.75])}])
    assert report.history["f1"] == [0.5]


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, below):
    (tmp_path / "taken").write_text("mine")
    if not below:
        with pytest.raises(ValueError, match="path must be a folder"):
            LiveReport(tmp_path / "taken")
    else:
        with pytest.raises(OSError, match="can be written to"):
            drive(LiveReport(tmp_path / "taken" / below), LOGS)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_disk_that_fails_later_costs_the_report_and_not_the_training(tmp_path):
    class Vandal(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with pytest.warns(UserWarning, match="could not be written"):
        history = small_model().fit(
            *data(), epochs=2, verbose=0, callbacks=[LiveReport(tmp_path / "run"), Vandal()]
        )
    assert len(history.history["loss"]) == 2


def test_a_tuner_can_copy_it(tmp_path):
    report = copy.deepcopy(LiveReport(tmp_path))
    assert drive(report, LOGS).charts


@pytest.mark.parametrize("way", ["steps_per_execution", "jit_compile", "ends early", "subclass"])
def test_real_fits(tmp_path, way):
    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(6)
    options = {way: 3} if way == "steps_per_execution" else {"jit_compile": way == "jit_compile"}
    model = small_model(**options)
    if way == "subclass":
        model = Subclassed()
        model.compile("sgd", loss="mse")
    report = LiveReport(tmp_path)
    if way == "ends early":
        with pytest.warns(UserWarning, match="ran out of data"):
            model.fit(batches, steps_per_epoch=3, epochs=2, shuffle=False, verbose=0, callbacks=[report])
    else:
        model.fit(batches, validation_data=batches, epochs=2, shuffle=False, verbose=0, callbacks=[report])
    page = Page((tmp_path / "report.html").read_text())
    assert page.said("span") == "finished"
    assert page.charts[0] == "Loss"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(x)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """
const frame = document.querySelector("iframe");
frame.onload = () => {
  const inner = frame.contentDocument, root = inner.documentElement, wide = frame.clientWidth;
  const size = node => {
    const svg = node.closest("svg"), points = parseFloat(getComputedStyle(node).fontSize);
    return svg ? points * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : points;
  };
  const all = [...inner.body.querySelectorAll("*")], svgs = [...inner.querySelectorAll("svg")];
  const box = node => node.getBoundingClientRect();
  const said = all.filter(node => [...node.childNodes].some(part => part.nodeType === 3 && part.data.trim()));
  document.body.dataset.found = JSON.stringify({
    wide: frame.contentWindow.innerWidth,
    scroll: root.scrollWidth,
    outside: all.filter(n => box(n).width && (box(n).right > wide + 1 || box(n).left < -1))
      .map(n => n.tagName),
    svgs: svgs.map(svg => [box(svg).width, box(svg).height]),
    cut: svgs.flatMap(svg => [...svg.querySelectorAll("text")].filter(
      t => box(t).left < box(svg).left - 1 || box(t).right > box(svg).right + 1).map(t => t.textContent)),
    smallest: Math.min(...said.filter(n => box(n).width).map(size)),
    page: frame.contentWindow.getComputedStyle(inner.body).backgroundColor,
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    title: inner.title,
  });
};
"""


def measured(page, width, folder):
    """What headless Chromium makes of a page in a frame of that width, which a window may not have."""
    wrapper = folder / "wrapper.html"
    quoted = json.dumps(page).replace("</", "<\\/")
    wrapper.write_text(
        f'<!DOCTYPE html><body><iframe style="border:0;width:{width}px;height:3000px"></iframe>'
        f"<script>{MEASURE} frame.srcdoc = {quoted};</script>",
        encoding="utf-8",
    )
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=3000 --window-size=1400,3200 "
        "--dump-dom"
    )
    done = subprocess.run(
        [BROWSER, *flags.split(), f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("names", ["plain", "long"])
@pytest.mark.slow
def test_in_a_browser_nothing_overflows_and_all_can_be_read(tmp_path, width, names):
    long = "a_very_long_name_without_any_space_in_it_" * 4
    logs = [values | ({f"val_{long}": 0.5, long: 0.4} if names == "long" else {}) for values in LOGS]
    watcher = Watcher(long, [long]) if names == "long" else Watcher()
    page = drive(LiveReport(tmp_path, title=long if names == "long" else ""), logs, beside=[watcher])
    found = measured(page.text.replace("<details", "<details open"), width, tmp_path)
    assert found["wide"] == width
    assert found["scroll"] <= width
    assert found["outside"] == []
    assert len(found["svgs"]) == len(page.charts)
    assert all(wide > 250 and high > 150 for wide, high in found["svgs"])
    assert found["cut"] == []
    assert found["smallest"] >= 10.5
    assert found["loaded"] == []
    assert found["title"] == page.said("title")
