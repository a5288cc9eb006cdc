"""Convolutions in float32 from tiles in shared memory: launches ``kernels/conv_tiled.cu``.

Any sizes and strides. ``ops.cuda.convolution`` decides which convolutions come here.
"""

from __future__ import annotations

from functools import cache
from math import ceil, prod
from typing import NamedTuple

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import conv_parts
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.conv_parts import gradient_parts, split
from tinysrgan.ops.cuda.geometry import Geometry

# The number of thread blocks that keeps a large GPU busy: several for each of its 100 or so multiprocessors. It is a
# constant rather than a property of the present GPU, so that all GPUs add in the same order.
BLOCKS = 512
# The fewest slices of the depth that are worth a thread block of their own.
SLICES = 8
# The most elements that one thread block adds when the depth of y or dx is split: 1 MB.
ADDED = 2**18


class Tile(NamedTuple):
    """The part of the result that a thread block computes, the depth of its slices, and the part of one thread."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int


# Larger tiles reuse more of what they load, and waste more where the result is small.
TILES = {
    "wide": Tile(128, 128, 8, 8, 8),
    "narrow": Tile(128, 64, 8, 8, 8),
    "thin": Tile(256, 4, 8, 4, 4),  # to three colours
    "low": Tile(16, 128, 16, 4, 4),  # a dense layer on few images: each weight is read once, in long runs
}


class Product(NamedTuple):
    """An operation as the matrix product that ``conv_tiled.cu`` computes."""

    rows: int
    columns: int
    depth: int
    phases: int  # products of this size, one for each phase of the stride
    left: int  # the channels of the array behind the left matrix: its contiguous elements
    right: int
    result: int


def product(operation: str, g: Geometry) -> Product:
    """The sizes of "conv_forward", "conv_grad_input" or "conv_grad_weight"."""
    match operation:
        case "conv_forward":
            return Product(g.N * g.P * g.Q, g.K, g.R * g.S * g.C, 1, g.C, g.K, g.K)
        case "conv_grad_input":
            depth = ceil(g.R / g.stride) * ceil(g.S / g.stride) * g.K
            return Product(g.N * g.P * g.Q, g.C, depth, g.stride**2, g.K, g.K, g.C)
    return Product(g.R * g.S * g.C, g.K, g.N * g.P * g.Q, 1, g.C, g.K, g.K)


def tile(rows: int, columns: int, vector: int) -> str:
    """The name of the tile for a result of this size; ``vector``: elements of the left matrix in one load, 1 or 4."""
    if columns <= 4 and vector == 4:
        return "thin"
    if rows <= 32:
        return "low"
    return "wide" if ceil(columns / 64) % 2 == 0 else "narrow"


class Plan(NamedTuple):
    """The launch parameters of ``conv_tiled.cu``."""

    grid: tuple[int, int, int]
    threads: int
    parts: int  # of the depth, each summed by other thread blocks
    defines: dict[str, int]


@cache
def plan(operation: str, g: Geometry, aligned: tuple[bool, ...]) -> Plan:
    """The launch of an operation.

    ``aligned``: whether the left, the right and the result array start at multiples of 16 bytes.
    """
    p = product(operation, g)
    vectors = [4 if channels % 4 == 0 and fits else 1 for channels, fits in zip(p[-3:], aligned, strict=True)]
    t = TILES[tile(p.rows, p.columns, vectors[0])]
    across, down = ceil(p.rows / t.rows), ceil(p.columns / t.columns)
    slices = ceil(p.depth / t.depth)
    tiles, by_one_block = across * down * p.phases, operation != "conv_grad_weight"
    most = min(BLOCKS, tiles * ADDED // (t.rows * t.columns)) if by_one_block else BLOCKS
    parts = split(tiles, slices, most, SLICES)
    names = "ROWS COLUMNS DEPTH THREAD_ROWS THREAD_COLUMNS VECTOR_LEFT VECTOR_RIGHT VECTOR_RESULT SPLIT".split()
    values = [*t, *vectors, int(by_one_block and parts > 1)]
    threads = t.rows // t.thread_rows * (t.columns // t.thread_columns)
    return Plan((across, down, p.phases * parts), threads, parts, dict(zip(names, values, strict=True)))


def run(
    operation: str, g: Geometry, operands: tuple[Array, Array], extras: tuple[Array | None, ...], result: Array
) -> None:
    """Compute "conv_forward" or "conv_grad_input" into ``result``, all contiguous float32.

    ``extras`` are the arguments of the epilogue: bias, slope and shortcut of the former, shortcut of the latter.
    """
    xp = array_module(result)
    p = plan(operation, g, tuple(address(array) % 16 == 0 for array in (*operands, result)))
    launch = kernel(xp, "conv_tiled.cu", operation, **p.defines)
    sums = conv_parts.memory(xp, prod(p.grid) // p.parts, p.parts, p.defines["ROWS"] * p.defines["COLUMNS"])
    launch(p.grid, (p.threads,), (*operands, *extras, result, *sums, g.record()))


def add_gradients(g: Geometry, x: Array, dy: Array, w_grad: Array, b_grad: Array | None) -> None:
    """w_grad: (R, S, C, K) += dw; b_grad: (K,) += the sums of dy. All contiguous float32."""
    p = plan("conv_grad_weight", g, tuple(address(array) % 16 == 0 for array in (x, dy, w_grad)))
    launch = kernel(array_module(x), "conv_tiled.cu", "conv_grad_weight", **p.defines)
    if p.parts == 1:
        launch(p.grid, (p.threads,), (x, dy, w_grad, b_grad, np.int64(0), g.record()))
        return
    parts, biases, stride = gradient_parts(p.parts, w_grad)
    launch(p.grid, (p.threads,), (x, dy, parts, None if b_grad is None else biases, stride, g.record()))
    conv_parts.add_gradients(parts, w_grad, b_grad)
