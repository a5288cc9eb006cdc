"""The passes of batch normalization over x: (..., C). Everything with one value for each channel is a vector: (C,)."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import batch_norm as cuda
from tinysrgan.ops.elementwise import elementwise, reduce_channels


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x over all axes but the last, in one pass over x.

    mean(x^2) - mean(x)^2 would lose its digits where the mean is much larger than the deviation. Both moments are
    therefore taken of x - origin; the origin is the mean of the first rows, which is near the mean of all.
    """
    if array_module(x) is not np:
        return cuda.moments(x)
    n = x.size // x.shape[-1]
    origin = x.reshape(n, -1)[:256].mean(axis=0)
    mean, square = reduce_channels(lambda x, origin: (x - origin, (x - origin) ** 2), x, vectors=[origin]) / n
    return origin + mean, square - mean * mean


def scale_and_shift(x: Array, scale: Array, shift: Array) -> Array:
    """x scale + shift."""
    return elementwise(lambda x, scale, shift: x * scale + shift, x, vectors=[scale, shift], kernel=cuda.normalise)


def batch_norm_grad_sums(dy: Array, x: Array, mean: Array, inverse_std: Array) -> Array:
    """The sums of dy and of dy (x - mean) inverse_std over all axes but the last: (2, C)."""
    return reduce_channels(
        lambda dy, x, mean, inverse_std: (dy, dy * ((x - mean) * inverse_std)),
        dy,
        x,
        vectors=[mean, inverse_std],
        kernel=cuda.grad_sums,
    )


def batch_norm_grad_input(dy: Array, x: Array, factor: Array, mean_dy: Array, mean: Array, slope: Array) -> Array:
    """dx = factor (dy - mean_dy - (x - mean) slope)."""
    return elementwise(
        lambda dy, x, factor, mean_dy, mean, slope: factor * (dy - mean_dy - (x - mean) * slope),
        dy,
        x,
        vectors=[factor, mean_dy, mean, slope],
        kernel=cuda.grad_input,
    )
