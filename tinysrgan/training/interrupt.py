"""Ctrl-C without loss: training finishes the step, saves, then stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (SIGINT) or SIGTERM only sets a flag; a second one stops at once. Yields the flag's reader.

    Only the main thread can handle signals. In any other thread nothing is changed and the flag stays unset.
    """
    stopped = False

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        restore()

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: stopped
    finally:
        restore()
