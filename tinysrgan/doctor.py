"""Say what there is to compute with, and which command installs what is missing: ``python -m tinysrgan.doctor``."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distributions, version

import numpy as np
from threadpoolctl import threadpool_info

import tinysrgan
from tinysrgan.core.cli import command, taken_by
from tinysrgan.ops import parallel
from tinysrgan.ops.device import choose_device

# Optional packages and their use.
EXTRAS = {"zxing-cpp": "reading QR codes", "matplotlib": "loss curves"}
# What the extras cuda12 and cuda13 stand for. tinysrgan itself is not on PyPI, so pip can't be asked for them by name.
CUDA12 = ("cupy-cuda12x>=14", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12")
CUDA13 = ("cupy-cuda13x>=14", "nvidia-cuda-nvrtc>=13,<14", "nvidia-cuda-runtime>=13,<14")


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
    """All findings by their labels, and last the advice."""
    driver = driver_version()
    module, where = choose_device("auto")
    return {
        "tinysrgan": f"{tinysrgan.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}",
        "CPU": f"NumPy {np.__version__}, {blas()}, {parallel.workers()} workers on {os.cpu_count()} cores",
        "extras": extras(),
        "driver": f"NVIDIA's, for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none of NVIDIA's",
        "CuPy": ", ".join(map(installed, cupys())) or "not installed",
        "computes": where,
        "advice": advice(driver, module is not np, where),
    }


def advice(driver: int | None, works: bool, where: str = "") -> str:
    """How to use the GPU: one line, mostly one command.

    driver: as from ``driver_version``. works: whether a GPU is used. where: ``choose_device``'s sentence, with the
    reason if not.
    """
    if works:
        return "nothing to mend: training and upscaling use the GPU by themselves"
    if not driver:
        return "without NVIDIA's driver there is no GPU to use; everything runs on the CPU"
    if driver < 12000:
        return f"the driver is too old (CUDA {driver // 1000}): install one for CUDA 12 or newer"
    if re.search("out ?of ?memory", where, re.IGNORECASE):
        return "the GPU's memory is full: end a program that uses it (nvidia-smi lists them), or use --device cpu"
    if re.search("no.?device|no CUDA-capable device", where, re.IGNORECASE):
        return "the driver sees no GPU: nvidia-smi lists those there are, CUDA_VISIBLE_DEVICES may hide them"
    pip, wanted = f"{sys.executable} -m pip", CUDA13 if driver >= 13000 else CUDA12
    install = " ".join([pip, "install", *(f'"{package}"' for package in wanted)])
    here, names = cupys(), [re.split("[<>=]", package)[0] for package in wanted]
    if set(here) - {names[0]}:  # all variants share one folder and would be mixed
        return f"{pip} uninstall --yes {' '.join(here)} && {install}"
    if any(installed(name) == "not installed" for name in names):
        return install
    if re.search("cuda_?error", where, re.IGNORECASE):
        return "the packages are complete, the GPU or its driver fails: nvidia-smi shows its state; a restart may help"
    return install.replace("install", "install --force-reinstall --no-deps --upgrade", 1)


def cupys() -> list[str]:
    """The names of all installed CuPy packages."""
    names = {str(distribution.metadata["Name"]).lower() for distribution in distributions()}
    return sorted(name for name in names if re.fullmatch(r"cupy(-(cuda|rocm)[\w-]*)?", name))


def driver_version() -> int | None:
    """The newest CUDA version that NVIDIA's driver supports, 12040 for 12.4; None without a driver."""
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
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    if not found:
        return "a BLAS that this threadpoolctl doesn't know (so there is one worker)"
    return ", ".join(f"{info['internal_api']} for {info.get('architecture', 'any core')}" for info in found)


def extras() -> str:
    """The missing optional packages and their use."""
    missing = [f"no {name} ({use})" for name, use in EXTRAS.items() if "not" in installed(name)]
    return ", ".join(missing) or "all here"


def installed(package: str) -> str:
    """The package with its version, or "not installed"."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
