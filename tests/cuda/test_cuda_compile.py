"""Every kernel compiles for every GPU that it is meant for, by CuPy's compiler and by nvcc, and spills no registers."""

import re
import shutil
import subprocess
from collections.abc import Iterable

import nvrtc
import pytest
from cuda_on_cpu.runner import ENTRY

from tinysrgan.ops.cuda.compile import KERNELS, source
from tinysrgan.ops.cuda.conv_tiled import plan
from tinysrgan.ops.cuda.geometry import geometry

ARCHITECTURES = (75, 80, 86, 89, 90, 120)
SINCE_80 = '#include "tensor_cores.cuh"'
FILES = sorted(path.name for path in KERNELS.glob("*.cu"))
# Images and filters of SRGAN's layers: the generator's, the discriminator's, VGG19's and dense ones.
LAYERS = [
    ((16, 32, 32, 3), (9, 9, 3, 64), 1),
    ((16, 32, 32, 64), (3, 3, 64, 64), 1),
    ((16, 64, 64, 64), (3, 3, 64, 256), 1),
    ((16, 128, 128, 64), (9, 9, 64, 3), 1),
    ((16, 128, 128, 256), (9, 9, 256, 3), 1),
    ((16, 128, 128, 64), (3, 3, 64, 64), 2),
    ((16, 16, 16, 256), (3, 3, 256, 512), 1),
    ((1, 1, 16, 32768), (1, 1, 32768, 1024), 1),
    ((1, 1, 16, 1024), (1, 1, 1024, 1), 1),
]


def tiled() -> list[dict[str, int]]:
    """The macros that the launcher of conv_tiled.cu defines for these layers and their gradients."""
    found = {}
    for x, w, stride in LAYERS:
        for operation in ("conv_forward", "conv_grad_input", "conv_grad_weight"):
            defines = plan(operation, geometry(x, w, stride), (True, True, True)).defines
            found[tuple(defines.values())] = defines
    return list(found.values())


REALS: list[dict[str, object]] = [{"REAL": "float"}, {"REAL": "double"}]
VARIANTS: dict[str, list[dict[str, object]]] = {
    "conv_reference.cu": REALS,
    "conv_tiled.cu": tiled(),
    "conv_tf32.cu": [{}, {"ROWS": 128, "COLUMNS": 32, "DEPTH": 32, "STAGES": 3}],
    "activation.cu": REALS,
    "adam.cu": REALS,
    "conv_halo.cu": [{}, {"GRAD_INPUT": 1}, {"COLUMNS": 32}, {"COLUMNS": 32, "GRAD_INPUT": 1}],
    "batch_norm.cu": REALS,
    "sums.cu": [{"REAL": real, "ADD": add} for real in ("float", "double") for add in (0, 1)],
    "losses.cu": REALS,
    "max_pool.cu": REALS,
    "muon.cu": REALS,
    "average.cu": REALS,
    "resample.cu": [
        {"REAL": real, "FACTOR": 2, "ALIGN": align} for real, align in (("float", 16), ("float", 4), ("double", 8))
    ],
}
CASES = [
    pytest.param(file, variant, id=f"{file}-{'-'.join(map(str, variant.values()))}")
    for file in FILES
    for variant in VARIANTS.get(file, [{}])[1:]
]


def architectures(file: str) -> list[int]:
    text = (KERNELS / file).read_text()
    return [number for number in ARCHITECTURES if number >= 80 or SINCE_80 not in text]


def check(log: str, file: str) -> None:
    """No spills, no arrays in local memory, and something was compiled at all. The log is ptxas'."""
    kernels = [match[-1] for match in ENTRY.findall(source(file))]
    assert kernels and all(name in log for name in kernels)
    assert not re.findall(r".*[1-9]\d* bytes (?:spill|stack frame).*", log)


# The oldest and the newest of CUDA 12, and CUDA 13.
MEANT, THOROUGH = ("12.0", "12.9", "13"), (12, 9)
COMPILERS = {".".join(map(str, compiler.version)): compiler for compiler in nvrtc.versions()}


@pytest.fixture(params=[*MEANT, *(name for name in COMPILERS if not name.startswith(MEANT))])
def compiler(request):
    """Every NVRTC that is installed; one that is meant and missing is a skipped test."""
    found = [compiler for name, compiler in COMPILERS.items() if name.startswith(request.param)]
    return found[-1] if found else pytest.skip(f"NVRTC {request.param} is not installed; .ci/run says how")


def compile_and_check(compiler, file: str, variant: dict[str, object], numbers: Iterable[int]) -> None:
    for architecture in numbers:
        worked, log = compiler.compile(source(file), architecture, *(f"-D{k}={v}" for k, v in variant.items()))
        assert worked, log
        check(log, file)


@pytest.mark.parametrize("file", FILES)
def test_nvrtc(compiler, file):
    known = [architecture for architecture in architectures(file) if architecture in compiler.architectures]
    assert 90 in known
    # The compiler that pip brings today goes through all of them; the first and the last do for the others.
    numbers = known if compiler.version == THOROUGH else (known[0], known[-1])
    compile_and_check(compiler, file, VARIANTS.get(file, [{}])[0], numbers)


@pytest.mark.parametrize(("file", "variant"), CASES)
def test_the_other_variants(file, variant):
    compiler = next((one for one in COMPILERS.values() if one.version == THOROUGH), None)
    if compiler is None:
        pytest.skip(f"NVRTC {'.'.join(map(str, THOROUGH))} is not installed; .ci/run says how")
    numbers = architectures(file)
    compile_and_check(compiler, file, variant, {numbers[0], 90, numbers[-1]})


def test_what_does_not_compile_or_spills_is_noticed(compiler):
    assert not compiler.compile("__global__ void wrong() { undeclared = 1; }", 80)[0]
    worked, log = compiler.compile(source("conv_reference.cu"), 90, "--maxrregcount=24")
    assert worked
    with pytest.raises(AssertionError):
        check(log, "conv_reference.cu")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("file", FILES)
def test_nvcc(file, tmp_path):
    ends = architectures(file)[0], architectures(file)[-1]
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ends]
    command = ["nvcc", "-std=c++17", "-Xptxas", "-v", *codes, "-c", str(KERNELS / file), "-o", str(tmp_path / "out.o")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    check(result.stderr, file)
