"""Sums over all axes but the last, in a fixed order: launches ``kernels/sums.cu``."""

from __future__ import annotations

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import run, sizes, tickets, walk_sums


def sum_per_channel(x: Array, total: Array | None = None) -> Array:
    """The sums of x: (..., C) over all axes but the last: (C,). They are added to ``total`` if that is given."""
    xp, channels = array_module(x), x.shape[-1]
    launch = walk_sums(x)
    parts = xp.empty((launch.parts, channels), x.dtype)
    sums = xp.empty(channels, x.dtype) if total is None else total
    run("sums.cu", "sum_rows", launch, x, parts, tickets(xp), sums, *sizes(x), ADD=int(total is not None))
    return sums
