"""2x2 max-pooling on the GPU, float32 or float64: launches ``kernels/max_pool.cu``."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.launch import run, walk_images


def max_pool(x: Array) -> Array:
    """y: (N, H // 2, W // 2, C), the maximum of every 2x2 cell of x: (N, H, W, C)."""
    n, h, w, c = x.shape
    y = array_module(x).empty((n, h // 2, w // 2, c), x.dtype)
    _run("max_pool", x, y)
    return y


def max_pool_grad(x: Array, y: Array, dy: Array) -> Array:
    """dx: (N, H, W, C). dy goes to the maximum y of each cell of x; of equal ones, to the first."""
    xp, odd = array_module(x), x.shape[1] % 2 or x.shape[2] % 2
    dx = (xp.zeros if odd else xp.empty)(x.shape, x.dtype)
    _run("max_pool_grad", x, y, dy, dx)
    return dx


def _run(name: str, x: Array, y: Array, *others: Array) -> None:
    n, p, q, c = y.shape
    if y.size:
        sizes = (np.int32(length) for length in x.shape[1:])
        run("max_pool.cu", name, walk_images((n, p, q), c), x, y, *others, *sizes)
