"""Runs CUDA kernels on the CPU, with CuPy's interface: ``RawModule(code).get_function(name)(grid, block, arguments)``.

The headers beside this file implement CUDA; this module compiles a kernel with them and calls it. The kernel works on
copies of the arrays, each followed by inaccessible memory. What fails or is undefined on a GPU raises CudaError.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HEADERS = [Path(__file__).with_name(f"{name}.h") for name in "language launch threads checks builtins".split()]
CACHE = Path(tempfile.gettempdir()) / f"tinysrgan-cuda-on-cpu-{os.getuid() if hasattr(os, 'getuid') else 0}"
ORDERS = {"ascending": 0, "descending": 1, "random": 2}
STATIC_LIMIT, SHARED_LIMIT = 48 * 1024, 227 * 1024  # bytes of shared memory for one block of an H100
MAX_THREADS, STACK = 1024, 64 * 1024
POISON = 0x7FFFDEAD  # NaN, as in launch.h
PAGE = mmap.PAGESIZE

ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\(([^()]*)\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\(([^()]*)\)\s*)?(\w+)\s*\("
)
LAUNCHER = """
EXPORT int parameters_{name}(cuda::Parameter *list) {{ return cuda::parameters({name}, list); }}
EXPORT int launch_bounds_{name}() {{ const int bounds[] = {{{bounds}}}; return bounds[0]; }}
EXPORT int launch_{name}(cuda::Request *request) {{
  return cuda::run(*request, [](void **values) {{ cuda::call({name}, values); }});
}}
"""
# Symbols are hidden, so every library has its own scheduler. checks.h replaces the sanitizers' own library.
FLAGS = (
    *("-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"),
    *("-fvisibility=hidden", "-fno-gnu-unique", "-fno-exceptions", "-nodefaultlibs"),
    *("-fsanitize=alignment,bounds,integer-divide-by-zero,shift", "-fno-sanitize-recover=all"),
    "-Werror=frame-larger-than=32768",  # the stack of a fibre is small
)
LIBRARIES = ("-lm", "-lc", "-lgcc")

available = sys.platform == "linux" and shutil.which("g++") is not None
_order = "ascending"
_watching = False
_libc = ctypes.CDLL(None)


class CudaError(Exception):
    """An error that a GPU would raise, or undefined behaviour that it would not report."""


@contextmanager
def order(name: str) -> Iterator[None]:
    """Run threads and blocks in ascending, descending or random order inside this context."""
    global _order
    before, _order = _order, name
    try:
        yield
    finally:
        _order = before


@contextmanager
def watching() -> Iterator[None]:
    """Check kernels compiled inside this context for races, and for accesses just before and after an array.

    A race is an access of two threads to one word of shared memory, one of them writing, with no barrier in between. It
    is found in any order of threads. Checked kernels take about five times as long.
    """
    global _watching
    before, _watching = _watching, True
    try:
        yield
    finally:
        _watching = before


class RawModule:
    """The kernels in ``code``; of the options of nvcc or NVRTC only -D has an effect."""

    def __init__(self, code: str, options: Sequence[str] = (), **_: Any):
        self.code = code
        self.entries = {name: before or after or MAX_THREADS for before, after, name in ENTRY.findall(code)}
        self.path = build(code, self.entries, [option for option in options if option.startswith("-D")])
        self.library = ctypes.CDLL(str(self.path))

    def get_function(self, name: str) -> RawKernel:
        if name not in self.entries:
            raise CudaError(f"There is no kernel {name}, only {', '.join(self.entries)}.")
        return RawKernel(self, name)


def build(code: str, entries: dict[str, str | int], options: Sequence[str]) -> Path:
    """The shared library for ``code``, built now or taken from the cache."""
    launchers = "".join(LAUNCHER.format(name=name, bounds=bounds) for name, bounds in entries.items())
    cuda = "".join(f'#line 1 "{header.name}"\n{header.read_text()}' for header in HEADERS)
    text = f'{cuda}#line 1 "kernel.cu"\n{code}\n{launchers}'
    command = ["g++", "-x", "c++", *FLAGS, *(["-fsanitize=thread"] if _watching else []), *options, "-"]
    key = hashlib.sha256("\0".join([text, *command]).encode()).hexdigest()[:24]
    library = CACHE / f"{key}.so"
    if not library.exists():
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = CACHE / f"{key}-{os.getpid()}.part"  # another process may be building the same library
        result = subprocess.run([*command, "-o", str(part), *LIBRARIES], input=text, capture_output=True, text=True)
        if result.returncode:
            raise CudaError(f"g++ says:\n{result.stderr[:4000]}")
        os.replace(part, library)
    return library


class _Parameter(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_int), ("kind", ctypes.c_int), ("bytes", ctypes.c_int)]


class _Array(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("fence", "begin", "end", "other_fence")]


class _Request(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_shared", ctypes.c_void_p),
        ("dynamic_bytes", ctypes.c_size_t),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint32),
        ("stacks", ctypes.c_void_p),
        ("arrays", ctypes.POINTER(_Array)),
        ("array_count", ctypes.c_int),
        ("message", ctypes.c_char * 512),
        ("line", ctypes.c_int),
        ("place", ctypes.c_size_t),
        ("address", ctypes.c_void_p),
    ]


class RawKernel:
    """A kernel with CuPy's interface: call it with (grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, module: RawModule, name: str):
        self.module, self.name = module, name
        self.launch = getattr(module.library, f"launch_{name}")
        self.max_threads = getattr(module.library, f"launch_bounds_{name}")()
        self.static = module.library.static_shared()  # all kernels of the module together
        self.max_dynamic_shared_size_bytes = STATIC_LIMIT - self.static  # a caller must raise it for more, as on a GPU
        parameters = (_Parameter * 64)()
        self.parameters = parameters[: getattr(module.library, f"parameters_{name}")(parameters)]

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        """Run all blocks of the grid. Raises CudaError."""
        grid, block = ((*map(int, lengths), 1, 1)[:3] for lengths in (grid, block))
        self._check_sizes(grid, block, shared_mem)
        if len(arguments) != len(self.parameters):
            raise CudaError(f"{self.name}: another number of arguments than {len(self.parameters)}: {len(arguments)}.")
        values = [*map(self._value, range(len(arguments)), arguments, self.parameters)]
        fenced = _fenced([argument for argument, value in zip(arguments, values, strict=True) if value is None])
        for number, value in enumerate(values):
            if value is None:
                memory = next(memory for memory in fenced if memory.has(arguments[number]))
                values[number] = np.array(memory.address_of(arguments[number]), np.uint64)
        shared = Fenced(shared_mem, alignment=128)
        request = _Request(grid, block, shared.address, shared_mem)
        request.arguments = (ctypes.c_void_p * (len(values) + 1))(*[value.ctypes.data for value in values])
        request.order, request.stacks = ORDERS[_order], _stacks()[1]
        request.arrays = (_Array * (len(fenced) + 1))(*[f.limits() for f in (*fenced, shared)])
        request.array_count = len(fenced) + 1
        if self.launch(ctypes.byref(request)):
            raise CudaError(self._explain(request, arguments, fenced))
        if not shared.intact():
            raise CudaError(f"{self.name} wrote outside of its {shared_mem} bytes of shared memory.")
        for memory in fenced:
            if not memory.intact():
                number = next(i for i, a in enumerate(arguments) if memory.has(a))
                raise CudaError(f"{self.name} wrote outside of argument {number}.")
            memory.take_back()

    def _check_sizes(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        threads = int(np.prod(block))
        if min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            raise CudaError(f"{self.name}: a grid has at least one block, and at most 65535 along y and z, not {grid}.")
        if not 1 <= threads <= MAX_THREADS or min(block) < 1 or block[2] > 64:
            raise CudaError(f"{self.name}: a block has 1 to 1024 threads, and at most 64 along z, not {block}.")
        if threads > self.max_threads:
            raise CudaError(f"{self.name}: {threads} threads, but __launch_bounds__ says {self.max_threads}.")
        if self.static > STATIC_LIMIT:
            raise CudaError(
                f"{self.name}: {self.static} bytes of static shared memory in all kernels, 48 KiB are possible."
            )
        if self.static + max(shared_mem, self.max_dynamic_shared_size_bytes) > SHARED_LIMIT:
            raise CudaError(
                f"{self.name}: {self.static} + {max(shared_mem, self.max_dynamic_shared_size_bytes)} bytes of shared "
                "memory, a block may have 227 KiB."
            )
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CudaError(f"{self.name}: set max_dynamic_shared_size_bytes for {shared_mem} bytes of shared memory.")

    def _value(self, number: int, argument: Any, parameter: _Parameter) -> np.ndarray | None:
        """An argument passed by value, in CuPy's type for it; None for an array, which is passed by address."""
        kind, size = chr(parameter.kind), parameter.bytes
        name = "record" if kind == "V" else {"i": "int", "f": "float"}[kind] + str(8 * size)
        wants = f"{self.name}: argument {number} is {'a pointer to ' if parameter.pointer else ''}{name}"
        if isinstance(argument, np.ndarray) and argument.dtype.kind != "V":
            if not parameter.pointer:
                raise CudaError(f"{wants}, not an array.")
            if not argument.flags.c_contiguous:
                raise CudaError(f"{wants}; a kernel takes contiguous arrays, not one of strides {argument.strides}.")
            if kind != "V" and (argument.itemsize != size or (argument.dtype.kind == "f") != (kind == "f")):
                raise CudaError(f"{wants}, the array is {argument.dtype}.")
            return None
        if not isinstance(argument, bool | int | float | np.generic | np.ndarray) or isinstance(argument, np.void):
            raise TypeError(
                f"{wants}. A kernel takes arrays, numbers, and records as arrays without axes, not {argument!r}."
            )
        value = np.array(argument, np.int64 if type(argument) is int else None)
        if parameter.pointer:
            kind, size = "i", 8
        if value.nbytes != size or {"u": "i", "b": "i"}.get(value.dtype.kind, value.dtype.kind) != kind:
            raise CudaError(f"{wants}, not {value.dtype}, which has {value.nbytes} bytes.")
        return value

    def _explain(self, request: _Request, arguments: Sequence[Any], fenced: Sequence[Fenced]) -> str:
        message, line = request.message.decode(), request.line
        if request.place and shutil.which("addr2line"):
            found = subprocess.run(
                ["addr2line", "-e", str(self.module.path), hex(request.place)], capture_output=True, text=True
            )
            file, _, number = found.stdout.strip().partition(" ")[0].rpartition(":")
            line = int(number) if file.endswith("kernel.cu") and number.isdigit() else 0
        for memory in fenced:
            first, _, _, last = memory.limits()
            if request.address and first <= request.address < last:
                message += f" (near argument {next(i for i, a in enumerate(arguments) if memory.has(a))})"
        return f"{self.name}: {message}." + (
            f"\nline {line}: {self.module.code.splitlines()[line - 1]}" if line else ""
        )


class Fenced:
    """Memory that ends, up to its alignment, at an inaccessible page. Before it are NaN and another such page."""

    def __init__(self, size: int, offset: int = 0, alignment: int = 16):
        pages = -(-(size + alignment) // PAGE)
        self.memory = mmap.mmap(-1, (pages + 2) * PAGE)
        inner = np.frombuffer(self.memory, np.uint8)[PAGE:-PAGE]
        inner.view(np.uint32)[:] = POISON
        start = (inner.size - size - offset) // alignment * alignment + offset
        self.before, self.data, self.after = np.split(inner, [start, start + size])
        self.address, self.fences = (
            inner.ctypes.data + start,
            (inner.ctypes.data - PAGE, inner.ctypes.data + inner.size),
        )
        for page in self.fences:
            if _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
                raise OSError("mprotect failed")

    def limits(self) -> tuple[int, int, int, int]:
        return self.fences[0], self.address, self.address + self.data.size, self.fences[1] + PAGE

    def intact(self) -> bool:
        """Whether the bytes between the memory and the fences are unchanged."""
        poison = np.full(self.before.size // 4 + 4, POISON, np.uint32).view(np.uint8)
        turned = np.roll(poison, -(self.before.size + self.data.size))
        return all(
            np.array_equal(found, expected[: found.size])
            for found, expected in ((self.before, poison), (self.after, turned))
        )


class FencedArrays(Fenced):
    """Copies of arrays that overlap (usually a single array), aligned as the arrays would be on a GPU."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays, self.first = arrays, arrays[0].ctypes.data
        whole = arrays[0]
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        end = max(array.ctypes.data + array.nbytes for array in arrays)
        super().__init__(end - self.first, (self.first - whole.ctypes.data) % 16)
        for array in arrays:
            self._copy(array)[:] = _bytes(array)

    def has(self, argument: Any) -> bool:
        return any(argument is array for array in self.arrays)

    def address_of(self, array: np.ndarray) -> int:
        return self.address + array.ctypes.data - self.first

    def take_back(self) -> None:
        for array in self.arrays:
            if array.flags.writeable:
                _bytes(array)[:] = self._copy(array)
            elif not np.array_equal(_bytes(array), self._copy(array)):
                raise CudaError("The kernel wrote to an array that is read-only.")

    def _copy(self, array: np.ndarray) -> np.ndarray:
        start = array.ctypes.data - self.first
        return self.data[start : start + array.nbytes]


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).reshape(-1).view(np.uint8)


def _fenced(arrays: Sequence[np.ndarray]) -> list[FencedArrays]:
    """Copies of all arrays; overlapping arrays share one copy."""
    groups: list[list[np.ndarray]] = []
    end = 0
    for array in sorted(arrays, key=lambda array: array.ctypes.data):
        if not groups or array.ctypes.data >= end:
            groups.append([])
        groups[-1].append(array)
        end = max(end, array.ctypes.data + array.nbytes)
    return [FencedArrays(group) for group in groups]


@cache
def _stacks() -> tuple[mmap.mmap, int]:
    """Memory for the stacks of the fibres; the system allocates only the pages in use."""
    memory = mmap.mmap(-1, MAX_THREADS * STACK)
    return memory, np.frombuffer(memory, np.uint8).ctypes.data
