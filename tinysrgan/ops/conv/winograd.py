"""The 3x3 convolution of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A tile of 4x4 outputs needs 6x6 inputs and, computed directly, 16 x 9 = 144 multiplications for each pair of channels.
Three small constant matrices reduce them to 36:

    y = A^T [ (G w G^T) * (B^T x B) ] A

with x: 6x6 inputs, w: 3x3 taps, y: 4x4 outputs and * elementwise. The sum over the input channels moves inside the
brackets, so the multiplications become 36 matrix products (tiles, C) times (C, K), one for each position in the
transformed tile. The transforms also cost time, so Winograd needs enough input and output channels to pay off.

The transforms add values of different magnitude. In float32 the error is about 1e-5 of the largest output; the direct
convolution has 1e-6.

Sources: Winograd 1980; Lavin & Gray 2015, arXiv 1509.09308, section 4.3 (the matrices).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from tinysrgan.ops import parallel
from tinysrgan.ops.conv.epilogue import NOTHING, Epilogue, activate
from tinysrgan.ops.conv.im2col_blocked import Block, blocks, patch
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
A_T = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
# With w flattened to a column of 9 taps, G w G^T is this matrix times that column.
G_BOTH = np.kron(G, G)  # (36, 9)

# Elements of a block's transformed tiles, inputs and products together.
BLOCK_ELEMENTS = 1024 * 1024
# Elements of the transformed weight gradient to accumulate at a time.
SUM_ELEMENTS = 128 * 1024


def conv2d(x: np.ndarray, w: np.ndarray, after: Epilogue = NOTHING) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C) and w: (3, 3, C, K), stride 1; see ``im2col.conv2d`` and ``epilogue``."""
    return convolve(x, transformed(w.astype(x.dtype, copy=False)), after)


def conv2d_grad_input(dy: np.ndarray, w: np.ndarray, after: Epilogue = NOTHING) -> np.ndarray:
    """dx: (N, H, W, C), the convolution of dy with w, its taps in reverse order and C and K exchanged."""
    c, k = w.shape[2:]
    weights = matmul(G_BOTH[:, ::-1].astype(dy.dtype), w.reshape(9, c * k)).reshape(36, c, k)
    return convolve(dy, weights.transpose(0, 2, 1), after)


def transformed(w: np.ndarray) -> np.ndarray:
    """G w G^T: (36, C, K) of w: (3, 3, C, K)."""
    c, k = w.shape[2:]
    return matmul(G_BOTH.astype(w.dtype), w.reshape(9, c * k)).reshape(36, c, k)


def convolve(x: np.ndarray, weights: np.ndarray, after: Epilogue = NOTHING) -> np.ndarray:
    """y: (N, H, W, K) of x: (N, H, W, C) and transformed weights (36, C, K), with the operations of ``epilogue``."""
    n, height, width, c = x.shape
    k = weights.shape[2]
    out = A_T.astype(x.dtype)
    y = np.empty((n, height, width, k), x.dtype)

    def work(run: Sequence[Block]) -> None:
        for block in run:
            images, rows, columns = _tiles(block, width)
            products = _transformed_inputs(x, block) @ weights  # (36, tiles, C) times (36, C, K)
            if after.bias is not None:  # position (1, 1) adds to each output once: A^T has a column of ones
                products[6 + 1] += after.bias
            outputs = out @ (out @ products.reshape(6, 6, -1)).reshape(6, -1)  # along the rows, then down the columns
            activate(outputs.reshape(-1, 16 * k), None, after.slope)
            result = outputs.reshape(4, 4, images, rows, columns, k).transpose(2, 3, 0, 4, 1, 5)
            at = slice(block.first, block.last), slice(4 * block.top, 4 * block.bottom)
            inside = result.reshape(images, 4 * rows, 4 * columns, k)[:, : y[at].shape[1], :width]
            after.store(inside, at, y)

    parallel.parallel_map(work, _blocks(x.shape, c, k))
    return y


def conv2d_grad_weight(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dw: (3, 3, C, K), as ``im2col.conv2d_grad_weight``.

    The formula above is linear in w. Its adjoint is dw = G^T [ (B^T x B) * (A dy A^T) ] G, summed over all tiles.
    """
    c, k = x.shape[3], dy.shape[3]
    a = A_T.T.astype(x.dtype)
    step = max(1, SUM_ELEMENTS // (c * k))
    positions = [slice(start, start + step) for start in range(0, 36, step)]

    def work(run: Sequence[Block]) -> np.ndarray:
        total = np.zeros((36, c, k), x.dtype)
        for block in run:
            images, rows, columns = _tiles(block, dy.shape[2])
            part = patch(dy[block.first : block.last], (4 * block.top, 0), (4 * rows, 4 * columns))
            cells = part.reshape(images, rows, 4, columns, 4, k).transpose(2, 4, 0, 1, 3, 5)
            gradients = (a @ (a @ cells.reshape(4, 4, -1)).reshape(4, -1)).reshape(36, -1, k)
            inputs = _transformed_inputs(x, block).transpose(0, 2, 1)
            for at in positions:
                total[at] += inputs[at] @ gradients[at]  # (C, tiles) times (tiles, K) for every position
        return total

    totals = parallel.parallel_map(work, _blocks(x.shape, c, k))
    g_both = G_BOTH.T.astype(x.dtype)
    return reduce(np.add, [matmul(g_both, total.reshape(36, c * k)) for total in totals]).reshape(3, 3, c, k)


def _blocks(shape: tuple[int, ...], c: int, k: int) -> list[Block]:
    """Blocks of rows of tiles: reading the tiles of one takes at least half as long as reading the weights."""
    n, height, width, _ = shape
    limit = max(16, BLOCK_ELEMENTS // (36 * (c + k)), c * k // (c + k) // 2)
    return blocks(n, -(-height // 4), -(-width // 4), limit, 36 * c * k)


def _tiles(block: Block, width: int) -> tuple[int, int, int]:
    """Images, rows and columns of tiles in a block."""
    return block.last - block.first, block.bottom - block.top, -(-width // 4)


def _transformed_inputs(x: np.ndarray, block: Block) -> np.ndarray:
    """B^T x B of every tile in a block: (36, tiles, C).

    The columns come first, because they are transformed for a whole row of overlapping tiles at once; then the rows.
    """
    images, rows, columns = _tiles(block, x.shape[2])
    matrix = B_T.astype(x.dtype)
    part = patch(x[block.first : block.last], (4 * block.top - 1, -1), (4 * rows + 2, 4 * columns + 2))
    c = part.shape[3]
    image, row, pixel, element = part.strides
    six_rows = np.ndarray((images, rows, 6, part.shape[2] * c), x.dtype, part, strides=(image, 4 * row, row, element))
    down = matrix @ six_rows
    image, row, position, element = down.strides
    six_columns = np.ndarray(
        (6, 6, images, rows, columns, c), x.dtype, down, strides=(position, pixel, image, row, 4 * pixel, element)
    )
    return (matrix @ six_columns.reshape(6, 6, -1)).reshape(36, -1, c)
