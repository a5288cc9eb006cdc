"""Every fast implementation equals the readable one, for any blocks and any number of workers."""

import os
import subprocess
import sys
import threading
import tracemalloc
from ast import literal_eval
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from tinysrgan import ops
from tinysrgan.core.errors import UserError
from tinysrgan.ops import malloc, parallel
from tinysrgan.ops.conv import dispatch, few_outputs, im2col, im2col_blocked, naive, winograd
from tinysrgan.ops.conv.epilogue import Epilogue

# ``ops.elementwise`` and ``ops.matmul`` are functions; their modules have the same names.
elementwise, matmul = (import_module(f"tinysrgan.ops.{name}") for name in ("elementwise", "matmul"))


@contextmanager
def cut(workers: int, tiny: bool = True):
    """Set the number of workers. ``tiny`` splits even small arrays into many blocks, chunks and lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYSRGAN_THREADS", str(workers))
        if tiny:
            patch.setattr(im2col_blocked, "BLOCK_ELEMENTS", 200)
            patch.setattr(im2col_blocked, "BLOCK_OUTPUTS", 5)
            patch.setattr(im2col_blocked, "SHARED_WORK", 50)
            patch.setattr(dispatch, "FEW_PIXELS", 0)
            patch.setattr(few_outputs, "CHUNK_ELEMENTS", 500)
            patch.setattr(winograd, "BLOCK_ELEMENTS", 3000)
            patch.setattr(winograd, "SUM_ELEMENTS", 100)
            patch.setattr(elementwise, "LINE_ELEMENTS", 10)
            patch.setattr(elementwise, "BLOCK_ELEMENTS", 40)
            patch.setattr(elementwise, "CACHE_ELEMENTS", 30)
            patch.setattr(elementwise, "SHARED_ELEMENTS", 50)
            patch.setattr(matmul, "SHARED_PRODUCT", 50)
            patch.setattr(matmul, "BLOCK_ELEMENTS", 100)
        yield


def problem(seed, n, h, w, c, k, r, s, stride=1, dtype=np.float64):
    """Random x, weights, bias and dy of a convolution."""
    rng = np.random.default_rng(seed)
    p, q = -(-h // stride), -(-w // stride)
    shapes = (n, h, w, c), (r, s, c, k), (k,), (n, p, q, k)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def expected(x, w, bias, dy, stride=1):
    return (
        naive.conv2d(x, w, stride) + bias,
        naive.conv2d_grad_input(dy, w, x.shape, stride),
        naive.conv2d_grad_weight(x, dy, w.shape, stride),
    )


def chosen(x, w, bias, dy, stride=1):
    return (
        ops.conv2d(x, w, stride, bias),
        ops.conv2d_grad_input(dy, w, x.shape, stride),
        ops.conv2d_grad_weight(x, dy, w.shape, stride),
    )


def assert_close(results, truths, tolerance=1e-10):
    for result, truth in zip(results, truths, strict=True):
        assert result.shape == truth.shape
        assert result.dtype == truth.dtype
        np.testing.assert_allclose(result, truth, rtol=0, atol=tolerance * max(1, abs(truth).max()))


sizes = st.integers(1, 9)
channels = st.integers(1, 5)
filters = st.sampled_from([1, 2, 3, 4, 5, 9])
seeds = st.integers(0, 1000)


# ---------------------------------------------------------------- convolutions


@given(seeds, st.integers(1, 4), sizes, sizes, channels, channels, filters, filters, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_im2col_equals_the_definition(seed, n, h, w, c, k, r, s, stride):
    x, weights, bias, dy = problem(seed, n, h, w, c, k, r, s, stride)
    results = (
        im2col.conv2d(x, weights, stride) + bias,
        im2col.conv2d_grad_input(dy, weights, x.shape, stride),
        im2col.conv2d_grad_weight(x, dy, weights.shape, stride),
    )
    assert_close(results, expected(x, weights, bias, dy, stride))


@given(
    seeds, st.integers(1, 4), sizes, sizes, channels, channels, filters, filters, st.integers(1, 3), st.integers(1, 3)
)
@settings(max_examples=100, deadline=None)
def test_im2col_blocked_equals_the_definition(seed, n, h, w, c, k, r, s, stride, workers):
    x, weights, bias, dy = problem(seed, n, h, w, c, k, r, s, stride)
    with cut(workers):
        results = (
            im2col_blocked.conv2d(x, weights, stride, Epilogue(bias)),
            im2col_blocked.conv2d_grad_input(dy, weights, x.shape, stride),
            im2col_blocked.conv2d_grad_weight(x, dy, weights.shape, stride),
        )
    assert_close(results, expected(x, weights, bias, dy, stride))


odd = st.sampled_from([1, 3, 5, 9])


@given(seeds, st.integers(1, 3), sizes, sizes, channels, channels, odd, odd, st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_few_outputs_equals_the_definition(seed, n, h, w, c, k, r, s, workers):
    x, weights, bias, dy = problem(seed, n, h, w, c, k, r, s)
    y, _, dw = expected(x, weights, bias, dy)
    with cut(workers):
        assert_close(
            [few_outputs.conv2d(x, weights, bias), few_outputs.conv2d_grad_weight(x, dy, weights.shape)], [y, dw]
        )


@given(seeds, st.integers(1, 3), st.integers(1, 18), st.integers(1, 18), channels, channels, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_winograd_equals_the_definition(seed, n, h, w, c, k, workers):
    x, weights, bias, dy = problem(seed, n, h, w, c, k, 3, 3)
    with cut(workers):
        results = (
            winograd.conv2d(x, weights, Epilogue(bias)),
            winograd.conv2d_grad_input(dy, weights),
            winograd.conv2d_grad_weight(x, dy),
        )
    assert_close(results, expected(x, weights, bias, dy))


# One case for every branch of ``choose``: the nets' layers, but smaller.
CASES = {
    "generator's first": (2, 17, 16, 3, 8, 9, 9, 1),
    "generator's last": (2, 21, 20, 16, 3, 9, 9, 1),
    "a body's": (2, 17, 19, 24, 24, 3, 3, 1),
    "a body's, one image": (1, 33, 16, 24, 24, 3, 3, 1),
    "before a shuffle": (1, 23, 23, 16, 64, 3, 3, 1),
    "discriminator's, even": (3, 14, 14, 8, 16, 3, 3, 2),
    "discriminator's, odd": (2, 17, 19, 8, 12, 3, 3, 2),
    "small and deep": (5, 2, 2, 40, 20, 3, 3, 1),
    "smaller than the filter": (2, 2, 3, 4, 5, 9, 9, 1),
}


@cache
def solved(case):
    """Return a case's arrays, its stride and the results of the naive loops, computed once because they are slow."""
    *shape, stride = CASES[case]
    arrays = problem(0, *shape, stride)
    return arrays, stride, expected(*arrays, stride)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_chosen_convolution_equals_the_definition(case, tiny, workers):
    arrays, stride, truths = solved(case)
    with cut(workers, tiny):
        assert_close(chosen(*arrays, stride), truths)


