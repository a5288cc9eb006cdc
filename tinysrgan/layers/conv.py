"""The convolution, and its gradients with respect to input and weights."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.layers.base import Layer, Parameter
from tinysrgan.layers.initializers import fan_in_uniform, icnr
from tinysrgan.ops import conv2d, conv2d_grad_input, conv2d_grad_weight, sum_per_channel
from tinysrgan.ops.cuda import sums as cuda


class Conv2D(Layer):
    """2-D convolution with "same" padding, Keras' ``Conv2D(K, (R, S), strides, padding="same")``.

    x: (N, H, W, C), w: (R, S, C, K), b: (K,), y: (N, P, Q, K) with P = ceil(H / stride), Q = ceil(W / stride).

        y[n, p, q, k] = b[k] + sum over r, s, c of x[n, p stride + r - top, q stride + s - left, c] w[r, s, c, k]

    where x is zero outside the image. The formulas, and the faster ways to the same numbers, are in ``ops``.

    Weights start small and uniform; give ``before_shuffle=f`` to the convolution in front of ``PixelShuffle(f)``, so
    that it starts without checkerboards (ICNR).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        icnr_factor: int = 0,
        rng: np.random.Generator | None = None,
    ):
        if size % 2 == 0:
            raise ValueError(f"Conv2D takes an odd filter size, not {size}.")
        if icnr_factor and outputs % icnr_factor**2:
            raise ValueError(f"Before PixelShuffle({icnr_factor}) come multiples of {icnr_factor**2} channels.")
        self.stride = stride
        shape = (size, size, inputs, outputs)
        self.w = Parameter(
            icnr(shape, icnr_factor, rng) if icnr_factor else fan_in_uniform(shape, size * size * inputs, rng)
        )
        self.b = Parameter(np.zeros(outputs, np.float32))

    def forward(self, x: Array) -> Array:
        channels = self.w.value.shape[2]
        self.check_shape(x, x.ndim == 4 and x.shape[3] == channels, f"(N, H, W, {channels})")
        self.save_for_backward(x)
        return conv2d(x, self.w.value, self.stride, self.b.value)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        if not self.frozen:
            self.w.grad += conv2d_grad_weight(x, dy, self.w.value.shape, self.stride)
            self.b.grad += sum_per_channel(lambda dy: (dy,), dy, kernel=lambda dy: cuda.sum_per_channel(dy)[None])[0]
        return conv2d_grad_input(dy, self.w.value, x.shape, self.stride)
