"""Activations: a function of each number by itself, so dx = dy * f'(x)."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.layers.base import Layer, Parameter
from tinysrgan.ops import elementwise, sum_per_channel
from tinysrgan.ops.cuda import activation as cuda


class ReLU(Layer):
    """y = max(x, 0). Any shape."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        y = elementwise(xp.maximum, x, vectors=[xp.zeros(1, x.dtype)])
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return elementwise(lambda dy, y: dy * (y > 0), dy, y)


class PReLU(Layer):
    """Leaky ReLU with a learnt slope for each channel (He et al. 2015, arXiv 1502.01852).

        y = max(x, 0) + slope min(x, 0)

    x: (..., C). The slope is shared over space (Keras: ``shared_axes=[1, 2]``) and starts at ``initial``:
    0.25 in the paper, 0 in Keras.
    """

    def __init__(self, channels: int, initial: float = 0.25):
        self.slope = Parameter(np.full(channels, initial, np.float32))

    def forward(self, x: Array) -> Array:
        channels = len(self.slope.value)
        self.check_shape(x, x.shape[-1] == channels, f"(..., {channels})")
        self.save_for_backward(x)
        return leaky(x, self.slope.value)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        xp = array_module(dy)
        if xp is not np and not self.frozen:
            dx, slope_grad = cuda.prelu_grad(x, dy, self.slope.value)
            self.slope.grad += slope_grad
            return dx
        if not self.frozen:
            zero = xp.zeros_like(self.slope.value)
            self.slope.grad += sum_per_channel(lambda dy, x, zero: (dy * xp.minimum(x, zero),), dy, x, vectors=[zero])[
                0
            ]
        return leaky_grad(x, dy, self.slope.value)


class LeakyReLU(Layer):
    """PReLU with one slope for all, which isn't learnt. Any shape. SRGAN's discriminator has slope 0.2."""

    def __init__(self, slope: float = 0.2):
        self.slope = slope

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x)
        return leaky(x, array_module(x).full(1, self.slope, x.dtype))

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        return leaky_grad(x, dy, array_module(dy).full(1, self.slope, dy.dtype))


def leaky(x: Array, slope: Array) -> Array:
    """max(x, 0) + slope min(x, 0), for x: (..., C) and slope: (C,) or (1,)."""
    xp = array_module(x)
    zero = xp.zeros_like(slope)  # an array, because NumPy compares two arrays faster than an array with a number
    return elementwise(
        lambda x, slope, zero: xp.maximum(x, zero) + slope * xp.minimum(x, zero),
        x,
        vectors=[slope, zero],
        kernel=lambda x, slope, zero: cuda.leaky(x, slope),
    )


def leaky_grad(x: Array, dy: Array, slope: Array) -> Array:
    """dx: dy where x > 0, else slope dy. Written without a condition, which would be slower."""
    return elementwise(
        lambda dy, x, slope, rest: dy * (slope + rest * (x > 0)),
        dy,
        x,
        vectors=[slope, 1 - slope],
        kernel=lambda dy, x, slope, rest: cuda.leaky_grad(x, dy, slope),
    )


class Rescale(Layer):
    """y = factor x + offset, with the same two numbers for all; Keras' ``Rescaling``. Any shape."""

    def __init__(self, factor: float, offset: float = 0.0):
        self.factor, self.offset = factor, offset

    def forward(self, x: Array) -> Array:
        self.save_for_backward()
        return x * self.factor + self.offset

    def backward(self, dy: Array) -> Array:
        self.saved()
        return dy * self.factor


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), written through tanh so that it never overflows. Any shape; y in (0, 1)."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        y = 0.5 * xp.tanh(0.5 * x) + 0.5
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return dy * y * (1 - y)


class Tanh(Layer):
    """y = tanh(x). Any shape; y in (-1, 1)."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        y = xp.tanh(x)
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return dy * (1 - y * y)
