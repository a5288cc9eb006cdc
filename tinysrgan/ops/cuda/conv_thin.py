"""Convolutions with few outputs on a GPU's tensor cores: launches ``kernels/conv_thin.cu`` and ``conv_tf32``.

All arrays are CuPy's, in float32; no function waits for the GPU.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import conv_halo, conv_tf32
from tinysrgan.ops.cuda.compile import kernel
from tinysrgan.ops.cuda.geometry import Geometry, geometry
from tinysrgan.ops.cuda.launch import aligned

THREADS = 256
# The outputs of the convolution with an R x 1 filter: the narrowest tile of ``conv_tf32``.
COLUMNS = conv_halo.FEW_COLUMNS


def takes(w_shape: tuple[int, ...], stride: int) -> bool:
    """Whether convolutions with w: (R, S, C, K) come here: fewer outputs than ``conv_tf32`` takes, of S columns that
    fill one of its tiles together, and stride 1."""
    r, s, c, k = w_shape
    return stride == 1 and k < 4 and COLUMNS / 2 <= s * k <= COLUMNS and conv_tf32.takes((r, 1, c, COLUMNS))


def conv2d(
    x: Array, w: Array, bias: Array | None = None, slope: Array | None = None, shortcut: Array | None = None
) -> Array:
    """y: (N, H, W, K) = prelu(conv(x, w) + bias) + shortcut, with stride 1, as in ``conv_tf32``."""
    g = geometry(x.shape, w.shape, 1)
    t = conv_tf32.conv2d(x, _folded(g, w))
    y = array_module(x).empty((g.N, g.P, g.Q, g.K), np.float32)
    extras = (None if array is None else aligned(array) for array in (bias, slope, shortcut))
    _launch("add_columns", y.size, (t, *extras, y), g)
    return y


def conv2d_grad_input(dy: Array, w: Array, x_shape: tuple[int, ...], shortcut: Array | None = None) -> Array:
    """dx + shortcut: (N, H, W, C), from dy: (N, H, W, K) and w: (R, S, C, K). The shortcut is optional."""
    g = geometry(x_shape, w.shape, 1)
    return conv_tf32.conv2d_grad_input(_spread(g, dy), _folded(g, w), x_shape, shortcut=shortcut)


def add_gradients(x: Array, dy: Array, w_grad: Array, b_grad: Array) -> None:
    """w_grad: (R, S, C, K) += dw; b_grad: (K,) += the sums of dy, for x: (N, H, W, C), dy: (N, H, W, K)."""
    g, xp = geometry(x.shape, w_grad.shape, 1), array_module(x)
    folded, sums = xp.zeros((g.R, 1, g.C, COLUMNS), np.float32), xp.zeros(COLUMNS, np.float32)
    conv_tf32.add_gradients(x, _spread(g, dy), folded, sums)
    _launch("unfold_gradients", w_grad.size + g.K, (folded, sums, w_grad, b_grad), g)


def _folded(g: Geometry, w: Array) -> Array:
    """The R x 1 filter: (R, 1, C, COLUMNS)."""
    folded = array_module(w).empty((g.R, 1, g.C, COLUMNS), np.float32)
    _launch("fold_filter", folded.size, (aligned(w), folded), g)
    return folded


def _spread(g: Geometry, dy: Array) -> Array:
    """The gradient of that filter's result: (N, P, W, COLUMNS)."""
    dt = array_module(dy).empty((g.N, g.P, g.W, COLUMNS), np.float32)
    _launch("spread_columns", dt.size, (aligned(dy), dt), g, (COLUMNS, THREADS // COLUMNS))
    return dt


def _launch(name: str, threads: int, arrays: tuple[Any, ...], g: Geometry, block: tuple[int, ...] = (THREADS,)) -> None:
    launch = kernel(array_module(arrays[0]), "conv_thin.cu", name)
    launch((ceil(threads / THREADS),), block, (*arrays, np.int32(COLUMNS), g.record()))
