"""``pytest --gpu`` runs the tests of the kernels on a GPU, with CuPy, instead of on the CPU."""

import pytest
from cuda_on_cpu import cupy_on_cpu


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="run the tests of CUDA kernels on the GPU, with CuPy")


def pytest_configure(config):
    config.addinivalue_line("markers", "cpu_only: about kernels that must fail, which only the CPU forgives")
    cupy_on_cpu.use_gpu = config.getoption("--gpu")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--gpu"):
        for item in items:
            if item.get_closest_marker("cpu_only"):
                item.add_marker(pytest.mark.skip(reason="planted faults and races are looked for on the CPU"))
