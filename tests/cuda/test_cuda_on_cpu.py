"""``cuda_on_cpu``, which runs kernels without a GPU: it behaves like a GPU and detects undefined behaviour."""

import sys

import numpy as np
import pytest
from cuda_on_cpu import runner
from cuda_on_cpu.cupy_on_cpu import cupy_on_cpu, no_reading
from cuda_on_cpu.runner import CudaError, RawModule, order, watching

from tinysrgan.core.device import array_module, to_device
from tinysrgan.ops.device import choose_device

pytestmark = [pytest.mark.kernels, pytest.mark.cpu_only]

REVERSE = """
extern "C" __global__ void reverse(const float *x, float *y) {
  __shared__ float tile[64];
  int first = blockIdx.x * 64;
  tile[threadIdx.x] = x[first + threadIdx.x];
  __syncthreads();
  y[first + threadIdx.x] = tile[63 - threadIdx.x];
}"""

ADD_ONE = """
extern "C" __global__ void add_one(const float *x, float *y, int count) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) y[i] = x[i] + 1;
}"""

COPY = """
extern "C" __global__ void copy(const float *x, float *y) {
  __shared__ __align__(16) float tile[256];
  for (int part = 0; part < 2; part++) {
    copy_16(tile + part * 128 + threadIdx.x * 4, x + part * 128 + threadIdx.x * 4, threadIdx.x < 31);
    copy_commit();
  }
  copy_wait<PENDING>();
  for (int part = 0; part < 2; part++)
    for (int i = 0; i < 4; i++) y[part * 128 + threadIdx.x * 4 + i] = tile[part * 128 + threadIdx.x * 4 + i];
  copy_wait<0>();
}"""

# Each lane loads its elements in the layout of mma.m16n8k8.
PRODUCT = """
extern "C" __global__ void product(const float *a, const float *b, float *c) {
  int i = threadIdx.x / 4, j = threadIdx.x % 4;
  unsigned left[4], right[2];
  for (int n = 0; n < 4; n++) left[n] = to_tf32(a[(i + n % 2 * 8) * 8 + j + n / 2 * 4]);
  for (int n = 0; n < 2; n++) right[n] = to_tf32(b[(j + n * 4) * 8 + i]);
  float sum[4] = {};
  multiply_add(sum, left, right);
  for (int n = 0; n < 4; n++) c[(i + n / 2 * 8) * 8 + 2 * j + n % 2] = sum[n];
}"""


def run(code, name, grid, block, *arguments, options=(), **more) -> None:
    RawModule(code, options).get_function(name)(grid, block, arguments, **more)


