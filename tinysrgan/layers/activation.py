"""Activations: functions of each element by itself, so that dx = dy * f'(x)."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.base import Layer, Parameter


class ReLU(Layer):
    """y = max(x, 0); dx = dy where x > 0, else 0. Any shape."""

    slope = 0.0  # read by a convolution that also computes the ReLU after it

    def forward(self, x: Array) -> Array:
        y = np.maximum(x, 0)
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return ops.leaky_relu_grad(y, dy, 0.0)


class PReLU(Layer):
    """Leaky ReLU with a learned slope for each channel (He et al. 2015, arXiv 1502.01852).

        y = max(x, 0) + slope min(x, 0)
        dx = dy where x > 0, else slope dy;  dslope = sum of dy min(x, 0)

    x: (..., C). The slope is shared over space (Keras: ``shared_axes=[1, 2]``) and starts at ``initial``:
    0.25 in the paper, 0 in Keras.
    """

    def __init__(self, channels: int, initial: float = 0.25):
        self.slope = Parameter(np.full(channels, initial, np.float32))

    def forward(self, x: Array) -> Array:
        channels = len(self.slope.value)
        self.check_shape(x, x.shape[-1] == channels, f"(..., {channels})")
        self.save_for_backward(x)
        return ops.leaky_relu(x, self.slope.value)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        if self.frozen:
            return ops.leaky_relu_grad(x, dy, self.slope.value)
        return ops.prelu_grad(x, dy, self.slope.value, self.slope.grad)


class LeakyReLU(Layer):
    """y = max(x, 0) + slope min(x, 0); dx = dy where x > 0, else slope dy. Any shape.

    One fixed slope of at least 0; the SRGAN paper's is 0.2. Raises ValueError for a negative one, as Keras does.
    """

    def __init__(self, slope: float = 0.2):
        if slope < 0:
            raise ValueError(f"LeakyReLU takes a slope of at least 0, not {slope}.")
        self.slope = slope

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x)
        return ops.leaky_relu(x, self.slope)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        return ops.leaky_relu_grad(x, dy, self.slope)


class Rescale(Layer):
    """y = factor x + offset, with the same factor and offset for all elements; Keras' ``Rescaling``. Any shape."""

    def __init__(self, factor: float, offset: float = 0.0):
        self.factor, self.offset = factor, offset

    def forward(self, x: Array) -> Array:
        self.save_for_backward()
        return x * self.factor + self.offset

    def backward(self, dy: Array) -> Array:
        self.saved()
        return dy * self.factor


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), in 0..1, computed with tanh so that it never overflows. Any shape."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)). Any shape; y in (0, 1)."""

    def forward(self, x: Array) -> Array:
        y = sigmoid(x)
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return dy * y * (1 - y)


class Tanh(Layer):
    """y = tanh(x). Any shape; y in (-1, 1)."""

    def forward(self, x: Array) -> Array:
        y = np.tanh(x)
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return dy * (1 - y * y)
