"""Inference convolutions with cached weight transforms."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.ops.conv import winograd
from tinysrgan.ops.conv.dispatch import choose, conv2d
from tinysrgan.ops.conv.epilogue import Epilogue


class FrozenFilter:
    """Weights w: (R, S, C, K) that no longer change, with their Winograd transform, computed once when needed."""

    def __init__(self, w: Array):
        self.w = w

    @cached_property
    def transformed(self) -> np.ndarray:
        """G w G^T: (36, C, K)."""
        return winograd.transformed(self.w)

    def convolve(self, x: Array, bias: Array, slope: Array | None = None, shortcut: Array | None = None) -> Array:
        """y: (N, H, W, K) = prelu(conv(x, w) + bias) + shortcut, with "same" padding and stride 1.

        x: (N, H, W, C); bias and slope: (K,); shortcut: as y. Without a slope there is no PReLU.
        """
        if choose(x, self.w.shape, 1) == "winograd":
            return winograd.convolve(x, self.transformed, Epilogue(bias, slope, shortcut))
        return conv2d(x, self.w, 1, bias, slope, shortcut)
