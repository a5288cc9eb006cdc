"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167)."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.activation import LeakyReLU, PReLU
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
        # Over the batch. Where several processes share it, ``training.data_parallel`` puts others here.
        self.moments, self.grad_sums = ops.moments, ops.batch_norm_grad_sums

    def forward(self, x: Array, activation: PReLU | LeakyReLU | None = None, shortcut: Array | None = None) -> Array:
        """y. With an activation or a shortcut, activation(y) + shortcut in the same pass over memory."""
        channels = len(self.gamma.value)
        self.check_shape(x, x.shape[-1] == channels, f"(..., {channels})")
        running = self.running_mean.value, self.running_variance.value
        mean, variance = self.moments(x) if self.training else running
        norm = ops.Norm(mean, variance, self.gamma.value, self.beta.value, self.epsilon, slope_of(activation))
        self.save_for_backward(x, norm)
        running_to_update = running if self.training and not self.frozen else None
        return ops.normalize(x, norm, shortcut, running_to_update, 1 - self.momentum)

    def backward(self, dy: Array, activation: PReLU | LeakyReLU | None = None) -> Array:
        """dx = gamma / std (dy - mean(dy) - normal mean(dy normal)), with normal = (x - mean(x)) / std.

        The subtracted terms are the gradients through the batch's mean and variance. The sums of dy and of dy normal
        are also the gradients of beta and gamma. ``activation`` is that of ``forward``.
        """
        x, norm = self.saved()
        gradients = None if self.frozen else (self.beta.grad, self.gamma.grad)
        slope_grad = activation.slope.grad if isinstance(activation, PReLU) and not activation.frozen else None
        sums = self.grad_sums(dy, x, norm, gradients, slope_grad)
        return ops.batch_norm_grad_input(dy, x, norm, sums)


def slope_of(activation: PReLU | LeakyReLU | None) -> Array | float | None:
    """The slopes of an activation: (C,), or a scalar."""
    if isinstance(activation, PReLU):
        return activation.slope.value
    return None if activation is None else activation.slope
