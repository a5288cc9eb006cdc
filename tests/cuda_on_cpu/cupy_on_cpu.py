"""A stand-in for CuPy, based on NumPy: runs the package's unmodified GPU code without a GPU.

Its arrays are a subclass of NumPy's, its kernels run in ``runner``. As on a GPU, the arrays do not mix with NumPy's:
``+`` or a kernel with one of each raises TypeError, and so does reading a value inside ``no_reading``. That detects
hidden transfers to the host. One is not detected: ``numpy.asarray`` of such an array, which CuPy refuses.

Inside ``counting`` nothing is computed: launches are counted, and results are arrays of the right shape and type.
``graphs`` has the CUDA graphs.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cuda_on_cpu import graphs, runner
from tinysrgan.ops.cuda import compile as kernels
from tinysrgan.ops.cuda.conv_tf32 import capable

COMPUTE_CAPABILITY = "90"  # in CuPy's notation; tests may change it
MULTIPROCESSORS = 132  # of an H100
_reading_allowed = True
use_gpu = False  # set by pytest --gpu


@dataclass
class Launches:
    """The kernels launched, by name: the package's own and CuPy's. CuPy's copies and memsets are no kernels.

    Those in a capture count too; ``graphs`` counts the launches of CUDA graphs.
    """

    own: Counter[str] = field(default_factory=Counter)
    cupy: Counter[str] = field(default_factory=Counter)
    graphs: int = 0


_launches: Launches | None = None  # not None inside ``counting``
# Functions of CuPy that launch no kernel.
FREE = ("zeros", "zeros_like", "broadcast_to", "reshape", "shape", "copyto")


def count(name: str) -> bool:
    """Note a launch of CuPy's; whether launches are counted, so that nothing is computed."""
    if _launches is not None:
        _launches.cupy[name] += 1
    return _launches is not None


def unwritten(shape: Any, dtype: Any) -> ndarray:
    """Memory that takes no space before something is written to it."""
    return np.empty(shape, dtype).view(ndarray)


def corner(value: Any) -> Any:
    """The first element of an array, with all its axes."""
    return plain(value)[(slice(0, 1),) * value.ndim] if isinstance(value, np.ndarray) else value


class ndarray(np.ndarray):  # CuPy's name
    """An array "on the GPU"."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        check(inputs, out)
        if count(ufunc.__name__):
            if out:
                return out[0]
            with np.errstate(all="ignore"):
                dtype = getattr(ufunc, method)(*map(corner, inputs), **options).dtype
            return unwritten(np.broadcast_shapes(*(np.shape(x) for x in inputs)), dtype)
        into = {"out": tuple(map(plain, out))} if out else {}
        compute = partial(getattr(ufunc, method), *map(plain, inputs), **options | into)
        if out:
            graphs.write(compute)
            return out[0]
        return on_device(graphs.new(compute))

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        """As in CuPy, NumPy's functions call CuPy's of the same name; those of submodules are not needed here."""
        return getattr(Cupy("cupy"), function.__name__)(*arguments, **options)

    def __setitem__(self, at: Any, value: Any) -> None:
        if _launches is None:
            graphs.write(partial(super().__setitem__, at, value))
        elif isinstance(value, np.ndarray) or value:  # zero is a memset
            count("set")

    def copy(self, order: Any = "C") -> ndarray:
        if count("copy"):
            return unwritten(self.shape, self.dtype)
        return on_device(graphs.new(partial(plain(self).copy, order)))

    def astype(self, dtype: Any, *arguments: Any, **options: Any) -> ndarray:
        if count("astype"):
            return unwritten(self.shape, dtype)
        return on_device(graphs.new(partial(plain(self).astype, dtype, *arguments, **options)))

    def get(self) -> np.ndarray:
        """A copy on the CPU."""
        return self._read(np.array)

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def _read(self, kind: Any) -> Any:
        if not _reading_allowed:
            raise TypeError("A value is read off the GPU where the code should not wait for it.")
        graphs.refuse("reading")
        return kind(plain(self))

    def item(self) -> Any:
        return self._read(np.ndarray.item)

    def tolist(self) -> Any:
        return self._read(np.ndarray.tolist)

    def __float__(self) -> float:
        return self._read(float)

    def __int__(self) -> int:
        return self._read(int)

    def __bool__(self) -> bool:
        return self._read(bool)

    def _reduce(self, name: str, *arguments: Any, **options: Any) -> Any:
        compute = partial(getattr(plain(self), name), *arguments, **options)
        if count(name):
            with np.errstate(all="ignore"):
                return on_device(np.asarray(compute()))
        return on_device(np.asarray(graphs.new(compute)))

    def sum(self, *arguments: Any, **options: Any) -> Any:
        return self._reduce("sum", *arguments, **options)

    def mean(self, *arguments: Any, **options: Any) -> Any:
        return self._reduce("mean", *arguments, **options)

    def max(self, *arguments: Any, **options: Any) -> Any:
        return self._reduce("max", *arguments, **options)

    def min(self, *arguments: Any, **options: Any) -> Any:
        return self._reduce("min", *arguments, **options)

    def __matmul__(self, other: Any) -> Any:
        raise TypeError("CuPy's own matrix product needs cuBLAS, which is not installed with tinysrgan.")

    __rmatmul__ = __matmul__


def plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, ndarray) else value


def on_device(value: Any) -> Any:
    """NumPy's results as the stand-in's arrays; scalars become arrays without axes, as in CuPy."""
    if isinstance(value, tuple | list):
        return type(value)(map(on_device, value))
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(ndarray)
    return value


def check(*groups: Any) -> None:
    for group in groups:
        for value in group:
            if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
                raise TypeError(f"An array of NumPy, of shape {value.shape}, meets arrays on the GPU.")


class RawKernel(runner.RawKernel):
    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int = 0) -> None:
        for value in arguments:
            if isinstance(value, np.ndarray) and value.ndim and not isinstance(value, ndarray):
                raise TypeError(f"{self.name} is given an array of NumPy, of shape {value.shape}.")
        values = [plain(value) for value in arguments]
        graphs.write(partial(super().__call__, grid, block, values, shared_mem=shared_mem))


class CountedKernel:
    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self, name: str):
        self.name = name

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int = 0) -> None:
        if _launches is not None:
            _launches.own[self.name] += 1


class RawModule(runner.RawModule):
    def __init__(self, code: str, options: Any = (), **others: Any):
        if _launches is None:
            super().__init__(code, options, **others)

    def get_function(self, name: str) -> Any:
        if _launches is not None:
            return CountedKernel(name)
        return RawKernel(self, super().get_function(name).name)


class Device:
    def __init__(self, number: int = 0):
        self.id = number

    def use(self) -> None: ...

    @property
    def compute_capability(self) -> str:
        return COMPUTE_CAPABILITY

    @property
    def attributes(self) -> dict[str, int]:
        # Bytes of shared memory that a kernel may ask for; 227 KiB for the latest.
        most = {"70": 96, "75": 64, "80": 163, "86": 99, "87": 163, "89": 99, "120": 99}.get(COMPUTE_CAPABILITY, 227)
        return {"MaxSharedMemoryPerBlockOptin": most * 1024, "MultiProcessorCount": MULTIPROCESSORS}

    def synchronize(self) -> None:
        graphs.refuse("waiting")


class Stream(graphs.Stream):
    def end_capture(self) -> Any:
        graph = super().end_capture()
        graph.operations.append(count_graph)
        return graph


def count_graph() -> None:
    if _launches is not None:
        _launches.graphs += 1


class Event:
    """A moment; all work is done by then."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        graphs.refuse("waiting")


