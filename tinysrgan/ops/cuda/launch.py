"""Launches kernels that treat x: (..., C) as a matrix: rows of C channels, all axes but the last merged into one.

Threads of a block are arranged as the elements are in memory: channels along x, rows along y. A block covers a part of
the rows and up to 256 channels. The grid has the parts of the rows along x, the groups of channels along y.
"""

from __future__ import annotations

from functools import cache
from math import ceil, prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address, kernel

THREADS = 256
# A thread covers at least this many rows, if there are that many, so that it loads its channel's parameters only once.
ROWS_A_THREAD = 8
# The most parts that a sum is made of: enough thread blocks for a large GPU. It is a constant rather than a property of
# the present GPU, so that all GPUs add in the same order.
PARTS = 512
# The channels of a block that sums: a warp reads one run of 128 bytes.
WARP = 32
# The most groups of channels that a sum can have.
TICKETS = 4096

REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


class Walk(NamedTuple):
    """The grid, (parts of the rows, groups of channels), and the threads of a block, (channels, rows)."""

    grid: tuple[int, int]
    block: tuple[int, int]

    @property
    def parts(self) -> int:
        return self.grid[0]


def walk(x: Array) -> Walk:
    """The launch that covers all elements of x: (..., C)."""
    rows, channels = prod(x.shape[:-1]), x.shape[-1]
    groups, block = _tile(rows, channels, THREADS)
    return Walk((max(1, ceil(rows / (block[1] * ROWS_A_THREAD))), groups), block)


def walk_sums(x: Array) -> Walk:
    """The launch that sums x: (..., C) over the rows. Narrow blocks leave the last of them few parts to add."""
    rows, channels = prod(x.shape[:-1]), x.shape[-1]
    groups, block = _tile(rows, channels, WARP)
    return Walk((max(1, min(ceil(rows / (block[1] * ROWS_A_THREAD)), PARTS // groups)), groups), block)


def walk_images(images_shape: tuple[int, int, int], channels: int) -> Walk:
    """The launch for images (N, H, W, channels): one block for each row of pixels, with the columns along its y."""
    n, h, w = images_shape
    groups, block = _tile(w, channels, THREADS)
    return Walk((n * h, groups), block)


def _tile(rows: int, channels: int, width: int) -> tuple[int, tuple[int, int]]:
    """The number of groups of up to ``width`` channels, of similar size, and a block for one of them."""
    groups = ceil(channels / width)
    width = ceil(channels / groups)
    return groups, (width, max(1, min(THREADS // width, rows)))


@cache
def tickets(xp: ModuleType) -> Array:
    """Where the blocks of a sum count their arrivals (``kernels/rows.cuh``): zeros, before each launch and after it."""
    return xp.zeros(TICKETS, np.uint32)


def sizes(x: Array) -> tuple[np.int64, np.int32]:
    """Rows and channels, in the integer types that the kernels take."""
    return np.int64(prod(x.shape[:-1])), np.int32(x.shape[-1])


def run(file: str, name: str, walk: Walk, *arguments: Any, **defines: int | str) -> None:
    """Launch a kernel; arrays of numbers are first made contiguous and of the first one's type, float32 or float64.

    So are Python's numbers; integers must have the width that the kernel takes.
    """
    xp, dtype = array_module(arguments[0]), arguments[0].dtype
    launch = kernel(xp, file, name, REAL=REAL[dtype], **defines)

    def converted(argument: Any) -> Any:
        if isinstance(argument, xp.ndarray):
            return argument if argument.dtype.kind == "u" else xp.ascontiguousarray(argument, dtype)
        return dtype.type(argument) if isinstance(argument, float) else argument

    launch(walk.grid, walk.block, tuple(map(converted, arguments)))


def aligned(x: Array) -> Array:
    """x as a contiguous float32 array at a multiple of 16 bytes, copied only if necessary."""
    x = array_module(x).ascontiguousarray(x, np.float32)
    return x if address(x) % 16 == 0 else x.copy()
