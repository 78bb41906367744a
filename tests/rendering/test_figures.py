import io
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from keras_practice.rendering.figures import Line, Panel, figure, save, svg

EPOCHS = np.arange(1, 9)
FALLING = 2.0 / EPOCHS
NASTY = "<script>alert(1)</script> \"quoted\" 'single' & $x^2$ _under"


def both(title="Loss", **options):
    return Panel(
        title, (Line("training", EPOCHS, FALLING), Line("validation", EPOCHS, FALLING + 0.1)), **options
    )


def layers(count, points=8):
    x = np.arange(points)
    return Panel(
        "Layers", tuple(Line(f"layer{i}", x, np.full(points, 10.0**-i)) for i in range(count)), log=True
    )


def parsed(picture):
    return ElementTree.fromstring(picture)


def texts(picture):
    return ["".join(node.itertext()) for node in parsed(picture).iter() if node.tag.endswith("}text")]


def drawn_lines(panel):
    whole = figure([panel])
    return whole.subfigs[1].axes[0].get_lines()


HARMLESS = {
    "no lines": Panel("p", ()),
    "no points": Panel("p", (Line("a", [], []),)),
    "all NaN": Panel("p", (Line("training", EPOCHS, np.full(8, np.nan)),), log=True),
    "infinite": Panel("p", (Line("a", [1, 2, 3], [np.inf, -np.inf, 1e300]),)),
    "one point": Panel("p", (Line("training", [1], [0.5]),)),
    "constant": Panel("p", (Line("a", EPOCHS, np.ones(8)),), log=True),
    "log of zero and below": Panel("p", (Line("a", [1, 2, 3, 4], [0, -1, 1e-3, 10]),), log=True),
    "log of nothing positive": Panel("p", (Line("a", [1, 2], [0, -1]),), log=True),
    "band down to zero": Panel("p", (Line("a", EPOCHS, FALLING),), log=True, healthy=(0.0, 0.01)),
    "x not finite": Panel("p", (Line("a", [1, np.nan, 3], [1, 2, 3]),)),
    "letters without a glyph": Panel("層 😀", (Line("層", EPOCHS, FALLING), Line("b", EPOCHS, FALLING))),
    "letters without a place in XML": Panel(
        "a\x00\x1b\ud800b", (Line("c\x01", EPOCHS, FALLING),), note="\x02"
    ),
    "nasty": Panel(
        NASTY, (Line(NASTY, EPOCHS, FALLING), Line("b", EPOCHS, FALLING)), NASTY, NASTY, note=NASTY
    ),
    "hundred layers": layers(100),
}


@pytest.mark.parametrize("panel", HARMLESS.values(), ids=HARMLESS)
def test_whatever_there_is_to_draw_both_pictures_are_drawn(panel):
    parsed(svg(panel))
    written = io.BytesIO()
    save(figure([panel], panel.title), written)
    written.seek(0)
    assert image.imread(written).shape[1] == 600


def test_an_svg_is_as_wide_as_its_place_and_names_itself():
    root = parsed(svg(both("Loss & more")))
    assert root.get("width") == "100%"
    assert root.get("height") is None
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Loss & more"


def test_text_stays_text_and_is_never_markup():
    picture = svg(Panel(NASTY, (Line(NASTY, EPOCHS, FALLING), Line("b", EPOCHS, FALLING)), note=NASTY))
    assert "<script" not in picture
    assert any("<script>" in text for text in texts(picture))
    assert any("$x" in text or "'single'" in text for text in texts(picture))


def test_an_svg_loads_nothing_and_styles_nothing_around_it():
    picture = svg(both(healthy=(0.1, 0.2), note="note"))
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", picture)
    assert "<style" not in picture
    assert "<metadata" not in picture
    assert all(reference.startswith("#") for reference in re.findall(r'href="([^"]*)"', picture))


def test_the_same_panel_gives_the_same_svg():
    assert svg(both()) == svg(both())


def test_ids_are_their_own_and_every_reference_is_met():
    pictures = [svg(both("one")), svg(both("two")), svg(layers(3)), svg(HARMLESS["one point"])]
    seen = set()
    for picture in pictures:
        ids = re.findall(r'\bid="([^"]*)"', picture)
        assert len(ids) == len(set(ids))
        assert not seen & set(ids)
        seen |= set(ids)
        references = re.findall(r'(?:url\(|href=")#([^")]*)', picture)
        assert references
        assert set(references) == set(ids)


def test_colours_of_text_and_grid_are_the_pages():
    picture = svg(both())
    for variable in ("--ink", "--soft", "--grid"):
        assert f"var({variable}, #" in picture


def test_training_and_validation_have_the_same_colours_everywhere():
    loss = [line.get_color() for line in drawn_lines(both())]
    alone = [line.get_color() for line in drawn_lines(Panel("a", (Line("validation", EPOCHS, FALLING),)))]
    assert loss[0] != loss[1]
    assert alone == [loss[1]]


