"""Names that are imported on first use, in a package made for the test."""

import importlib
import sys
import warnings

import pytest

ROOM = """
from keras_practice.core.lazy import attributes

__getattr__ = attributes(
    __name__,
    {"walk": "walk", "run": "pace", "is_integer": "keras_practice.core.arguments"},
    moved={"stroll": "NAME.walk"},
)
"""


@pytest.fixture
def room(tmp_path, monkeypatch, request):
    """A package with a function `walk` in a module of that name, and `run` in another's."""
    name = f"room_of_{request.node.name.split('[')[0]}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(ROOM.replace("NAME", name))
    (folder / "walk.py").write_text("def walk():\n    return 'walked'\n")
    (folder / "pace.py").write_text(
        "from NAME.walk import walk\n\ndef run():\n    return 'ran'\n".replace("NAME", name)
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def test_nothing_is_imported_before_it_is_asked_for(room):
    assert not [name for name in sys.modules if name.startswith(f"{room.__name__}.")]
    assert room.run() == "ran"
    assert f"{room.__name__}.pace" in sys.modules


def test_a_name_may_be_another_rooms(room):
    assert room.is_integer(3)


@pytest.mark.parametrize("first", ["the name", "the module", "another module that imports it"])
def test_a_public_name_wins_over_the_module_of_that_name(room, first):
    if first == "the name":
        assert room.walk() == "walked"
    else:
        importlib.import_module(f"{room.__name__}.{'walk' if first == 'the module' else 'pace'}")
    module = importlib.import_module(f"{room.__name__}.walk")
    assert room.walk is module.walk
    namespace = {}
    exec(f"from {room.__name__} import walk", namespace)
    assert namespace["walk"] is module.walk


def test_a_module_without_a_public_name_is_bound_as_ever(room):
    module = importlib.import_module(f"{room.__name__}.pace")
    assert room.pace is module


def test_a_public_name_can_be_replaced_by_a_test(room, monkeypatch):
    monkeypatch.setattr(room, "walk", len)
    assert room.walk is len


def test_a_moved_name_is_found_and_told_once(room):
    namespace = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exec(f"from {room.__name__} import stroll", namespace)
        assert room.stroll is namespace["stroll"] is room.walk
    assert [str(warning.message) for warning in told] == [
        f"{room.__name__}.stroll is now {room.__name__}.walk; the old name goes with the next release."
    ]
    assert told[0].category is DeprecationWarning


def test_what_is_not_there_is_an_attribute_error(room):
    with pytest.raises(AttributeError, match=f"module '{room.__name__}' has no attribute 'fly'"):
        room.fly  # noqa: B018
