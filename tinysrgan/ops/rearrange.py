"""Rearrangements of pixels and cells of f x f pixels: pixel shuffle, nearest upsampling, 2x2 max pooling.

Each is a view with separate axes for row and column within a cell, and a formula on that view.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from tinysrgan.core.device import Array, on_gpu
from tinysrgan.ops.cuda import max_pool as cuda_pool
from tinysrgan.ops.cuda import resample as cuda
from tinysrgan.ops.elementwise import by_rows

CELL = ((0, 0), (0, 1), (1, 0), (1, 1))


@on_gpu(cuda.shuffle)
def pixel_shuffle(x: Array, f: int) -> Array:
    """y: (N, f H, f W, C) from x: (N, H, W, C f f); channel c f f + i f + j becomes row i, column j of its cell."""
    n, h, w, c = x.shape
    k = c // (f * f)
    cells = x.reshape(n, h, w, k, f, f)
    y = by_rows(lambda cells: cells.transpose(0, 1, 4, 2, 5, 3), (n, h, f, w, f, k), cells)
    return y.reshape(n, h * f, w * f, k)


@on_gpu(cuda.shuffle_grad)
def pixel_unshuffle(y: Array, f: int) -> Array:
    """x: (N, H, W, C f f) from y: (N, f H, f W, C): the inverse of ``pixel_shuffle``, hence also its gradient."""
    n, height, width, k = y.shape
    h, w = height // f, width // f
    cells = y.reshape(n, h, f, w, f, k)
    x = by_rows(lambda cells: cells.transpose(0, 1, 3, 5, 2, 4), (n, h, w, k, f, f), cells)
    return x.reshape(n, h, w, k * f * f)


@on_gpu(cuda.repeat)
def upsample(x: Array, f: int) -> Array:
    """y: (N, f H, f W, C) from x: (N, H, W, C): every pixel becomes a cell of f x f equal pixels."""
    n, h, w, c = x.shape
    cells = np.broadcast_to(x[:, :, None, :, None, :], (n, h, f, w, f, c))
    return by_rows(lambda cells: cells, cells.shape, cells).reshape(n, h * f, w * f, c)


@on_gpu(cuda.repeat_grad)
def upsample_grad(dy: Array, f: int) -> Array:
    """dx: (N, H, W, C), the sums over the cells of dy: (N, f H, f W, C)."""
    n, height, width, c = dy.shape
    h, w = height // f, width // f
    cells = dy.reshape(n, h, f, w, f, c)
    return by_rows(lambda cells: sum(cells[:, :, i, :, j] for i in range(f) for j in range(f)), (n, h, w, c), cells)


@on_gpu(cuda_pool.max_pool)
def max_pool(x: Array) -> Array:
    """y: (N, H // 2, W // 2, C) from x: (N, H, W, C): the maximum of every 2x2 cell. Odd last rows are dropped."""
    cells = _cells(x)
    n, p, _, q, _, c = cells.shape
    return by_rows(lambda cells: reduce(np.maximum, (cells[:, :, i, :, j] for i, j in CELL)), (n, p, q, c), cells)


@on_gpu(cuda_pool.max_pool_grad)
def max_pool_grad(x: Array, y: Array, dy: Array) -> Array:
    """dx: (N, H, W, C). dy goes to the maximum y of each cell of x; of equal ones, to the first."""

    def route(cells: Array, y: Array, dy: Array) -> Array:
        dx = np.empty_like(cells)
        for i, j in CELL:
            dx[:, :, i, :, j] = dy * (cells[:, :, i, :, j] == y)
            dy = dy - dx[:, :, i, :, j]  # zero once a maximum was found
        return dx

    cells = _cells(x)
    n, p, _, q, _, c = cells.shape
    dx = by_rows(route, cells.shape, cells, y, dy).reshape(n, 2 * p, 2 * q, c)
    return dx if dx.shape == x.shape else np.pad(dx, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))


def _cells(x: Array) -> Array:
    """x as (N, H // 2, 2, W // 2, 2, C)."""
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
