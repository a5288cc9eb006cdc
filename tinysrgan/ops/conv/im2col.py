"""The convolution as one matrix product: the window of every output becomes a row of a matrix ("image to columns").

``windows`` copies x once, with its padding: the windows are an overlapping view of that copy.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.ops.conv.padding import same
from tinysrgan.ops.matmul import matmul


def windows(x: np.ndarray, r: int, s: int, stride: int) -> np.ndarray:
    """View (N, P, Q, R, S, C) of x: (N, H, W, C), zero-padded: the R x S window of every output."""
    rows, columns = same(x.shape[1], r, stride), same(x.shape[2], s, stride)
    padded = np.pad(x, ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)))
    n, h, w, c = padded.strides
    return np.lib.stride_tricks.as_strided(
        padded, (len(x), rows.out, columns.out, r, s, x.shape[3]), (n, h * stride, w * stride, h, w, c)
    )


def conv2d(x: np.ndarray, w: np.ndarray, stride: int = 1) -> np.ndarray:
    """y: (N, P, Q, K) = columns(x) w: (N P Q, R S C) times (R S C, K)."""
    r, s, c, k = w.shape
    view = windows(x, r, s, stride)
    n, p, q = view.shape[:3]
    return matmul(view.reshape(n * p * q, r * s * c), w.reshape(r * s * c, k)).reshape(n, p, q, k)


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray, w_shape: tuple[int, ...], stride: int = 1) -> np.ndarray:
    """dw: (R, S, C, K) = columns(x)^T dy: (R S C, N P Q) times (N P Q, K)."""
    r, s, c, k = w_shape
    columns = windows(x, r, s, stride).reshape(-1, r * s * c)
    return matmul(columns.T, dy.reshape(-1, k)).reshape(w_shape)


def conv2d_grad_input(dy: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], stride: int = 1) -> np.ndarray:
    """dx: dy w^T is the gradient of every window; each of its taps is added to the pixel that it was read from."""
    n, h, width, c = x_shape
    r, s, _, k = w.shape
    rows, columns = same(h, r, stride), same(width, s, stride)
    taps = matmul(dy.reshape(-1, k), w.reshape(r * s * c, k).T).reshape(*dy.shape[:3], r, s, c)
    padded = np.zeros((n, h + rows.before + rows.after, width + columns.before + columns.after, c), dy.dtype)
    for i in range(r):
        for j in range(s):
            padded[:, i : i + rows.out * stride : stride, j : j + columns.out * stride : stride] += taps[:, :, :, i, j]
    return padded[:, rows.before : rows.before + h, columns.before : columns.before + width]
