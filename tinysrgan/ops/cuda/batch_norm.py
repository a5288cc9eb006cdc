"""Batch normalization on the GPU: launches ``kernels/batch_norm.cu``.

x, dy: (..., C); everything else: (C,). All arrays have one type, float32 or float64.
"""

from __future__ import annotations

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.activation import slopes
from tinysrgan.ops.cuda.launch import run, sizes, tickets, walk, walk_sums


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x over all axes but the last; accurate even if the mean is far from 0."""
    xp, channels, launch = array_module(x), x.shape[-1], walk_sums(x)
    parts = xp.empty((launch.parts, channels, 3), x.dtype)  # count, mean, sum of squares
    mean, variance = xp.empty(channels, x.dtype), xp.empty(channels, x.dtype)
    run("batch_norm.cu", "moments", launch, x, parts, tickets(xp), mean, variance, *sizes(x))
    return mean, variance


def normalize(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    slope: Array | float | None = None,
    shortcut: Array | None = None,
    running: tuple[Array, Array] | None = None,
    rate: float = 0.0,
) -> Array:
    """leaky(gamma (x - mean) / sqrt(variance + epsilon) + beta) + shortcut; as ``ops.normalization.normalize``."""
    y = array_module(x).empty(x.shape, x.dtype)
    a, count = slopes(slope, x)
    arrays = x, mean, variance, gamma, beta, a, shortcut, y, *(running or (None, None))
    run("batch_norm.cu", "normalize", walk(x), *arrays, float(rate), float(epsilon), *sizes(x), count)
    return y


def grad_sums(
    dy: Array,
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    slope: Array | float | None = None,
    gradients: tuple[Array, Array] | None = None,
    slope_grad: Array | None = None,
) -> Array:
    """The sums over the batch, (2, C), and three gradients; as ``ops.normalization.batch_norm_grad_sums``."""
    xp, channels, launch = array_module(x), x.shape[-1], walk_sums(x)
    parts, sums = xp.empty((launch.parts, channels, 3), x.dtype), xp.empty((2, channels), x.dtype)
    a, count = slopes(slope, x)
    totals = sums, *(gradients or (None, None)), slope_grad
    arrays = dy, x, mean, variance, gamma, beta, a, parts, tickets(xp), *totals
    run("batch_norm.cu", "grad_sums", launch, *arrays, float(epsilon), *sizes(x), count)
    return sums


def grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    sums: Array,
    n: int,
    slope: Array | float | None = None,
) -> Array:
    """dx from dy and the sums over the n rows of the batch that ``grad_sums`` returns."""
    dx = array_module(x).empty(x.shape, x.dtype)
    a, count = slopes(slope, x)
    arrays = dy, x, mean, variance, gamma, beta, a, sums, dx
    run("batch_norm.cu", "grad_input", walk(x), *arrays, float(n), float(epsilon), *sizes(x), count)
    return dx
