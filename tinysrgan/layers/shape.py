"""Layers that move numbers about: pixel shuffle, nearest upsampling, max-pooling, flattening."""

from __future__ import annotations

from tinysrgan.device import Array, array_module
from tinysrgan.layers.base import Layer


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
        self.keep(x.shape)
        cells = x.reshape(n, h, w, c // (f * f), f, f)
        return cells.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * f, w * f, c // (f * f))

    def backward(self, dy: Array) -> Array:
        ((n, h, w, c),) = self.kept()
        f = self.factor
        return dy.reshape(n, h, f, w, f, c // (f * f)).transpose(0, 1, 3, 5, 2, 4).reshape(n, h, w, c)


class Upsample(Layer):
    """Repeat every pixel f times in both directions, Keras' ``UpSampling2D``: (N, H, W, C) -> (N, f H, f W, C)."""

    def __init__(self, factor: int = 2):
        self.factor = factor

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        n, h, w, c = x.shape
        f = self.factor
        self.keep(x.shape)
        return xp.broadcast_to(x[:, :, None, :, None, :], (n, h, f, w, f, c)).reshape(n, h * f, w * f, c)

    def backward(self, dy: Array) -> Array:
        ((n, h, w, c),) = self.kept()
        f = self.factor
        return dy.reshape(n, h, f, w, f, c).sum(axis=(2, 4))


class MaxPool(Layer):
    """The largest of every 2x2 cell, Keras' ``MaxPooling2D``: (N, H, W, C) -> (N, H // 2, W // 2, C).

    An odd last row or column is dropped. The gradient goes to the largest; among equals, to the first.
    """

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        n, h, w, c = x.shape
        cells = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
        top = xp.maximum(cells[:, :, 0, :, 0], cells[:, :, 0, :, 1])
        bottom = xp.maximum(cells[:, :, 1, :, 0], cells[:, :, 1, :, 1])
        y = xp.maximum(top, bottom)
        self.keep(x, y)
        return y

    def backward(self, dy: Array) -> Array:
        x, y = self.kept()
        xp = array_module(dy)
        h, w = 2 * y.shape[1], 2 * y.shape[2]
        dx = xp.zeros(x.shape, dy.dtype)
        free = xp.ones(y.shape, bool)
        for i in (0, 1):
            for j in (0, 1):
                here = free & (x[:, i:h:2, j:w:2] == y)
                dx[:, i:h:2, j:w:2] = dy * here
                free &= ~here
        return dx


class Flatten(Layer):
    """(N, H, W, C) -> (N, H W C), in memory order."""

    def forward(self, x: Array) -> Array:
        self.keep(x.shape)
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.kept()
        return dy.reshape(shape)
