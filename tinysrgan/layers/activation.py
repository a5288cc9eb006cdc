"""Activations: a function of each number by itself, so dx = dy * f'(x)."""

from __future__ import annotations

import numpy as np

from tinysrgan.device import Array, array_module
from tinysrgan.layers.base import Layer, Parameter


class ReLU(Layer):
    """y = max(x, 0). Any shape."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        y = xp.maximum(x, 0)
        self.keep(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.kept()
        return dy * (y > 0)


class LeakyReLU(Layer):
    """y = x where x > 0, else slope * x. Any shape. SRGAN's discriminator has slope 0.2."""

    def __init__(self, slope: float = 0.2):
        self.slope = slope

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        self.keep(x)
        return xp.where(x > 0, x, x * self.slope)

    def backward(self, dy: Array) -> Array:
        (x,) = self.kept()
        xp = array_module(dy)
        return xp.where(x > 0, dy, dy * self.slope)


class PReLU(Layer):
    """LeakyReLU with a learnt slope for each channel (He et al. 2015, arXiv 1502.01852).

    x: (..., C). The slope is shared over space (Keras: ``shared_axes=[1, 2]``) and starts at ``initial``:
    0.25 in the paper, 0 in Keras.
    """

    def __init__(self, channels: int, initial: float = 0.25):
        self.slope = Parameter(np.full(channels, initial, np.float32))

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        self.keep(x)
        return xp.where(x > 0, x, x * self.slope.value)

    def backward(self, dy: Array) -> Array:
        (x,) = self.kept()
        xp = array_module(dy)
        if not self.frozen:
            self.slope.grad += (dy * xp.minimum(x, 0)).sum(axis=tuple(range(x.ndim - 1)))
        return xp.where(x > 0, dy, dy * self.slope.value)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), written through tanh so that it never overflows. Any shape; y in (0, 1)."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        y = 0.5 * xp.tanh(0.5 * x) + 0.5
        self.keep(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.kept()
        return dy * y * (1 - y)


class Tanh(Layer):
    """y = tanh(x). Any shape; y in (-1, 1)."""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        y = xp.tanh(x)
        self.keep(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.kept()
        return dy * (1 - y * y)
