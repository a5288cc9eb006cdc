"""The fixture of the kernels' tests: CuPy, or its stand-in that runs kernels on the CPU."""

import pytest
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu


@pytest.fixture
def cupy():
    with cupy_on_cpu() as cupy:
        yield cupy
