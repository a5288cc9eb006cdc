"""Elementwise formulas, and sums over all axes but the last, in blocks that stay in the cache.

A formula of five steps on whole arrays reads and writes main memory five times, which takes longer than the arithmetic.
Here all steps are computed for one block before the next, and the workers share the blocks.

A per-channel ``vector`` would broadcast C elements at a time, and NumPy is slow on short inner loops. A block is
therefore viewed as lines of some thousand elements, each with whole rows of C channels, and the vectors are repeated to
the length of a line. Element i of any line then belongs to channel i mod C. Sums add up the lines first; only their
total is folded to C elements. This also avoids adding many small values to one large sum, which would lose float32's
last digits.

Formulas are functions of arrays, then vectors. All this is for NumPy: on a GPU a kernel replaces the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinysrgan.core.device import Array, array_module, on_gpu
from tinysrgan.ops import parallel
from tinysrgan.ops.cuda import sums as cuda

LINE_ELEMENTS = 4 * 1024
# A block that fits into a core's second-level cache, together with a formula's intermediate results.
CACHE_ELEMENTS = 64 * 1024
# A block for one of several workers. Each step of a formula takes the GIL once per block, so short blocks would make
# the workers wait for each other.
BLOCK_ELEMENTS = 256 * 1024
# Below this size a second worker costs more than it saves.
SHARED_ELEMENTS = 256 * 1024


def elementwise(formula: Callable[..., Array], *arrays: Array, vectors: Sequence[Array] = ()) -> Array:
    """formula(*arrays, *vectors), for arrays of one shape (..., C) and vectors (C,), or (1,) for all channels.

    The result has the shape and dtype of the first array. Raises ValueError for shapes that do not match.
    """
    _check_shapes(arrays, vectors)
    first = arrays[0]
    result = np.empty(first.shape, first.dtype)

    def work(blocks: Sequence[slice]) -> None:
        for lines, *operands in _lines(blocks, (result, *arrays), vectors):
            lines[...] = formula(*operands)

    _share_blocks(work, first)
    return result


def reduce_channels(formula: Callable[..., tuple[Array, ...]], *arrays: Array, vectors: Sequence[Array] = ()) -> Array:
    """The sums of the k arrays that ``formula(*arrays, *vectors)`` returns, over all axes but the last: (k, C).

    Arguments and errors are those of ``elementwise``. float32 sums are accurate to six digits or more.
    """
    _check_shapes(arrays, vectors)
    first = arrays[0]
    channels = first.shape[-1]

    def work(blocks: Sequence[slice]) -> np.ndarray:
        total: Any = 0.0
        for operands in _lines(blocks, arrays, vectors):
            lines = [values.sum(axis=0).reshape(-1, channels) for values in formula(*operands)]
            total = total + np.sum(lines, axis=1, dtype=np.float64)
        return total

    return np.sum(_share_blocks(work, first), axis=0).astype(first.dtype)


@on_gpu(cuda.sum_per_channel)
def sum_per_channel(x: Array) -> Array:
    """The sums of x: (..., C) over all axes but the last: (C,).

    For float32 images, ``x.sum(axis=(0, 1, 2))`` would be less accurate and slower.
    """
    return reduce_channels(lambda x: (x,), x)[0]


def by_rows(formula: Callable[..., Array], shape: tuple[int, ...], *arrays: Array) -> Array:
    """formula(*arrays) of ``shape``: (N, rows, ...), for formulas that process each row of an image independently.

    The arrays are (N, rows, ...) too and may be non-contiguous views.
    """
    first = arrays[0]
    if array_module(first) is not np:
        return formula(*arrays)
    images, rows = shape[:2]
    result = np.empty(shape, first.dtype)
    pieces = min(rows, max(parallel.workers(), -(-result[:1].size // BLOCK_ELEMENTS)))
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
    kernel: Callable[[Sequence[tuple[Array, ...]], Callable[[], dict[str, float]]], None] | None = None,
    settings: Callable[[], dict[str, float]] = dict,
    whole: bool = False,
) -> None:
    """Call a formula that writes into its arguments, arrays of one shape, for every group of them.

    A formula that treats each element by itself gets parts of the arrays; others ask for ``whole`` ones. ``settings``
    returns its other arguments. ``kernel`` does the same for all groups at once on a GPU; a CUDA graph of it asks for
    the settings at every launch.
    """
    if kernel and groups and array_module(groups[0][0]) is not np:
        kernel(groups, settings)
        return
    formula = partial(formula, **settings())
    if whole:
        for arrays in groups:
            formula(*arrays)
        return
    parts: list[tuple[Array, ...]] = []
    for arrays in groups:
        if all(x.flags.c_contiguous for x in arrays):
            flat = [x.reshape(-1) for x in arrays]
            starts = range(0, flat[0].size, CACHE_ELEMENTS)
            parts += [tuple(x[start : start + CACHE_ELEMENTS] for x in flat) for start in starts]
        else:
            parts.append(arrays)

    def work(run: Sequence[tuple[Array, ...]]) -> None:
        for part in run:
            formula(*part)

    parallel.parallel_map(work, parts)


def _check_shapes(arrays: Sequence[Array], vectors: Sequence[Array]) -> None:
    """Raise ValueError for mismatched shapes, which would silently give wrong results."""
    first = arrays[0]
    if any(x.shape != first.shape for x in arrays) or any(v.shape not in ((first.shape[-1],), (1,)) for v in vectors):
        raise ValueError(
            f"A formula takes arrays of one shape (..., C) and vectors (C,) or (1,), not {[x.shape for x in arrays]} "
            f"and {[v.shape for v in vectors]}."
        )


def _line_length(channels: int) -> int:
    """The number of elements in a line: whole rows of ``channels`` elements."""
    return -(-LINE_ELEMENTS // channels) * channels


def _share_blocks(work: Callable[[Sequence[slice]], Any], x: np.ndarray) -> list[Any]:
    """Call ``work`` with each worker's blocks, which are slices of the flattened x; return all results."""
    line = _line_length(x.shape[-1])
    shared = x.size >= SHARED_ELEMENTS
    elements = min(BLOCK_ELEMENTS, x.size // parallel.workers()) if shared else CACHE_ELEMENTS
    length = -(-elements // line) * line
    blocks = [slice(start, min(start + length, x.size)) for start in range(0, x.size, length)]
    return parallel.parallel_map(work, blocks) if shared else [work(blocks)]


def _lines(
    blocks: Sequence[slice], arrays: Sequence[np.ndarray], vectors: Sequence[np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """The blocks of all arrays as (lines, elements), and the vectors repeated to the length of a line."""
    line = _line_length(arrays[0].shape[-1])
    flat = [x.reshape(-1) for x in arrays]
    repeated = [np.tile(v, line // len(v)) for v in vectors]
    for block in blocks:
        whole = block.start + (block.stop - block.start) // line * line
        if whole > block.start:
            yield [x[block.start : whole].reshape(-1, line) for x in flat] + repeated
        if whole < block.stop:
            yield [x[whole : block.stop].reshape(1, -1) for x in flat] + [v[: block.stop - whole] for v in repeated]
