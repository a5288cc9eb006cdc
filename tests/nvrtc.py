"""NVIDIA's run-time compiler, which CuPy uses too, without a GPU: ``pip install nvidia-cuda-nvrtc-cu12``."""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tinysrgan.ops.cuda.compile import OPTIONS


@cache
def library() -> ctypes.CDLL | None:
    """The compiler, or None where it isn't installed."""
    try:
        spec = find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    folders = [Path(folder) / "lib" for folder in spec.submodule_search_locations or []] if spec else []
    found = [path for folder in folders for path in folder.glob("libnvrtc.so.*")]
    return ctypes.CDLL(str(found[0])) if found else None


def compile(text: str, architecture: int, *options: str) -> tuple[bool, str]:
    """Compile CUDA C++ for ``sm_<architecture>``: whether that worked, and what the compiler has to say.

    That includes, of every kernel, its registers, shared memory and spills.
    """
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None) == 0
    words = [f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", *OPTIONS, *options]
    worked = nvrtc.nvrtcCompileProgram(
        program, len(words), (ctypes.c_char_p * len(words))(*[w.encode() for w in words])
    )
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return worked == 0, log.value.decode()
