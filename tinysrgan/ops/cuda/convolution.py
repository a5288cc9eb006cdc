"""The convolution and its gradients on the GPU, in float32 and float64: which kernel takes them, and in which tiles.

The ladder, each rung with the results of the one below: ``conv_reference.cu`` (one thread, one number; anything),
``conv_tiled.cu`` (float32), ``tensor_cores`` (float32 rounded to TF32 before it is multiplied). A matrix product is a
convolution with a filter of 1x1, so the dense layer comes here too.

Arrays of CuPy in, new arrays of CuPy out, of the type of the first argument; nothing waits for the GPU.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.conv.padding import same
from tinysrgan.ops.cuda.compile import address, kernel

# With fewer multiplications than this, a tile would be nearly empty, and no thread has to wait for long.
TINY = 2**10
# The blocks that a large GPU wants, some for each of its 100 or so multiprocessors. Fixed, not asked of the GPU at
# hand, so that all GPUs add in the same order.
BLOCKS = 512
# The fewest slices of a depth that are worth a block of their own.
SLICES = 8


class Geometry(NamedTuple):
    """The sizes of a convolution, as ``struct Geometry`` of ``kernels/common.cuh`` has them."""

    N: int
    H: int
    W: int
    C: int
    P: int
    Q: int
    K: int
    R: int
    S: int
    stride: int
    top: int
    left: int

    def record(self) -> np.ndarray:
        """As a kernel takes it, by value: CuPy passes an array of NumPy's without axes so."""
        return np.array(tuple(self), RECORD)


RECORD = np.dtype([(name, np.int32) for name in Geometry._fields])


def geometry(x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int) -> Geometry:
    """Of x: (N, H, W, C) and w: (R, S, C, K), with "same" padding."""
    n, h, w, c = x_shape
    r, s, _, k = w_shape
    rows, columns = same(h, r, stride), same(w, s, stride)
    return Geometry(n, h, w, c, rows.out, columns.out, k, r, s, stride, rows.before, columns.before)


