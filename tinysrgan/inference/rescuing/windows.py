"""Which parts of a picture, and at which sizes, are worth a close look.

A small picture is looked at whole. In a large one a coarse search for finder patterns says where several of them may be
close together. What is larger than the filters expect is found in the picture made smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinysrgan.inference.rescuing.finders import FLAT, Finder, finders
from tinysrgan.inference.rescuing.grid import Grid
from tinysrgan.inference.tiles import Box
from tinysrgan.ops.parallel import parallel_map

WHOLE = 150_000  # pixels of a picture that is looked at whole
LEAST = 60  # pixels on the shorter side
TILE = 512  # pixels on a side, in the coarse search
SIDE = 256  # of a window; it holds a code of version 10 at 2 pixels a module
STEP = 64  # pixels between the windows that are compared
MOST = 8  # windows of each size
COARSE = (0.75, 0.87, 1.0, 1.15, 1.35, 1.55, 1.8)  # pixels a module
COARSE_ANGLES = (22.5,)  # degrees: as far from upright as from diagonal


@dataclass(frozen=True)
class Window:
    """A part of a picture made smaller by ``reduced``: grey pixels (H, W), which begin at ``corner``, (x, y)."""

    pixels: np.ndarray
    corner: np.ndarray
    reduced: int

    def outside(self, grid: Grid) -> Grid:
        """A grid of this window as it lies in the picture."""
        return grid.moved(self.reduced, self.corner)


def windows(picture: Image.Image) -> list[Window]:
    """The windows of a grey picture, for each size the likeliest first."""
    found, reduced = [], 1
    while True:
        level = np.asarray(picture.reduce(reduced) if reduced > 1 else picture)
        corners = [np.zeros(2, int)] if level.size <= WHOLE else promising(level)
        for left, top in corners:
            part = level[top : top + SIDE, left : left + SIDE] if level.size > WHOLE else level
            found.append(Window(part, np.array([left, top]), reduced))
        if min(level.shape) < 2 * LEAST:
            return found
        reduced *= 2


def promising(picture: np.ndarray) -> list[np.ndarray]:
    """Where windows of SIDE begin, (x, y), that may hold finder patterns, in a large grey picture (H, W)."""
    height, width = picture.shape
    tiles = list(Box(0, height, 0, width).cut(TILE))
    marks = [mark for part in parallel_map(lambda run: [_marks(picture, tile) for tile in run], tiles) for mark in part]
    rated = []
    places = np.array([(f.x, f.y) for tile in marks for f in tile]).reshape(-1, 2)
    likeness = np.array([f.likeness for tile in marks for f in tile])
    for top in range(0, max(height - SIDE, 0) + STEP, STEP):
        for left in range(0, max(width - SIDE, 0) + STEP, STEP):
            # What lies near the window's edge is in the middle of another.
            inside = (abs(places - (left + SIDE / 2, top + SIDE / 2)) < SIDE / 2 - 8).all(axis=1)
            if inside.any():
                rated.append((float(np.sort(likeness[inside])[-3:].sum()), left, top))
    rated.sort(reverse=True)
    chosen: list[np.ndarray] = []
    for _, left, top in rated:
        here = np.array([left, top])
        if all(abs(here - other).max() >= SIDE // 2 for other in chosen):
            chosen.append(here)
        if len(chosen) == MOST:
            break
    return chosen


def _marks(picture: np.ndarray, tile: Box) -> Sequence[Finder]:
    """Likely finder patterns of either polarity in a tile, in the picture's pixels."""
    seen = tile.grown(16, Box(0, picture.shape[0], 0, picture.shape[1]))
    part = picture[seen.top : seen.bottom, seen.left : seen.right]
    if np.ptp(part) < 4 * FLAT:
        return []
    dark, light = finders(part, 40, COARSE, COARSE_ANGLES)
    return [finder.moved(1, (seen.left, seen.top)) for finder in dark + light]
