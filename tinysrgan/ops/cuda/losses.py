"""Losses with their gradients, and the mean sigmoid: one launch of ``kernels/losses.cu`` each, float32 or float64."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import run, tickets, walk_sums


def squared_error(y: Array, target: Array) -> tuple[Array, Array]:
    """mean((y - target)^2), without axes, and its gradient with respect to y. Any shape, both alike."""
    return _with_gradient("squared_error", y, target)


def cross_entropy(logits: Array, label: float) -> tuple[Array, Array]:
    """The mean binary cross-entropy of sigmoid(logits) and the label, and its gradient. Any shape."""
    return _with_gradient("cross_entropy", logits, label=label)


def mean_sigmoid(logits: Array) -> Array:
    """The mean of sigmoid(logits), without axes. Any shape."""
    return _mean("mean_sigmoid", logits)


def _with_gradient(name: str, *arrays: Array, label: float | None = None) -> tuple[Array, Array]:
    gradient = array_module(arrays[0]).empty(arrays[0].shape, arrays[0].dtype)
    return _mean(name, *arrays, gradient, label=label), gradient


def _mean(name: str, *arrays: Array, label: float | None = None) -> Array:
    y = arrays[0]
    xp, launch = array_module(y), walk_sums(y.reshape(-1, 1))
    mean = xp.empty((), y.dtype)
    labels = () if label is None else (float(label),)
    parts = xp.empty(launch.parts, y.dtype)
    run("losses.cu", name, launch, *arrays, mean, parts, tickets(xp), *labels, np.int64(y.size))
    return mean
