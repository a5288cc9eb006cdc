"""Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167)."""

from __future__ import annotations

import numpy as np

from tinysrgan.device import Array
from tinysrgan.layers.base import Layer, Parameter, Statistic


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
        self.mean = Statistic(np.zeros(channels, np.float32))
        self.variance = Statistic(np.ones(channels, np.float32))

    def forward(self, x: Array) -> Array:
        if not self.training:
            scale = self.scale.value / (self.variance.value + self.epsilon) ** 0.5
            return x * scale + (self.shift.value - self.mean.value * scale)

        rows = x.reshape(-1, x.shape[-1])
        mean = rows.mean(axis=0)
        centred = rows - mean
        variance = (centred * centred).mean(axis=0)
        inverse_std = 1 / (variance + self.epsilon) ** 0.5
        normal = centred * inverse_std
        self.keep(normal, inverse_std)
        if not self.frozen:
            self.mean.value += (1 - self.momentum) * (mean - self.mean.value)
            self.variance.value += (1 - self.momentum) * (variance - self.variance.value)
        return (normal * self.scale.value + self.shift.value).reshape(x.shape)

    def backward(self, dy: Array) -> Array:
        """dx = scale/std * (dy - mean(dy) - normal * mean(dy * normal)): what moves mean or variance cancels out."""
        normal, inverse_std = self.kept()
        rows = dy.reshape(normal.shape)
        sum_dy = rows.sum(axis=0)
        sum_dy_normal = (rows * normal).sum(axis=0)
        if not self.frozen:
            self.scale.grad += sum_dy_normal
            self.shift.grad += sum_dy
        n = len(rows)
        dx = (self.scale.value * inverse_std) * (rows - sum_dy / n - normal * (sum_dy_normal / n))
        return dx.reshape(dy.shape)
