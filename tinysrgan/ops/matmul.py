"""Matrix products, computed by all workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from tinysrgan.core.device import Array, on_gpu
from tinysrgan.ops import parallel
from tinysrgan.ops.cuda import convolution as cuda

# With fewer multiplications than this, a second worker costs more than it saves.
SHARED_PRODUCT = 2**22
# Elements of ``total`` that ``add_product`` updates at a time.
BLOCK_ELEMENTS = 128 * 1024


@on_gpu(cuda.matmul)
def dense(x: Array, w: Array, b: Array) -> Array:
    """x w + b, for x: (N, C), w: (C, K), b: (K,)."""
    return matmul(x, w) + b


@on_gpu(cuda.add_matrix_grads)
def add_dense_grads(x: Array, dy: Array, w_grad: Array, b_grad: Array) -> None:
    """w_grad += x^T dy and b_grad += the sums of dy over N, for x: (N, C), dy: (N, K), w_grad: (C, K), b_grad: (K,)."""
    add_product(w_grad, x.T, dy)
    b_grad += dy.sum(axis=0)


@on_gpu(cuda.matmul)
def matmul(a: Array, b: Array) -> Array:
    """a b, for a: (M, K) and b: (K, N). The longest of the three axes is split among the workers."""
    (m, k), n = a.shape, b.shape[1]
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


def add_product(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """total += a b, for total: (M, N), a: (M, K), b: (K, N), in blocks of rows.

    The gradient of a large dense layer uses it: there, the product a b would take as much memory as the layer's
    weights.
    """
    rows = max(1, BLOCK_ELEMENTS // total.shape[1])
    multiply = np.matmul if a.shape[1] > 1 else np.multiply  # NumPy's matmul is slow for outer products

    def work(run: Sequence[int]) -> None:
        for start in run:
            total[start : start + rows] += multiply(a[start : start + rows], b)

    parallel.parallel_map(work, range(0, len(total), rows))
