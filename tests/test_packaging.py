"""The house's own rules: packaging, floors, the advice table, the documents."""

import ast
import configparser
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("data", "recipes", "callbacks", "checks", "tuning")
FLOORS = {room: floor for floor, room in enumerate(ROOMS)}


def modules():
    for room in ROOMS:
        package = importlib.import_module(f"keras_practice.{room}")
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"keras_practice.{room}."):
            if not info.name.endswith("__main__"):
                yield importlib.import_module(info.name)


def test_every_folder_with_code_is_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    mapped = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    folders = {
        "keras_practice." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert listed == folders
    assert {name: folder.replace("/", ".") for name, folder in mapped.items()} == {
        name: name.removeprefix("keras_practice.") for name in listed
    }
    for folder in mapped.values():
        assert (ROOT / folder / "py.typed").exists()


@pytest.mark.parametrize(
    "path",
    [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_point_down_only(path):
    floor = FLOORS[path.relative_to(ROOT).parts[0]]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
            if node.module == "keras_practice":
                names = [f"keras_practice.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            assert not name.startswith("keras.src"), "private Keras"
            if name.startswith("keras_practice."):
                assert FLOORS[name.split(".")[1]] <= floor, f"{path.name} imports {name}"


def public():
    for module in modules():
        for name in getattr(module, "__all__", ()):
            yield f"{module.__name__}.{name}", getattr(module, name)


@pytest.mark.parametrize(("name", "item"), [pytest.param(n, i, id=n) for n, i in public() if callable(i)])
def test_public_names_are_documented(name, item):
    text = inspect.getdoc(item) or ""
    assert len(text) > 20
    if inspect.isfunction(item) and len(inspect.signature(item).parameters) > 1:
        assert "Args:" in text
    if "raise ValueError" in inspect.getsource(item) and inspect.isfunction(item):
        assert "Raises:" in text
    for parameter in inspect.signature(item).parameters.values() if inspect.isfunction(item) else ():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            assert re.search(rf"\b{parameter.name}\b", text), parameter.name


@pytest.mark.parametrize("module", [pytest.param(m, id=m.__name__) for m in modules()])
def test_examples_in_docstrings_run(module):
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def advice_rows():
    for line in (ROOT / "docs" / "advice.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"[AE]\d+", cells[0]):
            yield cells


@pytest.mark.parametrize("cells", list(advice_rows()), ids=lambda cells: cells[0])
def test_every_row_of_the_advice_table_points_to_code_and_a_test(cells):
    number, practice, source, code, tests, _figure = cells
    assert practice
    assert source
    assert re.findall(r"`([^`]+)`", code), number
    for reference in re.findall(r"`([^`]+)`", code):
        if reference.endswith(".py"):
            assert (ROOT / reference).exists()
            continue
        room, *path = reference.split(".")
        item = importlib.import_module(f"keras_practice.{room}")
        for part in path:
            item = getattr(item, part)
    assert re.findall(r"`([^`]+)`", tests), number
    for reference in re.findall(r"`([^`]+)`", tests):
        file, _, function = reference.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"^def {function}\(", text, re.MULTILINE), reference


def test_the_advice_table_has_rows():
    numbers = [cells[0] for cells in advice_rows()]
    assert len(numbers) >= 41
    assert len(set(numbers)) == len(numbers)


def test_sources_in_docstrings_are_in_the_advice_table():
    known = {cells[0] for cells in advice_rows()}
    for name, item in public():
        text = inspect.getdoc(item) or ""
        for block in re.findall(r"Source:\n((?:.+\n?)+)", text):
            for number in re.findall(r"\b([AE]\d+)\b", block):
                assert number in known, f"{name} cites {number}"


def python_blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readme_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks()
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_links_in_the_documents_lead_somewhere():
    for document in (ROOT / "README.md", ROOT / "docs" / "advice.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), target


def test_the_licence_is_there():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
