"""3x3 convolutions with stride 1 on a GPU's tensor cores, from tiles with a halo: launches ``kernels/conv_halo.cu``.

``conv_tf32`` calls these functions for the convolutions that ``takes`` accepts. All arrays are CuPy's, in float32.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import kernel
from tinysrgan.ops.cuda.geometry import Geometry, geometry
from tinysrgan.ops.cuda.launch import aligned

# The result of a thread block: HEIGHT x WIDTH pixels and COLUMNS channels, or FEW_COLUMNS where it has no more. It
# reads DEPTH input channels at a time and keeps in shared memory STAGES tiles of weights, those of a column of TAPS.
HEIGHT, WIDTH, COLUMNS, FEW_COLUMNS, DEPTH, STAGES, TAPS = 8, 16, 64, 32, 16, 3, 3
THREADS = 128


def takes(g: Geometry) -> bool:
    """Whether conv_halo.cu can compute it: 3x3, stride 1, and an output of at least one tile."""
    return g.R == g.S == TAPS and g.stride == 1 and g.P >= HEIGHT and g.Q >= WIDTH


def tile_columns(count: int) -> int:
    """The columns of a thread block for a result of ``count`` channels."""
    return FEW_COLUMNS if count <= FEW_COLUMNS else COLUMNS


def conv2d(
    x: Array, w: Array, bias: Array | None = None, slope: Array | None = None, shortcut: Array | None = None
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut, as in ``conv_tf32``."""
    g = geometry(x.shape, w.shape, 1)
    y = array_module(x).empty((g.N, g.P, g.Q, g.K), np.float32)
    return _launch(g, (x, w, bias, slope, shortcut), y)


def conv2d_grad_input(dy: Array, w: Array, x_shape: tuple[int, ...], shortcut: Array | None = None) -> Array:
    """dx + shortcut: (N, H, W, C), from dy: (N, P, Q, K). dx is dy convolved with w, flipped, C and K exchanged."""
    g = geometry(x_shape, w.shape, 1)
    flipped = g._replace(H=g.P, W=g.Q, C=g.K, P=g.H, Q=g.W, K=g.C, top=g.R - 1 - g.top, left=g.S - 1 - g.left)
    dx = array_module(dy).empty(x_shape, np.float32)
    return _launch(flipped, (dy, w, None, None, shortcut), dx, GRAD_INPUT=1)


def _launch(g: Geometry, arrays: tuple[Array | None, ...], result: Array, **defines: int) -> Array:
    xp = array_module(result)
    ready = (None if array is None else aligned(array) for array in arrays)
    columns = tile_columns(g.K)
    grid = g.N * ceil(g.P / HEIGHT) * ceil(g.Q / WIDTH), ceil(g.K / columns)
    launch = kernel(xp, "conv_halo.cu", "conv_halo", COLUMNS=columns, **defines)
    launch(grid, (THREADS,), (*ready, result, g.record()), shared_mem=shared_memory(bool(defines), columns))
    return result


def shared_memory(grad_input: bool, columns: int) -> int:
    """Bytes of shared memory for a thread block: two tiles of the image and STAGES of weights, padded for the banks."""
    image = (HEIGHT + TAPS - 1) * (WIDTH + TAPS - 1) * (DEPTH + 4)
    weights = columns * (DEPTH + 4) if grad_input else DEPTH * (columns + 8)
    return 4 * (2 * image + STAGES * TAPS * weights)
