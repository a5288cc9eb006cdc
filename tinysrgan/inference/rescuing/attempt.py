"""Attempts to read one code whose grid is roughly known, with the camera model and with the generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinysrgan.inference.rescuing.camera import aligned, explained, size, view
from tinysrgan.inference.rescuing.contrast import stretched
from tinysrgan.inference.rescuing.grid import FINE_STEPS, Grid, around, fitted
from tinysrgan.inference.rescuing.redraw import evidence
from tinysrgan.inference.upscaler import Upscaler

BLURS = (0.25, 0.1, 0.4)  # pixels, the most likely first
TRUST = 0.5  # weight of the generator's evidence: where it is wrong, it is wrong in many modules at once
SURE = 0.98  # limit of the evidence's certainty
MARGIN = 4  # modules around the symbol in the generator's input
LARGEST = 20_000_000  # elements of the camera matrix


class Try(NamedTuple):
    """Evidence of a symbol's modules, float (n, n) from -1 (light) to 1 (dark), with its grid and a description."""

    modules: np.ndarray
    grid: Grid
    how: str


def without_generator(picture: np.ndarray, grid: Grid) -> Iterator[Try]:
    """Explain a grey picture (H, W) by the camera model only."""
    prior = np.zeros((grid.modules, grid.modules))
    yield from by_camera(picture, grid, prior, BLURS[0], "explained by a camera's model, without the generator")


def with_generator(picture: np.ndarray, grid: Grid, upscaler: Upscaler) -> Iterator[Try]:
    """Upscale a grey picture (H, W); yield the generator's evidence alone, then combined with the camera model."""
    part, corner = around(picture, grid, MARGIN)
    clear, _ = upscaler.upscale(Image.fromarray(np.rint(255 * stretched(part)).astype(np.uint8)))
    signed = 1 - np.asarray(clear, np.float32) / 127.5
    grid = fitted(signed, grid.moved(upscaler.scale, -corner), FINE_STEPS)
    seen = evidence(signed, grid)
    grid = grid.moved(1 / upscaler.scale).moved(1, corner)
    yield Try(seen, grid, "located, upscaled by the generator")
    prior = TRUST * np.arctanh(SURE * seen)
    for blur in BLURS:
        yield from by_camera(picture, grid, prior, blur, "located, upscaled, and explained by a camera's model")


def by_camera(
    picture: np.ndarray, grid: Grid, prior: np.ndarray, blur: float, how: str, rounds: int = 2
) -> Iterator[Try]:
    """Find the symbol that explains the picture on this grid, then move the grid to where that symbol fits best."""
    for number in range(rounds):
        seen = view(picture, grid, blur)
        if not 100 <= len(seen.pixels) <= LARGEST // size(grid):
            return
        found = explained(seen, prior)
        yield Try(found.symbol, grid, how)
        if number + 1 < rounds:
            grid = aligned(seen, found.modules)
