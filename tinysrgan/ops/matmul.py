"""Matrix products, computed by all workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops import parallel
from tinysrgan.ops.cuda import convolution as cuda

# With fewer multiplications than this, a second worker costs more than it saves.
SHARED_PRODUCT = 2**22
# Elements of ``total`` that ``add_product`` updates at a time.
BLOCK_ELEMENTS = 128 * 1024


def matmul(a: Array, b: Array) -> Array:
    """a b, for a: (M, K) and b: (K, N). The longest of the three axes is split among the workers."""
    (m, k), n = a.shape, b.shape[1]
    if array_module(a) is not np:
        return cuda.matmul(a, b)
    if m * k * n < SHARED_PRODUCT:
        return a @ b
    if k > max(m, n):
        return reduce(
            np.add, parallel.parallel_map(lambda run: a[:, run[0] : run[-1] + 1] @ b[run[0] : run[-1] + 1], range(k))
        )
    result = np.empty((m, n), np.result_type(a, b))

    def work(run: Sequence[int]) -> None:
        part = slice(run[0], run[-1] + 1)
        if m > n:
            np.matmul(a[part], b, out=result[part])
        else:
            np.matmul(a, b[:, part], out=result[:, part])

    parallel.parallel_map(work, range(max(m, n)))
    return result


def add_product(total: Array, a: Array, b: Array) -> None:
    """total += a b, for total: (M, N), a: (M, K), b: (K, N), in blocks of rows.

    The gradient of a large dense layer uses it: there, the product a b would take as much memory as the layer's
    weights.
    """
    if array_module(total) is not np:
        cuda.add_product(total, a, b)
        return
    rows = max(1, BLOCK_ELEMENTS // total.shape[1])
    multiply = np.matmul if a.shape[1] > 1 else np.multiply  # NumPy's matmul is slow for outer products

    def work(run: Sequence[int]) -> None:
        for start in run:
            total[start : start + rows] += multiply(a[start : start + rows], b)

    parallel.parallel_map(work, range(0, len(total), rows))
