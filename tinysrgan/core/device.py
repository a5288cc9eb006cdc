"""Where an array lives: NumPy on the CPU or CuPy on the GPU. ``ops.device`` chooses one of them.

``array_module(x)`` returns ``numpy`` or ``cupy``, so that one formula serves both.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType

import numpy as np

Array = np.ndarray  # or a cupy.ndarray, which has the same interface

# What CuPy raises where the compiler, the driver or the GPU fails. By name: CuPy may be absent.
GPU_ERRORS = ("CompileException", "CUDADriverError", "CUDARuntimeError", "NVRTCError")


def array_module(x: Array) -> ModuleType:
    """``numpy`` or ``cupy``, whichever made ``x``. CuPy's arrays only exist once CuPy is imported."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def to_device(x: Array, module: ModuleType) -> Array:
    """Copy ``x`` to the device of ``module`` (numpy or cupy); return ``x`` itself if it is there already."""
    if module is np:
        return x.get() if hasattr(x, "get") else x
    return module.asarray(x)


def reason(error: Exception) -> str:
    """An error of CuPy on one line: of a compiler's log or a long notice, the first line with an error."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error\w*: \S", line, re.IGNORECASE)]
    return (telling or lines or [type(error).__name__])[0].rstrip(".")
