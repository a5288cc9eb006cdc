"""The convolution and its two gradients by definition: four loops and a small matrix product. Slow; the reference.

Letters, here and in the CUDA kernels: N images; H, W, C input rows, columns, channels; R, S filter rows, columns;
P, Q, K output rows, columns, channels. Padding is "same": x is zero outside the image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinysrgan.ops.conv.padding import same


def taps(h: int, w: int, r: int, s: int, stride: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Every (p, q, i, j, y, x) where filter tap (i, j) of output (p, q) reads the input pixel (y, x)."""
    rows, columns = same(h, r, stride), same(w, s, stride)
    for p in range(rows.out):
        for q in range(columns.out):
            for i in range(r):
                for j in range(s):
                    y, x = p * stride + i - rows.before, q * stride + j - columns.before
                    if 0 <= y < h and 0 <= x < w:
                        yield p, q, i, j, y, x


def conv2d(x: np.ndarray, w: np.ndarray, stride: int = 1) -> np.ndarray:
    """y[n, p, q, k] = sum over r, s, c of x[n, p stride + r - top, q stride + s - left, c] w[r, s, c, k]."""
    n, height, width, _ = x.shape
    r, s, _, k = w.shape
    y = np.zeros((n, same(height, r, stride).out, same(width, s, stride).out, k), x.dtype)
    for p, q, i, j, row, column in taps(height, width, r, s, stride):
        y[:, p, q] += x[:, row, column] @ w[i, j]
    return y


def conv2d_grad_input(dy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], stride: int = 1) -> np.ndarray:
    """dx: (N, H, W, C). A pixel sums the gradients of all outputs that read it, each times the weight it used."""
    dx = np.zeros(x_shape, dy.dtype)
    for p, q, i, j, row, column in taps(x_shape[1], x_shape[2], w.shape[0], w.shape[1], stride):
        dx[:, row, column] += dy[:, p, q] @ w[i, j].T
    return dx


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray, w_shape: tuple[int, ...], stride: int = 1) -> np.ndarray:
    """dw: (R, S, C, K). Each weight's gradient is the sum of input times output gradient over all of its uses."""
    dw = np.zeros(w_shape, dy.dtype)
    for p, q, i, j, row, column in taps(x.shape[1], x.shape[2], w_shape[0], w_shape[1], stride):
        dw[i, j] += x[:, row, column].T @ dy[:, p, q]
    return dw
