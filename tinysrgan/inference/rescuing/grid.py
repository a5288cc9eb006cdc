"""The position of a symbol's modules in a picture, and how to refine a first guess.

A grid is the symbol's version and its four outer corners in the picture. Here a picture is signed: 1 is certainly dark,
-1 certainly light.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinysrgan.inference.rescuing.plane import homography, sampled, square, through
from tinysrgan.inference.rescuing.symbol import function_patterns, side

FINE_STEPS = (0.5, 0.25, 0.12)  # modules by which a corner is moved at a time
DATA = 0.35  # weight of the data modules, of which only the distance from grey is known


@dataclass(frozen=True)
class Grid:
    """A symbol's version and its corners, float (4, 2): top left, top right, bottom right, bottom left, as (x, y)."""

    version: int
    corners: np.ndarray
    score: float = 0.0

    @property
    def modules(self) -> int:
        return side(self.version)

    @property
    def matrix(self) -> np.ndarray:
        """The homography from modules to pixels."""
        return homography(square(self.modules), self.corners)

    @property
    def pitch(self) -> float:
        """Pixels per module, the mean over both directions."""
        return float(np.sqrt(area(self.corners))) / self.modules

    def moved(self, scale: float, shift: np.ndarray | tuple[float, float] = (0, 0)) -> Grid:
        """The same grid after the picture was moved by ``shift``, then scaled by ``scale``."""
        return replace(self, corners=(self.corners + np.asarray(shift)) * scale)


def around(picture: np.ndarray, grid: Grid, modules: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture with a grid and ``modules`` modules around it, and its upper left corner, as (x, y)."""
    reach = modules * grid.pitch
    left, top = np.floor(grid.corners.min(axis=0) - reach).astype(int).clip(0)
    right, bottom = np.ceil(grid.corners.max(axis=0) + reach).astype(int)
    return picture[top:bottom, left:right], np.array([left, top])


def alike(one: Grid, other: Grid) -> bool:
    """Whether two grids have about the same place and size."""
    first, second = abs(area(one.corners)) ** 0.5, abs(area(other.corners)) ** 0.5
    apart = np.hypot(*(one.corners.mean(axis=0) - other.corners.mean(axis=0)))
    return bool(apart < 0.25 * min(first, second) and max(first, second) < 1.5 * min(first, second))


def area(corners: np.ndarray) -> float:
    """The area of a quadrilateral (4, 2), positive if its corners are in clockwise order as seen (y points down)."""
    x, y = corners.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def centres(version: int) -> np.ndarray:
    """The modules' centres, float (n n, 2) as (x, y), row by row."""
    middle = np.arange(side(version)) + 0.5
    return np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)


def scores(signed: np.ndarray, version: int, corners: np.ndarray) -> np.ndarray:
    """The agreement of grids (..., 4, 2) of one version with a signed picture, each from about 0 to 1 + DATA.

    It is the mean agreement with the function patterns, plus DATA times the mean distance of the data modules from
    grey.
    """
    known = function_patterns(version).ravel()
    seen = sampled(signed, through(homography(square(side(version)), corners), centres(version)))
    kept = known != 0
    return (seen[..., kept] * known[kept]).mean(axis=-1) + DATA * abs(seen[..., ~kept]).mean(axis=-1)


def fitted(signed: np.ndarray, grid: Grid, steps: tuple[float, ...] = FINE_STEPS, sweeps: int = 3) -> Grid:
    """The grid moved to where it agrees best with a signed picture, by a pattern search over its corners."""
    best, corners = float(scores(signed, grid.version, grid.corners)), grid.corners
    for step in steps:
        for _ in range(sweeps):
            tried = corners + step * grid.pitch * MOVES
            found = scores(signed, grid.version, tried)
            if found.max() <= best + 1e-4:
                break
            # If several moves help, all of them together often help most.
            gains = np.maximum(found - best, 0)
            together = corners + step * grid.pitch * np.tensordot(gains / gains.max(), MOVES, 1)
            best, corners = float(found.max()), tried[found.argmax()]
            if (both := float(scores(signed, grid.version, together))) > best:
                best, corners = both, together
    return Grid(grid.version, corners, best)


def _moves() -> np.ndarray:
    """Moves of the corners, (M, 4, 2): each corner along each axis; shift, stretch, turn and shear of all four."""
    single = np.eye(8).reshape(8, 4, 2)
    centred = square(2) - 1
    x, y = centred[:, 0], centred[:, 1]
    shift = [np.tile((1.0, 0.0), (4, 1)), np.tile((0.0, 1.0), (4, 1))]
    linear = [np.stack([x, y], 1), np.stack([-y, x], 1), np.stack([x, -y], 1), np.stack([y, x], 1)]
    moves = np.concatenate([single, shift, linear])
    return np.concatenate([moves, -moves])


MOVES = _moves()
