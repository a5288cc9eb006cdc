"""Selects the parts of a picture, and the scales, that are searched for codes.

A small picture is searched as a whole. In a large one, a coarse search marks likely finder patterns, and three marks
that fit a symbol define a window. Codes larger than the filters' range are found in a reduced picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from tinysrgan.inference.rescuing.finders import FLAT, Finder, marks
from tinysrgan.inference.rescuing.grid import Grid, alike, around
from tinysrgan.inference.rescuing.locate import triples, versions
from tinysrgan.inference.tiles import Box
from tinysrgan.ops.parallel import parallel_map

WHOLE = 150_000  # largest picture, in pixels, that is searched as a whole
LEAST = 60  # minimum of the shorter side, in pixels
TILE = 512  # side of a tile in the coarse search, in pixels
TOGETHER = 8  # tiles between two checks of the time
MARKS = 60  # per polarity and tile
TRIPLES = 80  # triples of marks per picture that are compared with symbols
MOST = 24  # windows of all scales together
MARGIN = 7  # modules around a likely symbol
COARSE = (0.75, 0.87, 1.0, 1.15, 1.35, 1.55, 1.8)  # pixels per module


@dataclass(frozen=True)
class Window:
    """A part of a picture reduced by ``reduced``: grey pixels (H, W), whose upper left corner is ``corner``, (x, y)."""

    pixels: np.ndarray
    corner: np.ndarray
    reduced: int

    def outside(self, grid: Grid) -> Grid:
        """Convert a grid of this window to the picture's coordinates."""
        return grid.moved(self.reduced, self.corner)


def windows(picture: Image.Image) -> Iterator[Window | None]:
    """The windows of a grey picture, the most likely first, each place once; None after each step of the search."""
    spots: list[tuple[Grid, Window]] = []
    reduced = 1
    while True:
        level = np.asarray(picture.reduce(reduced) if reduced > 1 else picture)
        if level.size <= WHOLE:
            yield Window(level, np.zeros(2, int), reduced)
        else:
            for grids in _spots(level):
                spots += [(grid, Window(*around(level, grid, MARGIN), reduced)) for grid in grids]
                yield None
        if min(level.shape) < 2 * LEAST:
            break
        reduced *= 2
    spots.sort(key=lambda spot: -spot[0].score)
    chosen: list[Grid] = []
    for grid, window in spots:
        outside = window.outside(grid.moved(1, -window.corner))
        if len(chosen) < MOST and not any(alike(outside, other) for other in chosen):
            chosen.append(outside)
            yield window


def _spots(picture: np.ndarray) -> Iterator[list[Grid]]:
    """Rough grids of likely symbols in a large grey picture (H, W); most steps yield none."""
    tiles = list(Box(0, picture.shape[0], 0, picture.shape[1]).cut(TILE))
    found: tuple[list[Finder], list[Finder]] = [], []
    for start in range(0, len(tiles), TOGETHER):
        for run in parallel_map(lambda run: [_marks(picture, tile) for tile in run], tiles[start : start + TOGETHER]):
            for pair in run:
                for every, some in zip(found, pair, strict=True):
                    every += some
        yield []
    for inverted, every in enumerate(found):
        best = partial(_best, 255 - picture if inverted else picture)
        yield [grid for grids in parallel_map(best, triples(every, TRIPLES)) for grid in grids]


def _best(picture: np.ndarray, threes: Sequence[tuple[Finder, Finder, Finder]]) -> list[Grid]:
    """The version that roughly fits best for each triple of finders."""
    return [grid for three in threes for grid in versions(picture, *three)[:1]]


def _marks(picture: np.ndarray, tile: Box) -> tuple[list[Finder], list[Finder]]:
    """The likely finder patterns of either polarity in a tile, in the picture's coordinates."""
    seen = tile.grown(16, Box(0, picture.shape[0], 0, picture.shape[1]))
    part = picture[seen.top : seen.bottom, seen.left : seen.right]
    if np.ptp(part) < 4 * FLAT:
        return [], []
    shift = (seen.left, seen.top)
    dark, light = marks(part, MARKS, COARSE)
    return [finder.moved(1, shift) for finder in dark], [finder.moved(1, shift) for finder in light]
