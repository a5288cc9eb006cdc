"""Stride-1 convolutions with few output channels, such as SRGAN's last: 9x9, 64 channels to 3.

The columns of such a convolution are long (R S C numbers for each output) and meet a matrix of K columns only: nearly
all the time would go into making them. Here the thin side is spread out instead:

* forward: every pixel's product with every tap first, (R S K, C) times (C, pixels); then a sum of K numbers over all
  taps, each moved as its tap says;
* dw: columns are made of dy, not of x. Tap (i, j) of dw pairs x at p + i - before with dy at p, that is dy at
  p - (i - before) with x at p: a weight's gradient with x and dy in each other's place, and flipped.

dx needs nothing new: it is a convolution of dy, the thin side. Filters have odd sizes. NumPy arrays of any float type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinysrgan.ops import parallel
from tinysrgan.ops.conv import im2col_blocked

# Products made at a time: long runs of additions, and still in the caches.
CHUNK_NUMBERS = 1024 * 1024


def conv2d(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C), stride 1, as ``im2col.conv2d``.

    Rows are ``wide`` = W + S - 1 pixels here, the last S - 1 of them zero, and follow each other. To move the products
    of tap (i, j) by i rows and j pixels is then to start i wide + j later, and what moves over the edge of a row is
    zero. ``sums`` has R // 2 more rows than y above, and S // 2 more pixels at the left, for what moves out of y.
    """
    n, height, width, _ = x.shape
    r, s, c, k = w.shape
    wide = width + s - 1
    taps = w[::-1, ::-1].transpose(0, 1, 3, 2).reshape(r * s * k, c)
    y = np.empty((n, height, width, k), x.dtype)
    step = max(1, CHUNK_NUMBERS // (r * s * k * wide))

    def work(run: Sequence[im2col_blocked.Band]) -> None:
        for band in run:
            start, stop = max(band.top - r // 2, 0), min(band.bottom + r // 2, height)  # rows of x that reach it
            origin = (band.top - start + r // 2) * wide + s // 2  # of the band in ``sums``
            rows = band.bottom - band.top
            for image in range(band.first, band.last):
                sums = np.zeros((k, (stop - start + r) * wide), x.dtype)
                for top in range(start, stop, step):
                    part = x[image, top : min(top + step, stop)]
                    length = len(part) * wide
                    pixels = np.zeros((s - 1 + length, c), x.dtype)
                    pixels[s - 1 :].reshape(-1, wide, c)[:, :width] = part
                    products = (taps @ pixels.T).reshape(r, s, k, -1)
                    for i in range(r):
                        to = (top - start + i) * wide
                        sums[:, to : to + length] += _sum_of_moved(products[i], length)
                result = sums[:, origin : origin + rows * wide].reshape(k, rows, wide)[:, :, :width].transpose(1, 2, 0)
                y[image, band.top : band.bottom] = result if bias is None else result + bias

    # Bands as large as can be, because each needs R - 1 rows of its neighbours as well.
    parallel.parallel_map(
        work, im2col_blocked.bands(n, height, width, -(-n * height * width // parallel.workers()), r * s * c * k)
    )
    return y


def _sum_of_moved(products: np.ndarray, length: int) -> np.ndarray:
    """(S, K, S - 1 + length) to (K, length): product j of every pixel moved by j pixels, all added up."""
    s, k, _ = products.shape
    tap, channel, pixel = products.strides
    strides = (tap - pixel, channel, pixel)
    return np.add.reduce(np.ndarray((s, k, length), products.dtype, products, (s - 1) * pixel, strides), axis=0)


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray, w_shape: tuple[int, ...]) -> np.ndarray:
    """dw, stride 1, as ``im2col.conv2d_grad_weight``."""
    r, s, c, k = w_shape
    return im2col_blocked.conv2d_grad_weight(dy, x, (r, s, k, c))[::-1, ::-1].transpose(0, 1, 3, 2)
