"""Leaky and parametric ReLU on the GPU: launches ``kernels/activation.cu``.

x, dy: (..., C); slope: (C,), or (1,) for all channels. All arrays have one type, float32 or float64.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import PARTS, run, sizes, walk
from tinysrgan.ops.cuda.sums import add_parts


def leaky(x: Array, slope: Array) -> Array:
    """y: x where x is positive, else slope x."""
    y = array_module(x).empty(x.shape, x.dtype)
    run("activation.cu", "leaky", walk(x), x, slope, y, *sizes(x), np.int32(len(slope)))
    return y


def leaky_grad(x: Array, dy: Array, slope: Array) -> Array:
    """dx: dy where x is positive, else slope dy."""
    dx = array_module(x).empty(x.shape, x.dtype)
    run("activation.cu", "leaky_grad", walk(x), dy, x, slope, dx, None, *sizes(x), np.int32(len(slope)))
    return dx


def prelu_grad(x: Array, dy: Array, slope: Array) -> tuple[Array, Array]:
    """dx, and dslope: (C,), the sums of dy min(x, 0), both in one pass; slope: (C,)."""
    xp = array_module(x)
    launch = walk(x, PARTS)
    dx, parts = xp.empty(x.shape, x.dtype), xp.empty((launch.parts, x.shape[-1]), x.dtype)
    run("activation.cu", "leaky_grad", launch, dy, x, slope, dx, parts, *sizes(x), np.int32(len(slope)))
    return dx, add_parts(parts)
