"""What follows a convolution, done to a band of its results while they are in the cache.

    y = prelu(convolution + bias) + shortcut

Each of the three may be absent. On whole arrays they would go to memory and back once each.
"""

from __future__ import annotations

import numpy as np

# Numbers to take both steps of PReLU for before the next, in a core's own cache.
BLOCK_NUMBERS = 32 * 1024


def activate(lines: np.ndarray, bias: np.ndarray | None, slope: np.ndarray | None) -> None:
    """Add ``bias``: (K,) to lines of whole pixels: (lines, m K), and apply PReLU with ``slope``: (K,), in place.

    In lines, because NumPy is slow at K numbers at a time.
    """
    if bias is not None:
        lines += np.tile(bias, lines.shape[-1] // len(bias))
    if slope is not None:
        slopes = np.tile(slope, lines.shape[-1] // len(slope))
        step = max(1, BLOCK_NUMBERS // lines.shape[-1])
        for start in range(0, len(lines), step):
            block = lines[start : start + step]
            scaled = block * slopes
            if slope.max() <= 1:  # then slope x is the larger one just where x is negative
                np.maximum(block, scaled, out=block)
            else:
                np.copyto(block, scaled, where=block < 0)


def store(result: np.ndarray, shortcut: np.ndarray | None, target: np.ndarray) -> None:
    """target = result + shortcut, all of one shape."""
    if shortcut is None:
        target[...] = result
    else:
        np.add(result, shortcut, out=target)
