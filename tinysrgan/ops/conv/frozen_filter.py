"""Convolutions whose weights don't change any more, as in inference: what is made of the weights is made once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.conv import im2col_blocked, winograd
from tinysrgan.ops.cuda import convolution as cuda


class Filter:
    """Weights w: (R, S, C, K), and what the ways to convolve with them need."""

    def __init__(self, w: Array):
        self.w = w

    @cached_property
    def transformed(self) -> np.ndarray:
        return winograd.transformed(self.w)

    def convolve(self, x: Array, bias: Array, slope: Array | None = None, shortcut: Array | None = None) -> Array:
        """y: (N, H, W, K) = prelu(x * w + bias) + shortcut, for x: (N, H, W, C); "same" padding, stride 1.

        bias and slope: (K,); shortcut: as y. Without a slope no PReLU is applied, without a shortcut none is added.
        """
        match ops.choose(x, self.w.shape, 1):
            case "cuda":
                return cuda.conv2d(x, self.w, 1, bias, slope, shortcut, exact=ops.is_exact())
            case "winograd":
                return winograd.convolve(x, self.transformed, bias, slope, shortcut)
            case "bands":
                return im2col_blocked.conv2d(x, self.w, 1, bias, slope, shortcut)
        y = ops.conv2d(x, self.w, 1, bias)
        if slope is not None:
            y = array_module(y).where(y < 0, y * slope, y)
        return y if shortcut is None else y + shortcut
