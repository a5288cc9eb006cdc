"""Locates QR symbols in a picture: triples of finder patterns, and the versions that fit between them."""

from __future__ import annotations

from heapq import nlargest

import numpy as np

from tinysrgan.inference.rescuing.contrast import normalised
from tinysrgan.inference.rescuing.finders import Finder
from tinysrgan.inference.rescuing.grid import Grid, around, fitted, scores
from tinysrgan.inference.rescuing.plane import homography, square, through
from tinysrgan.inference.rescuing.symbol import VERSIONS, side

SLANT = 0.6  # largest cosine of the angle between the two edges that meet at the top left finder
STRETCH = 1.8  # largest ratio of the edges' lengths, and of the finders' sizes
A_CORNER = 8  # triples with the same top left finder
TRIPLES = 6  # triples to examine
NEAREST, FARTHEST = 5, 100  # limits of the distance between two finders of a symbol, in modules
GUESS = 0.3  # tolerance of the logarithm of the number of modules, compared with the estimate from the finders
FAR = np.array([-3.0, -1.5, 0.0, 1.5, 3.0])  # modules by which the bottom right corner may deviate from a parallelogram


def located(picture: np.ndarray, found: list[Finder], most: int = 4) -> list[Grid]:
    """The most likely grids of symbols in a grey picture (H, W) with these finder patterns, sorted by score."""
    rough = [guess for triple in triples(found, TRIPLES) for guess in versions(picture, *triple)]
    rough.sort(key=lambda grid: -grid.score)
    grids = []
    for grid in rough[:most]:
        part, low = around(picture, grid, 7)
        signed = 1 - 2 * normalised(part, max(round(5 * grid.pitch), 3))
        grids.append(fitted(signed, grid.moved(1, -low)).moved(1, low))
    grids.sort(key=lambda grid: -grid.score)
    return grids


def triples(found: list[Finder], most: int) -> list[tuple[Finder, Finder, Finder]]:
    """The most likely top left, top right and bottom left finders of a symbol: at most ``most`` triples, sorted."""
    if len(found) < 3:
        return []
    places = np.array([finder.centre for finder in found])
    sizes = np.log([finder.pitch for finder in found])
    likeness = np.array([finder.likeness for finder in found])
    rated: list[tuple[float, int, int, int]] = []
    for corner, finder in enumerate(found):
        to_other = places - finder.centre
        lengths = np.hypot(*to_other.T)
        similar = abs(sizes - sizes[corner]) <= np.log(STRETCH)
        near = np.flatnonzero(similar & (lengths > NEAREST * finder.pitch) & (lengths < FARTHEST * finder.pitch))
        x, y = to_other[near].T
        length, size = np.log(lengths[near]), sizes[near]
        across, down = np.meshgrid(np.arange(len(near)), np.arange(len(near)), indexing="ij")
        cross = x[across] * y[down] - y[across] * x[down]
        area = np.exp(length[across] + length[down])
        slant = abs(x[across] * x[down] + y[across] * y[down]) / area
        longer = abs(length[across] - length[down])
        largest = np.maximum(np.maximum(size[across], size[down]), sizes[corner])
        spread = largest - np.minimum(np.minimum(size[across], size[down]), sizes[corner])
        apart = np.sqrt(np.maximum(cross, 0)) / np.exp((size[across] + size[down] + sizes[corner]) / 3)
        fits = (apart > (side(VERSIONS[0]) - 7) / 1.4) & (apart < (side(VERSIONS[-1]) - 7) * 1.4)
        fits &= (slant <= SLANT) & (longer <= np.log(STRETCH)) & (spread <= np.log(STRETCH))
        rating = likeness[near][across] + likeness[near][down] - 0.4 * slant - 0.3 * (longer + spread)
        rating[~fits] = -np.inf
        for which in np.argsort(-rating, axis=None)[:A_CORNER]:
            i, j = divmod(int(which), len(near))
            if fits[i, j]:
                rated.append((float(rating[i, j]) + finder.likeness, corner, int(near[i]), int(near[j])))
    return [(found[a], found[b], found[c]) for _, a, b, c in nlargest(most, rated)]


def versions(picture: np.ndarray, corner: Finder, right: Finder, below: Finder) -> list[Grid]:
    """Rough grids of the two versions that fit best, given the finders of a symbol."""
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
