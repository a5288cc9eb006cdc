"""The device of an array: NumPy on the CPU or CuPy on the GPU. ``ops.device`` chooses one of them.

``array_module(x)`` returns ``numpy`` or ``cupy``, so that one formula serves both.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from types import ModuleType

import numpy as np

Array = np.ndarray  # or a cupy.ndarray, which has the same interface

# CuPy's errors if the compiler, the driver or the GPU fails, as names because CuPy may be absent.
GPU_ERRORS = ("CompileException", "CUDADriverError", "CUDARuntimeError", "NVRTCError")


def array_module(x: Array) -> ModuleType:
    """The module of ``x``, ``numpy`` or ``cupy``. Arrays of CuPy exist only after CuPy is imported."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def to_device(x: Array, module: ModuleType) -> Array:
    """Copy ``x`` to the device of ``module`` (numpy or cupy); return ``x`` itself if it is there already."""
    if module is np:
        return x.get() if hasattr(x, "get") else x
    return module.asarray(x)


def constant(values: tuple[float, ...], like: Array) -> Array:
    """These values, of the type and on the device of ``like``; made once, because a GPU would wait for each copy."""
    return _constant(array_module(like), values, like.dtype)


@cache
def _constant(module: ModuleType, values: tuple[float, ...], dtype: np.dtype) -> Array:
    return module.asarray(values, dtype)


def reason(error: Exception) -> str:
    """Shorten an error of CuPy to one line: the first line of a long message that contains an error."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error\w*: \S", line, re.IGNORECASE)]
    return (telling or lines or [type(error).__name__])[0].rstrip(".")
