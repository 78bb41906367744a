from xml.etree import ElementTree

import pytest

from keras_practice.rendering import svg

NASTY = "<b>\"quoted\" 'single' & co</b>\x07"
SHOWN = NASTY.replace("\x07", " ")


def test_words_and_attributes_are_escaped():
    parts = [
        svg.text(1, 2, NASTY, "start", bold=True),
        svg.path([(0, 0), (1.25, 2)], svg.title(NASTY, "second line"), stroke=NASTY.strip("\x07")),
    ]
    drawing = svg.drawing(100, 50.4, NASTY, parts)
    root = ElementTree.fromstring(drawing)
    text, path = root
    assert root.attrib["viewBox"] == "0 0 100 50"
    assert root.attrib["aria-label"] == text.text == SHOWN
    assert text.attrib["font-weight"] == "600"
    assert path.attrib["stroke"] == NASTY.strip("\x07")
    assert path.attrib["d"] == "M0.0 0.0 L1.2 2.0"
    assert path[0].text == f"{SHOWN}\nsecond line"


def test_a_drawing_is_what_a_page_takes_in_as_it_is():
    drawing = svg.drawing(1, 1, "nothing", [])
    assert drawing.__html__() == drawing


def test_nothing_but_a_drawing_is_let_into_a_page():
    with pytest.raises(ValueError, match="root must be an svg element. Got 'script'"):
        svg.inline(svg.element("script", words="alert(1)"))
