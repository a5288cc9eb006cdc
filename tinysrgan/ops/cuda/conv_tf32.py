"""The convolution and its gradients on a GPU's tensor cores: launches ``kernels/conv_tf32.cu``.

The factors are rounded to TF32, which has 10 bits of mantissa; their products are summed in float32. All arrays are
CuPy's, in float32; no function waits for the GPU. ``ops.cuda.convolution`` calls these functions for the convolutions
that ``takes`` accepts.
"""

from __future__ import annotations

from functools import cache
from math import ceil, prod
from types import ModuleType

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import conv_halo, conv_parts
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.conv_halo import tile_columns
from tinysrgan.ops.cuda.conv_parts import gradient_parts, split
from tinysrgan.ops.cuda.geometry import Geometry, geometry
from tinysrgan.ops.cuda.launch import aligned

# The part of the result that a thread block computes, the depth of its slices, and how many slices shared memory holds.
# Its columns are those of ``conv_halo``: few for the last layer of a fused generator, which has twelve.
ROWS, DEPTH, STAGES = 128, 32, 3
THREADS = 128
# The largest filter size: the kernels keep one of 16 bits for each tap of an axis that is inside the image.
TAPS = 16
# The thread blocks that keep a large GPU busy when the depth of dw is split: two for each of its 100 or so
# multiprocessors. It is a constant rather than a property of the present GPU, so that all GPUs add in the same order.
BLOCKS = 256
# The fewest slices of the depth that are worth a thread block of their own: of dw, and of y and dx, whose parts are
# added without a launch.
SLICES, FEWEST = 16, 6
# The thread blocks of y and dx that one multiprocessor runs at a time, and the multiprocessors of an unknown GPU.
RESIDENT, MULTIPROCESSORS = 2, 108
# Ampere, the first compute capability with TF32 and asynchronous copies.
AMPERE = 80


@cache
def capable() -> bool:
    """Whether the present GPU has tensor cores for TF32."""
    import cupy

    return int(cupy.cuda.Device().compute_capability) >= AMPERE


@cache
def multiprocessors() -> int:
    """The number of multiprocessors of the present GPU."""
    import cupy

    return int(cupy.cuda.Device().attributes.get("MultiProcessorCount", MULTIPROCESSORS))


def takes(w_shape: tuple[int, ...], forward: bool = False) -> bool:
    """Whether conv_tf32.cu can compute the convolution with w: (R, S, C, K), and its gradients unless only ``forward``.

    It needs a GPU of compute capability 8.0 or later, R and S of at most 16, C a multiple of 32, K one of 32 for the
    gradients and of 4 for the forward pass; any stride.
    """
    r, s, c, k = w_shape
    return max(r, s) <= TAPS and c % DEPTH == 0 and k % (4 if forward else DEPTH) == 0 and capable()


