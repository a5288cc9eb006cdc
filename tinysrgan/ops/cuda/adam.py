"""Adam's update of all tensors of a net in one launch of ``kernels/adam.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.launch import REAL, THREADS

# Elements of a tensor that one thread block updates: few enough that a net of a million parameters keeps a GPU busy.
PIECE = 4096


class Update:
    """A cached table of pointers to a fixed set of arrays, and the update that uses it.

    The table is rebuilt when the arrays change. Each optimizer keeps its own ``Update``.
    """

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._table: Array = np.empty((0, 5), np.uint64)

    def __call__(
        self, groups: Sequence[tuple[Array, ...]], *, beta1: float, beta2: float, rate: float, epsilon: float
    ) -> None:
        """Update all values and set their gradients to zero.

        groups: (value, gradient, m, v), contiguous arrays of one type, float32 or float64. ``rate`` and ``epsilon``
        include the bias corrections of m and v, as in ``tinysrgan.optimizers.adam``. Raises ValueError for arrays of
        other layouts, types or shapes.
        """
        arrays = list(chain(*groups))
        # Compared by identity: a CuPy array never moves, and the references here keep the arrays alive.
        if len(arrays) != len(self._arrays) or any(a is not b for a, b in zip(arrays, self._arrays, strict=True)):
            self._arrays, self._table = arrays, table(groups)
        if len(self._table):
            dtype = arrays[0].dtype
            launch = kernel(array_module(self._table), "adam.cu", "adam", REAL=REAL[dtype])
            scalars = (dtype.type(scalar) for scalar in (1 - beta1, 1 - beta2, rate, epsilon))
            launch((len(self._table),), (THREADS,), (self._table, *scalars))


def table(groups: Sequence[tuple[Array, ...]]) -> Array:
    """The pointer table: for each piece of each group its four addresses and its length; (pieces, 5), uint64.

    Raises ValueError unless all arrays are contiguous and of one type, and those of a group have one shape.
    """
    first = groups[0][0]
    pieces = []
    for group in groups:
        if any(x.dtype != first.dtype or x.shape != group[0].shape or not x.flags.c_contiguous for x in group):
            raise ValueError(
                f"Adam on a GPU takes contiguous arrays of one type, {first.dtype}, and fours of one shape, not "
                f"{[(str(x.dtype), x.shape, x.strides) for x in group]}."
            )
        starts = np.arange(0, group[0].size, PIECE)
        addresses = [address(x) + starts * x.itemsize for x in group]
        pieces.append(np.stack([*addresses, np.minimum(group[0].size - starts, PIECE)], axis=1))
    return array_module(first).asarray(np.concatenate(pieces).astype(np.uint64))
