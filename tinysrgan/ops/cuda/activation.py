"""Leaky and parametric ReLU on the GPU: launches ``kernels/activation.cu``.

x, dy: (..., C); slope: (C,), or a number for all channels. All arrays have one type, float32 or float64.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module, constant
from tinysrgan.ops.cuda.launch import run, sizes, tickets, walk, walk_sums


def leaky(x: Array, slope: Array | float) -> Array:
    """y: x where x is positive, else slope x."""
    y, (a, count) = array_module(x).empty(x.shape, x.dtype), slopes(slope, x)
    run("activation.cu", "leaky", walk(x), x, a, y, *sizes(x), count)
    return y


def leaky_grad(x: Array, dy: Array, slope: Array | float) -> Array:
    """dx: dy where x is positive, else slope dy."""
    dx, (a, count) = array_module(x).empty(x.shape, x.dtype), slopes(slope, x)
    run("activation.cu", "leaky_grad", walk(x), dy, x, a, dx, None, None, None, *sizes(x), count)
    return dx


def prelu_grad(x: Array, dy: Array, slope: Array, slope_grad: Array) -> Array:
    """dx; adds dslope, the sums of dy min(x, 0), to slope_grad: (C,) in the same pass."""
    xp, launch = array_module(x), walk_sums(x)
    dx, parts = xp.empty(x.shape, x.dtype), xp.empty((launch.parts, x.shape[-1]), x.dtype)
    sums = slope_grad, parts, tickets(xp)
    run("activation.cu", "leaky_grad", launch, dy, x, slope, dx, *sums, *sizes(x), np.int32(len(slope)))
    return dx


def slopes(slope: Array | float | None, x: Array) -> tuple[Array | None, np.int32]:
    """The slopes as an array of C or one, and their number; None and 0 without an activation."""
    if isinstance(slope, float | int):
        slope = constant((slope,), x)
    return slope, np.int32(0 if slope is None else len(slope))
