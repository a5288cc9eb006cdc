"""Runs CUDA kernels on the CPU, with the interface of CuPy's RawModule, over NumPy's arrays.

>>> kernel = RawModule(code, options=("-DTILE=16",)).get_function("add")
>>> kernel((blocks,), (threads,), (x, y, np.int32(n)))

The compiler is g++; ``cuda_on_cpu.h`` says what CUDA means. Whatever goes wrong in a launch raises KernelError.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
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

COMPILER = shutil.which("g++")
HEADER = Path(__file__).with_name("cuda_on_cpu.h")
CACHE = Path(tempfile.gettempdir()) / f"cuda_on_cpu-{os.getuid() if hasattr(os, 'getuid') else 0}"
ORDERS = ("ascending", "descending", "random")
STATIC_LIMIT, SHARED_LIMIT = 48 * 1024, 227 * 1024
POISON = 0x7FFFDEAD
PAGE = mmap.PAGESIZE

_FLAGS = (
    *("-std=c++17", "-O2", "-g1", "-fPIC", "-w", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-fvisibility=hidden"),
)
_ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\(([^()]*)\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\(([^()]*)\)\s*)?(\w+)\s*\("
)
_libc = ctypes.CDLL(None)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class KernelError(RuntimeError):
    """A kernel did what a GPU forbids, or was launched as no GPU would."""


class CompileError(KernelError):
    """The compiler's own words."""


class _Parameter(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_int), ("kind", ctypes.c_int), ("bytes", ctypes.c_int)]


class _Request(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_shared", ctypes.c_void_p),
        ("dynamic_bytes", ctypes.c_size_t),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint32),
        ("first", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("message", ctypes.c_char_p),
        ("line", ctypes.c_int),
        ("address", ctypes.c_void_p),
    ]


