"""Batches made ahead by threads, so that training does not wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tinysrgan.core.errors import UserError

Item = TypeVar("Item")


def prefetch(make: Callable[[int], Item], steps: Iterable[int], workers: int = 1, ahead: int = 4) -> Iterator[Item]:
    """Yield make(step) for every step, in order; threads make up to ``ahead`` items in advance.

    An exception in ``make`` is raised when its item is due. The threads end with the iteration, even if it stops early.
    Raises UserError if a thread can't be started.
    """
    pool = ThreadPoolExecutor(workers, "prefetch")
    waiting: deque[Future[Item]] = deque()
    try:
        for step in steps:
            try:
                waiting.append(pool.submit(make, step))
            except RuntimeError as error:  # Python can't start the thread
                raise UserError("There is too little memory for another thread, or no more are allowed.") from error
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
