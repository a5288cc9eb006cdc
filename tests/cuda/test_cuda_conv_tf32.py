"""conv_tf32.cu, run on the CPU, against ``naive`` in float64.

All inputs are exact in TF32, so the only rounding errors are those of the tensor cores' sums, and larger errors are
faults. Tensor cores cut off where float32 rounds, so the errors don't cancel: they grow with the terms of a sum.
Memory that a kernel does not write is NaN, threads run in three orders, and the sizes leave remainders in every tile.
"""

from functools import cache

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import no_reading
from planted import plant

from tinysrgan.ops.conv import naive
from tinysrgan.ops.cuda import conv_halo, conv_tf32, convolution
from tinysrgan.ops.cuda.geometry import geometry

pytestmark = [pytest.mark.kernels, pytest.mark.tensor_cores]

# N H W C K R S stride
CASES = {
    "remainders, two tiles each way": (1, 11, 13, 32, 96, 2, 3, 1),
    "remainders the other way, stride 2": (2, 9, 17, 96, 32, 3, 3, 2),
    "filter larger than the image": (3, 2, 3, 32, 32, 5, 9, 1),
    "stride larger than the filter": (2, 5, 4, 64, 32, 1, 1, 2),
    "largest filter, stride 3": (1, 4, 5, 32, 32, 16, 1, 3),
    "a single pixel": (2, 1, 1, 32, 32, 3, 3, 2),
}
FIRST, STRIDED = list(CASES.values())[:2]


@pytest.fixture
def in_parts(monkeypatch):
    """One thread block for each slice of dw's depth."""
    monkeypatch.setattr(conv_tf32, "BLOCKS", 2**16)
    monkeypatch.setattr(conv_tf32, "SLICES", 1)


