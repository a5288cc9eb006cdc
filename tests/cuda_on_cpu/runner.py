"""Runs CUDA kernels on the CPU, called as CuPy's are: ``RawModule(code).get_function(name)(grid, block, arguments)``.

What CUDA means is in ``cuda_on_cpu.h``; here the text is compiled with g++ and called. Around every array lie guard
zones: a kernel that writes there fails, and what it reads there is NaN.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ORDERS = {"ascending": 0, "descending": 1, "random": 2}
ENTRY = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
TOGETHER = re.compile(r"__sync|_sync\(|multiply_add\(|copy_\w+\(|__shared__|DYNAMIC_SHARED\(")  # threads that wait
LAUNCHER = """
extern "C" __attribute__((visibility("default"))) const char *launch_NAME(
    const unsigned *grid, const unsigned *block, size_t dynamic, int order, bool plain, void **arguments,
    const int *sizes, int count) {
  return cuda::launch_kernel(NAME, grid, block, dynamic, order, plain, arguments, sizes, count);
}"""
# Every library keeps its scheduler to itself.
FLAGS = ("-fvisibility=hidden", "-fno-gnu-unique", "-fno-strict-aliasing")
GUARD = 4096  # bytes before and after every array
CACHE = Path(tempfile.gettempdir()) / f"tinysrgan-cuda-on-cpu-{os.getuid() if hasattr(os, 'getuid') else 0}"

available = shutil.which("g++") is not None
_order = "ascending"


class CudaError(Exception):
    """What a GPU would not do, or not say."""


@contextmanager
def order(name: str) -> Iterator[None]:
    """Let threads and blocks run in ascending, descending or random order."""
    global _order
    before, _order = _order, name
    try:
        yield
    finally:
        _order = before


class RawModule:
    """Kernels compiled from ``code``, with nvcc's or NVRTC's options of which only -D is taken."""

    def __init__(self, code: str, options: Sequence[str] = (), **_: Any):
        body = code.split("#endif\n#endif", 1)[-1]  # without common.cuh, which has only names of what it offers
        self.plain = not TOGETHER.search(body)
        self.library = ctypes.CDLL(str(build(code, [option for option in options if option.startswith("-D")])))
        self.entries = ENTRY.findall(code)

    def get_function(self, name: str) -> RawKernel:
        if name not in self.entries:
            raise CudaError(f"There is no kernel {name}, only {', '.join(self.entries)}.")
        return RawKernel(self.library, name, self.plain)


def build(code: str, options: Sequence[str]) -> Path:
    """The shared library of a text, from the cache where it was built before."""
    launchers = "\n".join(LAUNCHER.replace("NAME", name) for name in ENTRY.findall(code))
    text = "\n".join([(HERE / "cuda_on_cpu.h").read_text(), "#line 1", code, launchers])
    command = ["g++", "-x", "c++", "-std=c++17", "-O2", "-w", "-fPIC", "-shared", *FLAGS, *options]
    key = hashlib.sha256("\0".join([text, *command]).encode()).hexdigest()[:24]
    path = CACHE / f"{key}.so"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = CACHE / f"{key}-{os.getpid()}.part"
        result = subprocess.run([*command, "-o", str(part), "-"], input=text, capture_output=True, text=True)
        if result.returncode:
            raise CudaError(f"g++ says:\n{result.stderr[:4000]}")
        os.replace(part, path)
    return path


class RawKernel:
    """A kernel to be called as CuPy's: (grid, block, arguments, shared_mem=bytes)."""

    max_dynamic_shared_size_bytes = 48 * 1024  # more has to be asked for, as on a GPU

    def __init__(self, library: ctypes.CDLL, name: str, plain: bool):
        self.name, self.plain = name, plain
        self.launch = getattr(library, f"launch_{name}")
        self.launch.restype = ctypes.c_char_p

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CudaError(f"{self.name}: set max_dynamic_shared_size_bytes for {shared_mem} bytes of shared memory.")
        guarded: dict[tuple[int, int], Guarded] = {}
        values: list[np.ndarray] = []
        for argument in arguments:
            if isinstance(argument, np.ndarray) and argument.dtype.names is None:
                key = (argument.ctypes.data, argument.nbytes)
                if key not in guarded:
                    guarded[key] = Guarded(argument, len(guarded))
                values.append(np.array(guarded[key].address, np.uint64))
            else:
                values.append(scalar(argument))
        pointers = (ctypes.c_void_p * len(values))(*[value.ctypes.data for value in values])
        sizes = (ctypes.c_int * len(values))(*[value.nbytes for value in values])
        three = lambda lengths: (ctypes.c_uint * 3)(*[*map(int, lengths), 1, 1][:3])  # noqa: E731
        error = self.launch(
            three(grid),
            three(block),
            ctypes.c_size_t(shared_mem),
            ORDERS[_order],
            ctypes.c_bool(self.plain),
            pointers,
            sizes,
            len(values),
        )
        if error:
            raise CudaError(f"{self.name}: {error.decode()}.")
        for index, array in enumerate(guarded.values()):
            if not array.take_back():
                raise CudaError(f"{self.name} wrote outside of array number {index}.")


def scalar(value: Any) -> np.ndarray:
    """An argument passed by value, as wide as CuPy passes it."""
    if isinstance(value, bool | np.bool_):
        return np.array(value, np.bool_)
    if isinstance(value, int):
        return np.array(value, np.int64)
    if isinstance(value, float):
        return np.array(value, np.float64)
    if isinstance(value, np.generic | np.ndarray) and not isinstance(value, np.void):
        return np.array(value)
    raise TypeError(f"A kernel takes arrays, numbers, and records as arrays without axes, not {type(value).__name__}.")


class Guarded:
    """A copy of an array, aligned as CuPy's are, between two guard zones: NaN of a kind that no other array has."""

    def __init__(self, array: np.ndarray, number: int):
        if not array.flags.c_contiguous:
            raise CudaError(f"A kernel takes contiguous arrays, not one of strides {array.strides}.")
        self.array = array
        self.memory = np.full((array.nbytes + 2 * GUARD + 256) // 4 + 1, 0x7FC00001 + number, np.uint32)
        start = -(-(self.memory.ctypes.data + GUARD) // 256) * 256 - self.memory.ctypes.data
        self.numbers = slice(start, start + array.nbytes)
        self.address = self.memory.ctypes.data + start
        self.bytes = self.memory.view(np.uint8)
        self.bytes[self.numbers] = np.asarray(array).reshape(-1).view(np.uint8)
        self.guards = [self.bytes[:start].copy(), self.bytes[self.numbers.stop :].copy()]

    def take_back(self) -> bool:
        """Copy what the kernel wrote into the array; False if it wrote elsewhere."""
        np.copyto(self.array.reshape(-1).view(np.uint8), self.bytes[self.numbers])
        before, after = self.bytes[: self.numbers.start], self.bytes[self.numbers.stop :]
        return np.array_equal(before, self.guards[0]) and np.array_equal(after, self.guards[1])
