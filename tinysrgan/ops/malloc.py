"""Keep the memory of arrays that are gone for the next ones, instead of handing it back to the system.

Every step of a training makes and drops the same arrays. The C library gives the memory of large ones back at once
and asks for new pages for the next, and the system has to clear every page before it may be used again: up to half
of the time of a step, and the more so with several threads. Nothing is lost by keeping it: the process takes as much
memory as it needed at its peak.
"""

from __future__ import annotations

import ctypes
from functools import cache

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed() -> None:
    """Have glibc keep freed memory until the process ends. Elsewhere, and from the second call on, nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc: macOS, Windows, musl
        return
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
