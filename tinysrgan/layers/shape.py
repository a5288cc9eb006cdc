"""Layers that rearrange or resample: pixel shuffle, nearest upsampling, max-pooling, flattening."""

from __future__ import annotations

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.base import Layer


class PixelShuffle(Layer):
    """Channels to space (Shi et al. 2016, arXiv 1609.05158, eq. 4): (N, H, W, C f f) -> (N, f H, f W, C).

    Channel ``c f f + i f + j`` moves to row i and column j of its f x f cell: PyTorch's ``PixelShuffle`` order.
    TensorFlow's ``depth_to_space`` takes ``(i f + j) C + c`` instead. Example, f = 2, C = 1:
    the single pixel with channels [0 1 2 3] becomes the rows [0 1], [2 3].
    """

    def __init__(self, factor: int = 2):
        self.factor = factor

    def forward(self, x: Array) -> Array:
        cell = self.factor**2
        if x.shape[3] % cell:
            raise ValueError(f"{self} needs channels divisible by {cell}, not {x.shape[3]}.")
        self.save_for_backward()
        return ops.pixel_shuffle(x, self.factor)

    def backward(self, dy: Array) -> Array:
        self.saved()
        return ops.pixel_unshuffle(dy, self.factor)


class Upsample(Layer):
    """Repeat every pixel f times in both directions, Keras' ``UpSampling2D``: (N, H, W, C) -> (N, f H, f W, C).

    dx is the sum of dy over the f x f copies of a pixel.
    """

    def __init__(self, factor: int = 2):
        self.factor = factor

    def forward(self, x: Array) -> Array:
        self.save_for_backward()
        return ops.upsample(x, self.factor)

    def backward(self, dy: Array) -> Array:
        self.saved()
        return ops.upsample_grad(dy, self.factor)


class MaxPool(Layer):
    """The maximum of every 2x2 cell, Keras' ``MaxPooling2D``: (N, H, W, C) -> (N, H // 2, W // 2, C).

    An odd last row or column is dropped. Only the maximum gets the gradient; in a tie, only the first one.
    """

    def forward(self, x: Array) -> Array:
        y = ops.max_pool(x)
        self.save_for_backward(x, y)
        return y

    def backward(self, dy: Array) -> Array:
        x, y = self.saved()
        return ops.max_pool_grad(x, y, dy)


class Flatten(Layer):
    """(N, H, W, C) -> (N, H W C), in memory order."""

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x.shape)
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved()
        return dy.reshape(shape)
