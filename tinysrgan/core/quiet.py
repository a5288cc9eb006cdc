"""Keeps what C libraries print off standard error, without losing our own messages."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TextIO


@contextmanager
def own_standard_error() -> Iterator[None]:
    """Give ``sys.stderr`` a descriptor other than 2, so that ``quiet_decoders`` silences libraries and not us."""
    before = sys.stderr
    if not uses_descriptor_2(before):
        yield
        return
    sys.stderr = open(os.dup(2), "w", buffering=1, encoding=before.encoding)  # noqa: SIM115 (closed below)
    try:
        yield
    finally:
        ours, sys.stderr = sys.stderr, before
        with suppress(OSError):  # the reader is gone
            ours.close()


class _Silence:
    """While any thread is in its ``with`` block, descriptor 2 leads nowhere."""

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), 0
        self.kept: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.threads:
                with suppress(OSError):  # it is closed
                    self.kept = os.dup(2)
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, 2)
                    os.close(nowhere)
            self.threads += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.threads -= 1
            if not self.threads and self.kept is not None:
                os.dup2(self.kept, 2)
                os.close(self.kept)
                self.kept = None


_silence = _Silence()


def quiet_decoders() -> AbstractContextManager[None]:
    """Keep what libtiff and libjpeg print about a damaged file off standard error.

    They write to descriptor 2, which all threads share. So this does something only where Python's own messages take
    another descriptor, which ``own_standard_error`` sees to; elsewhere a message of another thread could be lost.
    """
    return nullcontext() if uses_descriptor_2(sys.stderr) else _silence


def uses_descriptor_2(stream: TextIO | None) -> bool:
    """Whether what is printed to a stream goes straight to the process's standard error."""
    with suppress(OSError, ValueError):  # a stream without a descriptor
        return stream is not None and stream.fileno() == 2
    return False
