"""``pytest --gpu`` runs the tests of the CUDA kernels, and only these, on a GPU; without it they run on the CPU."""

import os

import numpy as np
import pytest
from cuda_on_cpu import cupy_on_cpu, runner

from tinysrgan.ops.cuda.conv_tf32 import capable
from tinysrgan.ops.device import choose_device

MARKERS = (
    "kernels: runs CUDA kernels: on the CPU, which needs g++, or with --gpu on a GPU",
    "tensor_cores: runs kernels for GPUs of compute capability 8.0 or later",
    "cpu_only: runs faulty kernels, which only the CPU survives",
)


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="run the tests of the CUDA kernels on a GPU, with CuPy")


def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if not config.getoption("--gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # what is tested runs on the CPU, whatever the machine has
        return
    module, where = choose_device("auto")
    if module is np:
        raise pytest.UsageError(f"--gpu needs a GPU that works, but this is computed {where}.")
    cupy_on_cpu.use_gpu = True


def pytest_collection_modifyitems(config, items):
    if config.getoption("--gpu"):
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("kernels")])
        items[:] = [item for item in items if item.get_closest_marker("kernels")]
    for item in items:
        if reason := missing(item):
            item.add_marker(pytest.mark.skip(reason=reason))


def missing(item):
    """Why a test can't run here, or None."""
    if not cupy_on_cpu.use_gpu:
        return "g++ is not installed" if item.get_closest_marker("kernels") and not runner.available else None
    if item.get_closest_marker("cpu_only"):
        return "faulty kernels run on the CPU only"
    if item.get_closest_marker("tensor_cores") and not capable():
        return "this GPU has no tensor cores for TF32: its compute capability is below 8.0"
    return None