class Fenced:
    """Memory that ends where a forbidden page begins, with another in front and NaN in what is left between."""

    def __init__(self, size: int, misaligned: int = 0, alignment: int = 16) -> None:
        pages = -(-(size + alignment) // PAGE)
        self.memory = mmap.mmap(-1, (pages + 2) * PAGE)
        self.bytes = np.frombuffer(self.memory, np.uint8)[PAGE:-PAGE]
        self.bytes.view(np.uint32)[:] = POISON
        for page in (self.bytes.ctypes.data - PAGE, self.bytes.ctypes.data + self.bytes.size):
            assert _libc.mprotect(page, PAGE, 0) == 0
        self.start = (self.bytes.size - size - misaligned) // alignment * alignment + misaligned
        self.stop = self.start + size
        self.data = self.bytes[self.start : self.stop]
        self.address = self.bytes.ctypes.data + self.start

    def intact(self) -> bool:
        poison = np.frombuffer(np.uint32(POISON).tobytes() * (self.bytes.size // 4), np.uint8)
        return all(np.array_equal(self.bytes[s], poison[s]) for s in (np.s_[: self.start], np.s_[self.stop :]))


def compiled(code: str, name: str, options: Sequence[str] = ()) -> Path:
    """The shared library of one kernel, from the cache if it was compiled before."""
    entries = {entry[2]: entry[0] or entry[1] for entry in _ENTRY.findall(code)}
    if name not in entries:
        raise KernelError(f'there is no kernel {name}, only {", ".join(entries) or "none"}: extern "C" __global__ void')
    # In a namespace without a name, the compiler drops all that this kernel doesn't use, shared memory included.
    text = f"""#include "cuda_on_cpu.h"
namespace {{
#line 1 "kernel.cu"
{code}
}}
#line 1 "launcher"
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT int parameters(cuda_on_cpu::Parameter *list) {{ return cuda_on_cpu::parameters({name}, list); }}
EXPORT int launch_bounds() {{ const int bounds[] = {{{entries[name] or "1024"}}}; return bounds[0]; }}
EXPORT long static_shared() {{ return __start_cuda_shared ? __stop_cuda_shared - __start_cuda_shared : 0; }}
EXPORT int launch(cuda_on_cpu::Request *request) {{
  return cuda_on_cpu::run(*request, [](void **values) {{ cuda_on_cpu::call({name}, values); }});
}}
"""
    flags = [*_FLAGS, *options]
    key = hashlib.sha256(repr((text, HEADER.read_text(), flags)).encode()).hexdigest()[:24]
    library = CACHE / f"{key}.so"
    if not library.exists():
        CACHE.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            source, built = Path(folder, f"{name}.cpp"), Path(folder, "library.so")
            source.write_text(text)
            command = [COMPILER or "g++", *flags, f"-I{HEADER.parent}", "-shared", str(source), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise CompileError(done.stderr.strip())
            built.replace(library)
    return library


class Kernel:
    """One kernel, called as CuPy's are: ``kernel(grid, block, arguments, shared_mem=0)``."""

    def __init__(self, code: str, name: str, options: Sequence[str] = ()) -> None:
        self.name = name
        self._code = code
        self._library = ctypes.CDLL(str(compiled(code, name, options)))
        listed = (_Parameter * 64)()
        self._parameters = listed[: self._library.parameters(listed)]
        self._static = int(self._library.static_shared())
        self._threads = int(self._library.launch_bounds())
        #: As CuPy's: a kernel that wants more than 48 KiB must say so here before it is launched.
        self.max_dynamic_shared_size_bytes = STATIC_LIMIT - self._static

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared_mem: int = 0
    ) -> None:
        """Run all blocks of the grid; arrays change in place. Raises KernelError, TypeError for a wrong argument."""
        grid, block = (tuple(int(n) for n in size) + (1,) * (3 - len(size)) for size in (grid, block))
        self._check_sizes(grid, block, shared_mem)
        if len(arguments) != len(self._parameters):
            raise TypeError(f"{self.name} takes {len(self._parameters)} arguments, not {len(arguments)}")
        arrays = _fence([a for a in arguments if isinstance(a, np.ndarray)])
        values = [
            self._value(i, argument, parameter, arrays)
            for i, (argument, parameter) in enumerate(zip(arguments, self._parameters, strict=True))
        ]
        pointers = (ctypes.c_void_p * max(len(values), 1))(*[ctypes.addressof(value) for value in values])
        shared = Fenced(shared_mem, alignment=128)
        message = ctypes.create_string_buffer(512)
        request = _Request(
            grid, block, shared.address, shared_mem, pointers, ORDERS.index(RawModule.order), RawModule.seed, 0, 1
        )
        request.message = ctypes.cast(message, ctypes.c_char_p)
        if self._library.launch(ctypes.byref(request)):
            raise KernelError(self._explain(message.value.decode(), request.line))
        if not shared.intact():
            raise KernelError(f"{self.name}: wrote outside its {shared_mem} bytes of dynamic shared memory")
        for fenced, members in arrays:
            if not fenced.intact():
                numbers = [i for i, a in enumerate(arguments) if any(a is member for member, _ in members)]
                raise KernelError(f"{self.name}: wrote outside argument {numbers[0]}")
            for array, start in members:
                _bytes(array)[...] = fenced.data[start : start + array.nbytes]

    def _check_sizes(self, grid: Sequence[int], block: Sequence[int], shared_mem: int) -> None:
        threads = int(np.prod(block))
        if len(grid) > 3 or any(not 1 <= n <= most for n, most in zip(grid, (2**31 - 1, 65535, 65535), strict=True)):
            raise KernelError(f"{self.name}: a grid of {grid} blocks is not possible")
        if (
            len(block) > 3
            or any(not 1 <= n <= most for n, most in zip(block, (1024, 1024, 64), strict=True))
            or threads > 1024
        ):
            raise KernelError(f"{self.name}: a block of {block} threads is not possible")
        if threads > self._threads:
            raise KernelError(f"{self.name}: {threads} threads a block, but __launch_bounds__ says {self._threads}")
        if self._static > STATIC_LIMIT:
            raise KernelError(f"{self.name}: {self._static} bytes of static shared memory, {STATIC_LIMIT} are possible")
        if self._static + max(shared_mem, self.max_dynamic_shared_size_bytes) > SHARED_LIMIT:
            raise KernelError(
                f"{self.name}: {self._static} + {shared_mem} bytes of shared memory, {SHARED_LIMIT} are possible"
            )
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise KernelError(
                f"{self.name}: {shared_mem} bytes of dynamic shared memory; set max_dynamic_shared_size_bytes "
                f"(now {self.max_dynamic_shared_size_bytes}) first"
            )

    def _value(self, number: int, argument: Any, parameter: _Parameter, arrays: list) -> Any:
        """An argument as bytes to point to, of exactly the width that the kernel reads."""
        kind, size = chr(parameter.kind), parameter.bytes
        wants = f"{self.name}: argument {number} is {'a pointer to ' if parameter.pointer else ''}{kind}{size}"
        if isinstance(argument, np.ndarray):
            if not parameter.pointer:
                raise TypeError(f"{wants}, not an array")
            if not argument.flags.c_contiguous:
                raise TypeError(f"{wants}; the array is not contiguous")
            if kind != "V" and (argument.dtype.itemsize != size or (argument.dtype.kind == "f") != (kind == "f")):
                raise TypeError(f"{wants}; the array is {argument.dtype}")
            fenced, start = next((f, s) for f, members in arrays for member, s in members if member is argument)
            return ctypes.c_void_p(fenced.address + start)
        if argument is None and parameter.pointer:
            return ctypes.c_void_p(0)
        scalar = np.int64(argument) if type(argument) is int else np.asarray(argument)[()]  # as CuPy makes them
        if not isinstance(scalar, np.generic) or scalar.dtype.hasobject:
            raise TypeError(f"{wants}, not {type(argument).__name__}")
        if parameter.pointer:
            kind, size = "i", 8
        if scalar.nbytes != size or (scalar.dtype.kind.replace("u", "i").replace("b", "i") != kind):
            raise TypeError(f"{wants}, not {scalar.dtype} ({type(argument).__name__} {argument!r})")
        return (ctypes.c_char * size).from_buffer_copy(scalar.tobytes())

    def _explain(self, message: str, line: int) -> str:
        where = f"\n  line {line}: {self._code.splitlines()[line - 1].strip()}" if line else ""
        return f"{self.name}: {message}{where}"


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).reshape(-1).view(np.uint8)


def _fence(arrays: Sequence[np.ndarray]) -> list[tuple[Fenced, list[tuple[np.ndarray, int]]]]:
    """Fenced copies of arrays; those that overlap stay together. Each with the arrays in it and where they begin."""
    arrays = [array for array in arrays if array.flags.c_contiguous]
    found: list[tuple[Fenced, list[tuple[np.ndarray, int]]]] = []
    group: list[np.ndarray] = []
    end = 0

    def close() -> None:
        if not group:
            return
        first = group[0].ctypes.data
        whole = group[0]
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        fenced = Fenced(end - first, (first - whole.ctypes.data) % 16)
        members = [(array, array.ctypes.data - first) for array in group]
        for array, start in members:
            fenced.data[start : start + array.nbytes] = _bytes(array)
        found.append((fenced, members))

    for array in sorted(arrays, key=lambda array: array.ctypes.data):
        if array.ctypes.data >= end:
            close()
            group = []
        group.append(array)
        end = max(end, array.ctypes.data + array.nbytes)
    close()
    return found


class RawModule:
    """As CuPy's: CUDA C++ text with macros, of which ``get_function`` compiles a kernel."""

    order = "ascending"  # in which threads and blocks run: one of ORDERS
    seed = 0  # of the random order

    def __init__(self, code: str, options: Sequence[str] = ()) -> None:
        self._code, self._options = code, tuple(option for option in options if not option.startswith("-std"))

    def get_function(self, name: str) -> Kernel:
        return Kernel(self._code, name, self._options)


@contextmanager
def order(name: str, seed: int = 0) -> Iterator[None]:
    """All launches inside run their threads ``ascending``, ``descending`` or in ``random`` order."""
    before = RawModule.order, RawModule.seed
    assert name in ORDERS, name
    RawModule.order, RawModule.seed = name, seed
    try:
        yield
    finally:
        RawModule.order, RawModule.seed = before
