"""Adam's update of all tensors of a net in one launch of ``kernels/adam.cu``."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address, kernel
from tinysrgan.ops.cuda.launch import REAL, THREADS
from tinysrgan.ops.cuda.remembered import Groups, Remembered, check_arrays
from tinysrgan.ops.cuda.settings import Source, on_device

# Elements of a tensor that one thread block updates: few enough that a net of a million parameters keeps a GPU busy.
PIECE = 4096


class Update:
    """A cached table of pointers to a fixed set of arrays, and the update that uses it. One for each optimizer."""

    def __init__(self) -> None:
        self._table: Remembered[Array] = Remembered()

    def __call__(self, groups: Groups, settings: Source) -> None:
        """Update all values and set their gradients to zero.

        groups: (value, gradient, m, v), contiguous arrays of one type, float32 or float64. ``settings`` returns beta1,
        beta2, rate and epsilon, as in ``tinysrgan.optimizers.adam``. Raises ValueError for arrays of other layouts,
        types or shapes.
        """
        if not groups:
            return
        pieces, dtype = self._table(table, groups), groups[0][0].dtype
        if len(pieces):
            xp = array_module(pieces)
            launch = kernel(xp, "adam.cu", "adam", REAL=REAL[dtype])
            launch((len(pieces),), (THREADS,), (pieces, on_device(xp, settings)))


def table(groups: Groups) -> Array:
    """The pointer table: for each piece of each group its addresses and its length; (pieces, arrays + 1), uint64.

    Raises ValueError for arrays that the kernel can't take.
    """
    check_arrays(groups)
    first = groups[0][0]
    pieces = []
    for group in groups:
        starts = np.arange(0, group[0].size, PIECE)
        addresses = [address(x) + starts * x.itemsize for x in group]
        pieces.append(np.stack([*addresses, np.minimum(group[0].size - starts, PIECE)], axis=1))
    return array_module(first).asarray(np.concatenate(pieces).astype(np.uint64))
