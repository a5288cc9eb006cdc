"""Finds the kernels' source and has CuPy compile it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from tinysrgan.core.cli import say
from tinysrgan.core.device import Array
from tinysrgan.core.paths import KERNELS

# Of NVRTC. Not -default-device: CuPy passes it too, and NVRTC up to 12.8 takes no option twice.
OPTIONS = ("-std=c++17",)
NULL = np.uint64(0)  # CuPy doesn't take None for a pointer
# Seconds of compiling without a word. A first run takes up to a minute, one that finds all in CuPy's cache far less.
PATIENCE = 1.0
_waited = 0.0  # seconds that this process has spent compiling
Kernel = Callable[..., None]  # called with (grid, block, arguments, shared_mem=bytes)


def address(x: Array) -> int:
    """Where on the GPU an array of CuPy begins."""
    return x.data.ptr  # type: ignore[attr-defined]


@cache
def source(file: str) -> str:
    """The text of a kernel file, with the files that it includes in place: CuPy's cache sees no change of those."""
    return re.sub(r'#include "(.+)"\n', lambda include: source(include[1]), (KERNELS / file).read_text())


@cache
def kernel(cupy: ModuleType, file: str, name: str, **defines: int | str) -> Kernel:
    """The kernel ``name`` of ``kernels/file``, compiled for the GPU at hand with these macros defined.

    Where a kernel takes a pointer, None is the null pointer. Other numbers must be as wide as the kernel takes them.
    """
    options = (*OPTIONS, *(f"-D{macro}={value}" for macro, value in defines.items()))
    begin = time.perf_counter()
    function = cupy.RawModule(code=source(file), options=options).get_function(name)
    _explain_wait(time.perf_counter() - begin)

    def launch(
        grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        if shared_mem > function.max_dynamic_shared_size_bytes:
            function.max_dynamic_shared_size_bytes = shared_mem
        pointers_and_numbers = tuple(NULL if argument is None else argument for argument in arguments)
        function(grid, block, pointers_and_numbers, shared_mem=shared_mem)

    return launch


def _explain_wait(seconds: float) -> None:
    """Say once why a first run waits: when its compiling, now longer by ``seconds``, exceeds ``PATIENCE``."""
    global _waited
    if _waited <= PATIENCE < _waited + seconds:
        say("compiling the CUDA kernels for this GPU takes up to a minute; CuPy keeps them for the next run.")
    _waited += seconds