def floats(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("turns", runner.ORDERS)
def test_barriers_work_and_a_missing_one_is_detected(turns):
    x = floats(128)
    with order(turns):
        y = np.full_like(x, np.nan)
        run(REVERSE, "reverse", (2,), (64,), x, y)
        np.testing.assert_array_equal(y, x.reshape(2, 64)[:, ::-1].ravel())
        y = np.full_like(x, np.nan)
        run(REVERSE.replace("__syncthreads();", ""), "reverse", (2,), (64,), x, y)
        assert np.isnan(y).any()


def test_accesses_outside_an_array_are_detected():
    x, y = floats(100), np.zeros(100, np.float32)
    run(ADD_ONE, "add_one", (4,), (32,), x, y, np.int32(100))
    np.testing.assert_array_equal(y, x + 1)
    longer = np.zeros(101, np.float32)
    with pytest.raises(CudaError, match=r"block \(3, 0, 0\), thread \(4, 0, 0\) .*near argument 0"):
        run(ADD_ONE, "add_one", (4,), (32,), x, longer, np.int32(101))
    with pytest.raises(CudaError, match="near argument 1"):
        run(ADD_ONE.replace("<", "<="), "add_one", (4,), (32,), longer, y, np.int32(100))
    with pytest.raises(CudaError, match="add_one wrote outside of argument 1"):
        run(ADD_ONE.replace("y[i]", "y[i - 1]"), "add_one", (4,), (32,), x, y, np.int32(100))
    # NaN follows an array whose size is not a multiple of 16 bytes.
    shorter = np.full(99, np.nan, np.float32)
    with pytest.raises(CudaError, match="add_one wrote outside of argument 1"):
        run(ADD_ONE, "add_one", (4,), (32,), x, shorter, np.int32(100))
    run(ADD_ONE, "add_one", (4,), (32,), x[:99], y, np.int32(100))
    assert np.isnan(y[99])


def test_arguments_must_have_the_types_of_the_parameters():
    x = floats(8)
    with pytest.raises(CudaError, match="8 bytes"):
        run(ADD_ONE, "add_one", (1,), (32,), x, x.copy(), 8)
    with pytest.raises(CudaError, match="another number of arguments"):
        run(ADD_ONE, "add_one", (1,), (32,), x, x.copy())
    for argument in (None, np.zeros((), [("n", np.int32)])[()]):
        with pytest.raises(TypeError, match="takes arrays, numbers, and records"):
            run(ADD_ONE, "add_one", (1,), (32,), x, x.copy(), argument)
    with pytest.raises(CudaError, match="contiguous"):
        run(ADD_ONE, "add_one", (1,), (32,), x[::2], x.copy(), np.int32(4))
    with pytest.raises(CudaError, match="no kernel add_two"):
        RawModule(ADD_ONE).get_function("add_two")
    with pytest.raises(CudaError, match="1 to 1024 threads"):
        run(ADD_ONE, "add_one", (1,), (1025,), x, x.copy(), np.int32(8))


def test_an_array_passed_twice_is_one_array():
    x = floats(8)
    y = x.copy()
    run(ADD_ONE, "add_one", (1,), (32,), y, y, np.int32(8))
    np.testing.assert_array_equal(y, x + 1)


@pytest.mark.parametrize("wait", [0, 1])
def test_copies_arrive_at_the_wait_and_not_before(wait):
    x, y = floats(256), np.full(256, np.nan, np.float32)
    run(COPY, "copy", (1,), (32,), x, y, options=[f"-DPENDING={wait}"])
    expected = x.reshape(2, 32, 4).copy()
    expected[:, 31] = 0  # the copy of this lane was outside
    np.testing.assert_array_equal(y[:128], expected[0].ravel())
    if wait:
        assert np.isnan(y[128:]).all()
    else:
        np.testing.assert_array_equal(y[128:], expected[1].ravel())


def test_unfinished_or_unaligned_copies_are_errors():
    x, y = floats(256), np.zeros(256, np.float32)
    with pytest.raises(CudaError, match="never waited for"):
        run(COPY.replace("copy_wait<0>();", ""), "copy", (1,), (32,), x, y, options=["-DPENDING=1"])
    with pytest.raises(CudaError, match="not aligned to 16"):
        code = COPY.replace("x + part", "x + 1 + part")
        run(code, "copy", (1,), (32,), x, y, options=["-DPENDING=0"])


def test_tensor_cores_use_the_layout_of_ptx():
    a, b, c = floats(16, 8, seed=1), floats(8, 8, seed=2), np.full((16, 8), np.nan, np.float32)
    run(PRODUCT, "product", (1,), (32,), a, b, c)
    round_to_tf32 = [((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32).astype(float) for x in (a, b)]
    np.testing.assert_allclose(c, round_to_tf32[0] @ round_to_tf32[1], rtol=1e-5, atol=1e-6)
    assert np.abs(c - a.astype(float) @ b).max() > 1e-5  # the rounding of TF32, which has 10 bits
    code = PRODUCT.replace("i + n % 2 * 8", "i + n / 2 * 8").replace("j + n / 2 * 4]", "j + n % 2 * 4]", 1)
    wrong = np.full_like(c, np.nan)
    run(code, "product", (1,), (32,), a, b, wrong)
    assert not np.allclose(wrong, c, atol=1e-2)


def test_tensor_cores_cut_off_what_float32_would_round():
    code = PRODUCT.replace("sum[4] = {}", "sum[4] = {1, 1, 1, 1}")
    a, b, c = np.zeros((16, 8), np.float32), np.zeros((8, 8), np.float32), np.full((16, 8), np.nan, np.float32)
    a[0, 0], b[0, 0] = 2**-12, 1.75 * 2**-12  # 1 + 1.75 * 2**-24 is nearer to the next float than to 1
    run(code, "product", (1,), (32,), a, b, c)
    assert (c == 1).all()


def test_lanes_of_a_warp_exchange_values():
    code = """
    extern "C" __global__ void sums(const float *x, float *y) {
      float sum = x[threadIdx.x];
      for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
      y[threadIdx.x] = sum;
    }"""
    for turns in runner.ORDERS:
        x, y = np.arange(64, dtype=np.float32), np.full(64, np.nan, np.float32)
        with order(turns):
            run(code, "sums", (1,), (64,), x, y)
        np.testing.assert_array_equal(y, np.repeat(x.reshape(2, 32).sum(axis=1), 32))


def test_a_deadlock_is_an_error():
    code = 'extern "C" __global__ void wait() { if (threadIdx.x < 3) __syncthreads(); else __syncwarp(); }'
    with pytest.raises(CudaError, match="deadlock"):
        run(code, "wait", (1,), (64,))


def test_shared_memory_is_limited():
    code = """
    extern "C" __global__ void fill(float *y) {
      DYNAMIC_SHARED(float, tile);
      tile[threadIdx.x] = 1;
      __syncthreads();
      y[threadIdx.x] = tile[threadIdx.x] + tile[32];
    }"""
    y = np.zeros(32, np.float32)
    run(code, "fill", (1,), (32,), y, shared_mem=256)
    assert np.isnan(y).all()  # tile[32] was never written
    with pytest.raises(CudaError, match="max_dynamic_shared_size_bytes"):
        run(code, "fill", (1,), (32,), y, shared_mem=60_000)
    kernel = RawModule(code).get_function("fill")
    kernel.max_dynamic_shared_size_bytes = 240_000
    with pytest.raises(CudaError, match="227 KiB"):
        kernel((1,), (32,), (y,), shared_mem=240_000)
    large = 'extern "C" __global__ void large(float *y) { __shared__ float tile[12289]; *y = tile[int(*y)]; }'
    with pytest.raises(CudaError, match="48 KiB"):
        run(large, "large", (1,), (1,), y)


def test_compiler_errors_are_reported():
    with pytest.raises(CudaError, match="undeclared"):
        RawModule('extern "C" __global__ void wrong() { undeclared = 1; }')
    code = 'extern "C" __global__ void f(float *y) { float own[9999]; for (float &x : own) x = *y; *y = own[int(*y)]; }'
    with pytest.raises(CudaError, match="frame size"):  # larger than the stack of a fibre
        RawModule(code)


def test_arguments_must_have_the_kinds_of_the_parameters():
    x, n = floats(8), np.int32(8)
    for arguments, message in (
        ((x.astype(np.float64), x.copy(), n), "argument 0 is a pointer to float32, the array is float64"),
        ((x.astype(np.int32), x.copy(), n), "argument 0 is a pointer to float32, the array is int32"),
        ((x, x.copy(), np.float32(8)), "argument 2 is int32, not float32"),
        ((x, x.copy(), x), "argument 2 is int32, not an array"),
        ((x, np.int32(0), n), "argument 1 is a pointer to float32, not int32"),
    ):
        with pytest.raises(CudaError, match=message):
            run(ADD_ONE, "add_one", (1,), (32,), *arguments)
    run(ADD_ONE, "add_one", (1,), (32,), np.uint64(0), np.uint64(0), np.int32(0))  # null pointers, never dereferenced
    with pytest.raises(CudaError, match="none of its memory"):
        run(ADD_ONE, "add_one", (1,), (32,), np.uint64(0), x, n)
    record = np.array((3, 0.5), [("n", np.int32), ("a", np.float32)])
    code = 'struct R { int n; float a; }; extern "C" __global__ void fill(float *y, R r) { y[r.n] = r.a; }'
    run(code, "fill", (1,), (1,), x, record)
    assert x[3] == 0.5


def test_writing_to_a_read_only_array_is_an_error():
    x, y = floats(8), floats(8)
    x.flags.writeable = y.flags.writeable = False
    with pytest.raises(CudaError, match="read-only"):
        run(ADD_ONE, "add_one", (1,), (32,), x, y, np.int32(8))
    np.testing.assert_array_equal(x, y)


def test_views_of_one_array_share_memory():
    x = np.zeros(9, np.float32)
    run(ADD_ONE, "add_one", (1,), (1,), x[:8], x[1:], np.int32(1))
    run(ADD_ONE, "add_one", (1,), (32,), x[1:2], x[2:], np.int32(1))
    np.testing.assert_array_equal(x, [0, 1, 2, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("offset", [0, 1, 2, 4])
def test_vectors_must_be_aligned(offset):
    code = """
    extern "C" __global__ void copy(const float *x, float *y) {
      const float4 four = *(const float4 *)x;
      *(float4 *)y = four;
    }"""
    x, y = floats(8), np.zeros(4, np.float32)
    if offset % 4:
        with pytest.raises(CudaError, match=r"not aligned to its type.\nline 3: .*const float4 four"):
            run(code, "copy", (1,), (1,), x[offset:], y)
    else:
        run(code, "copy", (1,), (1,), x[offset:], y)
        np.testing.assert_array_equal(y, x[offset : offset + 4])


@pytest.mark.parametrize(
    "text, message",
    {
        "tile[n] = 1": r"index outside of the array: 8",
        "tile[n / (n - 8)] = 1": "divides by zero",
        "tile[0] = 1 << (n + 24)": "shifts by 32 bits",
        "*(float *)nullptr = 1": "none of its memory",
    }.items(),
)
def test_undefined_behaviour_is_an_error_with_its_line(text, message):
    code = """
    extern "C" __global__ void wrong(float *y, int n) {
      __shared__ float tile[8];
      tile[0] = 0;
      WRONG;
      y[0] = tile[n - 8];
    }"""
    with pytest.raises(CudaError, match=f"(?s){message}.*line 5: "):
        run(code.replace("WRONG", text), "wrong", (1,), (1,), floats(1), np.int32(8))
    run(code.replace("WRONG;", ""), "wrong", (1,), (1,), floats(1), np.int32(8))


def test_barriers_and_exchanges_need_the_whole_block_or_warp():
    code = """
    extern "C" __global__ void meet() {
      if (threadIdx.x < FIRST)
        THIS;
      else
        THAT;
    }"""

    def meet(first, this, that):
        run(code.replace("THIS", this).replace("THAT", that), "meet", (1,), (64,), options=[f"-DFIRST={first}"])

    for first, this, that, message in (
        (40, "__syncthreads()", "return", "only 40 of 64 threads"),
        (40, "__syncthreads()", "__syncthreads()", "waits at this barrier, another one at that of line 4"),
        (40, "__syncwarp()", "__syncthreads()", "deadlock"),
        (40, "__syncwarp()", "__shfl_sync(~0u, 1, 0)", "calls __shfl_sync .* while its warp is in __syncwarp"),
        (8, "__syncwarp(0x80ff)", "__syncwarp()", "mask ffffffff.* while its warp is in __syncwarp .mask 000080ff"),
        (8, "__syncwarp(0x7f)", "return", "isn't in its own mask 0000007f"),
    ):
        for turns in runner.ORDERS:
            with order(turns), pytest.raises(CudaError, match=message if turns == "ascending" else None):
                meet(first, this, that)
    for turns in runner.ORDERS:
        with order(turns):
            meet(64, "__syncthreads()", "return")
            meet(8, "if (threadIdx.x < 8) __syncwarp(0xff)", "return")
            meet(40, "__syncwarp()", "return")  # threads that have ended are not waited for


def test_shuffles_read_the_lane_they_name():
    code = """
    extern "C" __global__ void shuffles(float *y) {
      const float x = threadIdx.x;
      y[threadIdx.x] = __shfl_sync(~0u, x, 5);
      y[32 + threadIdx.x] = __shfl_up_sync(~0u, x, 3);
      y[64 + threadIdx.x] = __shfl_down_sync(~0u, x, 3);
      y[96 + threadIdx.x] = __shfl_xor_sync(~0u, x, 1, 8);
      y[128 + threadIdx.x] = __shfl_sync(~0u, x, 9, 8);
    }"""
    lanes = np.arange(32)
    for turns in runner.ORDERS:
        y = np.full((5, 32), np.nan, np.float32)
        with order(turns):
            run(code, "shuffles", (1,), (32,), y)
        expected = (lanes * 0 + 5, np.where(lanes < 3, lanes, lanes - 3), np.where(lanes > 28, lanes, lanes + 3))
        np.testing.assert_array_equal(y, [*expected, lanes ^ 1, lanes // 8 * 8 + 1])
    y = np.zeros((5, 32), np.float32)
    run(code, "shuffles", (1,), (20,), y)
    assert np.isnan(y[2, 17:20]).all()  # lanes 20 to 22 do not exist


@pytest.mark.parametrize("turns", runner.ORDERS)
def test_a_barrier_tells_all_threads_whether_one_says_yes(turns):
    code = """
    extern "C" __global__ void vote(int *y) {
      for (int i = 0; i < 4; i++) y[i * 64 + threadIdx.x] = __syncthreads_or(i % 2 && threadIdx.x == 16 * i);
    }"""
    y = np.full((4, 64), -1, np.int32)
    with order(turns):
        run(code, "vote", (2,), (64,), y)
    np.testing.assert_array_equal(y, np.repeat([[0], [1], [0], [1]], 64, axis=1))


@pytest.mark.parametrize("turns", runner.ORDERS)
def test_threads_run_in_the_chosen_order(turns):
    code = """
    extern "C" __global__ void sequence(int *y) {
      __shared__ int next;
      if (next > 64) next = 0;  // the first thread finds NaN
      y[threadIdx.x] = next++;
    }"""
    y, again = np.zeros((2, 64), np.int32)
    with order(turns):
        run(code, "sequence", (1,), (64,), y)
        run(code, "sequence", (1,), (64,), again)
    np.testing.assert_array_equal(y, again)  # the random order repeats
    assert sorted(y) == [*range(64)]
    assert list(y) == {"ascending": [*range(64)], "descending": [*range(63, -1, -1)]}.get(turns, list(y))
    assert turns != "random" or ((y[0] < y[1:]).any() and (y[0] > y[1:]).any())


def test_block_and_grid_sizes_are_limited():
    bounded = ADD_ONE.replace("void add_one", "void __launch_bounds__(64, 2) add_one")
    x = floats(8)
    run(bounded, "add_one", (1,), (64,), x, x.copy(), np.int32(8))
    with pytest.raises(CudaError, match="__launch_bounds__ says 64"):
        run(bounded, "add_one", (1,), (65,), x, x.copy(), np.int32(8))
    for grid, block in (((0,), (32,)), ((1, 65536), (32,)), ((1,), (1, 1, 65)), ((1,), (32, 0))):
        with pytest.raises(CudaError, match=r"a (grid|block) has"):
            run(ADD_ONE, "add_one", grid, block, x, x.copy(), np.int32(8))


def test_thread_and_block_indices():
    code = """
    extern "C" __global__ void place(int *y) {
      const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
      const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
      y[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + thread;
    }"""
    for turns in runner.ORDERS:
        y = np.zeros((2 * 3 * 4, 5 * 6 * 7), np.int32)
        with order(turns):
            run(code, "place", (2, 3, 4), (5, 6, 7), y)
        np.testing.assert_array_equal(y, np.tile(1 + np.arange(5 * 6 * 7), (24, 1)))


# ---------------------------------------------------------------- watching


def test_races_are_detected_in_every_order():
    x = floats(128)
    y = np.full_like(x, np.nan)
    with watching():
        run(REVERSE, "reverse", (2,), (64,), x, y)
        np.testing.assert_array_equal(y, x.reshape(2, 64)[:, ::-1].ravel())
        for turns in runner.ORDERS:
            with order(turns), pytest.raises(CudaError, match=r"race: .*\nline [57]: .*tile\[.*threadIdx.x\]"):
                run(REVERSE.replace("__syncthreads();", ""), "reverse", (2,), (64,), x, y)
        # Within one warp __syncwarp is enough; a shuffle is not.
        warp = REVERSE.replace("64", "32").replace("63", "31")
        run(warp.replace("__syncthreads()", "__syncwarp()"), "reverse", (4,), (32,), x, y)
        np.testing.assert_array_equal(y, x.reshape(4, 32)[:, ::-1].ravel())
        with pytest.raises(CudaError, match="race"):
            run(warp.replace("__syncthreads()", "__shfl_sync(~0u, 1, 0)"), "reverse", (4,), (32,), x, y)


def test_refilling_a_tile_too_early_is_a_race():
    code = """
    extern "C" __global__ void smooth(const float *x, float *y) {
      __shared__ float tile[64];
      for (int i = 0; i < 128; i += 64) {
        tile[threadIdx.x] = x[i + threadIdx.x];
        __syncthreads();
        y[i + threadIdx.x] = tile[threadIdx.x] + tile[(threadIdx.x + 32) % 64];
        __syncthreads();
      }
    }"""
    x, y = floats(128), np.full(128, np.nan, np.float32)
    with watching():
        run(code, "smooth", (1,), (64,), x, y)
        np.testing.assert_array_equal(y.reshape(2, 64), x.reshape(2, 64) + np.roll(x.reshape(2, 64), 32, axis=1))
        with pytest.raises(CudaError, match="race"):
            run(code.replace("        __syncthreads();\n      }", "      }"), "smooth", (1,), (64,), x, y)


def test_copies_of_another_thread_need_a_barrier():
    x, y = floats(256), np.full(256, np.nan, np.float32)
    code = COPY.replace("tile[part * 128 + threadIdx.x * 4 + i]", "tile[part * 128 + (threadIdx.x + 1) % 32 * 4 + i]")
    with watching():
        run(COPY, "copy", (1,), (32,), x, y, options=["-DPENDING=0"])
        with pytest.raises(CudaError, match="race"):
            run(code, "copy", (1,), (32,), x, y, options=["-DPENDING=0"])
        code = code.replace("copy_wait<PENDING>();", "copy_wait<PENDING>(); __syncthreads();")
        run(code, "copy", (1,), (32,), x, y, options=["-DPENDING=0"])


def test_reads_before_an_array_are_detected():
    x, y, n = floats(8), np.zeros(8, np.float32), np.int32(8)
    before = ADD_ONE.replace("x[i]", "x[i - 1]")
    run(before, "add_one", (1,), (32,), x, y, n)
    assert np.isnan(y[0])
    with watching():
        run(ADD_ONE, "add_one", (1,), (32,), x, y, n)
        with pytest.raises(CudaError, match=r"reads what is none of its memory \(near argument 0\)"):
            run(before, "add_one", (1,), (32,), x, y, n)


# ---------------------------------------------------------------- the stand-in for CuPy


def test_the_package_uses_the_stand_in_as_a_gpu():
    with cupy_on_cpu() as cupy:
        module, where = choose_device("cuda")
        assert module is cupy and "CPU in disguise" in where
        x = to_device(floats(3, 4), module)
        assert array_module(x) is cupy and array_module(x * 2 + cupy.ones(4, np.float32)) is cupy
        assert array_module(x.sum(axis=0)) is cupy and array_module(x.mean()) is cupy
        assert array_module(cupy.maximum(x, 0)) is cupy and array_module(cupy.stack([x, x])) is cupy
        assert array_module(np.maximum(x, 0)) is cupy and array_module(np.stack([x, x])) is cupy
        assert array_module(np.asarray([1, 2], x.dtype, like=x)) is cupy
        assert type(to_device(x, np)) is np.ndarray
        assert np.isnan(cupy.empty((2, 2), np.float32).get()).all()


def test_arrays_of_the_cpu_and_the_gpu_do_not_mix():
    with cupy_on_cpu() as cupy:
        x = cupy.asarray(floats(4))
        for mix in (
            lambda: x + floats(4),
            lambda: np.concatenate([x, floats(4)]),
            lambda: cupy.concatenate([x, floats(4)]),
            lambda: x.__iadd__(floats(4)),
            lambda: x @ x,
            lambda: cupy.RawModule(code=ADD_ONE).get_function("add_one")((1,), (4,), (x, floats(4), np.int32(4))),
        ):
            with pytest.raises(TypeError):
                mix()
        for read in (float, int, bool, lambda number: number.item(), lambda number: number.get(), cupy.asnumpy):
            with no_reading(), pytest.raises(TypeError, match="read off"):
                read(x.sum())
        assert float(x.sum()) == pytest.approx(float(x.get().sum()))


def test_a_kernel_follows_addresses_in_an_array():
    code = """
    struct Piece { const float *x; float *y; long long size; };
    extern "C" __global__ void copy(const Piece *pieces) {
      const Piece piece = pieces[blockIdx.x];
      for (int i = threadIdx.x; i < piece.size; i += blockDim.x) piece.y[i] = piece.x[i];
    }"""
    with cupy_on_cpu() as cupy:
        xs = [cupy.asarray(floats(size, seed=size)) for size in (3, 50)]
        ys = [cupy.empty_like(x) for x in xs]
        pieces = cupy.asarray(
            np.array([(x.data.ptr, y.data.ptr, x.size) for x, y in zip(xs, ys, strict=True)], np.uint64)
        )
        cupy.RawModule(code=code).get_function("copy")((2,), (32,), (pieces,))
        for x, y in zip(xs, ys, strict=True):
            np.testing.assert_array_equal(y.get(), x.get())


def test_the_stand_in_is_temporary_and_can_be_any_gpu(monkeypatch):
    before = sys.modules.get("cupy")
    with cupy_on_cpu() as cupy:
        assert sys.modules["cupy"] is cupy
        assert cupy.cuda.Device().compute_capability == "90"
        monkeypatch.setattr("cuda_on_cpu.cupy_on_cpu.COMPUTE_CAPABILITY", "75")
        assert cupy.cuda.Device().compute_capability == "75"
        assert cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"] == 64 * 1024
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        assert (properties["major"], properties["minor"]) == (7, 5)
    assert sys.modules.get("cupy") is before