def conv2d(
    x: Array,
    w: Array,
    stride: int = 1,
    bias: Array | None = None,
    slope: Array | None = None,
    shortcut: Array | None = None,
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut.

    x: (N, H, W, C); w: (R, S, C, K); bias and slope: (K,); shortcut: (N, P, Q, K). The last three are optional.
    """
    g, xp = geometry(x.shape, w.shape, stride), array_module(x)
    if conv_halo.takes(g):
        return conv_halo.conv2d(x, w, bias, slope, shortcut)
    extras = (None if array is None else aligned(array) for array in (bias, slope, shortcut))
    y = xp.empty((g.N, g.P, g.Q, g.K), np.float32)
    columns = tile_columns(g.K)
    grid = ceil(g.N * g.P * g.Q / ROWS), ceil(g.K / columns), 1
    grid, sums = _in_parts(xp, grid, g.R * g.S * g.C // DEPTH, columns)
    _launch(xp, "conv_forward", grid, (aligned(x), aligned(w), *extras, y, *sums, g.record()), columns)
    return y


def conv2d_grad_input(
    dy: Array, w: Array, x_shape: tuple[int, ...], stride: int = 1, shortcut: Array | None = None
) -> Array:
    """dx + shortcut: (N, H, W, C), from dy: (N, P, Q, K) and w: (R, S, C, K). The shortcut is optional."""
    g, xp = geometry(x_shape, w.shape, stride), array_module(dy)
    if conv_halo.takes(g):
        return conv_halo.conv2d_grad_input(dy, w, x_shape, shortcut)
    dx = xp.empty(x_shape, np.float32)
    rows = g.N * ceil(g.H / stride) * ceil(g.W / stride)  # of the largest phase
    columns = tile_columns(g.C)
    grid = ceil(rows / ROWS), ceil(g.C / columns), stride**2
    grid, sums = _in_parts(xp, grid, ceil(g.R / stride) * ceil(g.S / stride) * g.K // DEPTH, columns)
    extra = None if shortcut is None else aligned(shortcut)
    _launch(xp, "conv_grad_input", grid, (aligned(dy), aligned(w), extra, dx, *sums, g.record()), columns)
    return dx


def add_gradients(x: Array, dy: Array, w_grad: Array, b_grad: Array, stride: int = 1) -> None:
    """w_grad: (R, S, C, K) += dw; b_grad: (K,) += the sums of dy, for x: (N, H, W, C), dy: (N, P, Q, K)."""
    g, xp = geometry(x.shape, w_grad.shape, stride), array_module(x)
    grid, operands, columns = weight_grid(g), (aligned(x), aligned(dy)), tile_columns(g.K)
    if grid[2] == 1 and address(w_grad) % 8 == 0:  # two elements are written at a time
        _launch(xp, "conv_grad_weight", grid, (*operands, w_grad, b_grad, np.int64(0), g.record()), columns)
        return
    parts, biases, apart = gradient_parts(grid[2], w_grad)
    _launch(xp, "conv_grad_weight", grid, (*operands, parts, biases, apart, g.record()), columns)
    conv_parts.add_gradients(parts, w_grad, b_grad)


def weight_grid(g: Geometry) -> tuple[int, int, int]:
    """The grid of conv_grad_weight: tiles down, tiles across, and parts of the depth, none of them empty."""
    across, down = ceil(g.R * g.S * g.C / ROWS), ceil(g.K / tile_columns(g.K))
    slices = ceil(g.N * g.P * g.Q / DEPTH)
    return across, down, split(across * down, slices, BLOCKS, SLICES)


def depth_parts(tiles: int, slices: int) -> int:
    """The parts of the depth of y and dx: more than one if the tiles are too few for the present GPU."""
    return 1 if tiles >= multiprocessors() else split(tiles, slices, RESIDENT * multiprocessors(), FEWEST)


def _in_parts(
    xp: ModuleType, grid: tuple[int, int, int], slices: int, columns: int
) -> tuple[tuple[int, int, int], tuple[Array | None, Array | None]]:
    """The grid with the depth split, and what the blocks of one tile need to add their sums."""
    tiles = prod(grid)
    parts = depth_parts(tiles, slices)
    return (*grid[:2], grid[2] * parts), conv_parts.memory(xp, tiles, parts, ROWS * columns)


def shared_memory(name: str, columns: int) -> int:
    """Bytes of shared memory for a thread block: STAGES slices of both factors, padded to avoid bank conflicts."""
    along_depth = DEPTH + 4  # elements from line to line, where the depth is contiguous
    across_lines = 8  # elements of padding after the lines, where they are contiguous
    left = DEPTH * (ROWS + across_lines) if name == "conv_grad_weight" else ROWS * along_depth
    right = columns * along_depth if name == "conv_grad_input" else DEPTH * (columns + across_lines)
    return STAGES * (left + right) * 4


def _launch(xp: ModuleType, name: str, grid: tuple[int, ...], arguments: tuple[object, ...], columns: int) -> None:
    launch = kernel(xp, "conv_tf32.cu", name, ROWS=ROWS, COLUMNS=columns, DEPTH=DEPTH, STAGES=STAGES)
    launch(grid, (THREADS,), arguments, shared_mem=shared_memory(name, columns))
