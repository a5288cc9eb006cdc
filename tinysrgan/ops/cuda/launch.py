"""How threads share x: (..., C), looked at as rows of C channels, with all axes but the last taken as one.

In a block, threads lie as the numbers do in memory: along x the channels, along y the rows. A block takes some of the
rows and up to 256 channels; along its x the grid has the parts of the rows, along y the groups of channels.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import kernel

THREADS = 256
# A thread takes at least so many rows, where there are that many: it has what belongs to its channel loaded only once.
ROWS_A_THREAD = 8
# Sums are made of this many parts at most: enough blocks for a large GPU. Fixed, not asked of the GPU at hand, so that
# all GPUs add in the same order.
PARTS = 512

REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


class Walk(NamedTuple):
    """A launch's blocks, (parts of the rows, groups of channels), and a block's threads, (channels, rows)."""

    grid: tuple[int, int]
    block: tuple[int, int]

    @property
    def parts(self) -> int:
        return self.grid[0]


def walk(x: Array, most_parts: int = 2**31 - 1) -> Walk:
    """For all numbers of x: (..., C), in at most ``most_parts`` parts."""
    rows, channels = prod(x.shape[:-1]), x.shape[-1]
    groups, block = _tile(rows, channels, THREADS, THREADS)
    parts = ceil(rows / (block[1] * ROWS_A_THREAD))
    return Walk((max(1, min(parts, most_parts)), groups), block)


def walk_alone(parts: int, channels: int) -> Walk:
    """For what a block must do alone, (parts, channels) of a sum: it has more threads, and fewer channels."""
    groups, block = _tile(parts, channels, 4 * THREADS, 32)
    return Walk((1, groups), block)


def walk_images(images_shape: tuple[int, int, int], channels: int) -> Walk:
    """For images (N, H, W, channels): a block for every row of pixels, along whose y lie the columns."""
    n, h, w = images_shape
    groups, block = _tile(w, channels, THREADS, THREADS)
    return Walk((n * h, groups), block)


def _tile(rows: int, channels: int, threads: int, width: int) -> tuple[int, tuple[int, int]]:
    """Groups of ``width`` channels at most, of about the same size; and a block of up to ``threads`` for one."""
    groups = ceil(channels / width)
    width = ceil(channels / groups)
    return groups, (width, max(1, min(threads // width, rows)))


def sizes(x: Array) -> tuple[np.int64, np.int32]:
    """Rows and channels, as wide as kernels take them."""
    return np.int64(prod(x.shape[:-1])), np.int32(x.shape[-1])


def run(file: str, name: str, way: Walk, *arguments: Any, **defines: int | str) -> None:
    """Launch a kernel. All arrays are made contiguous and of the first one's type, float32 or float64."""
    xp, dtype = array_module(arguments[0]), arguments[0].dtype
    launch = kernel(xp, file, name, REAL=REAL[dtype], **defines)
    arrays_and_numbers = tuple(xp.ascontiguousarray(a, dtype) if isinstance(a, xp.ndarray) else a for a in arguments)
    launch(way.grid, way.block, arrays_and_numbers)
