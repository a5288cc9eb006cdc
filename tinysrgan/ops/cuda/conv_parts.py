"""Convolutions whose depth is split among thread blocks: the number of parts, and how they are added.

A result of few tiles would leave most of a GPU idle. For y and dx the last block of a tile adds the parts
(``kernels/conv_parts.cuh``), for the gradients of weights and biases ``kernels/conv_add_parts.cu``.
"""

from __future__ import annotations

from math import ceil
from types import ModuleType

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import kernel
from tinysrgan.ops.cuda.launch import tickets

THREADS = 256


def split(tiles: int, slices: int, blocks: int, fewest: int) -> int:
    """The number of parts for a depth of ``slices`` and a result of ``tiles``, none of them empty.

    They make at most ``blocks`` thread blocks, unless there are more tiles, of at least ``fewest`` slices.
    """
    parts = max(1, min(blocks // tiles, slices // fewest))
    return ceil(slices / ceil(slices / parts))


def memory(xp: ModuleType, tiles: int, parts: int, size: int) -> tuple[Array | None, Array | None]:
    """What the blocks of a tile of ``size`` elements need to add their sums: memory and tickets."""
    return (xp.empty((tiles, parts, size), np.float32), tickets(xp)) if parts > 1 else (None, None)


def gradient_parts(count: int, w_grad: Array) -> tuple[Array, Array, np.int64]:
    """Memory for parts of the gradients of weights and biases: all of it, where the biases begin, and the stride."""
    size, columns = w_grad.size, w_grad.shape[-1]
    parts = array_module(w_grad).empty((count, size + columns), np.float32)
    return parts, parts[0, size:], np.int64(size + columns)


def add_gradients(parts: Array, w_grad: Array, b_grad: Array | None) -> None:
    """w_grad and b_grad += the sums of the parts. All contiguous float32."""
    columns = w_grad.shape[-1]
    arguments = parts, w_grad, b_grad, np.int32(len(parts)), np.int64(w_grad.size), np.int32(columns)
    launch = kernel(array_module(w_grad), "conv_add_parts.cu", "add_gradients")
    launch((ceil((w_grad.size + columns) / THREADS),), (THREADS,), arguments)
