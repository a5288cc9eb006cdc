"""Sums over all axes but the last, in a fixed order: launches ``kernels/sums.cu``."""

from __future__ import annotations

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import PARTS, run, sizes, walk, walk_alone


def sum_per_channel(x: Array) -> Array:
    """The sums of x: (..., C) over all axes but the last: (C,)."""
    launch = walk(x, PARTS)
    if launch.parts > 1:
        parts = array_module(x).empty((launch.parts, x.shape[-1]), x.dtype)
        run("sums.cu", "sum_rows", launch, x, parts, *sizes(x))
        x = parts
    return add_parts(x)


def add_parts(parts: Array) -> Array:
    """``sum_per_channel`` for few rows: each thread block sums all rows of one group of channels."""
    rows, channels = sizes(parts)
    sums = array_module(parts).empty(parts.shape[-1], parts.dtype)
    run("sums.cu", "sum_rows", walk_alone(int(rows), int(channels)), parts, sums, rows, channels)
    return sums
