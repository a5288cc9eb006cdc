"""Adam's step for all tensors of a net in one launch of ``kernels/adam.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.launch import REAL, THREADS

# What one block takes of a tensor. Short enough that a net of a million numbers keeps a large GPU busy.
PIECE = 4096


class Update:
    """What steps of Adam on the same arrays have in common: the table that says where they lie.

    It is made when there are other arrays than last time. Keep one for each optimizer.
    """

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._table: Array = np.empty((0, 5), np.uint64)

    def __call__(
        self, groups: Sequence[tuple[Array, ...]], *, beta1: float, beta2: float, rate: float, epsilon: float
    ) -> None:
        """Move all values against their gradients and set these to zero.

        groups: (value, gradient, m, v), contiguous arrays of one type, float32 or float64. rate and epsilon have the
        corrections of m and v in them, as in ``tinysrgan.optimizers.adam``. Raises ValueError for other arrays.
        """
        arrays = list(chain(*groups))
        # By identity: an array of CuPy's lies where it lies for as long as it lives, and those here are kept alive.
        if len(arrays) != len(self._arrays) or any(a is not b for a, b in zip(arrays, self._arrays, strict=True)):
            self._arrays, self._table = arrays, table(groups)
        if len(self._table):
            dtype = arrays[0].dtype
            launch = kernel(array_module(self._table), "adam.cu", "adam", REAL=REAL[dtype])
            numbers = (dtype.type(number) for number in (1 - beta1, 1 - beta2, rate, epsilon))
            launch((len(self._table),), (THREADS,), (self._table, *numbers))


def table(groups: Sequence[tuple[Array, ...]]) -> Array:
    """For every piece of every group, where it begins in each of the four arrays, and its length: (pieces, 5), uint64.

    Raises ValueError unless all arrays are contiguous, of one type and within a group of one shape.
    """
    first = groups[0][0]
    pieces = []
    for group in groups:
        if any(x.dtype != first.dtype or x.shape != group[0].shape or not x.flags.c_contiguous for x in group):
            raise ValueError(
                f"Adam on a GPU takes contiguous arrays of one type, {first.dtype}, and in fours of one shape, not "
                f"{[(str(x.dtype), x.shape, x.strides) for x in group]}."
            )
        starts = np.arange(0, group[0].size, PIECE)
        addresses = [address(x) + starts * x.itemsize for x in group]
        pieces.append(np.stack([*addresses, np.minimum(group[0].size - starts, PIECE)], axis=1))
    return array_module(first).asarray(np.concatenate(pieces).astype(np.uint64))
