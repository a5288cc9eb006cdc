"""conv_halo.cu, run on the CPU, against ``naive`` in float64. All inputs are exact in TF32."""

import numpy as np
import pytest
from cuda_on_cpu import runner
from planted import plant
from test_cuda_conv_tf32 import arrays, assert_close, epilogue, tf32, truths

from tinysrgan.ops.cuda import conv_halo, conv_tf32
from tinysrgan.ops.cuda.geometry import geometry

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]

# N H W C K R S stride
CASES = {
    "one tile": (1, 8, 16, 32, 32, 3, 3, 1),
    "remainders down, across and in channels": (2, 9, 19, 64, 96, 3, 3, 1),
    "three slices": (1, 8, 17, 96, 32, 3, 3, 1),
    "three slices to more channels": (1, 8, 16, 96, 64, 3, 3, 1),
}
ODD = CASES["remainders down, across and in channels"]


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
    assert_close(conv_halo.conv2d_grad_input(dy, w, x.shape, x).get(), dx + x.get(), w[:, :, 0].size)


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_y_and_dx_equal_those_of_the_six_loops(cupy, case, turns):
    with runner.order(turns):
        check(cupy, case)


@pytest.mark.cpu_only
@pytest.mark.parametrize("case", ["three slices", "three slices to more channels"])
def test_there_are_no_races(cupy, case):
    with runner.watching():
        check(cupy, CASES[case])


@pytest.mark.parametrize("grad_input", [False, True])
def test_elements_are_rounded_as_if_before_the_launch(cupy, grad_input):
    """The image on its way through shared memory, the weights as they are used; NaN and infinity stay what they are."""
    x, w = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((1, 8, 16, 32), (3, 3, 32, 32)))
    x[0, 2, 3, 5] = np.nan
    x[0, 7, 15, :2] = np.array([0x7FFFFFFF, 0x7F800000], np.uint32).view(np.float32)  # a GPU's own NaN; infinity

    def run(x, w):
        x, w = map(cupy.asarray, (x, w))
        return (conv_halo.conv2d_grad_input(x, w, x.shape) if grad_input else conv_halo.conv2d(x, w)).get()

    with np.errstate(invalid="ignore"):
        rounded = np.where(np.isfinite(x), tf32(x), x)
    found = run(x, w)
    np.testing.assert_array_equal(found, run(rounded, tf32(w)))
    assert (
        np.isnan(found[0, 1:4, 2:5]).all() and np.isnan(found[0, 6:, 14:]).all() and np.isfinite(found[0, :6, 5:]).all()
    )


@pytest.mark.cpu_only
@pytest.mark.parametrize("columns", [32, 64])
@pytest.mark.parametrize("grad_input", [False, True])
def test_blocks_of_a_multiprocessor(grad_input, columns):
    """Three fit in the 228 KB of an H100 and two in the 164 KB of an A100; each reserves 1 KB. 100 KB hold one."""
    bytes_ = conv_halo.shared_memory(grad_input, columns) + 1024
    assert 3 * bytes_ <= 228 * 1024 and 2 * bytes_ <= 164 * 1024 and bytes_ <= 100 * 1024


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
    ("    __syncthreads();  // so have", "    // so have"),
    ("copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"),
    ("    copy_commit();  // also where", "    if (ahead < steps) copy_commit();  // also where"),
    ("ahead = step + STAGES - 1;", "ahead = step + STAGES;"),
    # the tile of the image
    ("row = p - g.top + pixel(k) / ACROSS", "row = p + pixel(k) / ACROSS"),
    ("column = q - g.left + pixel(k) % ACROSS", "column = q - g.left + pixel(k) % WIDTH"),
    ("row >= 0 && row < g.H", "row >= 0 && row <= g.H"),
    ("column >= 0 && column < g.W", "column >= 0 && column < g.W - 1"),
    ("x + (long long)n * g.H * g.W * g.C + channel()", "x + channel()"),
    ("x + (long long)n * g.H * g.W * g.C + channel()", "x + (long long)n * g.H * g.W * g.C"),
    ("row * g.W + column : -1", "row * g.W + column : 0"),
    ("* channels + first", "* channels"),
    ("(PIXELS + STEP - 1) / STEP", "PIXELS / STEP"),
    ("|| pixel(k) < PIXELS", "|| pixel(k) <= PIXELS"),
    ("round_tf32(four->y)", "round_tf32(four->x)"),
    ("slice % 2 * Image::SIZE", "0 * Image::SIZE"),
    # the tiles of weights
    ("apart = g.C, tap = -size", "apart = g.C, tap = size"),
    ("(TAPS * TAPS - 1) * size", "(TAPS * TAPS - 2) * size"),
    ("lines = g.K - column", "lines = LINES"),
    ("column + element < g.K ? LINES : 0", "LINES"),
    ("tap = size, depth = g.K", "tap = size, depth = 1"),
    ("(column + line) * apart + element", "line * apart + element"),
    ("line * apart + column + element", "line * apart + element"),
    ("(r * TAPS + s) * tap", "(s * TAPS + r) * tap"),
    ("+ k * apart;", ";"),
    ("copy_16(tile + r * TAP + (line", "copy_16(tile + (line"),
    ("ahead % TAPS, ahead / TAPS * DEPTH", "ahead % TAPS, slice * DEPTH"),
    ("return r * TAP + column * PITCH + depth;", "return r * TAP + column / 2 * PITCH + depth;"),
    # the product and the result
    ("n % 2 * 8) * Image::PITCH + depth + n / 2 * 4", "n / 2 * 8) * Image::PITCH + depth + n % 2 * 4"),
    ("Weights::at(r, depth + n * 4, k * 8)", "Weights::at(r, depth + n * 2, k * 8)"),
    ("a[line + r], b[k]", "a[line], b[k]"),
    ("line = warp / WARPS_ACROSS * WARP_LINES", "line = warp % WARPS_ACROSS * WARP_LINES"),
    ("warp_column = warp % WARPS_ACROSS", "warp_column = warp % 2"),
    ("HEIGHT * WARPS_ACROSS / WARPS", "HEIGHT / WARPS_ACROSS / 2"),
    ("line * ACROSS + s + i", "line * ACROSS + i"),
    ("step % STAGES * Weights::SIZE + Weights::at", "s % 2 * Weights::SIZE + Weights::at"),
    ("row < g.P && pixel", "row <= g.P && pixel"),
    ("pixel + half * 8 < g.Q", "pixel + half * 8 <= g.Q"),
    ("pixel + half * 8 < g.Q", "pixel < g.Q"),
    (" && channel + k * 8 < g.K", ""),
    ("first + half * 8 * g.K + k * 8) = make", "first + half * 4 * g.K + k * 8) = make"),
    ("(shortcut + first + half * 8 * g.K", "(shortcut + first + half * g.K"),
    ("if (shortcut && exists(k, half))", "if (shortcut)"),
    ("channel + k * 8 + 1)", "channel + k * 8)"),
    ("other + added[k][half].y", "other + added[k][half].x"),
    ("one + added[k][half].x", "one"),
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