@pytest.mark.parametrize("case", CASES)
def test_float32_errors_stay_small(case):
    arrays, stride, truths = solved(case)
    truths = [truth.astype(np.float32) for truth in truths]
    single = [array.astype(np.float32) for array in arrays]
    assert_close(chosen(*single, stride), truths, 3e-5)
    with ops.exact():
        assert_close(chosen(*single, stride), truths, 2e-6)


def test_the_choice_for_each_shape():
    def kind(h, c, k, r, stride):
        return dispatch.choose(np.empty((1, h, h, c), np.float32), (r, r, c, k), stride)

    assert kind(128, 64, 3, 9, 1) == "few_outputs"
    assert kind(128, 64, 3, 8, 1) == "im2col_blocked"
    assert kind(32, 3, 64, 9, 1) == "im2col_blocked"
    assert kind(32, 64, 64, 3, 1) == "winograd"
    assert kind(15, 64, 64, 3, 1) == "im2col"
    assert kind(32, 8, 8, 3, 1) == "im2col_blocked"
    assert kind(128, 64, 64, 3, 2) == "im2col_blocked"
    with ops.exact():
        assert kind(32, 64, 64, 3, 1) == "im2col_blocked"


def test_exact_holds_for_its_thread_and_workers_until_the_context_ends():
    x, shape = np.empty((1, 32, 32, 64), np.float32), (3, 3, 64, 64)

    def kinds(run=(0,)):
        return [dispatch.choose(x, shape, 1) for _ in run]

    with ThreadPoolExecutor(1) as other_thread, cut(3, tiny=False):
        with ops.exact():
            assert parallel.parallel_map(kinds, [0, 1, 2]) == [["im2col_blocked"]] * 3
            assert other_thread.submit(kinds).result() == ["winograd"]
            with ops.exact(False):
                assert parallel.parallel_map(kinds, [0, 1, 2]) == [["winograd"]] * 3
            assert kinds() == ["im2col_blocked"]
        assert parallel.parallel_map(kinds, [0, 1, 2]) == [["winograd"]] * 3
        with pytest.raises(KeyError), ops.exact():
            raise KeyError
        assert kinds() == ["winograd"]


