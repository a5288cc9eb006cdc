"""Choose the device: NumPy on the CPU, or CuPy on a GPU that works."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from tinysrgan.core.device import reason, to_device
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.ops.cuda.sums import sum_per_channel


def choose_device(name: str = "auto") -> tuple[ModuleType, str]:
    """Return the array module for ``auto``, ``cpu`` or ``cuda`` and one line that says what was chosen and why.

    ``auto`` takes a GPU only if CuPy, the driver and the device work: it runs one of our kernels and compares the
    result with NumPy's. CuPy is imported here and nowhere before. Raises UserError if ``cuda`` doesn't work.
    """
    if name == "cpu":
        return np, "on the CPU with NumPy"
    try:
        import cupy  # type: ignore[import-not-found]

        if ranks().size > 1:  # a GPU for each process of a machine
            cupy.cuda.Device(ranks().local_rank % cupy.cuda.runtime.getDeviceCount()).use()
        _probe(cupy)
        gpu = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        return cupy, f"on the GPU {gpu} with CuPy {cupy.__version__}"
    except Exception as error:  # CuPy raises many kinds: no driver, no device, no NVRTC
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        why = "CuPy is not installed" if missing else reason(error)
    if name == "cuda":
        raise UserError(f"--device cuda doesn't work here: {why}. Mend that, or use --device cpu.")
    return np, f"on the CPU with NumPy ({why})"


def _probe(cupy: ModuleType) -> None:
    """Run kernels of CuPy and one of ours. Raises what CuPy raises, and RuntimeError if NumPy's sums differ.

    The values are integers, so that sums are exact in any order.
    """
    x = np.arange(3000, dtype=np.float32).reshape(1000, 3) % 7
    on_gpu = cupy.asarray(x) + 1
    for sums in (on_gpu.sum(0), sum_per_channel(on_gpu)):
        if not np.array_equal(to_device(sums, np), (x + 1).sum(0)):
            raise RuntimeError("the GPU runs kernels, but their results are wrong")
