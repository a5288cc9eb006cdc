"""The operations that follow a convolution, fused into it: bias, PReLU and shortcut.

    y = prelu(convolution + bias) + shortcut

Each of the three is optional. They are applied block by block while a result is in the cache, which saves one pass over
memory each.
"""

from __future__ import annotations

import numpy as np

# Elements that PReLU processes at a time, so that its temporary array stays in the first-level cache.
BLOCK_ELEMENTS = 32 * 1024


def activate(lines: np.ndarray, bias: np.ndarray | None, slope: np.ndarray | None) -> None:
    """Add ``bias``: (K,) to lines of m whole pixels each: (lines, m K), and apply PReLU with ``slope``: (K,), in place.

    NumPy is slow on inner loops of only K elements, so the vectors are repeated to the length of a line.
    """
    if bias is not None:
        lines += np.tile(bias, lines.shape[-1] // len(bias))
    if slope is not None:
        slopes = np.tile(slope, lines.shape[-1] // len(slope))
        step = max(1, BLOCK_ELEMENTS // lines.shape[-1])
        for start in range(0, len(lines), step):
            block = lines[start : start + step]
            scaled = block * slopes
            if slope.max() <= 1:  # then slope x > x exactly for negative x
                np.maximum(block, scaled, out=block)
            else:
                np.copyto(block, scaled, where=block < 0)


def store(result: np.ndarray, shortcut: np.ndarray | None, target: np.ndarray) -> None:
    """target = result + shortcut, all of one shape."""
    if shortcut is None:
        target[...] = result
    else:
        np.add(result, shortcut, out=target)


def apply(y: np.ndarray, bias: np.ndarray | None, slope: np.ndarray | None, shortcut: np.ndarray | None) -> np.ndarray:
    """prelu(y + bias) + shortcut for a whole result y: (N, P, Q, K) at once."""
    if bias is not None:
        y = y + bias
    if slope is not None:
        y = np.where(y < 0, y * slope, y)
    return y if shortcut is None else y + shortcut
