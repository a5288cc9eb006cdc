"""What is here to compute with, and the one command that would mend what is missing: ``python -m tinysrgan.doctor``."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import tinysrgan
from tinysrgan.core.cli import command, taken_by
from tinysrgan.core.device import choose_device
from tinysrgan.ops import parallel

# Packages beyond the core, and what they are for.
EXTRAS = {
    "tqdm": "progress bars",
    "threadpoolctl": "all cores at full speed",
    "zxing-cpp": "reading QR codes",
    "matplotlib": "loss curves",
}


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, whatever was found; 2 for a mistake of the user's."""
    argparse.ArgumentParser(
        prog="python -m tinysrgan.doctor",
        description="Say what tinysrgan finds here to compute with, whether a GPU works, and if not, what would help.",
        epilog="Exit code: 0 whatever was found, 2 if it can't be said.",
    ).parse_args(arguments)
    return command(show, stopped="stopped.")


def show() -> int:
    """Print the findings."""
    lines = [f"{name + ':':<12} {finding}" for name, finding in findings().items()]
    with taken_by(sys.stdout):
        print("\n".join(lines))
    return 0


def findings() -> dict[str, str]:
    """Everything that is worth knowing, in words, and last the advice."""
    driver = driver_version()
    module, where = choose_device("auto")
    return {
        "tinysrgan": f"{tinysrgan.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}",
        "CPU": f"NumPy {np.__version__}, {blas()}, {parallel.workers()} workers on {os.cpu_count()} cores",
        "extras": extras(),
        "driver": f"NVIDIA's, for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none of NVIDIA's",
        "CuPy": installed("cupy-cuda12x", "cupy-cuda13x", "cupy"),
        "computes": where,
        "advice": advice(driver, works=module is not np),
    }


def advice(driver: int | None, works: bool) -> str:
    """What to do to use the GPU, where that is possible: one command."""
    if works:
        return "nothing to mend: training and upscaling use the GPU by themselves"
    if not driver:
        return "without NVIDIA's driver there is no GPU to use; everything runs on the CPU"
    if driver < 12000:
        return f"the driver is too old (CUDA {driver // 1000}): install one for CUDA 12 or newer"
    extra = "cuda13" if driver >= 13000 else "cuda12"
    if "not installed" in installed("cupy-cuda12x", "cupy-cuda13x", "cupy"):
        return f'{sys.executable} -m pip install "tinysrgan[{extra}]"'
    return f'{sys.executable} -m pip install --force-reinstall "tinysrgan[{extra}]"'


def driver_version() -> int | None:
    """The newest CUDA that NVIDIA's driver takes, 12040 for 12.4; None without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            found = ctypes.c_int()
            if ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(found)) == 0:
                return found.value
        except (OSError, AttributeError):
            continue
    return None


def blas() -> str:
    """The BLAS behind NumPy and the kind of core that it was chosen for, if threadpoolctl can tell."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "BLAS unknown without threadpoolctl"
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return (
        ", ".join(f"{info['internal_api']} for {info.get('architecture', 'any core')}" for info in found) or "no BLAS"
    )


def extras() -> str:
    """Which of the optional packages are here, and what those that aren't would be good for."""
    missing = [f"no {name} ({use})" for name, use in EXTRAS.items() if "not" in installed(name)]
    return ", ".join(missing) or "all here"


def installed(*packages: str) -> str:
    """The first of the packages that is installed, with its version."""
    for package in packages:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "not installed"


if __name__ == "__main__":
    sys.exit(main())
