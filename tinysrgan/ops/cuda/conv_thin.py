"""Convolutions with few outputs on a GPU's tensor cores: launches ``kernels/conv_thin.cu`` and ``conv_tf32``.

All arrays are CuPy's, in float32; no function waits for the GPU.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import conv_tf32
from tinysrgan.ops.cuda.compile import kernel
from tinysrgan.ops.cuda.geometry import geometry
from tinysrgan.ops.cuda.launch import aligned

THREADS = 256


def takes(w_shape: tuple[int, ...], stride: int) -> bool:
    """Whether the forward pass with w: (R, S, C, K) comes here: fewer outputs than ``conv_tf32`` takes, of S columns
    that fill one of its tiles together, and stride 1."""
    r, s, c, k = w_shape
    fills = conv_tf32.FEW_COLUMNS / 2 <= s * k <= conv_tf32.FEW_COLUMNS
    return stride == 1 and k < 4 and fills and conv_tf32.takes((r, 1, c, _folded(s, k)), forward=True)


def _folded(s: int, k: int) -> int:
    return 4 * ceil(s * k / 4)


def conv2d(
    x: Array, w: Array, bias: Array | None = None, slope: Array | None = None, shortcut: Array | None = None
) -> Array:
    """y: (N, H, W, K) = prelu(conv(x, w) + bias) + shortcut, with stride 1, as in ``conv_tf32``."""
    g, xp = geometry(x.shape, w.shape, 1), array_module(x)
    outputs = _folded(g.S, g.K)
    folded = xp.empty((g.R, 1, g.C, outputs), np.float32)
    sizes = np.int32(outputs), g.record()
    fold = kernel(xp, "conv_thin.cu", "fold_filter")
    fold((ceil(folded.size / THREADS),), (THREADS,), (aligned(w), folded, *sizes))
    t = conv_tf32.conv2d(x, folded)
    y = xp.empty((g.N, g.P, g.Q, g.K), np.float32)
    extras = (None if array is None else aligned(array) for array in (bias, slope, shortcut))
    add = kernel(xp, "conv_thin.cu", "add_columns")
    add((ceil(y.size / THREADS),), (THREADS,), (t, *extras, y, *sizes))
    return y
