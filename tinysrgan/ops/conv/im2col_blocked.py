"""The convolution as one matrix product, as in ``im2col``, but for one block of output rows at a time.

The columns of a large image are R S times as large as the image, and main memory is slow. The columns of a block fit in
the caches: there they are built, multiplied, given their bias and discarded. Arrays are NumPy arrays of any float type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import gcd
from typing import NamedTuple

import numpy as np

from tinysrgan.ops import parallel
from tinysrgan.ops.conv.epilogue import NOTHING, Epilogue, activate
from tinysrgan.ops.conv.padding import Same, same

# A block's columns should fit in the caches, yet have enough rows (one for each output) to amortise packing the
# weights, which every matrix product does first, and to keep a worker busy while another one holds the GIL.
BLOCK_ELEMENTS = 512 * 1024
BLOCK_OUTPUTS = 256
# With fewer multiplications than this, a second worker costs more than it saves.
SHARED_WORK = 2**24


class Block(NamedTuple):
    """The output rows top ... bottom - 1 of the images first ... last - 1."""

    first: int
    last: int
    top: int
    bottom: int


def blocks(images: int, rows: int, row_length: int, limit: int, work: int) -> list[Block]:
    """Cut ``images`` of ``rows`` x ``row_length`` outputs into blocks of similar size, of about ``limit`` outputs.

    A block holds several small images or a part of a large one. The number of blocks is a multiple of the number of
    workers, unless there is too little work to share; ``work`` is the number of multiplications for an output.
    """
    outputs = images * rows * row_length
    count = -(-outputs // limit)
    workers = parallel.workers() if outputs * work >= SHARED_WORK else 1
    count = -(-count // workers) * workers
    groups = min(count, images)
    each = workers // gcd(groups, workers)
    pieces = min(-(-count // images // each) * each, rows) if count > images else 1
    return [
        Block(images * g // groups, images * (g + 1) // groups, rows * i // pieces, rows * (i + 1) // pieces)
        for g in range(groups)
        for i in range(pieces)
    ]


def block_columns(x: np.ndarray, r: int, s: int, stride: int, rows: Same, columns: Same, block: Block) -> np.ndarray:
    """The windows (outputs of the block, R S C) of x: (N, H, W, C), zero outside the image.

    The window of output (p, q) starts at input (p stride - rows.before, q stride - columns.before).
    """
    p, q = block.bottom - block.top, columns.out
    size = (p - 1) * stride + r, (q - 1) * stride + s
    part = patch(x[block.first : block.last], (block.top * stride - rows.before, -columns.before), size)
    images, _, _, channels = part.shape
    image, row, pixel, element = part.strides
    strides = (image, row * stride, pixel * stride, row, pixel, element)
    return np.ndarray((images, p, q, r, s, channels), x.dtype, part, strides=strides).reshape(-1, r * s * channels)


def patch(x: np.ndarray, start: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """``size`` rows and columns of x: (N, H, W, C) from ``start`` on, zero outside the image."""
    part = np.zeros((len(x), *size, x.shape[3]), x.dtype)
    in_x, in_part = overlap(start[0], size[0], x.shape[1])
    across_x, across_part = overlap(start[1], size[1], x.shape[2])
    part[:, in_part, across_part] = x[:, in_x, across_x]
    return part


def overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where the positions start ... start + length - 1 overlap an axis of ``size``.

    Returns two slices: one of the axis, one of the positions.
    """
    first, last = max(start, 0), max(min(start + length, size), 0)
    return slice(first, last), slice(first - start, max(last, first) - start)


