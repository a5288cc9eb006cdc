"""The passes of batch normalization over x: (..., C). Everything with one value for each channel is a vector: (C,).

Each pass has two steps: sums over the batch (``moments``, ``batch_norm_grad_sums``), then what uses them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinysrgan.core.device import Array, array_module, on_gpu
from tinysrgan.ops.activation import leaky_relu, leaky_relu_grad, prelu_grad
from tinysrgan.ops.cuda import batch_norm as cuda
from tinysrgan.ops.elementwise import elementwise, reduce_channels


class Norm(NamedTuple):
    """leaky(gamma (x - mean) / sqrt(variance + epsilon) + beta), with vectors, and optionally an activation.

    slope: the activation's, a vector or a scalar; None without activation.
    """

    mean: Array
    variance: Array
    gamma: Array
    beta: Array
    epsilon: float
    slope: Array | float | None = None

    @property
    def inverse_std(self) -> Array:
        return 1 / (self.variance + self.epsilon) ** 0.5

    def affine(self, x: Array) -> Array:
        """x normalized, before the activation."""
        scale = self.gamma / (self.variance + self.epsilon) ** 0.5
        vectors = [scale, self.beta - self.mean * scale]
        return elementwise(lambda x, scale, shift: x * scale + shift, x, vectors=vectors)


@on_gpu(cuda.moments)
def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x over all axes but the last, in one pass over x.

    mean(x^2) - mean(x)^2 would lose its digits where the mean is much larger than the deviation. Both moments are
    therefore taken of x - origin; the origin is the mean of the first rows, which is near the mean of all.
    """
    n = x.size // x.shape[-1]
    origin = x.reshape(n, -1)[:256].mean(axis=0)
    mean, square = reduce_channels(lambda x, origin: (x - origin, (x - origin) ** 2), x, vectors=[origin]) / n
    return origin + mean, square - mean * mean


@on_gpu(cuda.normalize)
def normalize(
    x: Array, norm: Norm, shortcut: Array | None = None, running: tuple[Array, Array] | None = None, rate: float = 0.0
) -> Array:
    """The result of ``norm``, plus a shortcut of x's shape if there is one.

    ``running``, a mean and a variance, moves towards those of ``norm``: running += rate (batch - running).
    """
    for average, batch in zip(running or (), norm, strict=False):
        average += rate * (batch - average)
    y = norm.affine(x)
    y = y if norm.slope is None else leaky_relu(y, norm.slope)
    return y if shortcut is None else shortcut + y


@on_gpu(cuda.grad_sums)
def batch_norm_grad_sums(
    dy: Array, x: Array, norm: Norm, gradients: tuple[Array, Array] | None = None, slope_grad: Array | None = None
) -> Array:
    """The sums of dy and of dy (x - mean) / sqrt(variance + epsilon) over all axes but the last: (2, C).

    They are the gradients of beta and gamma, and are added to those if ``gradients`` are given. With an activation, dy
    is first multiplied by its derivative, and the gradient of its slope is added to ``slope_grad`` if that is given.
    """
    if norm.slope is not None:
        between = norm.affine(x)
        if slope_grad is not None:
            prelu_grad(between, dy, norm.slope, slope_grad)  # type: ignore[arg-type]
        dy = leaky_relu_grad(between, dy, norm.slope)
    sums = reduce_channels(
        lambda dy, x, mean, inverse_std: (dy, dy * ((x - mean) * inverse_std)),
        dy,
        x,
        vectors=[norm.mean, norm.inverse_std],
    )
    for gradient, total in zip(gradients or (), sums, strict=False):
        gradient += total
    return sums


@on_gpu(cuda.grad_input)
def batch_norm_grad_input(dy: Array, x: Array, norm: Norm, sums: Array) -> Array:
    """dx = gamma / std (dy - sums[0] / n - normal sums[1] / n), with the sums over the n rows of the batch."""
    n = x.size // x.shape[-1]
    if norm.slope is not None:
        dy = leaky_relu_grad(norm.affine(x), dy, norm.slope)
    inverse_std = norm.inverse_std
    return elementwise(
        lambda dy, x, factor, mean_dy, mean, slope: factor * (dy - mean_dy - (x - mean) * slope),
        dy,
        x,
        vectors=[norm.gamma * inverse_std, sums[0] / n, norm.mean, inverse_std * sums[1] / n],
    )


def fuses(x: Array) -> bool:
    """Whether batch-norm or a convolution and the activation after it are faster in one call: on a GPU."""
    return array_module(x) is not np
