"""Stride-1 convolutions with few output channels, such as SRGAN's last: 9x9, 64 channels to 3.

The columns of such a convolution are wide (R S C numbers for each output) and meet a matrix of K columns only: nearly
all the time would go into making them. Here the thin side is spread out instead:

* forward: every pixel's product with every tap first, (R S K, C) times (C, pixels), then R S shifted sums of K rows;
* dw: columns are made of dy, not of x. Tap (i, j) of dw pairs x at p + i - before with dy at p, which is dy at
  p' - (i - before) with x at p': a convolution's weight gradient with x and dy in each other's place, and flipped.

dx needs nothing new: it is a convolution of dy, the thin side. NumPy arrays of any float type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinysrgan.ops import bands, parallel
from tinysrgan.ops.geometry import Same, same

# Products made at a time: short enough for the caches, long enough for the additions (rows of the third-level cache).
CHUNK_NUMBERS = 1024 * 1024


def conv2d(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C), stride 1, as ``im2col.conv2d``.

    Rows are ``wide`` = W + S - 1 pixels here, the last S - 1 of them zero, and follow each other. So tap (i, j) has
    only to move all its products by i rows and j pixels, i wide + j in all, and whatever it moves over the edge of a
    row is zero.
    """
    n, height, width, _ = x.shape
    r, s, c, k = w.shape
    above, left = same(height, r, 1).before, same(width, s, 1).before
    wide = width + s - 1
    taps = w.transpose(0, 1, 3, 2).reshape(r * s * k, c)
    y = np.empty((n, height, width, k), x.dtype)
    step = max(1, CHUNK_NUMBERS // (r * s * k * wide))

    def work(run: Sequence[bands.Band]) -> None:
        for band in run:
            start, stop = max(band.top - above, 0), min(band.bottom - above + r - 1, height)  # rows of x that reach it
            origin = (band.top - start + r - 1 - above) * wide + s - 1 - left  # of the band in ``sums``
            for image in range(band.first, band.last):
                sums = np.zeros((k, (stop - start + r - 1) * wide + s - 1), x.dtype)
                for row in range(start, stop, step):
                    part = x[image, row : min(row + step, stop)]
                    pixels = np.zeros((len(part), wide, c), x.dtype)
                    pixels[:, :width] = part
                    products = (taps @ pixels.reshape(-1, c).T).reshape(r, s, k, -1)
                    for i in range(r):
                        for j in range(s):
                            to = (row - start + r - 1 - i) * wide + s - 1 - j
                            sums[:, to : to + products.shape[3]] += products[i, j]
                rows = band.bottom - band.top
                result = sums[:, origin : origin + rows * wide].reshape(k, rows, wide)[:, :, :width].transpose(1, 2, 0)
                y[image, band.top : band.bottom] = result if bias is None else result + bias

    parallel.share(work, bands.bands(n, height, width, bands.band_limit(k)))
    return y


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray, w_shape: tuple[int, ...]) -> np.ndarray:
    """dw, stride 1, as ``im2col.conv2d_grad_weight``: (R S K, outputs of a band) times (outputs of a band, C)."""
    r, s, c, k = w_shape
    rows, columns = (
        Same(length, size - 1 - same(length, size, 1).before, 0)
        for length, size in zip(x.shape[1:3], (r, s), strict=True)
    )
    flipped = bands.correlate_grad_weight(dy, x, (r, s, k, c), 1, rows, columns)
    return flipped[::-1, ::-1].transpose(0, 1, 3, 2)
