"""Runs an operation on all cores: its work is split into one part per worker.

NumPy releases the GIL while it computes, so threads suffice. BLAS is limited to one thread while workers run, and
restored afterwards, so that its threads do not compete for the cores. A single matrix product takes equally long either
way, but all other operations (copies, sums, activations) use several cores only in this way.

``TINYSRGAN_THREADS`` sets the number of workers; the default is one per core available to this process. If
threadpoolctl finds no BLAS that it can limit, there is a single worker and BLAS stays unlimited.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from tinysrgan.core.errors import UserError
from tinysrgan.ops import malloc

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers() -> int:
    """Worker count: ``TINYSRGAN_THREADS``, else the cores; 1 inside a worker.

    Raises UserError if the variable is not a positive integer.
    """
    if getattr(_this_thread, "works", False) or _blas() is None:
        return 1
    wish = os.environ.get("TINYSRGAN_THREADS")
    if not wish:
        return _cores()
    if not wish.isdecimal() or int(wish) < 1:
        raise UserError(f"TINYSRGAN_THREADS is the number of worker threads, 1 or more, not '{wish}'.")
    return int(wish)


def parallel_map(work: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> list[Result]:
    """Split ``items`` into one run per worker, call ``work`` on every run and return the results in order.

    The runs depend only on the number of workers, so sums over them repeat to the last bit.
    """
    malloc.keep_freed()
    count = min(workers(), len(items))
    if count < 2:
        return [work(items)] if items else []
    cuts = [len(items) * i // count for i in range(count + 1)]
    first, *others = (items[start:stop] for start, stop in pairwise(cuts))
    with single_threaded_blas():
        futures = [_pool(count - 1).submit(copy_context().run, _work, work, run) for run in others]
        try:
            result = _work(work, first)
            return [result, *(_finish(future, work, run) for future, run in zip(futures, others, strict=True))]
        finally:  # even after an error, no worker may still write once this returns
            for future in futures:
                if not future.cancel():
                    future.exception()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread until the last concurrent user leaves; then restore its setting.

    ``parallel_map`` does this itself. Around a whole training step, it also keeps BLAS' own threads, which spin for
    a while after each product, off the workers' cores.
    """
    global _holders, _before
    blas = _blas()
    if blas is None:
        yield
        return
    with _lock:
        if _holders == 0:
            _before = [library.num_threads for library in blas]
            _set_blas_threads([1] * len(blas))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _set_blas_threads(_before)


_this_thread = threading.local()
_lock = threading.Lock()
_holders = 0
_before: list[int]  # BLAS' own setting while it is limited


def _set_blas_threads(counts: list[int]) -> None:
    """Set the number of threads of each BLAS library, from any thread.

    In threadpoolctl 3.8, the first thread that sets it owns OpenBLAS' setting, and changes by other threads are
    silently ignored. So the owner is cleared before and after: the last user is often another thread.
    """
    for library, count in zip(_blas() or (), counts, strict=True):
        clear = getattr(library, "clear_controlling_thread", None)
        if clear:
            clear(force=True)
        library.set_num_threads(count)
        if clear:
            clear(force=True)


def _work(work: Callable[[Sequence[Item]], Result], run: Sequence[Item]) -> Result:
    """Process one run; operations inside it do not split their work again."""
    _this_thread.works = True
    try:
        return work(run)
    finally:
        _this_thread.works = False


def _finish(future: Future[Result], work: Callable[[Sequence[Item]], Result], run: Sequence[Item]) -> Result:
    """The result of a worker's run. If it has not started, for example because its core is busy, compute it here."""
    return _work(work, run) if future.cancel() else future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The worker threads, in addition to the calling thread.

    On Linux, if all cores are used, each thread is pinned to its own core. Otherwise a thread that mostly sleeps
    would be woken on the caller's core and wait for it.
    """
    cores = sorted(os.sched_getaffinity(0))[1:] if hasattr(os, "sched_setaffinity") else []

    def start() -> None:
        with suppress(OSError):  # forbidden in some sandboxes
            os.sched_setaffinity(0, {cores.pop()})

    return ThreadPoolExecutor(threads, "tinysrgan", start if len(cores) == threads else None)


@cache
def _cores() -> int:
    """The number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> list[Any] | None:
    """threadpoolctl's handles of the BLAS libraries; None if it finds none."""
    return ThreadpoolController().select(user_api="blas").lib_controllers or None


def _after_fork() -> None:
    """Reset the state after a fork: the child has no worker threads, and a lock that was held would stay locked."""
    global _lock, _holders
    _lock = threading.Lock()
    if _holders:
        _set_blas_threads(_before)
    _holders = 0
    _this_thread.works = False
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
