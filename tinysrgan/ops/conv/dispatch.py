"""Chooses the implementation for a convolution from its shapes, and calls it.

All implementations compute what ``naive`` defines. Read ``im2col`` first; it also serves inputs with few pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.conv import few_outputs, im2col, im2col_blocked, winograd
from tinysrgan.ops.conv.epilogue import Epilogue
from tinysrgan.ops.cuda import convolution as cuda
from tinysrgan.ops.elementwise import sum_per_channel

# Up to this many pixels, the columns of the whole batch fit in the caches and reading the weights takes most of the
# time, so blocking gains nothing.
FEW_PIXELS = 512

_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exact(on: bool = True) -> Iterator[None]:
    """Inside this context convolutions avoid the algorithms that round more than plain float32 does.

    On the CPU that is Winograd: relative errors of 1e-6 instead of 1e-5. On a GPU it is the tensor cores, which round
    their factors to TF32: errors of 1e-6 instead of 1e-3. The setting belongs to the calling thread and to the workers
    of ``ops.parallel`` that it uses. ``exact(False)`` allows all algorithms.
    """
    token = _exact.set(on)
    try:
        yield
    finally:
        _exact.reset(token)


def choose(x: Array, w_shape: tuple[int, ...], stride: int) -> str:
    """Choose the implementation for x: (N, H, W, C) and w: (R, S, C, K); returns its module's name."""
    n, height, width, _ = x.shape
    r, s, c, k = w_shape
    if array_module(x) is not np:
        return "cuda"
    if n * height * width <= FEW_PIXELS:
        return "im2col"
    if stride > 1 or r % 2 == 0 or s % 2 == 0:
        return "im2col_blocked"
    if k <= 4 < c or (r * s > 9 and 4 * k <= c):
        return "few_outputs"
    if r == s == 3 and c * k >= 512 and min(height, width) >= 16 and not _exact.get():
        return "winograd"
    return "im2col_blocked"


def conv2d(
    x: Array,
    w: Array,
    stride: int = 1,
    bias: Array | None = None,
    slope: Array | None = None,
    shortcut: Array | None = None,
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut, with "same" padding.

    x: (N, H, W, C); w: (R, S, C, K); bias and slope: (K,); shortcut: (N, P, Q, K). The last three are optional.
    """
    after = Epilogue(bias, slope, shortcut)
    match choose(x, w.shape, stride):
        case "cuda":
            return cuda.conv2d(x, w, stride, *after, exact=_exact.get())
        case "winograd":
            return winograd.conv2d(x, w, after)
        case "im2col_blocked":
            return im2col_blocked.conv2d(x, w, stride, after)
        case "few_outputs":
            return after._replace(bias=None).apply(few_outputs.conv2d(x, w, bias))
    return after.apply(im2col.conv2d(x, w, stride))


def conv2d_grad_weight(x: Array, dy: Array, w_shape: tuple[int, ...], stride: int = 1) -> Array:
    """dw: (R, S, C, K) from x: (N, H, W, C) and dy: (N, P, Q, K)."""
    match choose(x, w_shape, stride):
        case "cuda":
            return cuda.conv2d_grad_weight(x, dy, w_shape, stride, exact=_exact.get())
        case "few_outputs":
            return few_outputs.conv2d_grad_weight(x, dy, w_shape)
        case "winograd":
            return winograd.conv2d_grad_weight(x, dy)
        case "im2col_blocked":
            return im2col_blocked.conv2d_grad_weight(x, dy, w_shape, stride)
    return im2col.conv2d_grad_weight(x, dy, w_shape, stride)


def add_conv2d_grads(x: Array, dy: Array, w_grad: Array, b_grad: Array, stride: int = 1) -> None:
    """w_grad += dw and b_grad += db, the sums of dy over all axes but the last.

    x: (N, H, W, C); dy: (N, P, Q, K); w_grad: (R, S, C, K); b_grad: (K,).
    """
    if array_module(x) is not np:
        cuda.add_conv2d_grads(x, dy, w_grad, b_grad, stride, _exact.get())
        return
    w_grad += conv2d_grad_weight(x, dy, w_grad.shape, stride)
    b_grad += sum_per_channel(dy)


def conv2d_grad_input(
    dy: Array, w: Array, x_shape: tuple[int, ...], stride: int = 1, shortcut: Array | None = None
) -> Array:
    """dx + shortcut: (N, H, W, C), from dy: (N, P, Q, K) and w: (R, S, C, K). The shortcut is optional.

    With stride 1, dx is a convolution of dy with K input and C output channels.
    """
    r, s, c, k = w.shape
    after = Epilogue(shortcut=shortcut)
    match choose(dy, (r, s, k, c), stride):
        case "cuda":
            return cuda.conv2d_grad_input(dy, w, x_shape, stride, shortcut, exact=_exact.get())
        case "few_outputs":
            return after.apply(few_outputs.conv2d(dy, w[::-1, ::-1].transpose(0, 1, 3, 2)))
        case "winograd":
            return winograd.conv2d_grad_input(dy, w, after)
        case "im2col_blocked":
            return after.apply(im2col_blocked.conv2d_grad_input(dy, w, x_shape, stride))
    return after.apply(im2col.conv2d_grad_input(dy, w, x_shape, stride))
