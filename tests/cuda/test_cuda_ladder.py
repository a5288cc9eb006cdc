"""examples/cuda_ladder.py times every rung of the ladder, several launches at a time."""

import pytest
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu

from examples import cuda_ladder
from tinysrgan.ops.cuda import convolution

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]


@pytest.mark.parametrize("rung", cuda_ladder.REASONS)
def test_a_rung_is_timed(monkeypatch, rung):
    monkeypatch.setattr(cuda_ladder, "ROUNDS", 1)
    monkeypatch.setattr(cuda_ladder, "LAUNCHES", 2)
    before = convolution.TINY
    with cupy_on_cpu() as cupy:
        assert cuda_ladder.speed(cupy, rung, (1, 8, 16, 32), (3, 3, 32, 32)) > 0
    assert before == convolution.TINY
