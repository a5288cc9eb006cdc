"""The 2-D convolution."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array, constant
from tinysrgan.layers.activation import LeakyReLU, ReLU
from tinysrgan.layers.base import Layer, Parameter
from tinysrgan.layers.initializers import fan_in_uniform, icnr


class Conv2D(Layer):
    """2-D convolution with "same" padding, Keras' ``Conv2D(K, (R, S), strides, padding="same")``.

    x: (N, H, W, C), w: (R, S, C, K), b: (K,), y: (N, P, Q, K) with P = ceil(H / stride), Q = ceil(W / stride).

        y[n, p, q, k] = b[k] + sum over r, s, c of x[n, p stride + r - top, q stride + s - left, c] w[r, s, c, k]

    where x is zero outside the image. ``ops.conv.naive`` has these formulas, gradients included, as plain loops.

    The convolution in front of ``PixelShuffle(f)`` takes ``icnr_factor=f``, so that the net starts without
    checkerboards (ICNR). Raises ValueError for an even kernel size, and for channels that f^2 doesn't divide.

    A net's first layer in training needs no dx: without ``needs_dx`` it returns an empty one unless it is frozen.
    """

    needs_dx = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        icnr_factor: int = 0,
        rng: np.random.Generator | None = None,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"Conv2D takes an odd kernel size, not {kernel_size}.")
        if icnr_factor and out_channels % icnr_factor**2:
            raise ValueError(f"Before PixelShuffle({icnr_factor}) come multiples of {icnr_factor**2} channels.")
        self.stride = stride
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.w = Parameter(icnr(shape, icnr_factor, rng) if icnr_factor else fan_in_uniform(shape, rng))
        self.b = Parameter(np.zeros(out_channels, np.float32))

    def forward(self, x: Array, activation: LeakyReLU | ReLU | None = None) -> Array:
        """y, or activation(y) in the same pass over memory."""
        channels, outputs = self.w.value.shape[2:]
        self.check_shape(x, x.ndim == 4 and x.shape[3] == channels, f"(N, H, W, {channels})")
        self.save_for_backward(x)
        slope = constant((activation.slope,), self.b.value, outputs) if activation else None
        y = ops.conv2d(x, self.w.value, self.stride, self.b.value, slope)
        if activation:
            activation.save_for_backward(y)  # its backward needs signs only, and y has those of its argument
        return y

    def backward(
        self, dy: Array, activation: LeakyReLU | ReLU | None = None, *, shortcut: Array | None = None
    ) -> Array:
        """dx. With a shortcut, dx + shortcut in the same pass over memory. ``activation`` is that of ``forward``."""
        (x,) = self.saved()
        dy = activation.backward(dy) if activation else dy
        if not self.frozen:
            ops.add_conv2d_grads(x, dy, self.w.grad, self.b.grad, self.stride)
            if not self.needs_dx:
                return dy[:0]
        return ops.conv2d_grad_input(dy, self.w.value, x.shape, self.stride, shortcut)
