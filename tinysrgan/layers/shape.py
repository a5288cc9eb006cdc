"""Layers that move numbers about: pixel shuffle, nearest upsampling, max-pooling, flattening."""

from __future__ import annotations

from functools import reduce

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.layers.base import Layer
from tinysrgan.ops import by_rows
from tinysrgan.ops.cuda import resample as cuda

CELL = ((0, 0), (0, 1), (1, 0), (1, 1))


class PixelShuffle(Layer):
    """Trade channels for space (Shi et al. 2016, arXiv 1609.05158, eq. 4): (N, H, W, C f f) -> (N, f H, f W, C).

    Channel ``c f f + i f + j`` lands in row i and column j of its f x f cell: PyTorch's ``PixelShuffle`` order.
    TensorFlow's ``depth_to_space`` takes ``(i f + j) C + c`` instead. Example, f = 2, C = 1:
    the single pixel with channels [0 1 2 3] becomes the rows [0 1], [2 3].
    """

    def __init__(self, factor: int = 2):
        self.factor = factor

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        f = self.factor
        if c % (f * f):
            raise ValueError(f"PixelShuffle '{self.path}' needs channels divisible by {f * f}, not {c}.")
        self.save_for_backward(x.shape)
        if array_module(x) is not np:
            return cuda.shuffle(x, f)
        k = c // (f * f)
        cells = x.reshape(n, h, w, k, f, f)
        y = by_rows(lambda cells: cells.transpose(0, 1, 4, 2, 5, 3), (n, h, f, w, f, k), cells)
        return y.reshape(n, h * f, w * f, k)

    def backward(self, dy: Array) -> Array:
        ((n, h, w, c),) = self.saved()
        f = self.factor
        if array_module(dy) is not np:
            return cuda.shuffle_grad(dy, f)
        k = c // (f * f)
        cells = dy.reshape(n, h, f, w, f, k)
        return by_rows(lambda cells: cells.transpose(0, 1, 3, 5, 2, 4), (n, h, w, k, f, f), cells).reshape(n, h, w, c)


class Upsample(Layer):
    """Repeat every pixel f times in both directions, Keras' ``UpSampling2D``: (N, H, W, C) -> (N, f H, f W, C)."""

    def __init__(self, factor: int = 2):
        self.factor = factor

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        f = self.factor
        self.save_for_backward(x.shape)
        if array_module(x) is not np:
            return cuda.repeat(x, f)
        cells = np.broadcast_to(x[:, :, None, :, None, :], (n, h, f, w, f, c))
        return by_rows(lambda cells: cells, cells.shape, cells).reshape(n, h * f, w * f, c)

    def backward(self, dy: Array) -> Array:
        ((n, h, w, c),) = self.saved()
        f = self.factor
        if array_module(dy) is not np:
            return cuda.repeat_grad(dy, f)
        cells = dy.reshape(n, h, f, w, f, c)
        return by_rows(lambda cells: sum(cells[:, :, i, :, j] for i in range(f) for j in range(f)), (n, h, w, c), cells)


class MaxPool(Layer):
    """The largest of every 2x2 cell, Keras' ``MaxPooling2D``: (N, H, W, C) -> (N, H // 2, W // 2, C).

    An odd last row or column is dropped. The gradient goes to the largest; among equals, to the first.
    """

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        cells = self._cells(x)
        n, p, _, q, _, c = cells.shape
        y = by_rows(lambda cells: reduce(xp.maximum, (cells[:, :, i, :, j] for i, j in CELL)), (n, p, q, c), cells)
        self.save_for_backward(x, y)
        return y

    def backward(self, dy: Array) -> Array:
        x, y = self.saved()
        xp = array_module(dy)

        def route(cells: Array, y: Array, dy: Array) -> Array:
            dx = xp.empty_like(cells)
            for i, j in CELL:
                dx[:, :, i, :, j] = dy * (cells[:, :, i, :, j] == y)
                dy = dy - dx[:, :, i, :, j]  # what one has got, the next can't get
            return dx

        cells = self._cells(x)
        n, p, _, q, _, c = cells.shape
        dx = by_rows(route, cells.shape, cells, y, dy).reshape(n, 2 * p, 2 * q, c)
        return dx if dx.shape == x.shape else xp.pad(dx, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))

    @staticmethod
    def _cells(x: Array) -> Array:
        """x as (N, H // 2, 2, W // 2, 2, C): row and column in a cell have axes of their own."""
        n, h, w, c = x.shape
        return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)


class Flatten(Layer):
    """(N, H, W, C) -> (N, H W C), in memory order."""

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x.shape)
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved()
        return dy.reshape(shape)
