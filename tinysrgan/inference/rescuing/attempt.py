"""Attempts to read one code whose grid is roughly known, with the generator and then with a camera's model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinysrgan.inference.rescuing.contrast import stretched
from tinysrgan.inference.rescuing.grid import FINE_STEPS, Grid, around, fitted
from tinysrgan.inference.rescuing.redraw import evidence
from tinysrgan.inference.rescuing.sampling import samples
from tinysrgan.inference.upscaler import Upscaler

SURE = 0.98  # limit of the evidence's certainty
MARGIN = 4  # modules around the symbol in the generator's input


class Try(NamedTuple):
    """Evidence of a symbol's modules, float (n, n) from -1 (light) to 1 (dark), with its grid and a description.

    repeated: it is one of many similar ones.
    """

    modules: np.ndarray
    grid: Grid
    how: str
    repeated: bool = False


def attempts(picture: np.ndarray, grid: Grid, upscaler: Upscaler) -> Iterator[Try]:
    """Upscale a grey picture (H, W); yield the generator's evidence alone, then symbols that explain the picture."""
    part, corner = around(picture, grid, MARGIN)
    clear, _ = upscaler.upscale(Image.fromarray(np.rint(255 * stretched(part)).astype(np.uint8)))
    signed = 1 - np.asarray(clear, np.float32) / 127.5
    grid = fitted(signed, grid.moved(upscaler.scale, -corner), FINE_STEPS)
    seen = evidence(signed, grid)
    grid = grid.moved(1 / upscaler.scale).moved(1, corner)
    yield Try(seen, grid, "located, upscaled by the generator")
    for symbol, place in samples(picture, grid, np.arctanh(SURE * seen)):
        yield Try(symbol, place, "located, upscaled, and explained by a camera's model", repeated=True)
