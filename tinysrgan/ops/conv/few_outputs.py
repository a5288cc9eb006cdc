"""Stride-1 convolutions with few output channels, such as SRGAN's last one: 9x9, 64 channels to 3.

im2col would spend nearly all its time on building the columns: each output needs R S C elements, which then meet a
matrix of only K columns. Here the side with few channels is expanded instead:

* forward: the product of every pixel with every tap, (R S K, C) times (C, pixels), then for each of the K channels a
  sum over the taps, each shifted by its offset;
* dw: im2col of dy instead of x. Tap (i, j) of dw pairs x at p + i - before with dy at p, which is dy at
  p - (i - before) with x at p: a weight gradient with x and dy exchanged, flipped.

dx needs no special case: it is a convolution of dy, the side with few channels. Filter sizes are odd. Arrays are NumPy
arrays of any float type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinysrgan.ops import parallel
from tinysrgan.ops.conv import im2col_blocked
from tinysrgan.ops.conv.im2col_blocked import Block

# Products computed at a time: long inner loops for the additions, yet small enough for the caches.
CHUNK_ELEMENTS = 1024 * 1024


def conv2d(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C), stride 1, as ``im2col.conv2d``.

    Each row is padded to ``wide`` = W + S - 1 pixels, the last S - 1 of them zero, and the rows are contiguous. Then
    shifting the products of tap (i, j) by i rows and j pixels means starting i wide + j elements later, and whatever is
    shifted over the edge of a row is zero. ``sums`` has R // 2 extra rows above y and S // 2 extra pixels to its left
    for the products that are shifted out of y.
    """
    n, height, width, _ = x.shape
    r, s, c, k = w.shape
    wide = width + s - 1
    taps = w[::-1, ::-1].transpose(0, 1, 3, 2).reshape(r * s * k, c)
    y = np.empty((n, height, width, k), x.dtype)
    step = max(1, CHUNK_ELEMENTS // (r * s * k * wide))

    def work(run: Sequence[Block]) -> None:
        for block in run:
            start, stop = max(block.top - r // 2, 0), min(block.bottom + r // 2, height)  # the rows of x in reach
            origin = (block.top - start + r // 2) * wide + s // 2  # of the block in ``sums``
            rows = block.bottom - block.top
            for image in range(block.first, block.last):
                sums = np.zeros((k, (stop - start + r) * wide), x.dtype)
                for top in range(start, stop, step):
                    part = x[image, top : min(top + step, stop)]
                    length = len(part) * wide
                    pixels = np.zeros((s - 1 + length, c), x.dtype)
                    pixels[s - 1 :].reshape(-1, wide, c)[:, :width] = part
                    products = (taps @ pixels.T).reshape(r, s, k, -1)
                    for i in range(r):
                        to = (top - start + i) * wide
                        sums[:, to : to + length] += _sum_of_shifted(products[i], length)
                result = sums[:, origin : origin + rows * wide].reshape(k, rows, wide)[:, :, :width].transpose(1, 2, 0)
                y[image, block.top : block.bottom] = result if bias is None else result + bias

    # Blocks are as large as possible, because each also reads R - 1 rows of its neighbours.
    limit = -(-n * height * width // parallel.workers())
    parallel.parallel_map(work, im2col_blocked.blocks(n, height, width, limit, r * s * c * k))
    return y


def _sum_of_shifted(products: np.ndarray, length: int) -> np.ndarray:
    """(S, K, S - 1 + length) to (K, length): the sum over j of product j shifted by j pixels."""
    s, k, _ = products.shape
    tap, channel, pixel = products.strides
    strides = (tap - pixel, channel, pixel)
    return np.add.reduce(np.ndarray((s, k, length), products.dtype, products, (s - 1) * pixel, strides), axis=0)


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray, w_shape: tuple[int, ...]) -> np.ndarray:
    """dw: (R, S, C, K), stride 1, as ``im2col.conv2d_grad_weight``."""
    r, s, c, k = w_shape
    return im2col_blocked.conv2d_grad_weight(dy, x, (r, s, k, c))[::-1, ::-1].transpose(0, 1, 3, 2)
