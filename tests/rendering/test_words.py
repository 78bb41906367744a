import pytest

from keras_practice.rendering.words import printable, sentence_case, shortened


def test_a_text_is_one_line_of_letters():
    assert printable("a\nb\x07c\ud800d 層") == "a b c d 層"
    assert printable(3) == "3"


@pytest.mark.parametrize(
    ("text", "short"), [("learning", "learning"), ("learning rates", "learning…"), ("a\nb", "a b")]
)
def test_a_long_text_ends_with_an_ellipsis_after_a_letter(text, short):
    assert shortened(text, 10) == short


def test_only_the_first_letter_becomes_a_capital():
    assert sentence_case("val F1") == "Val F1"
    assert sentence_case("") == ""
