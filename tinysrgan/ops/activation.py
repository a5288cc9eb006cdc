"""Leaky ReLU, with one slope or one per channel, and its gradients."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, on_gpu
from tinysrgan.ops.cuda import activation as cuda
from tinysrgan.ops.elementwise import elementwise, reduce_channels


@on_gpu(cuda.leaky)
def leaky_relu(x: Array, slope: Array | float) -> Array:
    """y = max(x, 0) + slope min(x, 0). x: (..., C); slope: (C,), or a scalar for all channels."""
    slope = _vector(slope, x)
    # NumPy compares two arrays faster than an array with a scalar.
    return elementwise(
        lambda x, slope, zero: np.maximum(x, zero) + slope * np.minimum(x, zero),
        x,
        vectors=[slope, np.zeros_like(slope)],
    )


@on_gpu(cuda.leaky_grad)
def leaky_relu_grad(x: Array, dy: Array, slope: Array | float) -> Array:
    """dx: dy where x > 0, else slope dy. Multiplying by the condition is faster than ``where``."""
    slope = _vector(slope, x)
    return elementwise(lambda dy, x, slope, rest: dy * (slope + rest * (x > 0)), dy, x, vectors=[slope, 1 - slope])


@on_gpu(cuda.prelu_grad)
def prelu_grad(x: Array, dy: Array, slope: Array, slope_grad: Array) -> Array:
    """dx; adds the sums of dy min(x, 0) over all axes but the last to slope_grad. slope, slope_grad: (C,)."""
    slope_grad += reduce_channels(
        lambda dy, x, zero: (dy * np.minimum(x, zero),), dy, x, vectors=[np.zeros_like(slope)]
    )[0]
    return leaky_relu_grad(x, dy, slope)


def _vector(slope: Array | float, x: Array) -> Array:
    return np.full(1, slope, x.dtype) if isinstance(slope, float | int) else slope
