"""y and dx of conv_tf32.cu with the depth split among thread blocks: their sums, and when the depth is split.

``test_cuda_convolution`` has those of conv_tiled.cu.
"""

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu
from planted import plant
from test_cuda_conv_tf32 import CASES, FIRST, STRIDED, arrays, check_dx, check_y

from tinysrgan.ops.cuda import conv_tf32
from tinysrgan.ops.cuda.launch import tickets

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]

CHECKS = {"y": check_y, "dx": check_dx}


@pytest.fixture
def cupy(monkeypatch):
    """A GPU that is never full, so that one thread block sums one slice of the depth."""
    monkeypatch.setattr(conv_tf32, "multiprocessors", lambda: 2**12)
    monkeypatch.setattr(conv_tf32, "FEWEST", 1)
    with cupy_on_cpu() as cupy:
        yield cupy


def check(cupy, what, case):
    CHECKS[what](cupy, case)
    assert not tickets(cupy).get().any(), "the next launch begins with tickets of zero"


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_a_slice_for_each_block(cupy, case, what, turns):
    with runner.order(turns):
        check(cupy, what, CASES[case])


@pytest.mark.parametrize("what", CHECKS)
def test_a_shorter_last_part(cupy, monkeypatch, what):
    monkeypatch.setattr(conv_tf32, "depth_parts", lambda tiles, slices: 4)
    check(cupy, what, FIRST)  # of 6 slices and, for dx, 18
    check(cupy, what, STRIDED)  # of 27 and, for dx, 1 to 4


def test_results_have_the_same_bytes_whichever_block_adds(cupy):
    x, w, dy, extras = arrays(FIRST)
    x, w, dy, *extras = map(cupy.asarray, (x + x / 3, w + w / 7, dy - dy / 9, *extras))
    made = []
    for turns in runner.ORDERS:
        with runner.order(turns):
            made.append([conv_tf32.conv2d(x, w, 1, *extras).get(), conv_tf32.conv2d_grad_input(dy, w, x.shape).get()])
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.cpu_only
@pytest.mark.parametrize("what", CHECKS)
def test_there_are_no_races(cupy, what):
    with runner.watching():
        check(cupy, what, FIRST)


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("multiprocessors", "tiles", "slices", "parts"),
    [(132, 64, 144, 4), (108, 64, 144, 3), (132, 8, 144, 24), (132, 132, 144, 1), (132, 96, 9, 1), (132, 1, 4, 1)],
)
def test_the_depth_is_split_where_the_tiles_are_too_few(monkeypatch, multiprocessors, tiles, slices, parts):
    """The first is VGG19's 8x8 images of 512 channels in a batch of 16."""
    monkeypatch.setattr("cuda_on_cpu.cupy_on_cpu.MULTIPROCESSORS", multiprocessors)
    conv_tf32.multiprocessors.cache_clear()
    with cupy_on_cpu():
        assert conv_tf32.depth_parts(tiles, slices) == parts
    conv_tf32.multiprocessors.cache_clear()


@pytest.mark.cpu_only
def test_a_gpu_that_does_not_say_how_large_it_is(monkeypatch):
    monkeypatch.setattr("cuda_on_cpu.cupy_on_cpu.Device.attributes", {})
    conv_tf32.multiprocessors.cache_clear()
    with cupy_on_cpu():
        assert conv_tf32.multiprocessors() == 108
    conv_tf32.multiprocessors.cache_clear()


FAULTS = [
    ("Tap(part.first * DEPTH, g.S", "Tap(0, g.S"),
    ("Tap(part.first * DEPTH, right.taps", "Tap(0, right.taps"),
    ("Matrix right(w, part.first * DEPTH", "Matrix right(w, 0"),
    ("s = depth / channels % across", "s = depth / channels"),
    ("r = depth / channels / across", "r = 0"),
    ("channel = depth % channels", "channel = 0"),
    ("first = part * each", "first = part"),
    ("count = max(min(each, slices - first), 0)", "count = each"),
    ("if (!sum_parts<SUMS>(&sums[0][0][0], 1, parts, tickets)) return;", ""),
    ("sum_parts<SUMS>(&sums[0][0][0], phases, parts", "sum_parts<SUMS>(&sums[0][0][0], 1, parts"),
    ("int tile = blockIdx.x + gridDim.x * (", "int tile = 0 * ("),
    ("(blockIdx.z % phases)", "0"),
    ("(long long)tile * count * (SIZE", "(long long)tile * (SIZE"),
    ("mine[(part * (SIZE / 4) + i / 4) * THREADS] =", "mine[(part * (SIZE / 4) + i / 8) * THREADS] ="),
    ("sums[i] = sums[i + 1] = sums[i + 2] = sums[i + 3] = 0;", ""),
    ("last_block(tickets + tile, count)", "last_block(tickets, count)"),
    ("last_block(tickets + tile, count)", "last_block(tickets + tile, count + 1)"),
    ("last_block(tickets + tile, count)", "last_block(tickets + tile, count - 1)"),
    ("for (part = 0; part < count; part++)", "for (part = 1; part < count; part++)"),
    ("sums[i + 2] += four.z", "sums[i + 2] += four.y"),
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=" -> ".join)
def test_planted_faults_are_found(cupy, monkeypatch, fault):
    plant(monkeypatch, "conv_tf32.cu", *fault)
    with pytest.raises((AssertionError, runner.CudaError)) as found:
        for turns in ("ascending", "descending"):
            with runner.order(turns):
                for what in CHECKS:
                    check(cupy, what, FIRST)
                    check(cupy, what, STRIDED)
        for what in CHECKS:
            test_a_shorter_last_part(cupy, monkeypatch, what)
    tickets.cache_clear()  # which the fault may have left
    assert "g++" not in str(found.value), "this fault does not compile"
