"""Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167)."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.layers.base import Buffer, Layer, Parameter
from tinysrgan.ops import elementwise, sum_per_channel
from tinysrgan.ops.cuda import batch_norm as cuda


class BatchNorm(Layer):
    """Give every channel mean 0 and variance 1 over the batch, then a learnt scale and shift.

    x: (..., C). In train mode mean and variance are the batch's own, and the running ones move towards them by
    ``1 - momentum``; in eval mode the running ones are used, so that an image's result doesn't depend on its company.
    Keras' defaults: ``BatchNormalization(momentum=0.99, epsilon=1e-3)``; SRGAN's code has momentum 0.8 or 0.5.
    The running variance is the biased one, as in Keras (PyTorch keeps the unbiased one).
    """

    def __init__(self, channels: int, momentum: float = 0.8, epsilon: float = 1e-3):
        self.momentum = momentum
        self.epsilon = epsilon
        self.scale = Parameter(np.ones(channels, np.float32))
        self.shift = Parameter(np.zeros(channels, np.float32))
        self.mean = Buffer(np.zeros(channels, np.float32))
        self.variance = Buffer(np.ones(channels, np.float32))

    def forward(self, x: Array) -> Array:
        mean, variance = self.mean.value, self.variance.value
        self.check_shape(x, x.shape[-1] == len(mean), f"(..., {len(mean)})")
        if self.training:
            mean, variance = moments(x)
            self.save_for_backward(x, mean, variance)
            if not self.frozen:
                self.mean.value += (1 - self.momentum) * (mean - self.mean.value)
                self.variance.value += (1 - self.momentum) * (variance - self.variance.value)
        scale = self.scale.value / (variance + self.epsilon) ** 0.5
        shift = self.shift.value - mean * scale
        return elementwise(lambda x, scale, shift: x * scale + shift, x, vectors=[scale, shift], kernel=cuda.normalise)

    def backward(self, dy: Array) -> Array:
        """dx = scale/std * (dy - mean(dy) - normal * mean(dy * normal)) with normal = (x - mean(x)) / std.

        What moves the mean or the variance of x cancels out.
        """
        x, mean, variance = self.saved()
        inverse_std = 1 / (variance + self.epsilon) ** 0.5
        sum_dy, sum_dy_normal = sum_per_channel(
            lambda dy, x, mean, inverse_std: (dy, dy * ((x - mean) * inverse_std)),
            dy,
            x,
            vectors=[mean, inverse_std],
            kernel=cuda.grad_sums,
        )
        if not self.frozen:
            self.scale.grad += sum_dy_normal
            self.shift.grad += sum_dy
        n = x.size // x.shape[-1]
        return elementwise(
            lambda dy, x, factor, mean_dy, mean, slope: factor * (dy - mean_dy - (x - mean) * slope),
            dy,
            x,
            vectors=[self.scale.value * inverse_std, sum_dy / n, mean, inverse_std * sum_dy_normal / n],
            kernel=cuda.grad_input,
        )


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x: (..., C) over all axes but the last, in one pass over x; both (C,).

    mean(x^2) - mean(x)^2 would lose its digits where the mean is much larger than the spread. So both are taken of
    x - origin, with an origin near the mean: the mean of the first rows.
    """
    if array_module(x) is not np:
        return cuda.moments(x)
    n = x.size // x.shape[-1]
    origin = x.reshape(n, -1)[:256].mean(axis=0)
    mean, square = sum_per_channel(lambda x, origin: (x - origin, (x - origin) ** 2), x, vectors=[origin]) / n
    return origin + mean, square - mean * mean