class Cupy(ModuleType):
    """The module ``cupy``: functions that are not defined here are NumPy's, with results on the device."""

    ndarray = ndarray
    RawModule = RawModule
    __version__ = "on the CPU"
    float32, float64, int32, int64, uint8, uint64 = np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint64
    cuda = SimpleNamespace(
        Device=Device,
        Event=Event,
        Stream=Stream,
        MemoryPool=graphs.MemoryPool,
        using_allocator=graphs.using_allocator,
        get_elapsed_time=lambda begin, end: 1000 * (end.seconds - begin.seconds),
        runtime=SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda number: {
                "name": b"CPU in disguise",
                "major": int(COMPUTE_CAPABILITY[:-1]),
                "minor": int(COMPUTE_CAPABILITY[-1]),
            },
        ),
    )

    @staticmethod
    def asarray(value: Any, dtype: Any = None) -> ndarray:
        if isinstance(value, ndarray):
            return value
        graphs.refuse("data from the host")
        return on_device(np.array(value, dtype))

    array = asarray

    @staticmethod
    def get_default_memory_pool() -> graphs.MemoryPool:
        return graphs.DEFAULT_POOL

    @staticmethod
    def asnumpy(x: ndarray) -> np.ndarray:
        return x.get()

    @staticmethod
    def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
        """An array filled with NaN, so that elements that are never written are noticed."""
        if _launches is not None:
            return unwritten(shape, dtype)
        array = np.empty(shape, dtype)
        graphs.spoil(array)
        return on_device(graphs.made(array))

    def empty_like(self, x: ndarray, dtype: Any = None) -> ndarray:
        return self.empty(x.shape, dtype or x.dtype)

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if isinstance(function, np.ufunc):
            return function

        def on_numpy(*arguments: Any, **options: Any) -> Any:
            flat = [item for value in arguments for item in (value if isinstance(value, list | tuple) else [value])]
            check(flat)
            if name == "ascontiguousarray" and not arguments[0].flags.c_contiguous and count("copy"):
                return unwritten(arguments[0].shape, arguments[0].dtype)
            if name not in (*FREE, "ascontiguousarray"):
                count(name)
            bare = [[plain(v) for v in a] if isinstance(a, list) else plain(a) for a in arguments]
            compute = partial(function, *bare, **options)
            if name == "copyto":
                return graphs.write(compute)
            return on_device(graphs.new(compute, bare))

        return on_numpy


@contextmanager
def cupy_on_cpu() -> Iterator[ModuleType]:
    """Make ``import cupy`` find the stand-in inside this context; with ``pytest --gpu``, CuPy itself."""
    if use_gpu:
        import cupy

        yield cupy
        return
    before = sys.modules.get("cupy")
    module = Cupy("cupy")
    sys.modules["cupy"] = module
    capable.cache_clear()
    try:
        yield module
    finally:
        capable.cache_clear()
        kernels.kernel.cache_clear()
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


@contextmanager
def no_reading() -> Iterator[None]:
    """Inside this context, reading a value off the device raises TypeError."""
    global _reading_allowed
    _reading_allowed = False
    try:
        yield
    finally:
        _reading_allowed = True


@contextmanager
def counting() -> Iterator[Launches]:
    """Inside this context kernels are counted instead of run, and CuPy's own, too, whose results are not computed."""
    global _launches
    _launches = Launches()
    try:
        yield _launches
    finally:
        _launches = None
