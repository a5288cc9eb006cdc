"""The sizes of a convolution, as all convolution kernels take them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from tinysrgan.ops.conv.padding import same


class Geometry(NamedTuple):
    """``struct Geometry`` of ``kernels/convolution.cuh``; the letters are explained in ``ops.conv.naive``."""

    N: int
    H: int
    W: int
    C: int
    P: int
    Q: int
    K: int
    R: int
    S: int
    stride: int
    top: int
    left: int

    @cache  # noqa: B019 - it keeps tuples of integers, as many as a net has layers
    def record(self) -> np.ndarray:
        """The kernel argument. CuPy passes a NumPy array without axes by value.

        It is a single field of bytes: CuPy would describe each of twelve fields at every launch.
        """
        return np.array(self, np.int32).view(f"V{4 * len(self)}").reshape(())


def geometry(x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: int) -> Geometry:
    """The geometry for x: (N, H, W, C) and w: (R, S, C, K) with "same" padding."""
    n, h, w, c = x_shape
    r, s, _, k = w_shape
    rows, columns = same(h, r, stride), same(w, s, stride)
    return Geometry(n, h, w, c, rows.out, columns.out, k, r, s, stride, rows.before, columns.before)


def matrix_geometry(rows: int, depth: int, columns: int) -> Geometry:
    """The geometry of a matrix product, (rows, depth) times (depth, columns): one image row and a 1x1 filter."""
    return geometry((1, 1, rows, depth), (1, 1, depth, columns), 1)
