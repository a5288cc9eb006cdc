"""Paths of the folders that hold no Python: kernels/ and weights/."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def _folder(name: str) -> Path:
    """The folder is inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


KERNELS = _folder("kernels")
WEIGHTS = _folder("weights")
