"""Formulas for every number by itself, and sums over all but the last axis, in blocks that stay in the cache.

A formula of five steps on whole arrays goes to memory and back five times, which takes longer than the arithmetic.
Here all its steps are taken for one block of numbers before the next, and the workers share the blocks.

A block is a flat run of whole rows of C channels, so number i of any block belongs to channel i mod C. What there is
one of for each channel (a ``vector``) is repeated to a block's length once, and every step is then a plain operation
on arrays of one length, which is what NumPy does best. Sums over rows use the same: blocks are added up number by
number, and only the last sum, one block long, is folded to C numbers. It also keeps many small numbers from being
added to one large sum, which would cost float32 its last digits.

Formulas are functions of arrays, then vectors; on the GPU they are called with the whole arrays as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinysrgan.device import Array
from tinysrgan.ops import parallel

BLOCK_NUMBERS = 16 * 1024
# With less to do than this, a second thread costs more than it brings.
SHARED_NUMBERS = 64 * 1024


def elementwise(formula: Callable[..., Array], *arrays: Array, vectors: Sequence[Array] = ()) -> Array:
    """formula(*arrays, *vectors), for arrays of one shape (..., C) and vectors (C,); or (1,), all of them.

    The result has the shape and dtype of the first array.
    """
    first = arrays[0]
    if not isinstance(first, np.ndarray):
        return formula(*arrays, *vectors)
    result = np.empty(first.shape, first.dtype)
    numbers = result.reshape(-1)

    def work(slices: Sequence[slice], columns: list[np.ndarray], lanes: list[np.ndarray]) -> None:
        for at in slices:
            size = at.stop - at.start
            numbers[at] = formula(*(x[at] for x in columns), *(v[:size] for v in lanes))

    _over_blocks(work, arrays, vectors)
    return result


def channel_sums(formula: Callable[..., tuple[Array, ...]], *arrays: Array, vectors: Sequence[Array] = ()) -> Array:
    """The sums of the k arrays that ``formula(*arrays, *vectors)`` returns, over all axes but the last: (k, C).

    Arguments are as in ``elementwise``. float32 sums are good to about seven digits.
    """
    first = arrays[0]
    channels = first.shape[-1]
    if not isinstance(first, np.ndarray):
        axes = tuple(range(first.ndim - 1))
        return np.stack([values.sum(axis=axes) for values in formula(*arrays, *vectors)])

    def work(slices: Sequence[slice], columns: list[np.ndarray], lanes: list[np.ndarray]) -> list[np.ndarray]:
        totals: list[np.ndarray] = []
        for at in slices:
            size = at.stop - at.start
            values = formula(*(x[at] for x in columns), *(v[:size] for v in lanes))
            if not totals:  # the first block is as long as any
                totals = [value.copy() for value in values]
            else:
                for total, value in zip(totals, values, strict=True):
                    total[:size] += value
        return [total.reshape(-1, channels).sum(axis=0, dtype=np.float64) for total in totals]

    return np.sum(_over_blocks(work, arrays, vectors), axis=0).astype(first.dtype)


def by_rows(formula: Callable[..., Array], shape: tuple[int, ...], *arrays: Array) -> Array:
    """formula(*arrays) of ``shape``: (N, rows, ...), for formulas that take every row of an image by itself.

    The arrays are (N, rows, ...) too and may be views that are strange to memory: the layers that move numbers about
    write what they do as a view with an axis for the inside of a cell, and a formula on that.
    """
    first = arrays[0]
    if not isinstance(first, np.ndarray):
        return formula(*arrays)
    images, rows = shape[:2]
    result = np.empty(shape, first.dtype)
    pieces = min(rows, max(parallel.workers(), -(-result[:1].size // BLOCK_NUMBERS)))
    blocks = [
        (slice(image, image + 1), slice(rows * i // pieces, rows * (i + 1) // pieces))
        for image in range(images)
        for i in range(pieces)
    ]

    def work(run: Sequence[tuple[slice, slice]]) -> None:
        for at in run:
            result[at] = formula(*(x[at] for x in arrays))

    parallel.share(work, blocks)
    return result


def in_place(formula: Callable[..., None], groups: Sequence[tuple[Array, ...]]) -> None:
    """Call a formula that writes into its arguments, arrays of one shape, for every group of them."""
    parts: list[tuple[Array, ...]] = []
    for arrays in groups:
        if all(isinstance(x, np.ndarray) and x.flags.c_contiguous for x in arrays):
            numbers = [x.reshape(-1) for x in arrays]
            starts = range(0, numbers[0].size, 8 * BLOCK_NUMBERS)
            parts += [tuple(x[start : start + 8 * BLOCK_NUMBERS] for x in numbers) for start in starts]
        else:
            parts.append(arrays)

    def work(run: Sequence[tuple[Array, ...]]) -> None:
        for part in run:
            formula(*part)

    parallel.share(work, parts)


def _over_blocks(work: Callable[..., Any], arrays: Sequence[np.ndarray], vectors: Sequence[np.ndarray]) -> list[Any]:
    """Call ``work(slices, flat arrays, repeated vectors)`` for every worker's share of the blocks."""
    channels = arrays[0].shape[-1]
    rows = max(1, BLOCK_NUMBERS // channels)
    length, size = rows * channels, arrays[0].size
    columns = [np.ascontiguousarray(x).reshape(-1) for x in arrays]
    lanes = [np.tile(v, length // len(v)) for v in vectors]
    slices = [slice(start, min(start + length, size)) for start in range(0, size, length)]
    if size < SHARED_NUMBERS:
        return [work(slices, columns, lanes)]
    return parallel.share(lambda run: work(run, columns, lanes), slices)
