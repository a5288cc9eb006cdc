"""Makes the C library reuse freed memory instead of returning it to the operating system.

Every training step allocates and frees the same arrays. By default glibc returns the memory of a large array at once
and requests new pages for the next one, and the kernel clears each page first. This takes up to half of the time of a
step, and more with several threads. Reuse does not raise the peak: the process only keeps the memory that it needed at
its peak.
"""

from __future__ import annotations

import ctypes
from functools import cache

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed() -> None:
    """Let glibc keep freed memory until the process ends. Does nothing with other C libraries or on later calls."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc: macOS, Windows, musl
        return
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
