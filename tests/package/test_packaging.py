"""The house's own rules: packaging, floors, the advice table, the documents."""

import ast
import configparser
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "data", "recipes", "rendering", "callbacks", "training", "checks", "tuning", "package")
FLOORS = {room: floor for floor, room in enumerate(ROOMS)}


def name_of(path):
    """A module's dotted name; `package/` is `keras_practice` itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(["keras_practice", *parts[parts[0] == "package" :]])


FILES = {name_of(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def modules():
    for name in FILES:
        if not name.endswith("__main__"):
            yield importlib.import_module(name)


def test_every_folder_with_code_is_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    mapped = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    folders = {name: path.parent for name, path in FILES.items() if path.name == "__init__.py"}
    assert set(listed) == set(folders)
    assert {name: ROOT / folder for name, folder in mapped.items()} == folders
    for room in ROOMS:
        assert (ROOT / room / "py.typed").exists()


def imports_of(path):
    """The modules of this package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # A module that is imported from its folder, or a name from a module.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name in FILES:
                yield name
            else:
                assert not name.startswith("keras_practice."), f"there is no {name}"


def floor_of(name):
    room = name.split(".")[1] if name.count(".") else "package"
    return ROOMS.index(room if room in ROOMS else "package")


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down_only(name):
    for other in imports_of(FILES[name]):
        # Its version alone is what the package tells the floors below.
        assert floor_of(other) <= floor_of(name), f"{name} imports {other}"


def circle_in(graph):
    """Names that lead back to themselves, or nothing."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        for other in sorted(graph[node]):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((found for node in graph if (found := visit(node))), [])


def test_a_circle_is_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_imports_run_in_a_circle():
    files = dict(public_files())
    assert (
        circle_in({name: set(imports_of(path)) & set(files) - {name} for name, path in files.items()}) == []
    )


def test_the_folders_of_a_room_form_floors_too():
    """A folder counts as one; beside it stand the files of the room."""
    folders = {name: path.parent.name for name, path in public_files()}
    place = {name: name if folders[name] in ROOMS else name.rpartition(".")[0] for name, _ in public_files()}
    graph = {there: set() for there in place.values()}
    for name, path in public_files():
        graph[place[name]] |= {place[other] for other in imports_of(path) if other in place} - {place[name]}
    assert circle_in(graph) == []


PRIVATE_MODULES = ("tensorflow.python", "keras.src", "keras_tuner.src", "ray._private")
FRAMES = ("currentframe", "_getframe", "f_locals", "f_back", "__internal__")
OFFICIAL = ("os._exit",)  # Documented in spite of its name.


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names_defined_in(tree):
    """Private functions, classes and attributes that a file makes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def foreign_parts(tree, ours):
    """Private parts of other packages that a file touches, as far as its text tells.

    An attribute of `self` may be of any class here, or of one above it that is not; of anything
    else it may be that of a class in the same file, which is its own affair.
    """
    here = set(private_names_defined_in(tree))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in [*module, *(alias.name for alias in node.names)]:
                if name.startswith(PRIVATE_MODULES):
                    yield name
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            known = ours if owner in ("self", "cls", "super()") else here
            touches = is_private(node.attr) and node.attr not in known
            if (touches or node.attr in FRAMES) and f"{owner}.{node.attr}" not in OFFICIAL:
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value) and name.value not in ours:
                yield name.value


def test_private_parts_of_other_packages_are_touched_in_one_place():
    trees = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
    ours = {name for tree in trees.values() for name in private_names_defined_in(tree)}
    found = {
        name: set(foreign_parts(tree, ours))
        for name, tree in trees.items()
        if not name.startswith("keras_practice.core.private_api.")
    }
    assert {name: parts for name, parts in found.items() if parts} == {}
    apart = [name for name in FILES if name.startswith("keras_practice.core.private_api.")]
    assert all(list(foreign_parts(trees[name], set())) for name in apart)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("from tensorflow.python.eager import context", ["tensorflow.python.eager"]),
        ("import keras.src.backend", ["keras.src.backend"]),
        ("model._initial_epoch = 3", ["_initial_epoch"]),
        ("getattr(optimizer, '_learning_rate', None)", ["_learning_rate"]),
        ("class A:\n    def b(self): return self._theirs", ["_theirs"]),
        ("class A:\n    def b(self, other): self._mine = other._mine", []),
        ("import inspect\ninspect.currentframe().f_back", ["currentframe", "f_back"]),
        ("import os\nos._exit(1)", []),
    ],
)
def test_a_private_part_is_found(text, parts):
    assert sorted(foreign_parts(ast.parse(text), set(private_names_defined_in(ast.parse(text))))) == parts


def public_files():
    """All but the rooms' own `__init__.py`, which name what lies in them."""
    return [(name, path) for name, path in FILES.items() if path.name != "__init__.py"]


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
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), target


def test_the_licence_is_there():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
