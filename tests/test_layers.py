"""The layer table of CONTRIBUTING.md, read off the imports of every file in las/, lazy ones included."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "las"
TABLE = re.findall(
    r"^(\d)  ([a-z |]+?)(?:  .*)?$", (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
)
ROWS = [set(units.split(" | ")) for _, units in sorted(TABLE)]
ROOT = len(ROWS)  # las/__init__.py and las/__main__.py stand above all rows
FILES = sorted(PACKAGE.rglob("*.py"))


def row(unit: str) -> int:
    return next(number for number, units in enumerate(ROWS) if unit in units)


def unit_of(path: Path) -> str:
    """`data` for las/data/loader.py, `cli` for las/cli/train.py, empty for what stands above the rows."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts[0] in ("__init__", "__main__") else parts[0]


def imported(source: str) -> list[str]:
    """Dotted names that a source imports from las, down to the unit: `las.data.loader`, or `las` for its contents."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == "las"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            if node.module == "las":
                names += [f"las.{alias.name}" for alias in node.names]
            elif node.module and node.module.startswith("las."):
                names.append(node.module)
    return names


def complaints(unit: str, source: str) -> list[str]:
    """What is wrong with the imports of a source that belongs to `unit`."""
    known = set().union(*ROWS)
    found = []
    for name in imported(source):
        parts = name.split(".")
        if len(parts) == 1 or parts[1] not in known:
            found += [f"{name}: the package root's contents"] if unit else []
        elif unit and parts[1] != unit and row(parts[1]) >= row(unit):
            found.append(f"{name}: {'the same row' if row(parts[1]) == row(unit) else 'a higher row'}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_lower_rows(path):
    unit = unit_of(path)
    if unit:
        row(unit)  # every file has a place in the table
    assert complaints(unit, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("unit", "source", "complaint"),
    [
        ("data", "from las.model.las import LAS", "las.model.las: the same row"),
        ("model", "from las.data import loader", "las.data: the same row"),
        ("search", "from las.checkpoint import average", "las.checkpoint: the same row"),
        ("train", "def f():\n    from las.evaluate.score import score", "las.evaluate.score: the same row"),
        ("config", "import las.ledger", "las.ledger: the same row"),
        ("text", "from las import audio", "las.audio: the same row"),
        ("audio", "from las import cli", "las.cli: a higher row"),
        ("files", "from las.config import load", "las.config: a higher row"),
        ("cli", "import las", "las: the package root's contents"),
        ("recipe", "from las import load", "las.load: the package root's contents"),
        ("recipe", "from las import __version__", "las.__version__: the package root's contents"),
    ],
)
def test_a_wrong_import_is_seen(unit, source, complaint):
    assert complaints(unit, source) == [complaint]


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("recipe", "from las import checkpoint"),
        ("data", "from las.data.shards import Index"),
        ("cli", "from las import config as settings, recipe"),
        ("errors", "import torch\nfrom lasso import x"),
        ("", "from las.recipe.models import open_model"),
    ],
)
def test_a_right_import_is_let_through(unit, source):
    assert complaints(unit, source) == []


def test_the_package_root_imports_nothing_of_las_before_it_is_called():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in top if isinstance(node, ast.ImportFrom)] == ["__future__", "typing"]
    assert not [node for node in top if isinstance(node, ast.Import)]
