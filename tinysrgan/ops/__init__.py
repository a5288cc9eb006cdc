"""The engine room: whatever has more than one implementation. Layers call these names and never choose.

All convolutions give what ``naive`` gives; ``im2col`` is the one to read, and what all take that have few pixels.
Arrays on a GPU go to ``cuda``, which launches our own kernels.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.conv import few_outputs, im2col, im2col_blocked, winograd
from tinysrgan.ops.cuda import convolution as cuda
from tinysrgan.ops.elementwise import by_rows, elementwise, in_place, sum_per_channel
from tinysrgan.ops.matmul import add_product, matmul

__all__ = [
    "add_product",
    "by_rows",
    "conv2d",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "elementwise",
    "exact",
    "in_place",
    "is_exact",
    "matmul",
    "sum_per_channel",
]


# So few outputs have few columns: they may be laid out at once, and what takes time is to read the weights.
FEW_PIXELS = 512

_exact = False


def exact(on: bool = True) -> None:
    """Keep to direct convolutions from now on (or no longer): float32 errors of 1e-6 instead of Winograd's 1e-5.

    On a GPU: float32 throughout, instead of tensor cores, which round to TF32 (errors of 1e-3) before they multiply.
    """
    global _exact
    _exact = on


def is_exact() -> bool:
    """What was last asked of ``exact``."""
    return _exact


def choose(x: Array, w_shape: tuple[int, ...], stride: int) -> str:
    """Which convolution to take for x: (N, H, W, C) and w: (R, S, C, K)."""
    n, height, width, _ = x.shape
    r, s, c, k = w_shape
    if array_module(x) is not np:
        return "cuda"
    if n * height * width <= FEW_PIXELS:
        return "im2col"
    if stride > 1 or r % 2 == 0 or s % 2 == 0:
        return "bands"
    if k <= 4 < c or (r * s > 9 and 4 * k <= c):
        return "thin"
    if r == s == 3 and c * k >= 512 and min(height, width) >= 16 and not _exact:
        return "winograd"
    return "bands"


def conv2d(x: Array, w: Array, stride: int = 1, bias: Array | None = None) -> Array:
    """y: (N, P, Q, K) = x: (N, H, W, C) convolved with w: (R, S, C, K), plus bias: (K,); "same" padding."""
    match choose(x, w.shape, stride):
        case "cuda":
            return cuda.conv2d(x, w, stride, bias, exact=_exact)
        case "thin":
            return few_outputs.conv2d(x, w, bias)
        case "winograd":
            return winograd.conv2d(x, w, bias)
        case "bands":
            return im2col_blocked.conv2d(x, w, stride, bias)
    y = im2col.conv2d(x, w, stride)
    return y if bias is None else y + bias


def conv2d_grad_weight(x: Array, dy: Array, w_shape: tuple[int, ...], stride: int = 1) -> Array:
    """dw: (R, S, C, K) from x: (N, H, W, C) and dy: (N, P, Q, K)."""
    match choose(x, w_shape, stride):
        case "cuda":
            return cuda.conv2d_grad_weight(x, dy, w_shape, stride, exact=_exact)
        case "thin":
            return few_outputs.conv2d_grad_weight(x, dy, w_shape)
        case "winograd":
            return winograd.conv2d_grad_weight(x, dy)
        case "bands":
            return im2col_blocked.conv2d_grad_weight(x, dy, w_shape, stride)
    return im2col.conv2d_grad_weight(x, dy, w_shape, stride)


def conv2d_grad_input(dy: Array, w: Array, x_shape: tuple[int, ...], stride: int = 1) -> Array:
    """dx: (N, H, W, C) from dy: (N, P, Q, K) and w: (R, S, C, K). With stride 1 it is a convolution of dy, K to C."""
    r, s, c, k = w.shape
    match choose(dy, (r, s, k, c), stride):
        case "cuda":
            return cuda.conv2d_grad_input(dy, w, x_shape, stride, exact=_exact)
        case "thin":
            return few_outputs.conv2d(dy, w[::-1, ::-1].transpose(0, 1, 3, 2))
        case "winograd":
            return winograd.conv2d_grad_input(dy, w)
        case "bands":
            return im2col_blocked.conv2d_grad_input(dy, w, x_shape, stride)
    return im2col.conv2d_grad_input(dy, w, x_shape, stride)
