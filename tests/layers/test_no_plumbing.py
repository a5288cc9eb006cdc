"""Layers, nets, losses and optimizers are formulas; ``ops`` and NumPy's functions choose between CPU and GPU."""

import ast
from pathlib import Path

import pytest

import tinysrgan

PACKAGE = Path(tinysrgan.__file__).parent
FILES = [path for folder in ("layers", "models", "optimizers") for path in sorted((PACKAGE / folder).glob("*.py"))]


@pytest.mark.parametrize("path", [*FILES, PACKAGE / "losses.py"], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_file_does_not_choose_a_device(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name.startswith("tinysrgan.ops.")}  # only ``from tinysrgan import ops``
            found |= names & {"tinysrgan.core.device.array_module"}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in ("tinysrgan", "cupy")}
        elif isinstance(node, ast.Compare):
            found |= {ast.unparse(node) for name in ast.walk(node) if isinstance(name, ast.Name) and name.id == "np"}
    assert not found
