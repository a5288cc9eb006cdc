"""Imports go in one direction: a folder imports only the folders below it, and no two files import each other."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tinysrgan

PACKAGE = Path(tinysrgan.__file__).parent
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# The modules that each folder may import besides its own.
BELOW = {
    "core": "",
    "ops": "core",
    "layers": "core ops",
    "models": "core layers",
    "losses": "core layers ops",
    "gradcheck": "core layers losses models",
    "optimizers": "core layers ops",
    "formats": "core layers models optimizers",
    "data": "core formats",
    "metrics": "core data layers",
    "inference": "core data formats layers metrics models ops",
    "training": "core data formats layers losses metrics models ops optimizers",
}


@cache
def imports(file):
    """Return the package's files that this file imports, also inside functions and for type checkers."""
    found, nodes = set(), [ast.parse(FILES[file].read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
        nodes += ast.iter_child_nodes(node)
    return found & FILES.keys() - {file}


def folder(file):
    return [*file.split("."), ""][1]


@pytest.mark.parametrize("name", BELOW)
def test_a_folder_imports_only_what_lies_below_it(name):
    arrows = [(file, other) for file in FILES if folder(file) == name for other in imports(file)]
    assert arrows
    assert not [
        f"{file} imports {other}" for file, other in arrows if folder(other) not in {name, *BELOW[name].split()}
    ]


def test_no_files_import_each_other_in_a_circle():
    order = TopologicalSorter({file: imports(file) for file in FILES}).static_order()  # raises CycleError
    assert set(order) == FILES.keys()


def test_every_folder_has_its_place():
    assert {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/*.py")} <= BELOW.keys()
