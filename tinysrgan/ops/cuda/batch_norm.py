"""Batch normalization on the GPU: launches ``kernels/batch_norm.cu``, with the arguments of ``ops.normalization``.

x, dy: (..., C); everything else: (C,). All arrays have one type, float32 or float64.
"""

from __future__ import annotations

from typing import Any

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.activation import slopes
from tinysrgan.ops.cuda.launch import run, sizes, tickets, walk, walk_sums

Norm = tuple[Any, ...]  # of ``ops.normalization``


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x over all axes but the last; accurate even if the mean is far from 0."""
    xp, channels, launch = array_module(x), x.shape[-1], walk_sums(x)
    parts = xp.empty((launch.parts, channels, 3), x.dtype)  # count, mean, sum of squares
    mean, variance = xp.empty(channels, x.dtype), xp.empty(channels, x.dtype)
    run("batch_norm.cu", "moments", launch, x, parts, tickets(xp), mean, variance, *sizes(x))
    return mean, variance


def normalize(
    x: Array,
    norm: Norm,
    shortcut: Array | None = None,
    running: tuple[Array, Array] | None = None,
    rate: float = 0.0,
) -> Array:
    """The result of ``norm``, plus the shortcut; moves ``running``."""
    y = array_module(x).empty(x.shape, x.dtype)
    *vectors, epsilon, slope = norm
    a, count = slopes(slope, x)
    arrays = x, *vectors, a, shortcut, y, *(running or (None, None))
    run("batch_norm.cu", "normalize", walk(x), *arrays, float(rate), float(epsilon), *sizes(x), count)
    return y


def grad_sums(
    dy: Array,
    x: Array,
    norm: Norm,
    gradients: tuple[Array, Array] | None = None,
    slope_grad: Array | None = None,
) -> Array:
    """The sums over the batch, (2, C); adds to the three gradients."""
    xp, channels, launch = array_module(x), x.shape[-1], walk_sums(x)
    parts, sums = xp.empty((launch.parts, channels, 3), x.dtype), xp.empty((2, channels), x.dtype)
    *vectors, epsilon, slope = norm
    a, count = slopes(slope, x)
    totals = sums, *(gradients or (None, None)), slope_grad
    arrays = dy, x, *vectors, a, parts, tickets(xp), *totals
    run("batch_norm.cu", "grad_sums", launch, *arrays, float(epsilon), *sizes(x), count)
    return sums


def grad_input(dy: Array, x: Array, norm: Norm, sums: Array) -> Array:
    """dx from dy and the sums over the batch that ``grad_sums`` returns."""
    dx = array_module(x).empty(x.shape, x.dtype)
    *vectors, epsilon, slope = norm
    a, count = slopes(slope, x)
    rows, channels = sizes(x)
    arrays = dy, x, *vectors, a, sums, dx
    run("batch_norm.cu", "grad_input", walk(x), *arrays, float(rows), float(epsilon), rows, channels, count)
    return dx
