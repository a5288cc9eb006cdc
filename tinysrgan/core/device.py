"""Where arrays live: NumPy on the CPU, CuPy on the GPU. The array decides, and one function here moves it.

Layers ask ``array_module(x)`` for ``numpy`` or ``cupy`` and then write the same formula for both. CuPy is imported
only once somebody asks for the GPU; without it everything runs on NumPy.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np

from tinysrgan.core.errors import UserError

Array = np.ndarray  # or a cupy.ndarray, which has the same interface

DEVICES = ("auto", "cpu", "cuda")


def array_module(x: Array) -> ModuleType:
    """``numpy`` or ``cupy``: whichever made ``x``. An array of CuPy can only exist where CuPy was imported."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else np


def choose_device(name: str = "auto") -> tuple[ModuleType, str]:
    """Return the array module for ``auto``, ``cpu`` or ``cuda`` and one line that says what was chosen and why.

    ``auto`` takes a GPU only where CuPy, its driver and a device really work. Raises UserError where ``cuda``
    is asked for by name and doesn't work.
    """
    if name == "cpu":
        return np, "on the CPU with NumPy"
    try:
        import cupy  # type: ignore[import-not-found]

        cupy.arange(8).sum().item()  # compiles, launches and copies back: the driver, NVRTC and the device all work
        gpu = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return cupy, f"on the GPU {gpu} with CuPy {cupy.__version__}"
    except Exception as error:  # CuPy raises many kinds: no driver, no device, no NVRTC
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            error = ModuleNotFoundError("CuPy is not installed")
        reason = str(error).split("\n")[0] or type(error).__name__
    if name == "cuda":
        raise UserError(f"--device cuda doesn't work here: {reason}. Mend that, or use --device cpu.")
    return np, f"on the CPU with NumPy ({reason})"


def to_device(x: Array, module: ModuleType) -> Array:
    """Copy ``x`` to where ``module`` (numpy or cupy) keeps its arrays; as it is if it already lies there."""
    if module is np:
        return x.get() if hasattr(x, "get") else x
    return module.asarray(x)
