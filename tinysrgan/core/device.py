"""Where arrays live: NumPy on the CPU, CuPy on the GPU. The array decides, and one function here moves it.

Layers ask ``array_module(x)`` for ``numpy`` or ``cupy`` and then write the same formula for both. CuPy is imported
only once somebody asks for the GPU; without it everything runs on NumPy.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType

import numpy as np

from tinysrgan.core.errors import UserError

Array = np.ndarray  # or a cupy.ndarray, which has the same interface

DEVICES = ("auto", "cpu", "cuda")
# What CuPy raises where the compiler, the driver or the GPU fails. By name: CuPy may be absent.
GPU_ERRORS = ("CompileException", "CUDADriverError", "CUDARuntimeError", "NVRTCError")


def array_module(x: Array) -> ModuleType:
    """``numpy`` or ``cupy``: whichever made ``x``. An array of CuPy can only exist where CuPy was imported."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def choose_device(name: str = "auto") -> tuple[ModuleType, str]:
    """Return the array module for ``auto``, ``cpu`` or ``cuda`` and one line that says what was chosen and why.

    ``auto`` takes a GPU only where CuPy, its driver and a device really work: one of our own kernels runs there first,
    and its result is compared with NumPy's. Raises UserError where ``cuda`` is asked for by name and doesn't work.
    """
    if name == "cpu":
        return np, "on the CPU with NumPy"
    try:
        import cupy  # type: ignore[import-not-found]

        _probe(cupy)
        gpu = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return cupy, f"on the GPU {gpu} with CuPy {cupy.__version__}"
    except Exception as error:  # CuPy raises many kinds: no driver, no device, no NVRTC
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        why = "CuPy is not installed" if missing else reason(error)
    if name == "cuda":
        raise UserError(f"--device cuda doesn't work here: {why}. Mend that, or use --device cpu.")
    return np, f"on the CPU with NumPy ({why})"


def _probe(cupy: ModuleType) -> None:
    """Run kernels of CuPy and one of ours. Raises what CuPy raises, and RuntimeError where NumPy's sums differ.

    The values are whole numbers, so that sums are exact in any order.
    """
    from tinysrgan.ops.cuda.sums import sum_per_channel  # which needs this module

    x = np.arange(3000, dtype=np.float32).reshape(1000, 3) % 7
    on_gpu = cupy.asarray(x) + 1
    for sums in (on_gpu.sum(0), sum_per_channel(on_gpu)):
        if not np.array_equal(to_device(sums, np), (x + 1).sum(0)):
            raise RuntimeError("the GPU runs kernels, but their results are wrong")


def reason(error: Exception) -> str:
    """What an error of CuPy says, on one line: of a compiler's log or a long notice, the first line with an error."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error\w*: \S", line, re.IGNORECASE)]
    return (telling or lines or [type(error).__name__])[0].rstrip(".")


def to_device(x: Array, module: ModuleType) -> Array:
    """Copy ``x`` to where ``module`` (numpy or cupy) keeps its arrays; as it is if it already lies there."""
    if module is np:
        return x.get() if hasattr(x, "get") else x
    return module.asarray(x)
