"""Batch normalization on the GPU: launches ``kernels/batch_norm.cu``.

x, dy: (..., C); everything else: (C,). All arrays have one type, float32 or float64.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import PARTS, run, sizes, walk, walk_alone
from tinysrgan.ops.cuda.sums import add_parts


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x over all axes but the last; accurate even if the mean is far from 0."""
    xp, channels = array_module(x), x.shape[-1]
    launch = walk(x, PARTS)
    parts = xp.empty((launch.parts, channels, 3), x.dtype)  # count, mean, sum of squares
    run("batch_norm.cu", "moments_of_rows", launch, x, parts, *sizes(x))
    mean, variance = xp.empty(channels, x.dtype), xp.empty(channels, x.dtype)
    last, count = walk_alone(launch.parts, channels), (np.int64(launch.parts), np.int32(channels))
    run("batch_norm.cu", "moments_of_parts", last, parts, x, mean, variance, *count)
    return mean, variance


def normalise(x: Array, scale: Array, shift: Array) -> Array:
    """x scale + shift."""
    y = array_module(x).empty(x.shape, x.dtype)
    run("batch_norm.cu", "normalise", walk(x), x, scale, shift, y, *sizes(x))
    return y


def grad_sums(dy: Array, x: Array, mean: Array, inverse_std: Array) -> Array:
    """The sums of dy and of dy (x - mean) inverse_std over all axes but the last: (2, C)."""
    launch = walk(x, PARTS)
    parts = array_module(x).empty((launch.parts, 2 * x.shape[-1]), x.dtype)
    run("batch_norm.cu", "grad_sums", launch, dy, x, mean, inverse_std, parts, *sizes(x))
    return add_parts(parts).reshape(2, -1)


def grad_input(dy: Array, x: Array, factor: Array, mean_dy: Array, mean: Array, slope: Array) -> Array:
    """factor (dy - mean_dy - (x - mean) slope)."""
    dx = array_module(x).empty(x.shape, x.dtype)
    run("batch_norm.cu", "grad_input", walk(x), dy, x, factor, mean_dy, mean, slope, dx, *sizes(x))
    return dx
