"""``pytest --gpu``, with the stand-in in place of CuPy: kernels' tests run, and only those that the GPU can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu

from tinysrgan.ops.device import choose_device

TESTS = Path(__file__).parents[1]


def run_pytest(*arguments: str, **environment: str) -> str:
    """The last lines of a run in a process of its own: the reasons of skipped tests, and the counts."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=TESTS.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


STAND_IN = {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "stand_in")))}
# A kernel on any GPU, one on tensor cores, a planted fault, and a test without kernels.
SOME = (
    "tests/cuda/test_cuda_layers.py::test_adam",
    "tests/cuda/test_cuda_conv_halo.py::test_takes",
    "tests/cuda/test_cuda_layers.py::test_there_are_no_races",
    "tests/core/test_device.py::test_arrays_of_numpy_are_numpys",
)


@pytest.mark.kernels
@pytest.mark.cpu_only
@pytest.mark.parametrize(("capability", "counts"), [("90", "4 passed, 6 skipped"), ("75", "3 passed, 7 skipped")])
def test_only_kernels_run_and_only_those_that_the_gpu_can(capability, counts):
    output = run_pytest("--gpu", *SOME, **STAND_IN, STAND_IN_CAPABILITY=capability)
    assert f"{counts}, 5 deselected" in output, output
    assert ("no tensor cores for TF32" in output) == (capability == "75")
    assert "faulty kernels run on the CPU only" in output


@pytest.mark.kernels
@pytest.mark.cpu_only
def test_a_gpu_needs_no_compiler_for_the_cpu(tmp_path):
    with cupy_on_cpu():
        choose_device("cuda")  # the stand-in keeps what it compiles, here the kernel that --gpu tries first
    output = run_pytest("--gpu", SOME[1], **STAND_IN, PATH=str(tmp_path))
    assert "1 passed" in output, output


def test_without_a_gpu_the_option_is_refused_with_the_reason(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')")
    output = run_pytest("--gpu", SOME[1], PYTHONPATH=os.pathsep.join(map(str, (TESTS.parent, TESTS, tmp_path))))
    assert "--gpu needs a GPU that works" in output and "libcuda.so.1" in output and "passed" not in output


def test_without_g_plus_plus_kernels_are_skipped(tmp_path):
    assert "g++ is not installed" in run_pytest(SOME[1], PATH=str(tmp_path))
