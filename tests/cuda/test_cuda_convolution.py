"""conv_reference.cu and conv_tiled.cu, run on the CPU, against ``naive`` in float64.

Memory that a kernel does not write is NaN, threads run in three orders, and the sizes leave remainders in every tile.
"""

from functools import cache

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import no_reading
from planted import plant

from tinysrgan.ops.conv import naive
from tinysrgan.ops.cuda import conv_tiled, convolution
from tinysrgan.ops.cuda.geometry import geometry

pytestmark = pytest.mark.kernels

# N H W C K R S stride
CASES = {
    "few channels": (2, 5, 7, 3, 5, 3, 3, 1),
    "fours": (2, 9, 9, 12, 20, 3, 3, 1),
    "fours, stride 2": (1, 9, 7, 12, 20, 3, 5, 2),
    "even, stride 2": (2, 8, 10, 5, 6, 3, 3, 2),
    "wide": (2, 9, 9, 72, 76, 1, 1, 1),
    "two tiles each way": (2, 7, 11, 132, 200, 1, 1, 1),
    "from three colours": (1, 6, 7, 3, 64, 9, 9, 1),
    "to three colours": (1, 18, 17, 8, 3, 5, 5, 1),
    "to one, stride 2": (1, 7, 5, 4, 1, 7, 7, 2),
    "filter larger than the image": (3, 2, 3, 6, 7, 9, 7, 1),
    "stride larger than the filter": (2, 5, 4, 8, 8, 1, 1, 2),
    "a single pixel": (4, 1, 1, 20, 12, 3, 3, 2),
    "even filter, stride 3": (2, 4, 7, 5, 9, 2, 4, 3),
    "few pixels": (1, 3, 5, 20, 140, 3, 3, 1),
}
# The values of TINY, BLOCKS and SLICES that select each kernel. "In parts": one thread block for each slice.
WAYS = {"reference": (2**62, 1, 1), "tiled": (0, 1, 1), "tiled in parts": (0, 2**16, 1)}


@pytest.fixture
def take(monkeypatch):
    """A function that selects one of the WAYS for all convolutions."""

    def take(way: str) -> None:
        tiny, blocks, slices = WAYS[way]
        monkeypatch.setattr(convolution, "TINY", tiny)
        monkeypatch.setattr(conv_tiled, "BLOCKS", blocks)
        monkeypatch.setattr(conv_tiled, "SLICES", slices)
        conv_tiled.plan.cache_clear()

    yield take
    conv_tiled.plan.cache_clear()


