"""Where a picture may show QR symbols: three finder patterns that go together, and versions that fit between them."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from tinysrgan.inference.rescuing.contrast import normalised
from tinysrgan.inference.rescuing.finders import Finder
from tinysrgan.inference.rescuing.grid import Grid, around, fitted, scores
from tinysrgan.inference.rescuing.plane import homography, square, through
from tinysrgan.inference.rescuing.symbol import VERSIONS, side

SLANT = 0.6  # largest cosine of the angle between the two edges that meet at the top left finder
STRETCH = 1.8  # largest ratio of the edges' lengths, and of the finders' sizes
TRIPLES = 6  # of finders that are looked at
GUESS = 0.3  # how far, as a part, the number of modules may be from what the finders' sizes say
FAR = np.array([-3.0, -1.5, 0.0, 1.5, 3.0])  # modules by which the bottom right may be off a parallelogram


def located(picture: np.ndarray, found: list[Finder], most: int = 4) -> list[Grid]:
    """The likeliest grids of symbols in a grey picture (H, W) with these finder patterns, the best first."""
    rough = [guess for triple in triples(found)[:TRIPLES] for guess in _versions(picture, *triple)]
    rough.sort(key=lambda grid: -grid.score)
    grids = []
    for grid in rough[:most]:
        part, low = around(picture, grid, 7)
        signed = 1 - 2 * normalised(part, max(round(5 * grid.pitch), 3))
        grids.append(fitted(signed, grid.moved(1, -low)).moved(1, low))
    grids.sort(key=lambda grid: -grid.score)
    return grids


def triples(found: list[Finder]) -> list[tuple[Finder, Finder, Finder]]:
    """Finders that may be a symbol's top left, top right and bottom left, the likeliest first."""
    rated = []
    for corner, right, below in permutations(found, 3):
        pitches = [corner.pitch, right.pitch, below.pitch]
        u, v = right.centre - corner.centre, below.centre - corner.centre
        lengths = np.hypot(*u), np.hypot(*v)
        cross = u[0] * v[1] - u[1] * v[0]
        if cross <= 0 or max(pitches) > STRETCH * min(pitches) or max(lengths) > STRETCH * min(lengths):
            continue
        slant = abs(u @ v) / (lengths[0] * lengths[1])
        apart = np.sqrt(cross) / np.exp(np.mean(np.log(pitches)))
        if slant > SLANT or not (side(VERSIONS[0]) - 7) / 1.4 < apart < (side(VERSIONS[-1]) - 7) * 1.4:
            continue
        uneven = abs(np.log(lengths[0] / lengths[1])) + np.ptp(np.log(pitches))
        rating = corner.likeness + right.likeness + below.likeness - 0.4 * slant - 0.3 * uneven
        rated.append((rating, (corner, right, below)))
    rated.sort(key=lambda item: -item[0])
    return [triple for _, triple in rated]


def _versions(picture: np.ndarray, corner: Finder, right: Finder, below: Finder) -> list[Grid]:
    """Grids of the two versions that fit best, roughly, given the finders of a symbol."""
    a, b, c = corner.centre, right.centre, below.centre
    pitch = float(np.mean([corner.pitch, right.pitch, below.pitch]))
    apart = float(np.sqrt(abs(np.linalg.det([b - a, c - a])))) / pitch
    whole = np.array([a, b, b + c - a, c])
    part, low = around(picture, Grid(1, whole + (whole - whole.mean(axis=0)) * 7 / apart), 5)
    signed = 1 - 2 * normalised(part, max(round(5 * pitch), 3))
    grids = []
    for version in VERSIONS:
        n = side(version)
        if abs(np.log((n - 7) / apart)) > GUESS:
            continue
        offsets = np.stack(np.meshgrid(FAR, FAR), axis=-1).reshape(-1, 1, 2)
        unit_x, unit_y = (b - a) / (n - 7), (c - a) / (n - 7)
        last = b + c - a + offsets[..., :1] * unit_x + offsets[..., 1:] * unit_y
        centres = np.empty((len(last), 4, 2))
        centres[:, 0], centres[:, 1], centres[:, 2:3], centres[:, 3] = a, b, last, c
        corners = through(homography(square(n - 7) + 3.5, centres), square(n))
        rated = scores(signed, version, corners - low)
        grids.append(Grid(version, corners[rated.argmax()], float(rated.max())))
    grids.sort(key=lambda grid: -grid.score)
    return grids[:2]
