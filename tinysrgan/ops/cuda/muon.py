"""Muon's step for all matrices of a net, in 18 launches of ``kernels/muon.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import NamedTuple

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.launch import REAL, THREADS
from tinysrgan.ops.cuda.remembered import Groups, Remembered, check_arrays
from tinysrgan.ops.cuda.settings import Source, on_device

PIECE = 4096  # elements of a matrix that a block processes where it treats each by itself
TILE = 32  # rows and columns of a product that a block computes


class Matrix(NamedTuple):
    """``struct Matrix``: where it begins, and the distances in elements from row to row and column to column."""

    at: int
    down: int
    across: int

    @property
    def transposed(self) -> Matrix:
        return Matrix(self.at, self.across, self.down)


NOTHING = Matrix(0, 0, 0)


class Tables(NamedTuple):
    """What the blocks of each launch read, and the memory between them."""

    pieces: Array
    parts: Array
    steps: list[tuple[Array, Array, Array]]  # the products of each step of the iteration: A, B, x
    workspace: Array


class Step:
    """Cached tables of pointers to a fixed set of arrays, and the step that uses them.

    ``coefficients`` and ``steps`` are those of Newton and Schulz' iteration.
    """

    def __init__(self, coefficients: tuple[float, float, float], steps: int) -> None:
        self.coefficients, self.steps = coefficients, steps
        self._tables: Remembered[Tables] = Remembered()

    def __call__(self, groups: Groups, settings: Source) -> None:
        """Update all values and set their gradients to zero; ``tinysrgan.optimizers.muon`` has the formulas.

        groups: (value, gradient, m), contiguous arrays (..., K) of one type, float32 or float64. ``settings`` returns
        momentum and rate. Raises ValueError for other layouts, types or shapes.
        """
        if not groups:
            return
        pieces, parts, steps, _ = self._tables(partial(tables, steps=self.steps), groups)
        xp, number = array_module(parts), parts.dtype.type
        a, b, c = map(number, self.coefficients)
        given = on_device(xp, settings)

        def launch(name: str, table: Array, *arguments: object) -> None:
            kernel(xp, "muon.cu", name, REAL=REAL[parts.dtype])((len(table),), (THREADS,), (table, *arguments))

        launch("momentum", pieces, parts, given)
        launch("scale", pieces, parts)
        for gram, polynomial, product in steps:
            launch("multiply", gram, number(0), number(1))
            launch("multiply", polynomial, b, c)
            launch("multiply", product, a, number(1))
        launch("apply", pieces, given)


def tables(groups: Groups, steps: int) -> Tables:
    """The tables for these arrays. Raises ValueError for arrays that the kernels can't take."""
    check_arrays(groups)
    first = groups[0][0]
    xp, size = array_module(first), first.itemsize
    shapes = [(value.size // value.shape[-1], value.shape[-1]) for value, *_ in groups]
    elements = sum(2 * rows * columns + 2 * min(rows, columns) ** 2 for rows, columns in shapes)
    workspace = xp.empty(elements, first.dtype)
    start = address(workspace)
    pieces: list[tuple[int, ...]] = []
    products: list[list[tuple[int, ...]]] = [[] for _ in range(3 * steps)]
    for (value, gradient, m), (rows, columns) in zip(groups, shapes, strict=True):
        short, long = sorted((rows, columns))
        ends = start + size * np.cumsum([0, value.size, value.size, short**2, short**2])
        x, y, gram, polynomial, start = map(int, ends)
        count = ceil(value.size / PIECE)
        own = len(pieces), count
        for offset in range(0, value.size, PIECE):
            places = [address(array) + offset * size for array in (value, gradient, m)]
            places += [place + offset * size for place in (x, (x, y)[steps % 2])]
            pieces.append((*places, min(PIECE, value.size - offset), long, *own))
        for step in range(steps):
            # (short, long): the transpose of a matrix with more rows than columns
            now, then = (
                Matrix(at, 1, columns) if rows > columns else Matrix(at, columns, 1)
                for at in ((x, y), (y, x))[step % 2]
            )
            square, sum_of_powers = Matrix(gram, short, 1), Matrix(polynomial, short, 1)
            products[3 * step] += tiles(now, now.transposed, NOTHING, square, short, short, long)
            products[3 * step + 1] += tiles(square, square, square, sum_of_powers, short, short, short)
            products[3 * step + 2] += tiles(sum_of_powers, now, now, then, short, long, short)
    made = [xp.asarray(np.array(rows, np.int64)) for rows in products]
    return Tables(
        xp.asarray(np.array(pieces, np.int64)),
        xp.empty(len(pieces), first.dtype),
        list(zip(made[::3], made[1::3], made[2::3], strict=True)),
        workspace,
    )


def tiles(p: Matrix, q: Matrix, d: Matrix, c: Matrix, rows: int, columns: int, depth: int) -> Iterator[tuple[int, ...]]:
    """``struct Product`` for each tile of c = alpha d + beta p q."""
    for row in range(0, rows, TILE):
        for column in range(0, columns, TILE):
            yield (*p, *q, *d, *c, rows, columns, depth, row, column)
