"""Leaky ReLU, with one slope or one per channel, and its gradients."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import activation as cuda
from tinysrgan.ops.elementwise import elementwise, reduce_channels


def leaky_relu(x: Array, slope: Array | float) -> Array:
    """y = max(x, 0) + slope min(x, 0). x: (..., C); slope: (C,), or a scalar for all channels."""
    xp = array_module(x)
    slope = _vector(slope, x)
    # NumPy compares two arrays faster than an array with a scalar.
    return elementwise(
        lambda x, slope, zero: xp.maximum(x, zero) + slope * xp.minimum(x, zero),
        x,
        vectors=[slope, xp.zeros_like(slope)],
        kernel=lambda x, slope, zero: cuda.leaky(x, slope),
    )


def leaky_relu_grad(x: Array, dy: Array, slope: Array | float) -> Array:
    """dx: dy where x > 0, else slope dy. Multiplying by the condition is faster than ``where``."""
    slope = _vector(slope, x)
    return elementwise(
        lambda dy, x, slope, rest: dy * (slope + rest * (x > 0)),
        dy,
        x,
        vectors=[slope, 1 - slope],
        kernel=lambda dy, x, slope, rest: cuda.leaky_grad(x, dy, slope),
    )


def prelu_grad(x: Array, dy: Array, slope: Array) -> tuple[Array, Array]:
    """dx, and dslope: (C,), the sums of dy min(x, 0) over all axes but the last. slope: (C,)."""
    if array_module(x) is not np:
        return cuda.prelu_grad(x, dy, slope)
    (slope_grad,) = reduce_channels(
        lambda dy, x, zero: (dy * np.minimum(x, zero),), dy, x, vectors=[np.zeros_like(slope)]
    )
    return leaky_relu_grad(x, dy, slope), slope_grad


def _vector(slope: Array | float, x: Array) -> Array:
    return array_module(x).full(1, slope, x.dtype) if isinstance(slope, float | int) else slope