def block_limit(window: int) -> int:
    """The number of outputs that a block should have, for windows of ``window`` inputs."""
    return max(BLOCK_OUTPUTS, BLOCK_ELEMENTS // window)


def correlate(
    x: np.ndarray, w: np.ndarray, stride: int, rows: Same, columns: Same, y: np.ndarray, after: Epilogue = NOTHING
) -> None:
    """Fill y: (N, P, Q, K), any view: the products of every window of x: (N, H, W, C) with w: (R, S, C, K).

    For every block: (outputs of the block, R S C) times (R S C, K), then what comes ``after``.
    """
    r, s, c, k = w.shape
    weights = w.reshape(r * s * c, k)

    def work(run: Sequence[Block]) -> None:
        for block in run:
            product = block_columns(x, r, s, stride, rows, columns, block) @ weights
            activate(product.reshape(-1, columns.out * k), after.bias, after.slope)
            at = slice(block.first, block.last), slice(block.top, block.bottom)
            after.store(product.reshape(y[at].shape), at, y)

    parallel.parallel_map(work, blocks(len(x), rows.out, columns.out, block_limit(r * s * c), r * s * c * k))


def conv2d(x: np.ndarray, w: np.ndarray, stride: int = 1, after: Epilogue = NOTHING) -> np.ndarray:
    """y = prelu(columns(x) w + bias) + shortcut; see ``im2col.conv2d`` and ``epilogue``."""
    rows, columns = same(x.shape[1], w.shape[0], stride), same(x.shape[2], w.shape[1], stride)
    y = np.empty((len(x), rows.out, columns.out, w.shape[3]), x.dtype)
    correlate(x, w, stride, rows, columns, y, after)
    return y


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray, w_shape: tuple[int, ...], stride: int = 1) -> np.ndarray:
    """dw = columns(x)^T dy, as ``im2col.conv2d_grad_weight``.

    Every worker sums (R S C, outputs of a block) times (outputs of a block, K) over its blocks.
    """
    r, s, c, k = w_shape
    rows, columns = same(x.shape[1], r, stride), same(x.shape[2], s, stride)

    def work(run: Sequence[Block]) -> np.ndarray:
        total = np.zeros((r * s * c, k), x.dtype)
        for block in run:
            part = dy[block.first : block.last, block.top : block.bottom].reshape(-1, k)
            total += block_columns(x, r, s, stride, rows, columns, block).T @ part
        return total

    parts = parallel.parallel_map(work, blocks(len(x), rows.out, columns.out, block_limit(r * s * c), r * s * c * k))
    return reduce(np.add, parts).reshape(w_shape)


def conv2d_grad_input(dy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], stride: int = 1) -> np.ndarray:
    """dx: (N, H, W, C), as stride x stride convolutions of dy, one for each phase of the input pixels.

    Input row y = u stride + phase meets tap i in output row p = (y + before - i) / stride, if that is a whole number.
    So only every stride-th tap counts for a phase, from i = (phase + before) mod stride on. These taps, t = 0, 1, ...,
    meet p = u + (phase + before - i) / stride - t: a convolution with these taps in reverse order. With stride 1 it is
    the familiar convolution with the flipped filter.
    """
    height, width = x_shape[1:3]
    r, s = w.shape[:2]
    flipped = _flipped(w)
    dx = np.empty(x_shape, dy.dtype)
    for i in range(min(stride, height)):
        for j in range(min(stride, width)):
            first_r, rows = _phase(i, height, r, stride)
            first_s, columns = _phase(j, width, s, stride)
            taps = flipped[(r - 1 - first_r) % stride :: stride, (s - 1 - first_s) % stride :: stride]
            part = dx[:, i::stride, j::stride]
            if taps.size:
                correlate(dy, taps, 1, rows, columns, part)
            else:  # a stride longer than the filter skips these inputs
                part[...] = 0
    return dx


def _flipped(w: np.ndarray) -> np.ndarray:
    """(R, S, K, C): w with its taps in reverse order, and C and K exchanged."""
    r, s, c, k = w.shape
    flipped = np.empty((r, s, k, c), w.dtype)

    def work(run: Sequence[tuple[int, int]]) -> None:
        for i, j in run:
            flipped[r - 1 - i, s - 1 - j] = w[i, j].T

    parallel.parallel_map(work, [(i, j) for i in range(r) for j in range(s)])
    return flipped


def _phase(phase: int, length: int, size: int, stride: int) -> tuple[int, Same]:
    """The first tap that counts for the inputs phase, phase + stride, ... of an axis, and where its windows start."""
    before = same(length, size, stride).before
    first = (phase + before) % stride
    taps = len(range(first, size, stride))
    return first, Same(len(range(phase, length, stride)), taps - 1 - (phase + before - first) // stride, 0)
