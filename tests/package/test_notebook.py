import ast
import base64
import getpass
import io
import json
import re
import socket
from pathlib import Path

import matplotlib.image
import pytest

from keras_practice import callbacks, checks, data, recipes, tuning

PATH = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
ROOMS = {"callbacks": callbacks, "checks": checks, "data": data, "recipes": recipes, "tuning": tuning}
# The install cell has nothing to do where the package is there.
SILENT = {"importlib.util"}


@pytest.fixture(scope="module")
def notebook():
    return json.loads(PATH.read_text(encoding="utf-8"))


def code_of(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def python_of(cell):
    """The cell without its IPython commands."""
    return re.sub(r"^(\s*)%.*$", r"\1pass", source(cell), flags=re.MULTILINE)


def texts(notebook):
    """All text of all outputs."""
    for cell in code_of(notebook):
        for output in cell["outputs"]:
            yield "".join(output.get("text", ""))
            for kind, content in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield "".join(content)


def test_it_is_a_valid_notebook(notebook):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.from_dict(notebook))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)


def test_it_is_short(notebook):
    cells = notebook["cells"]
    assert len(cells) < 20
    for cell in cells:
        if cell["cell_type"] == "markdown":
            words = re.sub(r"\[!\[.*", "", source(cell))
            assert len(re.findall(r"[.?!](?=\s|\)|$)", words)) <= 2, words
    assert "colab.research.google.com/github/" in source(cells[0])


def test_it_was_run_once_from_top_to_bottom(notebook):
    cells = code_of(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert cell["outputs"] or any(name in source(cell) for name in SILENT), source(cell)
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


def test_its_pictures_are_there(notebook):
    pictures = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        for cell in code_of(notebook)
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3  # The sweep, the report, the mistakes.
    for picture in pictures:
        assert 400 <= picture.shape[0] <= 3000
        assert 800 <= picture.shape[1] <= 3000
        assert picture[..., :3].std() > 0.05  # Something was drawn.


def test_it_says_nothing_of_the_machine_that_ran_it(notebook):
    whole = "\n".join(texts(notebook)) + json.dumps(notebook["metadata"])
    assert not re.findall(
        r"(?<![\w.:/])/(?:home|Users|root|tmp|work|opt|usr|mnt|var|content)\b[^\s<]*", whole
    )
    assert not re.findall(r"[A-Z]:\\\\", whole)
    names = {socket.gethostname(), getpass.getuser(), Path.home().name} - {"root"}
    for name in names:
        assert not re.search(rf"\b{re.escape(name)}\b", whole), name


def test_the_names_that_it_uses_exist(notebook):
    used = set()
    for cell in code_of(notebook):
        for node in ast.walk(ast.parse(python_of(cell))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ROOMS
            ):
                used.add((node.value.id, node.attr))
    assert {room for room, _ in used} == set(ROOMS)
    for room, name in sorted(used):
        assert name in ROOMS[room].__all__, f"{room}.{name}"


def test_it_goes_from_the_installation_to_a_saved_model(notebook):
    whole = "\n".join(source(cell) for cell in code_of(notebook))
    steps = (
        "%pip install",
        "training.device(",
        "data.load(",
        "checks.preflight(",
        "tuning.learning_rate_sweep(",
        "callbacks.standard(",
        "%load_ext tensorboard",
        "report.png",
        "model.save(",
    )
    places = [whole.index(step) for step in steps]
    assert places == sorted(places)
    assert re.search(r'find_spec\("keras_practice"\) is None:\n\s+%pip install', whole)
