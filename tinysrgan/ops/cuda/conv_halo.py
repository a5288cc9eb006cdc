"""3x3 convolutions with stride 1 on a GPU's tensor cores, from tiles with a halo: launches ``kernels/conv_halo.cu``.

Who may come here ``tensor_cores.takes`` has asked before. Arrays of CuPy in, new arrays of CuPy out, all float32.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.convolution import Geometry, geometry

# What a block makes: pixels down and across, channels; in slices of DEPTH channels, with STAGES tiles of weights.
HEIGHT, WIDTH, COLUMNS, DEPTH, STAGES = 8, 16, 64, 32, 4
THREADS = 128
PITCH = DEPTH + 4


def takes(g: Geometry) -> bool:
    """Whether this rung is made for it: 3x3, stride 1, and an image that fills a block's tile at least."""
    return g.R == g.S == 3 and g.stride == 1 and g.P >= HEIGHT and g.Q >= WIDTH


def conv2d(
    x: Array, w: Array, bias: Array | None = None, slope: Array | None = None, shortcut: Array | None = None
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut, as in ``tensor_cores``."""
    g = geometry(x.shape, w.shape, 1)
    y = array_module(x).empty((g.N, g.P, g.Q, g.K), np.float32)
    return _launch(g, (x, w, bias, slope, shortcut), y)


def conv2d_grad_input(dy: Array, w: Array, x_shape: tuple[int, ...]) -> Array:
    """dx: (N, H, W, C) from dy: (N, P, Q, K): the convolution of dy with w turned around, its channels exchanged."""
    g = geometry(x_shape, w.shape, 1)
    turned = g._replace(H=g.P, W=g.Q, C=g.K, P=g.H, Q=g.W, K=g.C, top=g.R - 1 - g.top, left=g.S - 1 - g.left)
    dx = array_module(dy).empty(x_shape, np.float32)
    return _launch(turned, (dy, w, None, None, None), dx, GRAD_INPUT=1)


def _launch(g: Geometry, arrays: tuple[Array | None, ...], result: Array, **defines: int) -> Array:
    xp = array_module(result)
    ready = []
    for array in arrays:
        if array is not None:
            array = xp.ascontiguousarray(array, np.float32)
            array = array if address(array) % 16 == 0 else array.copy()
        ready.append(array)
    grid = g.N * ceil(g.P / HEIGHT) * ceil(g.Q / WIDTH), ceil(g.K / COLUMNS)
    image = (HEIGHT + g.R - 1) * (WIDTH + g.S - 1) * PITCH
    weights = COLUMNS * PITCH if defines else DEPTH * (COLUMNS + 8)
    launch = kernel(xp, "conv_halo.cu", "conv_halo", **defines)
    launch(grid, (THREADS,), (*ready, result, g.record()), shared_mem=4 * (2 * image + STAGES * weights))
    return result
