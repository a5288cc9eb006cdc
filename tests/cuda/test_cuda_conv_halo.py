"""conv_halo.cu, run on the CPU, against ``naive`` in float64. All inputs are exact in TF32."""

import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu
from planted import plant
from test_cuda_conv_tf32 import arrays, assert_close, epilogue, truths

from tinysrgan.ops.cuda import conv_halo, conv_tf32
from tinysrgan.ops.cuda.geometry import geometry

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]

# N H W C K R S stride
CASES = {
    "one tile": (1, 8, 16, 32, 32, 3, 3, 1),
    "remainders down, across and in channels": (2, 9, 19, 64, 96, 3, 3, 1),
    "three slices": (1, 8, 17, 96, 32, 3, 3, 1),
}
ODD = CASES["remainders down, across and in channels"]


@pytest.fixture
def cupy():
    conv_tf32.capable.cache_clear()
    with cupy_on_cpu() as cupy:
        yield cupy
    conv_tf32.capable.cache_clear()


def check(cupy, case) -> None:
    x, w, dy, (bias, slope, shortcut) = arrays(case)
    y, dx, _ = truths(case)
    x, w, dy = map(cupy.asarray, (x, w, dy))
    assert_close(conv_halo.conv2d(x, w).get(), y, w[..., 0].size)
    for present in (7, 1, 2, 4):  # all three, or each alone
        extras = [extra if present >> i & 1 else None for i, extra in enumerate((bias, slope, shortcut))]
        found = conv_halo.conv2d(x, w, *(None if extra is None else cupy.asarray(extra) for extra in extras))
        assert_close(found.get(), epilogue(y, *extras), w[..., 0].size)
    assert_close(conv_halo.conv2d_grad_input(dy, w, x.shape).get(), dx, w[:, :, 0].size)


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_y_and_dx_equal_those_of_the_six_loops(cupy, case, turns):
    with runner.order(turns):
        check(cupy, case)


@pytest.mark.cpu_only
def test_there_are_no_races(cupy):
    with runner.watching():
        check(cupy, CASES["three slices"])


def test_takes(cupy):
    def takes(height=8, width=16, size=3, stride=1):
        return conv_halo.takes(geometry((1, height, width, 32), (size, size, 32, 32), stride))

    assert takes() and takes(100, 100)
    assert not (takes(height=7) or takes(width=15) or takes(size=5) or takes(size=1) or takes(16, 32, stride=2))


def test_conv_tf32_calls_conv_halo(cupy, monkeypatch):
    x, w, dy, _ = arrays(ODD)
    called = []
    for name in ("conv2d", "conv2d_grad_input"):
        monkeypatch.setattr(conv_halo, name, lambda *arguments, name=name: called.append(name))
    conv_tf32.conv2d(cupy.asarray(x), cupy.asarray(w))
    conv_tf32.conv2d_grad_input(cupy.asarray(dy), cupy.asarray(w), x.shape)
    assert called == ["conv2d", "conv2d_grad_input"]


FAULTS = [
    ("    __syncthreads();", "    "),
    ("copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"),
    ("    copy_commit();  // also where", "    if (ahead < steps) copy_commit();  // also where"),
    ("ahead = step + STAGES - 1;", "ahead = step + STAGES;"),
    ("row = p - g.top + pixel / across", "row = p + pixel / across"),
    ("column = q - g.left + pixel % across", "column = q - g.left + pixel % WIDTH"),
    ("row >= 0 && row < g.H", "row >= 0 && row <= g.H"),
    ("column >= 0 && column < g.W", "column >= 0 && column < g.W - 1"),
    ("* g.C + first + channel : x", "* g.C + channel : x"),
    ("opposite = g.R * g.S - 1 - tap", "opposite = tap"),
    ("g.K;\n    const float *from = w + ((long long)tap", "g.K + 1;\n    const float *from = w + ((long long)tap"),
    ("((long long)tap * g.C + first + c)", "((long long)tap * g.C + c)"),
    ("n % 2 * 8) * PITCH + depth + n / 2 * 4", "n / 2 * 8) * PITCH + depth + n % 2 * 4"),
    ("weights[(depth + n * 4) * ROW + k * 8]", "weights[(depth + n * 2) * ROW + k * 8]"),
    ("weights[k * 8 * PITCH + depth + n * 4]", "weights[k * 4 * PITCH + depth + n * 4]"),
    ("line = warp / 2 * WARP_LINES", "line = warp % 2 * WARP_LINES"),
    ("line + tap / g.S) * across + tap % g.S", "line + tap % g.S) * across + tap / g.S"),
    ("slice % 2 * image_size", "0 * image_size"),
    ("step % STAGES * WEIGHTS + j * ROW", "tap % STAGES * WEIGHTS + j * ROW"),
    ("ahead % taps, ahead / taps * DEPTH", "ahead % taps, slice * DEPTH"),
    ("row >= g.P || pixel", "row > g.P || pixel"),
    ("pixel >= g.Q", "pixel > g.Q"),
    ("pixel = q + i + half * 8", "pixel = q + i + half * 4"),
    ("|| channel >= g.K", ""),
    ("at + 1, channel + 1)", "at + 1, channel)"),
    ("at + 1, channel + 1)", "at, channel + 1)"),
    ("return shortcut ? sum + shortcut[i] : sum", "return sum"),
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]} -> {fault[1]}".replace("\n", " "))
def test_planted_faults_are_found(cupy, monkeypatch, fault):
    plant(monkeypatch, "conv_halo.cu", *fault)
    with pytest.raises((AssertionError, runner.CudaError)) as found:
        for turns in runner.ORDERS:
            with runner.order(turns):
                check(cupy, ODD)
                check(cupy, CASES["three slices"])
    assert "g++" not in str(found.value), "this fault does not compile"
