"""A moving average of all tensors of a net in one launch of ``kernels/average.cu``."""

from __future__ import annotations

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.adam import table
from tinysrgan.ops.cuda.compile import kernel
from tinysrgan.ops.cuda.launch import REAL, THREADS
from tinysrgan.ops.cuda.remembered import Groups, Remembered
from tinysrgan.ops.cuda.settings import Source, on_device


class Follow:
    """A cached table of pointers to a fixed set of arrays, and the update that uses it."""

    def __init__(self) -> None:
        self._table: Remembered[Array] = Remembered()

    def __call__(self, groups: Groups, settings: Source) -> None:
        """average += rate (value - average) for groups (average, value) of contiguous arrays of one type.

        ``settings`` returns the rate.
        """
        pieces, dtype = self._table(table, groups), groups[0][0].dtype
        xp = array_module(pieces)
        launch = kernel(xp, "average.cu", "follow", REAL=REAL[dtype])
        launch((len(pieces),), (THREADS,), (pieces, on_device(xp, settings)))