def tf32(x):
    """x rounded to 10 bits of mantissa, ties away from zero."""
    return ((x.astype(np.float32).view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


@cache
def random(*shape, seed=0):
    return tf32(np.random.default_rng([seed, *shape]).standard_normal(shape))


def arrays(case):
    """x, w, dy of a case, and its bias, slope and shortcut."""
    n, h, w, c, k, r, s, stride = case
    y_shape = n, -(-h // stride), -(-w // stride), k
    epilogue = random(k, seed=1), random(k, seed=2), random(*y_shape, seed=3)
    return random(n, h, w, c), random(r, s, c, k, seed=4), random(*y_shape, seed=5), epilogue


def epilogue(y, bias=None, slope=None, shortcut=None):
    y = y if bias is None else y + bias
    y = y if slope is None else np.where(y < 0, slope * y, y)
    return y if shortcut is None else y + shortcut


@cache
def truths(case):
    """y before its epilogue, dx and dw in float64."""
    x, w, dy = (array.astype(np.float64) for array in arrays(case)[:3])
    return (
        naive.conv2d(x, w, case[-1]),
        naive.conv2d_grad_input(dy, w, x.shape, case[-1]),
        naive.conv2d_grad_weight(x, dy, w.shape, case[-1]),
    )


def assert_close(result, truth, depth):
    """Equal up to half a unit in the last of 24 bits for each of ``depth`` products and each step of an epilogue."""
    assert result.shape == truth.shape and result.dtype == np.float32
    np.testing.assert_allclose(result, truth, rtol=0, atol=(depth + 8) * 2**-24 * abs(truth).max())


def check_y(cupy, case):
    x, w, _, extras = arrays(case)
    with no_reading():
        y = conv_tf32.conv2d(*map(cupy.asarray, (x, w)), case[-1], *map(cupy.asarray, extras))
    assert_close(y.get(), epilogue(truths(case)[0], *extras), w[..., 0].size)


def check_dx(cupy, case):
    x, w, dy, _ = arrays(case)
    shortcut = random(*x.shape, seed=6)
    with no_reading():
        dx = conv_tf32.conv2d_grad_input(*map(cupy.asarray, (dy, w)), x.shape, case[-1], cupy.asarray(shortcut))
    assert_close(dx.get(), truths(case)[1] + shortcut, w[:, :, 0].size)


def gradients(cupy, x, dy, w_shape, stride=1):
    """dw added to zeros, and the bias's gradient added to ones."""
    w_grad, b_grad = cupy.zeros(w_shape, np.float32), cupy.ones(w_shape[-1], np.float32)
    conv_tf32.add_gradients(x, dy, w_grad, b_grad, stride)
    return w_grad, b_grad


def check_dw(cupy, case):
    x, w, dy, _ = arrays(case)
    with no_reading():
        dw, db = gradients(cupy, *map(cupy.asarray, (x, dy)), w.shape, case[-1])
    depth = dy[..., 0].size
    assert_close(dw.get(), truths(case)[2], depth)
    assert_close(db.get(), 1 + dy.astype(np.float64).sum(axis=(0, 1, 2)), depth)


CHECKS = {"y": check_y, "dx": check_dx, "dw": check_dw}


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_y_dx_and_dw_equal_those_of_the_six_loops(cupy, case, what, turns):
    with runner.order(turns):
        CHECKS[what](cupy, CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_dw_in_many_parts(cupy, in_parts, case):
    n, h, w, c, k, r, s, stride = CASES[case]
    g = geometry((n, h, w, c), (r, s, c, k), stride)
    assert conv_tf32.weight_grid(g)[2] == -(-g.N * g.P * g.Q // conv_tf32.DEPTH)
    check_dw(cupy, CASES[case])


def test_dw_in_parts_with_a_shorter_last_one(cupy, monkeypatch):
    monkeypatch.setattr(conv_tf32, "BLOCKS", 8)
    monkeypatch.setattr(conv_tf32, "SLICES", 1)
    assert conv_tf32.weight_grid(geometry((1, 11, 13, 32), (2, 3, 32, 96), 1)) == (2, 2, 2)
    check_dw(cupy, FIRST)


@pytest.mark.parametrize("present", range(8))
def test_bias_slope_and_shortcut_are_optional(cupy, present):
    x, w, _, extras = arrays(FIRST)
    extras = [array if present >> bit & 1 else None for bit, array in enumerate(extras)]
    given = [None if array is None else cupy.asarray(array) for array in extras]
    y = conv_tf32.conv2d(cupy.asarray(x), cupy.asarray(w), 1, *given)
    assert_close(y.get(), epilogue(truths(FIRST)[0], *extras), w[..., 0].size)


def check_rounding(cupy, height, width):
    """y and dx of inputs that TF32 cannot hold are rounded to nearest; the tensor cores alone would truncate them."""
    generator = np.random.default_rng(0)
    x, w = (generator.standard_normal(shape).astype(np.float32) for shape in ((1, height, width, 32), (3, 3, 32, 32)))
    a, b = map(cupy.asarray, (x, w))
    for found, truth in (
        (conv_tf32.conv2d(a, b), naive.conv2d),
        (conv_tf32.conv2d_grad_input(a, b, x.shape), lambda dy, w: naive.conv2d_grad_input(dy, w, x.shape)),
    ):
        assert_close(found.get(), truth(*(tf32(array).astype(np.float64) for array in (x, w))), w[..., 0].size)
        exact = truth(*(array.astype(np.float64) for array in (x, w)))
        assert 1e-5 < abs(found.get() - exact).max() / abs(exact).max() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(4, 5), (8, 16)], ids=["implicit GEMM", "halo"])
def test_inputs_are_rounded_to_the_nearest_tf32_value(cupy, height, width):
    check_rounding(cupy, height, width)


def test_results_do_not_depend_on_the_order_of_threads(cupy, in_parts):
    x, _, dy, _ = arrays(FIRST)
    made = []
    for turns in runner.ORDERS:
        with runner.order(turns):
            made.append(gradients(cupy, *map(cupy.asarray, (x, dy)), (2, 3, 32, 96))[0].get())
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_arrays_may_be_non_contiguous_or_unaligned(cupy):
    x, w, dy, _ = arrays(FIRST)
    view = cupy.asarray(np.ascontiguousarray(x.transpose(3, 0, 1, 2))).transpose(1, 2, 3, 0)
    shifted = cupy.empty(dy.size + 1, np.float32)[1:].reshape(dy.shape)
    shifted[...] = cupy.asarray(dy)
    assert shifted.data.ptr % 16 and not view.flags.c_contiguous
    assert_close(gradients(cupy, view, shifted, w.shape)[0].get(), truths(FIRST)[2], dy[..., 0].size)
    total = cupy.zeros(w.size + 1, np.float32)[1:].reshape(w.shape)
    conv_tf32.add_gradients(view, shifted, total, cupy.zeros(w.shape[-1], np.float32))
    assert_close(total.get(), truths(FIRST)[2], dy[..., 0].size)


@pytest.mark.cpu_only
@pytest.mark.parametrize("what", CHECKS)
def test_there_are_no_races(cupy, what):
    with runner.watching():
        CHECKS[what](cupy, FIRST)
        CHECKS[what](cupy, STRIDED)


def test_float64_gradients_of_float32_arrays_are_not_written_as_float32(cupy):
    x, w, dy, _ = arrays(FIRST)
    w_grad, b_grad = cupy.zeros(w.shape, np.float64), cupy.zeros(w.shape[-1], np.float64)
    convolution.add_conv2d_grads(*map(cupy.asarray, (x, dy)), w_grad, b_grad, 1, exact=False)
    np.testing.assert_allclose(w_grad.get(), truths(FIRST)[2], rtol=0, atol=1e-11)


# ---------------------------------------------------------------- the choice of kernels


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("case", [(1, 9, 17, 32, 12, 5, 5, 1), (1, 7, 9, 64, 44, 3, 1, 2), (1, 8, 16, 32, 12, 3, 3, 1)])
def test_the_forward_pass_takes_any_fours_of_outputs(cupy, case, turns):
    """As the last layer of a fused generator has: 5x5 to 12. The last case is one for conv_halo.cu."""
    assert conv_tf32.takes((3, 3, 32, 12), forward=True) and not conv_tf32.takes((3, 3, 32, 10), forward=True)
    assert convolution.rung(case[:4], (*case[5:7], *case[3:5]), 1, np.dtype(np.float32)) == "conv_tiled"
    with runner.order(turns):
        check_y(cupy, case)


def test_takes(cupy):
    def takes(c=64, k=64, r=3, s=3):
        return conv_tf32.takes((r, s, c, k))

    assert takes() and takes(c=96, k=512) and takes(r=16, s=1)
    assert not any((takes(c=3), takes(k=3), takes(c=48), takes(k=80), takes(r=17), takes(s=17)))


@pytest.mark.cpu_only
@pytest.mark.parametrize(("capability", "taken"), [("75", False), ("80", True), ("89", True), ("100", True)])
def test_takes_only_on_gpus_with_tf32(cupy, monkeypatch, capability, taken):
    monkeypatch.setattr("cuda_on_cpu.cupy_on_cpu.COMPUTE_CAPABILITY", capability)
    assert conv_tf32.takes((3, 3, 64, 64)) == taken


def test_convolutions_use_tensor_cores_unless_exact(cupy):
    x, w, _, extras = arrays(FIRST)
    a, b = map(cupy.asarray, (x, w))
    with no_reading():
        y = convolution.conv2d(a, b, 1, *map(cupy.asarray, extras))
        same_y = conv_tf32.conv2d(a, b, 1, *map(cupy.asarray, extras))
    np.testing.assert_array_equal(y.get(), same_y.get())
    assert convolution.rung(x.shape, w.shape, 1, x.dtype) == "conv_tf32"
    assert convolution.rung(x.shape, w.shape, 1, x.dtype, exact=True) == "conv_tiled"


def test_grids_are_within_their_limits_and_have_no_empty_parts():
    for n, size in ((16, 512), (1, 1), (16, 33)):
        g = geometry((n, size, size, 256), (3, 3, 256, 256), 1)
        across, down, parts = conv_tf32.weight_grid(g)
        slices = -(-n * size * size // conv_tf32.DEPTH)
        assert across < 2**31 and down < 2**16 and 1 <= parts < 2**16
        assert (parts - 1) * -(-slices // parts) < slices


def test_two_blocks_fit_in_the_shared_memory_of_a_multiprocessor():
    """An A100 has 164 KB, of which each block reserves 1 KB; a desktop GPU's 99 KB hold one block."""
    for name in ("conv_forward", "conv_grad_input", "conv_grad_weight"):
        for columns in (conv_halo.COLUMNS, conv_halo.FEW_COLUMNS):
            bytes_ = conv_tf32.shared_memory(name, columns)
            assert 2 * (bytes_ + 1024) <= 164 * 1024 and bytes_ <= 99 * 1024


# ---------------------------------------------------------------- planted faults

FAULTS = [
    # barriers, waits, stages
    ("__syncthreads();", ""),
    ("copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"),
    ("    copy_wait<STAGES - 2>();  // this thread's copies of the slice have arrived,\n    __syncthreads();",
     "    __syncthreads();\n    copy_wait<STAGES - 2>();"),
    ("copy(slice + STAGES - 1);", "copy(slice + STAGES);"),
    ("slice % STAGES *", "slice % (STAGES - 1) *"),
    ("if (slice < count) right", "if (slice + 1 < count) right"),
    # the gradient of the bias, and what the gradients are added to
    ("of_columns = blockIdx.x == 0 && ", "of_columns = "),
    ("slice[Matrix::at(threadIdx.x, depth)]", "slice[Matrix::at(threadIdx.x, 0)]"),
    ("add ? *sum + column_sum : column_sum", "column_sum"),
    ("if (of_columns && column < g.K)", "if (of_columns)"),
    ("db + blockIdx.z * stride", "db"),
    ("dw + blockIdx.z * stride", "dw"),
    # positions in a fragment
    ("k % 2 * 8 + lane_i(), depth + k / 2 * 4", "k / 2 * 8 + lane_i(), depth + k % 2 * 4"),
    ("depth + k * 4", "depth + k"),
    ("threadIdx.x % 32 / 4", "threadIdx.x % 32 % 8"),
    ("sums[i / 2][j] + i % 2 * 2", "sums[i / 2][j] + i % 2"),
    ("return threadIdx.x / 32 / ACROSS", "return threadIdx.x / 32 % ACROSS"),
    ("to_tf32(left", "__float_as_uint(left"),
    ("to_tf32(right", "__float_as_uint(right"),
    ("PITCH = LINES + 8", "PITCH = LINES + 12"),  # beyond the launcher's shared memory
    # edges of the matrices
    ("if (row >= rows) continue;", "if (row > rows) continue;"),
    ("if (column >= columns) continue;", ""),
    ("row < depths && column < columns", "column < columns"),
    ("row < depths && column < columns", "row < depths"),
    ("channel + (long long)c * tap.channels, c < channels", "channel + (long long)c * tap.channels, c <= channels"),
    ("left.set_window(i, row < rows, n, p", "left.set_window(i, true, n, p"),
    ("inside = n < g.N &&", "inside ="),
    # edges of the image, padding, steps along the depth
    ("exists && (unsigned)(top + DIRECTION * r) < height", "exists && (unsigned)(top + DIRECTION * r) <= height"),
    ("(unsigned)(left + DIRECTION * s) < width", "left + DIRECTION * s < width"),
    ("(inside[i] & both) == both", "(inside[i] & both)"),
    ("(unsigned)w < g.W", "(unsigned)w <= g.W"),
    ("p * g.stride - g.top, q", "p * g.stride - g.left, q"),
    ("% g.S - g.left", "% g.S - g.top"),
    ("if (++s == columns)", "if (++s > columns)"),
    ("if ((channel += DEPTH) < channels) return;", ""),
    ("if (++p == g.P) p = 0, n++", "if (++p == g.P) n++"),
    # phases of a stride
    ("Windows<-1>", "Windows<1>"),
    ("taps = (size - phase + stride - 1) / stride", "taps = (size - phase) / stride"),
    ("(phase + stride - before % stride) % stride", "phase"),
    ("first = (first_pixel + before) / stride", "first = first_pixel / stride"),
    ("first_r + stride * tap.r", "first_r + tap.r"),
    # parts of the depth, and the epilogue
    ("left(x, part.first * DEPTH, g)", "left(x, part.first * DEPTH + DEPTH, g)"),
    ("(depth + DEPTH - 1) / DEPTH", "depth / DEPTH"),
    ("epilogue(two[1], at + 1, column + 1)", "epilogue(two[1], at + 1, column)"),
    ("epilogue(two[1], at + 1, column + 1)", "epilogue(two[1], at, column + 1)"),
    ("place, {nullptr, nullptr, shortcut}", "place, {}"),
    ("sum *= slope[channel]", "sum *= slope[channel ^ 1]"),
    ("sum < 0", "sum > 0"),
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: " -> ".join(fault).replace("\n", " "))
def test_planted_faults_are_found(cupy, monkeypatch, fault):
    plant(monkeypatch, "conv_tf32.cu", *fault)
    with pytest.raises((AssertionError, runner.CudaError)):
        for turns in runner.ORDERS:
            with runner.order(turns):
                for check in CHECKS.values():
                    check(cupy, FIRST)
                    check(cupy, STRIDED)
                test_dw_in_parts_with_a_shorter_last_one(cupy, monkeypatch)
                check_rounding(cupy, 4, 5)


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("image.round(tile)", ""),
        ("if (s == 0) image.round", "if (s == 1) image.round"),
        ("to_tf32(weights", "__float_as_uint(weights"),
    ],
)
def test_missing_rounding_in_conv_halo_is_found(cupy, monkeypatch, text, wrong):
    """The other faults of conv_halo.cu are in test_cuda_conv_halo.py, with inputs that need no rounding."""
    plant(monkeypatch, "conv_halo.cu", text, wrong)
    with pytest.raises(AssertionError):
        check_rounding(cupy, 8, 16)
