"""Describes the machine and measures its matrix products: ``python -m benchmarks.machine``."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 2048
REPEATS = 4


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    """The name of the CPU model."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def blas() -> dict[str, Any]:
    """NumPy's BLAS: the core whose kernels it uses, and GFLOP/s of a product of two 2048x2048 float32 matrices."""
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController().select(user_api="blas")
    info = controller.info()[0] if len(controller) else {}
    with controller.limit(limits=1):
        one = sgemm()
    return {
        "library": f"{info.get('internal_api', 'unknown')} {info.get('version') or ''}".strip(),
        "core": info.get("architecture", "unknown"),
        "sgemm_one_thread": one,
        "sgemm_all_threads": sgemm(),
    }


def sgemm() -> float:
    """GFLOP/s of a product: the best of several runs."""
    a = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begin)
    return 2 * SIDE**3 / min(seconds) / 1e9


if __name__ == "__main__":
    print(json.dumps(blas()))
