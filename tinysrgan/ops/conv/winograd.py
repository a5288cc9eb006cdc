"""The 3x3 convolution of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A tile of 4x4 outputs needs 6x6 inputs and, done directly, 16 x 9 = 144 multiplications for each pair of channels.
Three small matrices, made so that everything else cancels, turn it into 36:

    y = A^T [ (G w G^T) * (B^T x B) ] A

with x: 6x6 inputs, w: 3x3 taps, y: 4x4 outputs and * for each number by itself. The sum over the input channels can
be taken inside of the brackets, so the multiplications are 36 matrix products (tiles, C) times (C, K), one for each
place in the transformed tile. The transforms cost time too: it takes some channels on both sides to pay.

The transforms add numbers of different sizes: expect an error of 1e-5 relative to the largest output in float32,
where the direct convolution has 1e-6.

Sources: Winograd 1980; Lavin & Gray 2015, arXiv 1509.09308, section 4.3 (the matrices).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from tinysrgan.ops import parallel
from tinysrgan.ops.conv.epilogue import activate, store
from tinysrgan.ops.conv.im2col_blocked import Band, bands, patch
from tinysrgan.ops.matmul import matmul

B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
A_T = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)
# G w G^T with w as a column of numbers is this times that column.
G_BOTH = np.kron(G, G)  # (36, 9)

# Numbers of the transformed tiles of a band, before and after the channels are mixed.
BAND_NUMBERS = 1024 * 1024
# Numbers of a weight's gradient to sum at a time.
SUM_NUMBERS = 128 * 1024


def conv2d(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C) and w: (3, 3, C, K), stride 1, as ``im2col.conv2d``."""
    return convolve(x, transformed(w.astype(x.dtype, copy=False)), bias)


def conv2d_grad_input(dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """dx, as ``im2col.conv2d_grad_input``: the convolution of dy with w, its taps in reverse and C and K exchanged."""
    c, k = w.shape[2:]
    weights = matmul(G_BOTH[:, ::-1].astype(dy.dtype), w.reshape(9, c * k)).reshape(36, c, k)
    return convolve(dy, weights.transpose(0, 2, 1))


def transformed(w: np.ndarray) -> np.ndarray:
    """G w G^T: (36, C, K) of w: (3, 3, C, K)."""
    c, k = w.shape[2:]
    return matmul(G_BOTH.astype(w.dtype), w.reshape(9, c * k)).reshape(36, c, k)


def convolve(
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    slope: np.ndarray | None = None,
    shortcut: np.ndarray | None = None,
) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C) and transformed weights (36, C, K), with what ``epilogue`` does to it."""
    n, height, width, c = x.shape
    k = weights.shape[2]
    out = A_T.astype(x.dtype)
    y = np.empty((n, height, width, k), x.dtype)

    def work(run: Sequence[Band]) -> None:
        for band in run:
            images, rows, columns = _tiles(band, width)
            products = _transformed_inputs(x, band) @ weights  # (36, tiles, C) times (36, C, K)
            if bias is not None:  # place (1, 1) goes into all 16 outputs, once: A^T has a column of ones
                products[6 + 1] += bias
            outputs = out @ (out @ products.reshape(6, 6, -1)).reshape(6, -1)  # along the rows, then down the columns
            activate(outputs.reshape(-1, 16 * k), None, slope)
            result = outputs.reshape(4, 4, images, rows, columns, k).transpose(2, 3, 0, 4, 1, 5)
            target = y[band.first : band.last, 4 * band.top : 4 * band.bottom]
            store(
                result.reshape(images, 4 * rows, 4 * columns, k)[:, : target.shape[1], :width],
                None if shortcut is None else shortcut[band.first : band.last, 4 * band.top : 4 * band.bottom],
                target,
            )

    parallel.parallel_map(work, _bands(x.shape, c, k))
    return y


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dw: (3, 3, C, K), as ``im2col.conv2d_grad_weight``.

    The formula above is linear in w; turned round, dw = G^T [ (B^T x B) * (A dy A^T) ] G, summed over all tiles.
    """
    c, k = x.shape[3], dy.shape[3]
    spread = A_T.T.astype(x.dtype)
    step = max(1, SUM_NUMBERS // (c * k))
    places = [slice(start, start + step) for start in range(0, 36, step)]

    def work(run: Sequence[Band]) -> np.ndarray:
        total = np.zeros((36, c, k), x.dtype)
        for band in run:
            images, rows, columns = _tiles(band, dy.shape[2])
            part = patch(dy[band.first : band.last], (4 * band.top, 0), (4 * rows, 4 * columns))
            cells = part.reshape(images, rows, 4, columns, 4, k).transpose(2, 4, 0, 1, 3, 5)
            gradients = (spread @ (spread @ cells.reshape(4, 4, -1)).reshape(4, -1)).reshape(36, -1, k)
            inputs = _transformed_inputs(x, band).transpose(0, 2, 1)
            for at in places:
                total[at] += inputs[at] @ gradients[at]  # (C, tiles) times (tiles, K) for every place
        return total

    totals = parallel.parallel_map(work, _bands(x.shape, c, k))
    back = G_BOTH.T.astype(x.dtype)
    return reduce(np.add, [matmul(back, total.reshape(36, c * k)) for total in totals]).reshape(3, 3, c, k)


def _bands(shape: tuple[int, ...], c: int, k: int) -> list[Band]:
    """Bands of rows of tiles, with tiles enough to be worth half of the time that it takes to read the weights."""
    n, height, width, _ = shape
    limit = max(16, BAND_NUMBERS // (36 * (c + k)), c * k // (c + k) // 2)
    return bands(n, -(-height // 4), -(-width // 4), limit, 36 * c * k)


def _tiles(band: Band, width: int) -> tuple[int, int, int]:
    """Images, rows and columns of tiles in a band."""
    return band.last - band.first, band.bottom - band.top, -(-width // 4)


def _transformed_inputs(x: np.ndarray, band: Band) -> np.ndarray:
    """B^T x B of every tile in a band: (36, tiles, C).

    First down the columns, for which tiles needn't be cut apart from their neighbours in a row; then along the rows.
    """
    images, rows, columns = _tiles(band, x.shape[2])
    matrix = B_T.astype(x.dtype)
    part = patch(x[band.first : band.last], (4 * band.top - 1, -1), (4 * rows + 2, 4 * columns + 2))
    c = part.shape[3]
    image, row, pixel, number = part.strides
    six_rows = np.ndarray((images, rows, 6, part.shape[2] * c), x.dtype, part, strides=(image, 4 * row, row, number))
    down = matrix @ six_rows
    image, row, place, number = down.strides
    six_columns = np.ndarray(
        (6, 6, images, rows, columns, c), x.dtype, down, strides=(place, pixel, image, row, 4 * pixel, number)
    )
    return (matrix @ six_columns.reshape(6, 6, -1)).reshape(36, -1, c)