@cache
def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def arrays(case):
    """x, w, dy of a case, and its bias, slope and shortcut."""
    n, h, w, c, k, r, s, stride = case
    y_shape = n, -(-h // stride), -(-w // stride), k
    epilogue = random(k, seed=1), random(k, seed=2), random(*y_shape, seed=3)
    return random(n, h, w, c), random(r, s, c, k, seed=4), random(*y_shape, seed=5), epilogue


def shortcut(case):
    """What is added to dx."""
    return random(*case[:4], seed=6)


def epilogue(y, bias=None, slope=None, shortcut=None):
    y = y if bias is None else y + bias
    y = y if slope is None else np.where(y < 0, slope * y, y)
    return y if shortcut is None else y + shortcut


@cache
def truths(case):
    """y, dx and dw in float64."""
    x, w, dy, extras = arrays(case)
    x, w, dy = (array.astype(np.float64) for array in (x, w, dy))
    return (
        epilogue(naive.conv2d(x, w, case[-1]), *extras),
        naive.conv2d_grad_input(dy, w, x.shape, case[-1]) + shortcut(case),
        naive.conv2d_grad_weight(x, dy, w.shape, case[-1]),
    )


def results(cupy, case, dtype=np.float32):
    x, w, dy, extras = arrays(case)
    a, b, c, d, *more = (cupy.asarray(array.astype(dtype)) for array in (x, w, dy, shortcut(case), *extras))
    with no_reading():
        made = (
            convolution.conv2d(a, b, case[-1], *more, exact=True),
            convolution.conv2d_grad_input(c, b, x.shape, case[-1], d, exact=True),
            convolution.conv2d_grad_weight(a, c, w.shape, case[-1], exact=True),
        )
    return [array.get() for array in made]


def assert_close(result, truth, what="", error=4e-6):
    assert result.shape == truth.shape, what
    np.testing.assert_allclose(result, truth, rtol=0, atol=error * abs(truth).max(), err_msg=what)


def check(cupy, case):
    for result, truth, what in zip(results(cupy, case), truths(case), ("y", "dx", "dw"), strict=True):
        assert result.dtype == np.float32
        assert_close(result, truth, what)


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("turns", runner.ORDERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_y_dx_and_dw_equal_those_of_the_six_loops(cupy, take, case, way, turns):
    take(way)
    with runner.order(turns):
        check(cupy, CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_float64_stays_float64(cupy, case):
    for result, truth in zip(results(cupy, CASES[case], np.float64), truths(CASES[case]), strict=True):
        assert result.dtype == np.float64
        assert_close(result, truth, error=1e-13)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("present", range(8))
def test_bias_slope_and_shortcut_are_optional(cupy, take, way, present):
    take(way)
    x, w, _, extras = arrays(CASES["fours"])
    extras = [array if present >> bit & 1 else None for bit, array in enumerate(extras)]
    given = [None if array is None else cupy.asarray(array) for array in extras]
    y = convolution.conv2d(cupy.asarray(x), cupy.asarray(w), 1, *given, exact=True)
    assert_close(y.get(), epilogue(naive.conv2d(x.astype(np.float64), w.astype(np.float64)), *extras))
    dx = convolution.conv2d_grad_input(y, cupy.asarray(w), x.shape, exact=True)
    assert_close(dx.get(), naive.conv2d_grad_input(y.get().astype(np.float64), w.astype(np.float64), x.shape))


@pytest.mark.parametrize("way", WAYS)
def test_results_do_not_depend_on_the_order_of_threads(cupy, take, way):
    take(way)
    made = []
    for turns in runner.ORDERS:
        with runner.order(turns):
            made.append(results(cupy, CASES["fours, stride 2"]))
    for other in made[1:]:
        for a, b in zip(made[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_arrays_may_be_non_contiguous_or_unaligned(cupy, take):
    take("tiled")
    x, w, dy, _ = arrays(CASES["fours"])
    view = cupy.asarray(np.ascontiguousarray(x.transpose(3, 0, 1, 2))).transpose(1, 2, 3, 0)
    shifted = cupy.empty(dy.size + 1, np.float32)[1:].reshape(dy.shape)
    shifted[...] = cupy.asarray(dy)
    assert shifted.data.ptr % 16 and not view.flags.c_contiguous
    dw = convolution.conv2d_grad_weight(view, shifted, w.shape, exact=True)
    assert_close(dw.get(), truths(CASES["fours"])[2])
    g = geometry(x.shape, w.shape, 1)
    vectors = [conv_tiled.plan("conv_grad_weight", g, (True, fits, True)).defines["VECTOR_RIGHT"] for fits in (0, 1)]
    assert vectors == [1, 4]


# ---------------------------------------------------------------- matrix products


# M K N: a dense layer on few images (its depth is split), one on many, one output, odd sizes.
PRODUCTS = [(3, 2100, 140), (130, 36, 72), (16, 1024, 1), (5, 7, 9), (1, 300, 300)]


@pytest.mark.parametrize("sizes", PRODUCTS)
@pytest.mark.parametrize("turned", ["neither", "a", "b", "both"])
def test_matrix_products_of_transposed_views(cupy, sizes, turned):
    m, k, n = sizes
    a, b = random(m, k), random(k, n, seed=1)
    left = cupy.asarray(np.ascontiguousarray(a.T)).T if turned in ("a", "both") else cupy.asarray(a)
    right = cupy.asarray(np.ascontiguousarray(b.T)).T if turned in ("b", "both") else cupy.asarray(b)
    with no_reading():
        result = convolution.matmul(left, right)
    assert_close(result.get(), a.astype(np.float64) @ b)
    bias = random(n, seed=2)
    assert_close(convolution.matmul(left, right, cupy.asarray(bias)).get(), a.astype(np.float64) @ b + bias)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sizes", PRODUCTS)
def test_gradients_of_a_dense_layer_are_added(cupy, take, way, sizes):
    take(way)
    n, c, k = sizes
    check_gradients_are_added(cupy, n, c, k)


def check_gradients_are_added(cupy, n, c, k, dtype=np.float32, error=4e-6):
    x, dy, w, b = (
        array.astype(dtype) for array in (random(n, c), random(n, k, seed=1), random(c, k, seed=2), random(k))
    )
    w_grad, b_grad = cupy.asarray(w), cupy.asarray(b)
    with no_reading():
        convolution.add_matrix_grads(cupy.asarray(x), cupy.asarray(dy), w_grad, b_grad)
    assert_close(w_grad.get(), w + x.T.astype(np.float64) @ dy, error=error)
    assert_close(b_grad.get(), b + dy.astype(np.float64).sum(axis=0), error=error)


def test_matrix_products_in_float64(cupy):
    a, b = random(40, 50).astype(np.float64), random(50, 60, seed=1).astype(np.float64)
    assert_close(convolution.matmul(cupy.asarray(a), cupy.asarray(b)).get(), a @ b, error=1e-14)
    check_gradients_are_added(cupy, 40, 50, 60, np.float64, 1e-14)


# ---------------------------------------------------------------- the choice of kernels and tiles


def test_the_cases_cover_every_tile_in_every_operation_with_and_without_vector_loads():
    met = set()
    for n, h, w, c, k, r, s, stride in CASES.values():
        g = geometry((n, h, w, c), (r, s, c, k), stride)
        for operation in ("conv_forward", "conv_grad_input", "conv_grad_weight"):
            defines = conv_tiled.plan(operation, g, (True, True, True)).defines
            met.add((operation, defines["ROWS"], defines["COLUMNS"], defines["VECTOR_LEFT"]))
    for tile in conv_tiled.TILES.values():
        for operation in ("conv_forward", "conv_grad_input", "conv_grad_weight"):
            found = {vector for *key, vector in met if key == [operation, tile.rows, tile.columns]}
            assert found, (operation, tile)
    assert {vector for *_, vector in met} == {1, 4}


def test_a_dense_layer_reads_its_weights_once_and_from_many_blocks():
    dense = geometry((1, 1, 16, 32768), (1, 1, 32768, 1024), 1)
    for operation in ("conv_forward", "conv_grad_input"):
        plan = conv_tiled.plan(operation, dense, (True, True, True))
        across, down, parts = plan.grid
        assert across == 1 and down * parts >= 128 and plan.defines["VECTOR_RIGHT"] == 4


def test_one_thread_block_adds_no_more_than_a_megabyte():
    """As in VGG19's last layers for one image: four tiles and a long depth."""
    g = geometry((1, 6, 6, 512), (3, 3, 512, 512), 1)
    for operation in ("conv_forward", "conv_grad_input"):
        plan = conv_tiled.plan(operation, g, (True, True, True))
        assert plan.parts == 16 and 4 * plan.parts * plan.defines["ROWS"] * plan.defines["COLUMNS"] <= 2**20
        assert plan.defines["SPLIT"]
    assert not conv_tiled.plan("conv_forward", geometry((16, 64, 64, 64), (3, 3, 64, 64), 1), (True,) * 3).defines[
        "SPLIT"
    ]


def test_the_grid_of_large_images_is_within_its_limits():
    g = geometry((16, 512, 512, 256), (3, 3, 256, 256), 2)
    for operation in ("conv_forward", "conv_grad_input", "conv_grad_weight"):
        across, down, parts = conv_tiled.plan(operation, g, (True, True, True)).grid
        assert across < 2**31 and down < 2**16 and parts < 2**16


def test_rung():
    def rung(x_shape, w_shape, stride=1, dtype="float32", exact=True):
        return convolution.rung(x_shape, w_shape, stride, np.dtype(dtype), exact)

    large = (1, 32, 32, 64), (3, 3, 64, 64)
    assert rung(*large) == "conv_tiled"
    assert rung(*large, dtype="float64") == rung(*large, dtype="float64", exact=False) == "conv_reference"
    assert rung((1, 3, 3, 3), (3, 3, 3, 4)) == "conv_reference"


# ---------------------------------------------------------------- planted faults

FAULTS = [
    # one thread too many, wrong edges, wrong padding
    ("conv_reference.cu", "i >= (long long)g.N * g.P * g.Q * g.K", "i > (long long)g.N * g.P * g.Q * g.K"),
    ("conv_reference.cu", "row >= g.H ||", "row > g.H ||"),
    ("conv_reference.cu", "column < 0 ||", ""),
    ("conv_reference.cu", "- g.top + r", "- g.left + r"),
    ("conv_reference.cu", "p >= g.P || q >= g.Q", "p >= g.P"),
    ("conv_reference.cu", "down % g.stride || right % g.stride", "down % g.stride"),
    ("conv_reference.cu", "sum < 0", "sum > 0"),
    ("conv_reference.cu", "if (i >= weights) {", "if (i > weights) {"),
    ("conv_reference.cu", "w_grad[i] += sum", "w_grad[i] = sum"),
    ("conv_reference.cu", "b_grad[k] += sum", "b_grad[k] = sum"),
    ("conv_reference.cu", "if (!b_grad || k >= g.K) return;", ""),
    ("conv_tiled.cu", "of_columns = db && blockIdx.x == 0 && ", "of_columns = db && "),
    ("conv_tiled.cu", "slice.right[depth][threadIdx.x]", "slice.right[0][threadIdx.x]"),
    ("conv_tiled.cu", "add ? result : nullptr", "nullptr"),
    ("conv_tiled.cu", "add ? *sum + column_sum : column_sum", "column_sum"),
    ("conv_tiled.cu", "if (of_columns && column < g.K)", "if (of_columns)"),
    ("conv_tiled.cu", "db + blockIdx.z * stride", "db"),
    ("conv_tiled.cu", "dw + blockIdx.z * stride", "dw"),
    ("conv_add_parts.cu", "i >= size + (b_grad ? columns : 0)", "i >= size"),
    ("conv_add_parts.cu", "part * (size + columns)", "part * size"),
    ("conv_add_parts.cu", "b_grad[i - size]) += sum", "b_grad[i - size]) = sum"),
    # barriers and the two slices
    ("conv_tiled.cu", "__syncthreads();\n  for", "for"),
    ("conv_tiled.cu", "__syncthreads();\n  }", "}"),
    ("conv_tiled.cu", "slices[(slice + 1) % 2].left", "slices[slice % 2].left"),
    ("conv_tiled.cu", "slice + 1 < count", "slice + 2 < count"),
    # positions in a tile
    ("conv_tiled.cu", "i / 4 * (4 * DOWN)", "i / 4 * 4"),
    ("conv_tiled.cu", "slice[depth() + j][line(i)]", "slice[depth()][line(i)]"),
    # edges of the matrices
    ("conv_tiled.cu", "if (row < rows)", "if (row <= rows)"),
    ("conv_tiled.cu", "at < depths", "at <= depths"),
    ("conv_tiled.cu", "if (column >= columns) continue;", ""),
    ("conv_tiled.cu", "tap.exists() && c < channels", "c < channels"),
    # edges of the image, padding, steps along the depth
    ("conv_tiled.cu", "(unsigned)row < height", "(unsigned)row <= height"),
    ("conv_tiled.cu", "(unsigned)column < width", "true"),
    ("conv_tiled.cu", "(unsigned)w < g.W", "true"),
    ("conv_tiled.cu", "exists && n < g.N &&", "exists &&"),
    ("conv_tiled.cu", "p * g.stride - g.top, q", "p * g.stride, q"),
    ("conv_tiled.cu", "% g.S - g.left", "% g.S - g.top"),
    ("conv_tiled.cu", "if (++s >= columns)", "if (++s > columns)"),
    ("conv_tiled.cu", "channel += DEPTH", "channel += VECTOR_LEFT"),
    ("conv_tiled.cu", "if (++p == g.P) p = 0, n++", "if (++p == g.P) n++"),
    # phases of a stride
    ("conv_tiled.cu", "Windows<-1>", "Windows<1>"),
    ("conv_tiled.cu", "taps = (size - phase + stride - 1) / stride", "taps = (size - phase) / stride"),
    ("conv_tiled.cu", "(phase + stride - before % stride) % stride", "phase"),
    ("conv_tiled.cu", "first = (first_pixel + before) / stride", "first = first_pixel / stride"),
    ("conv_tiled.cu", "first_r + stride * tap.r", "first_r + tap.r"),
    # parts of the depth, and the epilogue
    ("conv_tiled.cu", "(depth + DEPTH - 1) / DEPTH", "depth / DEPTH"),
    ("conv_tiled.cu", "first = part * each", "first = 0"),
    ("conv_add_parts.cu", "part < count", "part + 1 < count"),
    ("conv_tiled.cu", "sum_parts<SUMS>(sums[0], phases, parts", "sum_parts<SUMS>(sums[0], 1, parts"),
    ("conv_tiled.cu", "if (SPLIT && !sum_parts<SUMS>(sums[0], 1, parts, tickets)) return;", ""),
    ("conv_tiled.cu", "g.C, {nullptr, nullptr, shortcut}", "g.C, {}"),
    ("conv_reference.cu", "{nullptr, nullptr, shortcut}", "{}"),
    ("conv_tiled.cu", "if (bias) sum += bias[channel];\n    if (slope && sum < 0) sum *= slope[channel];",
     "if (slope && sum < 0) sum *= slope[channel];\n    if (bias) sum += bias[channel];"),
    ("conv_tiled.cu", "epilogue(sums[j + 3], i + 3, column + 3)", "epilogue(sums[j + 3], i + 3, column)"),
]  # fmt: skip


@pytest.mark.cpu_only
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}: {fault[1]} -> {fault[2]}".replace("\n", " "))
def test_planted_faults_are_found(cupy, take, monkeypatch, fault):
    file, text, replacement = fault
    plant(monkeypatch, file, text, replacement)
    with pytest.raises((AssertionError, runner.CudaError)):
        for way in ["reference"] if file == "conv_reference.cu" else ["tiled", "tiled in parts"]:
            take(way)
            for turns in runner.ORDERS:
                with runner.order(turns):
                    check(cupy, CASES["fours"])
                    check(cupy, CASES["fours, stride 2"])
                    check_gradients_are_added(cupy, 6, 40, 44)
                    check_gradients_are_added(cupy, 50, 140, 132)
