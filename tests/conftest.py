"""With ``pytest --gpu`` the kernel tests run on a GPU with CuPy, otherwise on the CPU."""

import pytest
from cuda_on_cpu import cupy_on_cpu


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="run the tests of the CUDA kernels on a GPU, with CuPy")


def pytest_configure(config):
    config.addinivalue_line("markers", "cpu_only: runs faulty kernels, which only the CPU survives")
    cupy_on_cpu.use_gpu = config.getoption("--gpu")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--gpu"):
        for item in items:
            if item.get_closest_marker("cpu_only"):
                item.add_marker(pytest.mark.skip(reason="faulty kernels run on the CPU only"))
