"""The mean result over an image's eight orientations: geometric self-ensemble (Lim et al. 2017, arXiv 1707.02921).

A generator that was trained on turned images should give the turned result for a turned input. It only does so
approximately, and its errors differ between the orientations. So the mean of the results, turned back, has smaller
errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from tinysrgan.inference.fuse import FusedGenerator
from tinysrgan.inference.tiles import Box, reach, upscale_in_tiles

ORIENTATIONS = [(quarters, mirrored) for mirrored in (False, True) for quarters in range(4)]
SIDE = 256  # pixels of the input, without the margin, that are upscaled in all orientations before the next


def upscale_in_orientations(
    net: FusedGenerator, pixels: np.ndarray, module: ModuleType = np
) -> Iterator[tuple[Box, np.ndarray]]:
    """Upscale pixels: uint8 (H, W, 3), in eight orientations.

    Yields boxes that cover the image and, for each, the mean of the results: float32 (scale h, scale w, 3).
    """
    image = Box(0, pixels.shape[0], 0, pixels.shape[1])
    margin = reach(list(net.chain.values()))
    for box in image.cut(SIDE):
        seen = box.grown(margin, image)
        part = seen.of(pixels, image)
        mean: np.ndarray = np.zeros((), np.float32)
        for way in ORIENTATIONS:
            mean = mean + turned_back(_upscaled(net, turned(part, *way), module), *way) / len(ORIENTATIONS)
        yield box, box.times(net.scale).of(mean, seen.times(net.scale))


def turned(image: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    """An image (H, W, C), transposed if ``mirrored``, then turned by quarters of a full turn."""
    return np.rot90(image.swapaxes(0, 1) if mirrored else image, quarters)


def turned_back(image: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    """The inverse of ``turned``."""
    upright = np.rot90(image, -quarters)
    return upright.swapaxes(0, 1) if mirrored else upright


def _upscaled(net: FusedGenerator, pixels: np.ndarray, module: ModuleType) -> np.ndarray:
    """The tiles of a result in one array: float32 (scale H, scale W, 3)."""
    height, width, channels = pixels.shape
    result = np.empty((net.scale * height, net.scale * width, channels), np.float32)
    for box, y in upscale_in_tiles(net, pixels, module):
        top, bottom, left, right = box.times(net.scale)
        result[top:bottom, left:right] = y
    return result