def test_layers_run_along_a_ramp_and_unrelated_lines_differ():
    assert len({line.get_color() for line in drawn_lines(layers(30))}) == 30
    scores = Panel("s", tuple(Line(f"s{i}", EPOCHS, FALLING) for i in range(6)), ordered=False)
    assert len({line.get_color() for line in drawn_lines(scores)}) == 6


def test_a_legend_of_many_layers_names_the_first_and_the_last():
    shown = texts(svg(layers(40)))
    assert [text for text in shown if "layer" in text] == ["layer0 (first)", "layer39 (last)"]
    assert sum("layer" in text for text in texts(svg(layers(5)))) == 5


def test_a_reference_keeps_its_place_in_a_long_legend():
    panel = Panel("p", (*layers(20).lines, Line("all", EPOCHS, FALLING, "dashed")))
    assert "all" in texts(svg(panel))


def test_labels_that_matplotlib_would_hide_are_shown():
    panel = Panel("p", (Line("_hidden", EPOCHS, FALLING), Line(r"$\bad{$", EPOCHS, FALLING)))
    assert {"_hidden", r"$\bad{$"} <= set(texts(svg(panel)))


def test_a_single_value_between_gaps_is_a_dot():
    y = np.array([1.0, np.nan, 2.0, np.nan, 1.0, 1.0])
    assert svg(Panel("p", (Line("a", np.arange(6), y),))).count("<use ") == 2
    assert svg(Panel("p", (Line("a", np.arange(6), np.ones(6)),))).count("<use ") == 0


def test_a_logarithmic_axis_only_where_it_has_ticks():
    assert drawn_lines(Panel("p", (Line("a", [1, 2], [1e-3, 1.0]),), log=True))[0].axes.get_yscale() == "log"
    for values in ([1.0, 2.0], [0.0, -1.0]):
        panel = Panel("p", (Line("a", [1, 2], values),), log=True)
        assert drawn_lines(panel)[0].axes.get_yscale() == "linear"


@pytest.mark.parametrize(
    "values", [(1e-12, 1.0), (1e-3, 2e-2), (0.0, 1e-6), (0.6931471, 0.6931478), (1e9, 2e9)]
)
def test_numbers_at_the_vertical_axis_differ_and_fit(values):
    panel = Panel("p", (Line("a", [1, 2], values),), log=True, x_label="", y_label="y")
    root = parsed(svg(panel))
    labels = [
        (node.text, float(node.get("x")))
        for node in root.iter("{http://www.w3.org/2000/svg}text")
        if "text-anchor: end" in node.get("style", "")
    ]
    assert 2 <= len({label for label, _ in labels}) == len(labels)
    assert all(right - 6.5 * len(label) > 0 for label, right in labels)


def test_epochs_are_whole_numbers():
    (line,) = drawn_lines(Panel("p", (Line("training", [1, 2], [1.0, 2.0]),)))
    assert all(tick == round(tick) for tick in line.axes.get_xticks())


def test_thousands_of_points_stay_small_and_keep_their_extremes():
    y = np.random.default_rng(0).normal(size=50_000)
    y[12_345], y[23_456] = 40.0, -40.0
    panel = Panel("p", (Line("a", np.arange(50_000), y),))
    (line,) = drawn_lines(panel)
    drawn = line.get_ydata()
    assert (drawn.max(), drawn.min()) == (40.0, -40.0)
    assert (drawn[0], drawn[-1]) == (y[0], y[-1])
    assert len(svg(panel)) < 30_000
    assert len(svg(layers(200, points=5_000))) < 600_000


def test_thinning_keeps_a_long_gap():
    y = np.ones(10_000)
    y[4_000:6_000] = np.nan
    (line,) = drawn_lines(Panel("p", (Line("a", np.arange(10_000), y),)))
    x = line.get_xdata()
    assert np.isnan(line.get_ydata()[(x > 4_100) & (x < 5_900)]).all()


def test_a_long_title_and_note_are_wrapped_and_then_shortened():
    shown = texts(svg(both("word " * 40, note="sentence " * 40)))
    assert sum("word" in text for text in shown) == 2
    assert sum(text.endswith("…") for text in shown) == 2


def test_a_figure_has_room_for_every_panel_and_none_is_harmless():
    assert isinstance(figure([]), Figure)
    sizes = [figure([both()] * count, "title", columns=2).get_size_inches() for count in (1, 2, 3)]
    assert sizes[1][0] == 2 * sizes[0][0]
    assert sizes[2][1] > sizes[1][1]


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    svg(both())
    figure([both()])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Line("a", [1, 2], [1]), "shape"),
        (lambda: Line("a", [[1]], [[1]]), "shape"),
        (lambda: Line("a", [1], [1], "dotted"), "style must be"),
        (lambda: figure([both()], columns=0), "columns must be"),
        (lambda: figure([both()], columns=True), "columns must be"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_share_of_nothing_has_no_room_below_zero():
    (line,) = drawn_lines(Panel("Dead units", (Line("a", EPOCHS, np.zeros(8)),)))
    assert line.axes.get_ylim()[0] > -0.01
    (line,) = drawn_lines(Panel("R2", (Line("a", EPOCHS, np.linspace(-1, 0, 8)),)))
    assert line.axes.get_ylim()[0] < -1
