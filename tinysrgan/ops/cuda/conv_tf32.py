"""The convolution and its gradients on a GPU's tensor cores: who can go there, and how ``conv_tf32.cu`` is launched.

The factors are rounded to TF32, 10 bits of mantissa, and their products added in float32. Arrays of CuPy in, new arrays
of CuPy out, all float32; nothing waits for the GPU. ``ops.cuda.convolution`` asks ``takes`` before it comes here.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from types import ModuleType

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import conv_halo
from tinysrgan.ops.cuda.compile import Kernel, address, kernel
from tinysrgan.ops.cuda.convolution import Geometry, geometry

# What a block makes of the result, in slices of what depth, of which so many are in shared memory.
ROWS, COLUMNS, DEPTH, STAGES = 128, 64, 32, 3
THREADS = 128  # four warps, each 64 x 32 of the result
# Of an axis of the filter: a kernel notes in 16 bits which of them are inside of the image.
TAPS = 16
# The blocks that a large GPU wants when dw's depth is shared out, two for each of its 100 or so multiprocessors. Fixed,
# not asked of the GPU at hand, so that all GPUs add in the same order.
BLOCKS = 256
# The fewest slices of that depth that are worth a block of their own.
SLICES = 16
# The compute capability that brought TF32 and asynchronous copies, Ampere's.
AMPERE = 80


@cache
def capable() -> bool:
    """Whether the GPU at hand has tensor cores for TF32."""
    import cupy

    return int(cupy.cuda.Device().compute_capability) >= AMPERE


def takes(x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int) -> bool:
    """Whether the convolution of x: (N, H, W, C) with w: (R, S, C, K), and its gradients, can go this way.

    The GPU must be of compute capability 8.0 or later, C and K multiples of 32, R and S at most 16; any stride will do.
    """
    r, s, c, k = w_shape
    return max(r, s) <= TAPS and c % DEPTH == 0 and k % DEPTH == 0 and capable()


def conv2d(
    x: Array,
    w: Array,
    stride: int = 1,
    bias: Array | None = None,
    slope: Array | None = None,
    shortcut: Array | None = None,
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut.

    x: (N, H, W, C); w: (R, S, C, K); "same" padding; bias: (K,), slope: (K,) and shortcut: (N, P, Q, K) may be absent.
    """
    g, xp = geometry(x.shape, w.shape, stride), array_module(x)
    if conv_halo.takes(g):
        return conv_halo.conv2d(x, w, bias, slope, shortcut)
    extras = (None if array is None else _ready(xp, array) for array in (bias, slope, shortcut))
    y = xp.empty((g.N, g.P, g.Q, g.K), np.float32)
    grid = ceil(g.N * g.P * g.Q / ROWS), ceil(g.K / COLUMNS)
    _launch(xp, "conv_forward", grid, (_ready(xp, x), _ready(xp, w), *extras, y, g.record()))
    return y


def conv2d_grad_input(dy: Array, w: Array, x_shape: tuple[int, ...], stride: int = 1) -> Array:
    """dx: (N, H, W, C) from dy: (N, P, Q, K) and w: (R, S, C, K)."""
    g, xp = geometry(x_shape, w.shape, stride), array_module(dy)
    if conv_halo.takes(g):
        return conv_halo.conv2d_grad_input(dy, w, x_shape)
    dx = xp.empty(x_shape, np.float32)
    rows = g.N * ceil(g.H / stride) * ceil(g.W / stride)  # of the largest phase
    grid = ceil(rows / ROWS), ceil(g.C / COLUMNS), stride**2
    _launch(xp, "conv_grad_input", grid, (_ready(xp, dy), _ready(xp, w), dx, g.record()))
    return dx


def conv2d_grad_weight(x: Array, dy: Array, w_shape: tuple[int, ...], stride: int = 1) -> Array:
    """dw: (R, S, C, K) from x: (N, H, W, C) and dy: (N, P, Q, K)."""
    g, xp = geometry(x.shape, w_shape, stride), array_module(x)
    dw = xp.empty(w_shape, np.float32)
    grid = weight_grid(g)
    parts = dw if grid[2] == 1 else xp.empty((grid[2], *w_shape), np.float32)
    _launch(xp, "conv_grad_weight", grid, (_ready(xp, x), _ready(xp, dy), parts, g.record()))
    if grid[2] > 1:
        sizes = np.int32(grid[2]), np.int64(dw.size)
        _kernel(xp, "add_parts")((dw.size // 256,), (256,), (parts, dw, *sizes))
    return dw


def weight_grid(g: Geometry) -> tuple[int, int, int]:
    """The blocks of conv_grad_weight: tiles down, tiles across, parts of the depth of which none is empty."""
    across, down = ceil(g.R * g.S * g.C / ROWS), ceil(g.K / COLUMNS)
    slices = ceil(g.N * g.P * g.Q / DEPTH)
    parts = max(1, min(BLOCKS // (across * down), slices // SLICES))
    return across, down, ceil(slices / ceil(slices / parts))


def shared_memory(name: str) -> int:
    """Bytes of it that a block of the kernel wants: STAGES slices, their lines apart as the two layouts want them."""
    along_depth, across_lines = (
        DEPTH + 4,
        8,
    )  # numbers from line to line, and those beyond the lines from depth to depth
    left = DEPTH * (ROWS + across_lines) if name == "conv_grad_weight" else ROWS * along_depth
    right = COLUMNS * along_depth if name == "conv_grad_input" else DEPTH * (COLUMNS + across_lines)
    return STAGES * (left + right) * 4


def _kernel(xp: ModuleType, name: str) -> Kernel:
    return kernel(xp, "conv_tf32.cu", name, ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH, STAGES=STAGES)


def _launch(xp: ModuleType, name: str, grid: tuple[int, ...], arguments: tuple[object, ...]) -> None:
    _kernel(xp, name)(grid, (THREADS,), arguments, shared_mem=shared_memory(name))


def _ready(xp: ModuleType, array: Array) -> Array:
    """Contiguous, float32, and where 16 bytes can be copied at a time: mostly the array itself."""
    array = xp.ascontiguousarray(array, np.float32)
    return array if address(array) % 16 == 0 else array.copy()
