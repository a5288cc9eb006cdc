"""NVIDIA's run-time compiler, which CuPy uses too. It needs no GPU: ``pip install nvidia-cuda-nvrtc-cu12``.

``TINYSRGAN_NVRTC`` lists folders with more versions, separated as in ``PATH``. Each folder comes from
``pip install --target FOLDER nvidia-cuda-nvrtc-cu12==VERSION``.
"""

import ctypes
import os
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tinysrgan.ops.cuda.compile import OPTIONS

# The options that CuPy 14 adds to ours (cupy/cuda/compiler.py).
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


class NVRTC:
    """One version of the compiler."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        major, minor = ctypes.c_int(), ctypes.c_int()
        assert self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
        self.version = (major.value, minor.value)
        count = ctypes.c_int()
        assert self.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
        found = (ctypes.c_int * count.value)()
        assert self.library.nvrtcGetSupportedArchs(found) == 0
        self.architectures = set(found)

    def compile(self, text: str, architecture: int, *options: str) -> tuple[bool, str]:
        """Compile CUDA C++ for ``sm_<architecture>`` as CuPy does. Returns whether it succeeded, and the log.

        The log lists the registers, shared memory and spills of every kernel.
        """
        program = ctypes.c_void_p()
        assert self.library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"k.cu", 0, None, None) == 0
        args = [*OPTIONS, *options, CUPY_OPTIONS[0], f"-arch=sm_{architecture}", CUPY_OPTIONS[1]]
        args.append("--ptxas-options=-v")
        c_args = (ctypes.c_char_p * len(args))(*[arg.encode() for arg in args])
        with same_locale():
            status = self.library.nvrtcCompileProgram(program, len(args), c_args)
        size = ctypes.c_size_t()
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return status == 0, log.value.decode()


@contextmanager
def same_locale():
    """NVRTC 12.0 leaves its thread in the locale "C", in which Python's text files and pipes are ASCII."""
    uselocale = getattr(ctypes.CDLL(None), "uselocale", None)
    if uselocale is None:
        yield
        return
    uselocale.argtypes, uselocale.restype = [ctypes.c_void_p], ctypes.c_void_p
    before = uselocale(None)
    yield
    uselocale(before)


@cache
def versions() -> list[NVRTC]:
    """The installed compilers, one per version, oldest first."""
    folders = [Path(folder) for folder in os.environ.get("TINYSRGAN_NVRTC", "").split(os.pathsep) if folder]
    folders += [Path(folder) for folder in sys.path if folder]
    libraries = [path for folder in folders for path in folder.glob("nvidia/*/lib/libnvrtc.so.*")]
    found = {compiler.version: compiler for compiler in map(NVRTC, libraries)}
    return [found[version] for version in sorted(found)]
