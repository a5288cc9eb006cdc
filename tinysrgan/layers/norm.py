"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167)."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.base import Buffer, Layer, Parameter


class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, for each channel of x: (..., C).

    In train mode mean and variance are the batch's own, and the running ones move towards them by ``1 - momentum``.
    In eval mode the running ones are used, so that a sample's output does not depend on the rest of the batch.
    Keras' defaults: ``BatchNormalization(momentum=0.99, epsilon=1e-3)``; SRGAN's code has momentum 0.8 or 0.5.
    The running variance is the biased one, as in Keras (PyTorch keeps the unbiased one).
    """

    def __init__(self, channels: int, momentum: float = 0.8, epsilon: float = 1e-3):
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma = Parameter(np.ones(channels, np.float32))
        self.beta = Parameter(np.zeros(channels, np.float32))
        self.running_mean = Buffer(np.zeros(channels, np.float32))
        self.running_variance = Buffer(np.ones(channels, np.float32))

    def forward(self, x: Array) -> Array:
        mean, variance = self.running_mean.value, self.running_variance.value
        self.check_shape(x, x.shape[-1] == len(mean), f"(..., {len(mean)})")
        if self.training:
            mean, variance = ops.moments(x)
            self.save_for_backward(x, mean, variance)
            if not self.frozen:
                self.running_mean.value += (1 - self.momentum) * (mean - self.running_mean.value)
                self.running_variance.value += (1 - self.momentum) * (variance - self.running_variance.value)
        scale = self.gamma.value / (variance + self.epsilon) ** 0.5
        return ops.scale_and_shift(x, scale, self.beta.value - mean * scale)

    def backward(self, dy: Array) -> Array:
        """dx = gamma / std (dy - mean(dy) - normal mean(dy normal)), with normal = (x - mean(x)) / std.

        The subtracted terms are the gradients through the batch's mean and variance.
        """
        x, mean, variance = self.saved()
        inverse_std = 1 / (variance + self.epsilon) ** 0.5
        sum_dy, sum_dy_normal = ops.batch_norm_grad_sums(dy, x, mean, inverse_std)
        if not self.frozen:
            self.gamma.grad += sum_dy_normal
            self.beta.grad += sum_dy
        n = x.size // x.shape[-1]
        return ops.batch_norm_grad_input(
            dy, x, self.gamma.value * inverse_std, sum_dy / n, mean, inverse_std * sum_dy_normal / n
        )
