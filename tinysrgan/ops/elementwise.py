"""Formulas for every number by itself, and sums over all but the last axis, in blocks that stay in the cache.

A formula of five steps on whole arrays goes to memory and back five times, which takes longer than the arithmetic.
Here all its steps are taken for one block of numbers before the next, and the workers share the blocks.

What there is one of for each channel (a ``vector``) would be taken C numbers at a time, and NumPy is slow at short
runs. So blocks are looked at as lines of some thousand numbers, whole rows of C channels each, and the vectors are
repeated to the length of a line. Number i of any line then belongs to channel i mod C, for sums over rows too: lines
are added up, and only the last one is folded to C numbers. That also keeps many small numbers from being added to one
large sum, which would cost float32 its last digits.

Formulas are functions of arrays, then vectors. On the GPU a kernel of our own does what the formula says, where one is
given; elsewhere the formula is called with the whole arrays as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops import parallel

LINE_NUMBERS = 4 * 1024
# A block for one of several workers. They take turns to start each step of a formula (Python's lock), so short blocks
# would have them wait for each other.
BLOCK_NUMBERS = 256 * 1024
# A block of each of the several arrays that a formula writes into: shorter, so that they fit together.
IN_PLACE_NUMBERS = 128 * 1024
# A block where there is only one, in its core's second-level cache.
ALONE_NUMBERS = 64 * 1024
# With less to do than this, a second worker costs more than it brings.
SHARED_NUMBERS = 256 * 1024


def elementwise(
    formula: Callable[..., Array],
    *arrays: Array,
    vectors: Sequence[Array] = (),
    kernel: Callable[..., Array] | None = None,
) -> Array:
    """formula(*arrays, *vectors), for arrays of one shape (..., C) and vectors (C,), or (1,) for all channels.

    The result has the shape and dtype of the first array. ``kernel`` does the same on a GPU. Raises
    ValueError where shapes don't match.
    """
    _check_shapes(arrays, vectors)
    first = arrays[0]
    if array_module(first) is not np:
        return (kernel or formula)(*arrays, *vectors)
    result = np.empty(first.shape, first.dtype)

    def work(blocks: Sequence[slice]) -> None:
        for numbers, *operands in _lines(blocks, (result, *arrays), vectors):
            numbers[...] = formula(*operands)

    _share_blocks(work, first)
    return result


def sum_per_channel(
    formula: Callable[..., tuple[Array, ...]],
    *arrays: Array,
    vectors: Sequence[Array] = (),
    kernel: Callable[..., Array] | None = None,
) -> Array:
    """The sums of the k arrays that ``formula(*arrays, *vectors)`` returns, over all axes but the last: (k, C).

    Arguments and errors are those of ``elementwise``. float32 sums are good to six digits or more.
    """
    _check_shapes(arrays, vectors)
    first = arrays[0]
    channels = first.shape[-1]
    if array_module(first) is not np:
        if kernel:
            return kernel(*arrays, *vectors)
        axes = tuple(range(first.ndim - 1))
        return array_module(first).stack([values.sum(axis=axes) for values in formula(*arrays, *vectors)])

    def work(blocks: Sequence[slice]) -> np.ndarray:
        total: Any = 0.0
        for operands in _lines(blocks, arrays, vectors):
            lines = [values.sum(axis=0).reshape(-1, channels) for values in formula(*operands)]
            total = total + np.sum(lines, axis=1, dtype=np.float64)
        return total

    return np.sum(_share_blocks(work, first), axis=0).astype(first.dtype)


def by_rows(formula: Callable[..., Array], shape: tuple[int, ...], *arrays: Array) -> Array:
    """formula(*arrays) of ``shape``: (N, rows, ...), for formulas that take every row of an image by itself.

    The arrays are (N, rows, ...) too and may be views that are strange to memory: the layers that move numbers about
    write what they do as a view with an axis for the inside of a cell, and a formula on that.
    """
    first = arrays[0]
    if array_module(first) is not np:
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

    parallel.parallel_map(work, blocks)
    return result


def in_place(
    formula: Callable[..., None],
    groups: Sequence[tuple[Array, ...]],
    kernel: Callable[[Sequence[tuple[Array, ...]]], None] | None = None,
) -> None:
    """Call a formula that writes into its arguments, arrays of one shape, for every group of them.

    ``kernel`` does the same with all groups at once on a GPU.
    """
    if kernel and groups and array_module(groups[0][0]) is not np:
        kernel(groups)
        return
    parts: list[tuple[Array, ...]] = []
    for arrays in groups:
        if all(array_module(x) is np and x.flags.c_contiguous for x in arrays):
            numbers = [x.reshape(-1) for x in arrays]
            starts = range(0, numbers[0].size, IN_PLACE_NUMBERS)
            parts += [tuple(x[start : start + IN_PLACE_NUMBERS] for x in numbers) for start in starts]
        else:
            parts.append(arrays)

    def work(run: Sequence[tuple[Array, ...]]) -> None:
        for part in run:
            formula(*part)

    parallel.parallel_map(work, parts)


def _check_shapes(arrays: Sequence[Array], vectors: Sequence[Array]) -> None:
    """Flat blocks of arrays that don't match would be wrong without a word."""
    first = arrays[0]
    if any(x.shape != first.shape for x in arrays) or any(v.shape not in ((first.shape[-1],), (1,)) for v in vectors):
        raise ValueError(
            f"A formula takes arrays of one shape (..., C) and vectors (C,) or (1,), not {[x.shape for x in arrays]} "
            f"and {[v.shape for v in vectors]}."
        )


def _line_length(channels: int) -> int:
    """The numbers in a line: whole rows of ``channels``."""
    return -(-LINE_NUMBERS // channels) * channels


def _share_blocks(work: Callable[[Sequence[slice]], Any], x: np.ndarray) -> list[Any]:
    """Call ``work`` for every worker's blocks of x, as slices of it when flat."""
    line = _line_length(x.shape[-1])
    shared = x.size >= SHARED_NUMBERS
    numbers = min(BLOCK_NUMBERS, x.size // parallel.workers()) if shared else ALONE_NUMBERS
    length = -(-numbers // line) * line
    blocks = [slice(start, min(start + length, x.size)) for start in range(0, x.size, length)]
    return parallel.parallel_map(work, blocks) if shared else [work(blocks)]


def _lines(
    blocks: Sequence[slice], arrays: Sequence[np.ndarray], vectors: Sequence[np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """The blocks of all arrays as (lines, numbers), and the vectors repeated to a line of as many numbers."""
    line = _line_length(arrays[0].shape[-1])
    flat = [x.reshape(-1) for x in arrays]
    repeated = [np.tile(v, line // len(v)) for v in vectors]
    for block in blocks:
        whole = block.start + (block.stop - block.start) // line * line
        if whole > block.start:
            yield [x[block.start : whole].reshape(-1, line) for x in flat] + repeated
        if whole < block.stop:
            yield [x[whole : block.stop].reshape(1, -1) for x in flat] + [v[: block.stop - whole] for v in repeated]
