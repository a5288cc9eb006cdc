"""All cores at once: cut the work of an operation into one part for each worker.

NumPy lets go of Python's lock while it computes, so threads are enough. BLAS would like the cores for itself: while
our workers run it is held to one thread, and has its own setting back afterwards. One matrix product is as quick
either way, but all the rest (copies, sums, activations) only runs on more than one core like this.

``TINYSRGAN_THREADS`` sets the number of workers; without it every core that this process may use gets one. With a BLAS
that threadpoolctl does not know, and so can't hold to one thread, there is a single worker and BLAS is left alone.
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
    """How many workers share an operation: as many as ``TINYSRGAN_THREADS`` or the cores, but inside of a worker 1.

    Raises UserError where the variable is not a positive whole number.
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
    """Cut ``items`` into as many runs as there are workers, call ``work`` on every run, return the results in order.

    For a number of workers the runs are always the same, so that sums over them repeat to the last bit.
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
        finally:  # even where a part failed, nobody may still write when we leave
            for future in futures:
                if not future.cancel():
                    future.exception()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread until the last of those who asked for it is done; then give it its setting back.

    ``share`` asks by itself. Around a whole training step it also keeps BLAS' own threads, which spin for a while
    after each product of theirs, off the cores of our workers.
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
_before: list[int]  # BLAS' own setting while we hold it


def _set_blas_threads(counts: list[int]) -> None:
    """Set the number of threads of each BLAS library, from whichever thread this is.

    For threadpoolctl 3.8 the first thread that sets it owns OpenBLAS' setting, and what other threads set is silently
    ignored. So the ownership is cleared before, and also afterwards: the last holder is often another thread.
    """
    for library, count in zip(_blas() or (), counts, strict=True):
        clear = getattr(library, "clear_controlling_thread", None)
        if clear:
            clear(force=True)
        library.set_num_threads(count)
        if clear:
            clear(force=True)


def _work(work: Callable[[Sequence[Item]], Result], run: Sequence[Item]) -> Result:
    """Do one part; operations inside of it don't divide their work again."""
    _this_thread.works = True
    try:
        return work(run)
    finally:
        _this_thread.works = False


def _finish(future: Future[Result], work: Callable[[Sequence[Item]], Result], run: Sequence[Item]) -> Result:
    """The result of a worker's part. If it hasn't begun, perhaps because another program has its core, we do it."""
    return _work(work, run) if future.cancel() else future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The worker threads other than the one that asks.

    On Linux each has a core of its own if all cores are taken: a thread that sleeps most of the time would otherwise
    be woken on the core of the one that wakes it, to wait there for its turn.
    """
    cores = sorted(os.sched_getaffinity(0))[1:] if hasattr(os, "sched_setaffinity") else []

    def start() -> None:
        with suppress(OSError):  # forbidden in some sandboxes
            os.sched_setaffinity(0, {cores.pop()})

    return ThreadPoolExecutor(threads, "tinysrgan", start if len(cores) == threads else None)


@cache
def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> list[Any] | None:
    """threadpoolctl's handles on the BLAS libraries; None where it finds none."""
    return ThreadpoolController().select(user_api="blas").lib_controllers or None


def _after_fork() -> None:
    """A forked process has none of the threads; a lock that one of them held would stay locked for ever."""
    global _lock, _holders
    _lock = threading.Lock()
    if _holders:
        _set_blas_threads(_before)
    _holders = 0
    _this_thread.works = False
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
