"""Where the folders lie that are no Python: kernels/ and weights/."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def _folder(name: str) -> Path:
    """A wheel carries the folder inside the package; in a checkout it lies beside the package."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


KERNELS = _folder("kernels")
WEIGHTS = _folder("weights")