def test_non_contiguous_views_give_the_same_results():
    x, w, bias, dy = problem(0, 2, 18, 18, 24, 24, 3, 3)
    truth = expected(x, w, bias, dy)

    def scattered(a):
        """The same values in a view that is far from contiguous."""
        return np.repeat(np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0), 2, axis=-1)[..., ::2]

    assert_close(chosen(scattered(x), scattered(w), bias, scattered(dy)), truth)


@pytest.mark.parametrize("shape", [(2, 128, 128, 32, 32, 3, 3), (1, 160, 160, 16, 3, 9, 9)])
def test_the_columns_of_a_large_image_never_exist_all_at_once(shape):
    x, w, bias, dy = problem(0, *shape, dtype=np.float32)
    columns = x.nbytes * w.shape[0] * w.shape[1]
    chosen(x, w, bias, dy)
    tracemalloc.start()
    try:
        results = chosen(x, w, bias, dy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - sum(result.nbytes for result in results) < columns / 2


# ---------------------------------------------------------------- elementwise operations and sums


@given(seeds, st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 2, 3, 7, 11, 32]), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_elementwise_and_sums_cover_every_element(seed, h, w, c, workers):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, h, w, c))
    v, one = rng.standard_normal(c), rng.standard_normal(1)

    def formula(x, y, v, one):
        return np.maximum(x, one) * v + y

    with cut(workers):
        assert_close([elementwise.elementwise(formula, x, y, vectors=[v, one])], [formula(x, y, v, one)])
        sums = elementwise.reduce_channels(lambda *a: (formula(*a), a[0]), x, y, vectors=[v, one])
    assert_close([sums], [np.stack([formula(x, y, v, one).sum(axis=(0, 1)), x.sum(axis=(0, 1))])], 1e-12)


@pytest.mark.parametrize("shapes", [((2, 6), (2, 6), (3,)), ((2, 6), (2, 12), (6,)), ((2, 6), (4, 6), (1,))])
def test_mismatched_shapes_raise(shapes):
    x, y, v = map(np.zeros, shapes)
    with pytest.raises(ValueError, match="one shape"):
        elementwise.elementwise(lambda x, y, v: x + y + v, x, y, vectors=[v])
    with pytest.raises(ValueError, match="one shape"):
        elementwise.reduce_channels(lambda x, y, v: (x + y + v,), x, y, vectors=[v])


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 70), (4, 100, 100, 32), (3, 37, 41, 48)])
def test_elementwise_and_sums_at_real_sizes(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    v = np.arange(1.0, shape[-1] + 1)
    assert_close([elementwise.elementwise(np.multiply, x, vectors=[v])], [x * v])
    assert_close(
        elementwise.reduce_channels(lambda x, v: (x * v,), x, vectors=[v]), [(x * v).reshape(-1, shape[-1]).sum(axis=0)]
    )


def test_float32_sums_keep_their_digits():
    x = np.random.default_rng(0).standard_normal((16, 128, 128, 8), np.float32) + 3
    truth = x.sum(axis=(0, 1, 2), dtype=np.float64)
    (result,) = elementwise.reduce_channels(lambda x: (x,), x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, truth, rtol=2e-7)


@given(seeds, st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), channels, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_by_rows_equals_the_formula(seed, n, h, w, c, workers):
    x, y = np.random.default_rng(seed).standard_normal((2, n, w, h, c)).transpose(0, 1, 3, 2, 4)

    def formula(x, y):
        return (x * y).transpose(0, 1, 3, 2)

    with cut(workers):
        assert_close([elementwise.by_rows(formula, (n, h, c, w), x, y)], [formula(x, y)])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_in_place_covers_every_element_of_every_group(workers):
    def double(a, b):
        a += b
        b *= 0

    groups = [tuple(np.ones((2, *shape))) for shape in [(1,), (7, 30), (0,), (50, 11)]]
    groups.append(tuple(np.asfortranarray(np.ones((20, 30))) for _ in range(2)))
    with cut(workers):
        elementwise.in_place(double, groups)
    for a, b in groups:
        assert (a == 2).all()
        assert (b == 0).all()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (300, 1, 70), (5, 700, 20), (700, 5, 20), (20, 5, 700)])