class Tile(NamedTuple):
    """What a block makes of the result, in slices of what depth, and what of it a thread makes."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int


# More reuse takes larger tiles; larger tiles waste more where the result is small.
TILES = {
    "wide": Tile(128, 128, 8, 8, 8),
    "narrow": Tile(128, 64, 8, 8, 8),
    "thin": Tile(256, 4, 8, 4, 4),  # to three colours
    "low": Tile(16, 128, 16, 4, 4),  # a dense layer of few images: its weights are read once, in long runs
}


class Product(NamedTuple):
    """An operation as the matrix product that ``conv_tiled.cu`` makes of it."""

    rows: int
    columns: int
    depth: int
    phases: int  # products of this size: one for each phase of the stride
    left: int  # the channels of the left matrix's image: the numbers that are neighbours in memory
    right: int
    result: int


def product(operation: str, g: Geometry) -> Product:
    """Sizes of "conv_forward", "conv_grad_input" or "conv_grad_weight"."""
    match operation:
        case "conv_forward":
            return Product(g.N * g.P * g.Q, g.K, g.R * g.S * g.C, 1, g.C, g.K, g.K)
        case "conv_grad_input":
            depth = ceil(g.R / g.stride) * ceil(g.S / g.stride) * g.K
            return Product(g.N * g.P * g.Q, g.C, depth, g.stride**2, g.K, g.K, g.C)
    return Product(g.R * g.S * g.C, g.K, g.N * g.P * g.Q, 1, g.C, g.K, g.K)


def tile(rows: int, columns: int, vector: int) -> str:
    """The name of the tile for a result of this size; ``vector``: how many numbers of the left matrix load at once."""
    if columns <= 4 and vector == 4:
        return "thin"
    if rows <= 32:
        return "low"
    return "wide" if ceil(columns / 64) % 2 == 0 else "narrow"


class Plan(NamedTuple):
    """How ``conv_tiled.cu`` is launched."""

    grid: tuple[int, int, int]
    threads: int
    parts: int  # of the depth, summed apart
    defines: dict[str, int]


@cache
def plan(operation: str, g: Geometry, aligned: tuple[bool, ...]) -> Plan:
    """For an operation whose left, right and result arrays begin, or don't, at multiples of 16 bytes."""
    p = product(operation, g)
    vectors = [4 if channels % 4 == 0 and fits else 1 for channels, fits in zip(p[-3:], aligned, strict=True)]
    t = TILES[tile(p.rows, p.columns, vectors[0])]
    across, down = ceil(p.rows / t.rows), ceil(p.columns / t.columns)
    slices = ceil(p.depth / t.depth)
    parts = max(1, min(BLOCKS // (across * down * p.phases), slices // SLICES))
    parts = ceil(slices / ceil(slices / parts))  # none of them empty
    names = "ROWS COLUMNS DEPTH THREAD_ROWS THREAD_COLUMNS VECTOR_LEFT VECTOR_RIGHT VECTOR_RESULT".split()
    threads = t.rows // t.thread_rows * (t.columns // t.thread_columns)
    return Plan((across, down, p.phases * parts), threads, parts, dict(zip(names, [*t, *vectors], strict=True)))


def rung(x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int, dtype: np.dtype, exact: bool = False) -> str:
    """Who takes the convolution of x: (N, H, W, C) with w: (R, S, C, K) and its gradients.

    "reference", "tiled" or, unless ``exact`` forbids TF32, "tensor_cores".
    """
    if not _worth_tiles(geometry(x_shape, w_shape, stride), dtype):
        return "reference"
    return "tiled" if exact or not _tensor_cores().takes(x_shape, w_shape, stride) else "tensor_cores"


def _worth_tiles(g: Geometry, dtype: np.dtype) -> bool:
    return dtype == np.float32 and g.N * g.P * g.Q * g.R * g.S * g.C * g.K >= TINY


def _tensor_cores() -> Any:
    """The rung above, which looks into this file for what they share."""
    from tinysrgan.ops.cuda import conv_tf32

    return conv_tf32


def conv2d(
    x: Array,
    w: Array,
    stride: int = 1,
    bias: Array | None = None,
    slope: Array | None = None,
    shortcut: Array | None = None,
    *,
    exact: bool = False,
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut, as in ``ops.epilogue``.

    x: (N, H, W, C); w: (R, S, C, K); "same" padding; bias: (K,), slope: (K,) and shortcut: (N, P, Q, K) may be absent.
    """
    if rung(x.shape, w.shape, stride, x.dtype, exact) == "tensor_cores":
        return _tensor_cores().conv2d(x, w, stride, bias, slope, shortcut)
    g = geometry(x.shape, w.shape, stride)
    y = array_module(x).empty((g.N, g.P, g.Q, g.K), x.dtype)
    return _run("conv_forward", g, (x, w), (bias, slope, shortcut), y)


def conv2d_grad_input(dy: Array, w: Array, x_shape: tuple[int, ...], stride: int = 1, *, exact: bool = False) -> Array:
    """dx: (N, H, W, C) from dy: (N, P, Q, K) and w: (R, S, C, K)."""
    if rung(x_shape, w.shape, stride, dy.dtype, exact) == "tensor_cores":
        return _tensor_cores().conv2d_grad_input(dy, w, x_shape, stride)
    dx = array_module(dy).empty(x_shape, dy.dtype)
    return _run("conv_grad_input", geometry(x_shape, w.shape, stride), (dy, w), (), dx)


def conv2d_grad_weight(x: Array, dy: Array, w_shape: tuple[int, ...], stride: int = 1, *, exact: bool = False) -> Array:
    """dw: (R, S, C, K) from x: (N, H, W, C) and dy: (N, P, Q, K)."""
    if rung(x.shape, w_shape, stride, x.dtype, exact) == "tensor_cores":
        return _tensor_cores().conv2d_grad_weight(x, dy, w_shape, stride)
    dw = array_module(x).empty(w_shape, x.dtype)
    return _run("conv_grad_weight", geometry(x.shape, w_shape, stride), (x, dy), (None,), dw)


def matmul(a: Array, b: Array) -> Array:
    """a b, for a: (M, K) and b: (K, N). One of them may be a transposed view: it is read as it lies, not copied."""
    m, n = len(a), b.shape[1]
    result = array_module(a).empty((m, n), a.dtype)
    if b.flags.c_contiguous and not a.flags.c_contiguous:
        return _run("conv_grad_weight", _one_by_one(b.shape[0], m, n), (a.T, b), (None,), result)
    if b.flags.c_contiguous:
        return _run("conv_forward", _one_by_one(m, *b.shape), (a, b), (None, None, None), result)
    return _run("conv_grad_input", _one_by_one(m, n, len(b)), (a, b.T), (), result)


def add_product(total: Array, a: Array, b: Array) -> None:
    """total += a b, for total: (M, N), contiguous, a: (M, K), b: (K, N); fastest where a.T is contiguous."""
    _run("conv_grad_weight", _one_by_one(len(b), *total.shape), (a.T, b), (total,), total)


def _one_by_one(pixels: int, c: int, k: int) -> Geometry:
    """The geometry of (pixels, C) times (C, K): an image of one row, a filter of one tap."""
    return geometry((1, 1, pixels, c), (1, 1, c, k), 1)


def _run(operation: str, g: Geometry, operands: tuple[Array, Array], extras: tuple[Any, ...], result: Array) -> Array:
    """Launch a kernel; ``extras`` is what its epilogue takes. Arrays may have any shape that holds their numbers."""
    xp = array_module(result)
    left, right = (xp.ascontiguousarray(array, result.dtype) for array in operands)
    arrays: tuple[Any, ...] = (left, right, result)
    extras = tuple(None if array is None else xp.ascontiguousarray(array, result.dtype) for array in extras)
    one_number_a_thread = (ceil(result.size / 256),), (256,)
    if not _worth_tiles(g, result.dtype):
        real = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}[result.dtype]
        launch = kernel(xp, "conv_reference.cu", operation, REAL=real)
        launch(*one_number_a_thread, (left, right, *extras, result, g.record()))
        return result
    p = plan(operation, g, tuple(address(array) % 16 == 0 for array in arrays))
    launch = kernel(xp, "conv_tiled.cu", operation, **p.defines)
    if p.parts == 1:
        launch(p.grid, (p.threads,), (left, right, *extras, result, g.record()))
        return result
    parts = xp.empty((p.parts, *result.shape), np.float32)
    launch(p.grid, (p.threads,), (left, right, *(None for _ in extras), parts, g.record()))
    bias_slope_shortcut = (None, None, None, *extras)[-3:]
    sizes = np.int32(p.parts), np.int64(result.size), np.int32(result.shape[-1])
    launch = kernel(xp, "conv_tiled.cu", "add_parts", **p.defines)
    launch(*one_number_a_thread, (parts, *bias_slope_shortcut, result, *sizes))
    return result
