"""The passes of batch normalization over x: (..., C). Everything with one value for each channel is a vector: (C,).

Each pass has two steps: sums over the batch (``moments``, ``batch_norm_grad_sums``), then what uses them.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.activation import leaky_relu, leaky_relu_grad, prelu_grad
from tinysrgan.ops.cuda import batch_norm as cuda
from tinysrgan.ops.elementwise import elementwise, reduce_channels


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x over all axes but the last, in one pass over x.

    mean(x^2) - mean(x)^2 would lose its digits where the mean is much larger than the deviation. Both moments are
    therefore taken of x - origin; the origin is the mean of the first rows, which is near the mean of all.
    """
    if array_module(x) is not np:
        return cuda.moments(x)
    n = x.size // x.shape[-1]
    origin = x.reshape(n, -1)[:256].mean(axis=0)
    mean, square = reduce_channels(lambda x, origin: (x - origin, (x - origin) ** 2), x, vectors=[origin]) / n
    return origin + mean, square - mean * mean


def normalize(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    slope: Array | float | None = None,
    shortcut: Array | None = None,
    running: tuple[Array, Array] | None = None,
    rate: float = 0.0,
) -> Array:
    """leaky(gamma (x - mean) / sqrt(variance + epsilon) + beta) + shortcut. The activation and shortcut are optional.

    ``running``, a mean and a variance, moves towards the other two: running += rate (batch - running).
    """
    if array_module(x) is not np:
        return cuda.normalize(x, mean, variance, gamma, beta, epsilon, slope, shortcut, running, rate)
    for average, batch in zip(running or (), (mean, variance), strict=False):
        average += rate * (batch - average)
    y = _affine(x, mean, variance, gamma, beta, epsilon)
    y = y if slope is None else leaky_relu(y, slope)
    return y if shortcut is None else shortcut + y


def _affine(x: Array, mean: Array, variance: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    scale = gamma / (variance + epsilon) ** 0.5
    return elementwise(lambda x, scale, shift: x * scale + shift, x, vectors=[scale, beta - mean * scale])


def batch_norm_grad_sums(
    dy: Array,
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    slope: Array | float | None = None,
    gradients: tuple[Array, Array] | None = None,
    slope_grad: Array | None = None,
) -> Array:
    """The sums of dy and of dy (x - mean) / sqrt(variance + epsilon) over all axes but the last: (2, C).

    They are the gradients of beta and gamma, and are added to those if ``gradients`` are given. With an activation, dy
    is first multiplied by its derivative, and the gradient of its slope is added to ``slope_grad`` if that is given.
    """
    if array_module(x) is not np:
        arguments = mean, variance, gamma, beta, epsilon, slope, gradients, slope_grad
        return cuda.grad_sums(dy, x, *arguments)
    if slope is not None:
        between = _affine(x, mean, variance, gamma, beta, epsilon)
        if slope_grad is not None:
            prelu_grad(between, dy, slope, slope_grad)  # type: ignore[arg-type]
        dy = leaky_relu_grad(between, dy, slope)
    sums = reduce_channels(
        lambda dy, x, mean, inverse_std: (dy, dy * ((x - mean) * inverse_std)),
        dy,
        x,
        vectors=[mean, 1 / (variance + epsilon) ** 0.5],
    )
    for gradient, total in zip(gradients or (), sums, strict=False):
        gradient += total
    return sums


def batch_norm_grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    sums: Array,
    n: int,
    slope: Array | float | None = None,
) -> Array:
    """dx = gamma / std (dy - sums[0] / n - normal sums[1] / n), with the sums over the n rows of the batch."""
    if array_module(x) is not np:
        return cuda.grad_input(dy, x, mean, variance, gamma, beta, epsilon, sums, n, slope)
    if slope is not None:
        dy = leaky_relu_grad(_affine(x, mean, variance, gamma, beta, epsilon), dy, slope)
    inverse_std = 1 / (variance + epsilon) ** 0.5
    return elementwise(
        lambda dy, x, factor, mean_dy, mean, slope: factor * (dy - mean_dy - (x - mean) * slope),
        dy,
        x,
        vectors=[gamma * inverse_std, sums[0] / n, mean, inverse_std * sums[1] / n],
    )


def fuses(x: Array) -> bool:
    """Whether batch-norm or a convolution and the activation after it are faster in one call: on a GPU."""
    return array_module(x) is not np
