"""Paths of the folders without Python code: kernels/ and weights/."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def _folder(name: str) -> Path:
    """A folder that a wheel has inside the package and a checkout has beside it."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


KERNELS = _folder("kernels")
WEIGHTS = _folder("weights")