def test_matrix_products(m, k, n, workers):
    rng = np.random.default_rng(0)
    a, b, total = rng.standard_normal((m, k)), rng.standard_normal((k, n)), rng.standard_normal((m, n))
    expected = a @ b
    with cut(workers):
        assert_close([ops.matmul(a, b), ops.matmul(b.T, a.T)], [expected, expected.T])
        before = total.copy()
        ops.add_product(total, a, b)
    assert_close([total], [before + expected])


# ---------------------------------------------------------------- workers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_repeat_bit_for_bit(workers):
    results = []
    for _ in range(3):
        with cut(workers):
            for case in CASES.values():
                *shape, stride = case
                results.append(chosen(*problem(0, *shape, stride, np.float32), stride))
    third = len(results) // 3
    for first, second, last in zip(results[:third], results[third : 2 * third], results[2 * third :], strict=True):
        for a, b, c in zip(first, second, last, strict=True):
            assert a.tobytes() == b.tobytes() == c.tobytes()


def test_several_threads_may_compute_at_once():
    arrays = problem(0, 4, 16, 16, 24, 24, 3, 3)
    truths = expected(*arrays)
    failures = []

    def compute():
        try:
            for _ in range(5):
                assert_close(chosen(*arrays), truths)
        except BaseException as error:
            failures.append(error)

    with cut(3):
        threads = [threading.Thread(target=compute) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
    assert blas_threads() == before_all


def test_parallel_map_passes_every_item_once_and_in_order():
    for workers in (1, 2, 3, 8):
        with cut(workers):
            for count in (0, 1, 2, 7):
                runs = parallel.parallel_map(list, range(count))
                assert [item for run in runs for item in run] == list(range(count))
                assert len(runs) == min(workers, count)


def test_nested_calls_use_one_worker():
    def inner(run):
        assert parallel.workers() == 1
        return sum(sum(parallel.parallel_map(sum, [item, item])) for item in run)

    with cut(3):
        assert sum(parallel.parallel_map(inner, [1, 2, 3, 4])) == 20
        assert parallel.workers() == 3


def test_a_part_that_no_worker_has_started_runs_in_the_calling_thread():
    free = threading.Event()
    with cut(2):
        blocked = parallel._pool(1).submit(free.wait, 60)
        try:
            assert parallel.parallel_map(sum, [1, 2]) == [1, 2]
            assert not blocked.done()
        finally:
            free.set()


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_in_any_part_is_raised(bad):
    def work(run):
        if bad in run:
            raise KeyError(bad)

    with cut(3), pytest.raises(KeyError):
        parallel.parallel_map(work, [0, 1, 2])
    assert blas_threads() == before_all


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin threads")
def test_only_the_worker_threads_are_pinned(monkeypatch):
    monkeypatch.delenv("TINYSRGAN_THREADS", raising=False)
    cores = os.sched_getaffinity(0)
    barrier = threading.Barrier(len(cores))  # so that every worker runs one part

    def work(run):
        barrier.wait(60)
        return os.sched_getaffinity(0)

    ours, *others = parallel.parallel_map(work, range(len(cores)))
    assert ours == os.sched_getaffinity(0) == cores
    assert all(len(other) == 1 for other in others)
    assert len(set().union(*others)) == len(others) == len(cores) - 1


# Other packages, imported later, may load another BLAS, which parallel.py does not limit.
NUMPYS_BLAS = {library["filepath"] for library in threadpool_info() if library["user_api"] == "blas"}


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["filepath"] in NUMPYS_BLAS]


before_all = blas_threads()


