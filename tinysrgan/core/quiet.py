"""Silences what C libraries print to standard error, but not tinysrgan's own messages."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, suppress
from typing import TextIO


@contextmanager
def own_standard_error() -> Iterator[None]:
    """Give ``sys.stderr`` a descriptor other than 2, so that ``quiet_decoders`` silences only the libraries."""
    before = sys.stderr
    if before is None:  # it is closed
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
        return
    if not uses_descriptor_2(before):
        yield
        return
    sys.stderr = open(os.dup(2), "w", buffering=1, encoding=before.encoding)  # noqa: SIM115 (closed below)
    try:
        yield
    finally:
        ours, sys.stderr = sys.stderr, before
        with suppress(OSError):  # the reader has closed the pipe
            ours.close()


class _Silence:
    """Redirects descriptor 2 to the null device while any thread is in the ``with`` block."""

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), 0
        self.saved: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.threads:
                with suppress(OSError):  # it is closed
                    self.saved = os.dup(2)
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, 2)
                    os.close(nowhere)
            self.threads += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.threads -= 1
            if not self.threads and self.saved is not None:
                os.dup2(self.saved, 2)
                os.close(self.saved)
                self.saved = None


_silence = _Silence()


def quiet_decoders() -> AbstractContextManager[None]:
    """Silence what libtiff and libjpeg print about a damaged file.

    They write to descriptor 2, which all threads share. So this only works inside ``own_standard_error``, where
    tinysrgan's messages use another descriptor; elsewhere it does nothing, so that no other thread's message is
    lost.
    """
    return nullcontext() if uses_descriptor_2(sys.stderr) else _silence


def uses_descriptor_2(stream: TextIO | None) -> bool:
    """Whether a stream writes to descriptor 2, the process's standard error."""
    with suppress(OSError, ValueError):  # a stream without a descriptor
        return stream is not None and stream.fileno() == 2
    return False
