"""One code, once its grid is about known: what the model of a camera and the generator make of it."""

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

BLURS = (0.25, 0.1, 0.4)  # pixels, the likeliest first
TRUST = 0.5  # of the generator's evidence, which errs in many modules at a time where it errs
SURE = 0.98  # as sure as it may be
MARGIN = 4  # modules around a symbol that the generator is shown
LARGEST = 20_000_000  # numbers in a camera's matrix


class Try(NamedTuple):
    """Evidence of a symbol's modules, float (n, n), -1 (light) to 1; its grid; and in words where it comes from."""

    modules: np.ndarray
    grid: Grid
    how: str


def without_generator(picture: np.ndarray, grid: Grid) -> Iterator[Try]:
    """What a camera's model alone makes of a grey picture (H, W)."""
    prior = np.zeros((grid.modules, grid.modules))
    yield from by_camera(picture, grid, prior, BLURS[0], "explained by a camera's model, without the generator")


def with_generator(picture: np.ndarray, grid: Grid, upscaler: Upscaler) -> Iterator[Try]:
    """What the generator makes of a grey picture (H, W), alone and with a camera's model."""
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
    """The symbol that explains the picture where the grid is; then where that symbol fits best."""
    for number in range(rounds):
        seen = view(picture, grid, blur)
        if not 100 <= len(seen.pixels) <= LARGEST // size(grid):
            return
        found = explained(seen, prior)
        yield Try(found.symbol, grid, how)
        if number + 1 < rounds:
            grid = aligned(seen, found.modules)