def test_blas_threads_are_restored():
    with cut(2):
        inside = parallel.parallel_map(lambda run: blas_threads(), [1, 2])
        assert all(count == 1 for counts in inside for count in counts)
        assert blas_threads() == before_all
        with parallel.single_threaded_blas():
            parallel.parallel_map(len, [1, 2])
            assert set(blas_threads()) <= {1}
        assert blas_threads() == before_all


@pytest.fixture(params=["nobody", "this thread", "a thread that is gone"])
def owner(request):
    """Set BLAS' threads first from another place: threadpoolctl 3.8 and later ties the setting to that thread."""

    def own() -> None:
        threadpool_limits(limits=before_all[0], user_api="blas")

    if request.param == "this thread":
        own()
    elif request.param == "a thread that is gone":
        thread = threading.Thread(target=own)
        thread.start()
        thread.join()


def hold() -> list[int]:
    with parallel.single_threaded_blas():
        return blas_threads()


def test_blas_is_held_from_any_thread_and_given_back(owner):
    with ThreadPoolExecutor(2) as threads:
        inside = [*threads.map(lambda _: hold(), range(8)), hold(), threads.submit(hold).result(), hold()]
    assert all(set(counts) == {1} for counts in inside)
    assert blas_threads() == before_all


def test_blas_is_held_until_the_last_of_several_threads_is_done(owner):
    """The first thread ends first, so the thread that restores BLAS' threads is not the one that limited them."""
    second_holds, first_is_done = threading.Event(), threading.Event()

    def first() -> None:
        with parallel.single_threaded_blas():
            assert second_holds.wait(60)
        first_is_done.set()

    def second() -> list[int]:
        with parallel.single_threaded_blas():
            second_holds.set()
            assert first_is_done.wait(60)
            return blas_threads()

    with ThreadPoolExecutor(2) as threads:
        futures = threads.submit(first), threads.submit(second)
        assert futures[0].result() is None and set(futures[1].result()) == {1}
        assert blas_threads() == before_all


def test_a_server_thread_computes_with_blas_held():
    """A web server starts a thread for each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(repr(parallel.parallel_map(lambda run: blas_threads(), [1, 2])).encode())

        def log_message(self, *arguments: object) -> None: ...

    with cut(2), ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            for _ in range(2):
                connection = HTTPConnection(*server.server_address[:2], timeout=60)
                connection.request("GET", "/")
                counts = literal_eval(connection.getresponse().read().decode())
                connection.close()
                assert counts == [[1] * len(before_all)] * 2
        finally:
            server.shutdown()
    assert blas_threads() == before_all


def test_the_blas_of_others_stays_theirs():
    """A limit set by the caller is restored afterwards, and the caller can still change it."""
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(1) as threads:
        assert set(threads.submit(hold).result()) == {1} == set(blas_threads())
    assert blas_threads() == before_all


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_its_own_workers():
    with cut(2):
        parallel.parallel_map(len, [1, 2])
        child = os.fork()
        if child == 0:
            os._exit(0 if parallel.parallel_map(len, [1, 2]) == [1, 1] else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_process_exits_while_workers_are_idle():
    code = "from tinysrgan.ops import parallel; print(parallel.parallel_map(len, [1, 2]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TINYSRGAN_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "[1, 1]\n"


def test_with_an_unknown_blas_there_is_one_worker(monkeypatch):
    arrays = problem(0, 2, 17, 19, 24, 24, 3, 3)
    monkeypatch.setattr(parallel.ThreadpoolController, "select", lambda self, user_api: self._from_controllers([]))
    parallel._blas.cache_clear()
    try:
        with cut(3):
            assert parallel.workers() == 1
            assert_close(chosen(*arrays), expected(*arrays))
            with parallel.single_threaded_blas():
                assert blas_threads() == before_all
    finally:
        parallel._blas.cache_clear()


@pytest.mark.parametrize("wish", ["0", "-1", "two", "1.5"])
def test_an_invalid_number_of_workers_is_an_error_that_names_it(monkeypatch, wish):
    monkeypatch.setenv("TINYSRGAN_THREADS", wish)
    with pytest.raises(UserError, match=f"TINYSRGAN_THREADS .*'{wish}'"):
        parallel.parallel_map(len, [1, 2])


def test_a_system_without_mallopt_is_left_alone(monkeypatch):
    class OtherLibrary:
        pass

    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: OtherLibrary())
    malloc.keep_freed.__wrapped__()
