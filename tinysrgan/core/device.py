"""The device of an array: NumPy on the CPU or CuPy on the GPU. ``ops.device`` chooses one of them.

``array_module(x)`` returns ``numpy`` or ``cupy``, so that one formula serves both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import ParamSpec, TypeVar

import numpy as np

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Array = np.ndarray  # or a cupy.ndarray, which has the same interface

# CuPy's errors if the compiler, the driver or the GPU fails, as names because CuPy may be absent.
GPU_ERRORS = ("CompileException", "CUDADriverError", "CUDARuntimeError", "NVRTCError")


def array_module(x: Array) -> ModuleType:
    """The module of ``x``, ``numpy`` or ``cupy``. Arrays of CuPy exist only after CuPy is imported."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def on_gpu(kernel: Callable[..., Result]) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """A decorator: if the first argument is an array on a GPU, ``kernel`` gets the arguments instead."""

    def decorate(on_cpu: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(on_cpu)
        def chosen(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
            return (on_cpu if array_module(args[0]) is np else kernel)(*args, **options)  # type: ignore[arg-type]

        return chosen

    return decorate


def to_device(x: Array, module: ModuleType) -> Array:
    """Copy ``x`` to the device of ``module`` (numpy or cupy); return ``x`` itself if it is there already."""
    if module is np:
        return x.get() if hasattr(x, "get") else x
    return module.asarray(x)


def constant(values: tuple[float, ...], like: Array, repeat: int = 1) -> Array:
    """These values, ``repeat`` times, of the type and on the device of ``like``.

    They are made once, because a GPU would wait for each copy.
    """
    return _constant(array_module(like), values, repeat, like.dtype)


@cache
def _constant(module: ModuleType, values: tuple[float, ...], repeat: int, dtype: np.dtype) -> Array:
    return module.asarray(values * repeat, dtype)


def reason(error: Exception) -> str:
    """Shorten an error of CuPy to one line: the first line of a long message that contains an error."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error\w*: \S", line, re.IGNORECASE)]
    return (telling or lines or [type(error).__name__])[0].rstrip(".")
