"""Losses with their gradients on the GPU, in one launch of ``kernels/losses.cu``; float32 or float64."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import run, tickets, walk_sums


def squared_error(y: Array, target: Array) -> tuple[Array, Array]:
    """mean((y - target)^2), without axes, and its gradient with respect to y. Any shape, both alike."""
    return _run("squared_error", y, target)


def cross_entropy(logits: Array, label: float) -> tuple[Array, Array]:
    """The mean binary cross-entropy of sigmoid(logits) and the label, and its gradient. Any shape."""
    return _run("cross_entropy", logits, label=label)


def _run(name: str, *arrays: Array, label: float | None = None) -> tuple[Array, Array]:
    y = arrays[0]
    xp, launch = array_module(y), walk_sums(y.reshape(-1, 1))
    gradient, loss = xp.empty(y.shape, y.dtype), xp.empty((), y.dtype)
    sums = gradient, loss, xp.empty(launch.parts, y.dtype), tickets(xp)
    labels = () if label is None else (float(label),)
    run("losses.cu", name, launch, *arrays, *sums, *labels, np.int64(y.size))
    return loss, gradient
