"""``import cupy`` finds the stand-in for CuPy where this folder and ``tests`` are in PYTHONPATH.

STAND_IN_CAPABILITY is the compute capability of its GPU, by default 90; CUPY_GPU_MEMORY_LIMIT its memory, in bytes,
which here is the limit of each array by itself.
"""

import math
import os
import sys

import numpy as np
from cuda_on_cpu import cupy_on_cpu

LIMIT = float(os.environ.get("CUPY_GPU_MEMORY_LIMIT", "inf"))
cupy_on_cpu.COMPUTE_CAPABILITY = os.environ.get("STAND_IN_CAPABILITY", cupy_on_cpu.COMPUTE_CAPABILITY)


def allocated(size):
    """Raise CuPy's error, a MemoryError, for an array that is too large."""
    if size > LIMIT:
        raise MemoryError("Out of memory allocating an array")


class Cupy(cupy_on_cpu.Cupy):
    @staticmethod
    def empty(shape, dtype=np.float64):
        allocated(math.prod(np.atleast_1d(shape)) * np.dtype(dtype).itemsize)
        return cupy_on_cpu.Cupy.empty(shape, dtype)

    @staticmethod
    def asarray(value, dtype=None):
        allocated(np.asarray(value).nbytes)
        return cupy_on_cpu.Cupy.asarray(value, dtype)


sys.modules["cupy"] = Cupy("cupy")
