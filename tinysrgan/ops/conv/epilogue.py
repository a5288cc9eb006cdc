"""The operations that follow a convolution, fused into it: bias, PReLU and shortcut.

    y = prelu(convolution + bias) + shortcut

Each of the three is optional. They are applied block by block while a result is in the cache, which saves one pass over
memory each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Elements that PReLU processes at a time, so that its temporary array stays in the first-level cache.
BLOCK_ELEMENTS = 32 * 1024


class Epilogue(NamedTuple):
    """bias and slope: (K,); shortcut: (N, P, Q, K), as the result."""

    bias: np.ndarray | None = None
    slope: np.ndarray | None = None
    shortcut: np.ndarray | None = None

    def store(self, result: np.ndarray, at: tuple[slice, ...], y: np.ndarray) -> None:
        """y[at] = result + shortcut[at], for a result that is activated already."""
        if self.shortcut is None:
            y[at] = result
        else:
            np.add(result, self.shortcut[at], out=y[at])

    def apply(self, y: np.ndarray) -> np.ndarray:
        """prelu(y + bias) + shortcut for a whole result y: (N, P, Q, K) at once."""
        if self.bias is not None:
            y = y + self.bias
        if self.slope is not None:
            y = np.where(y < 0, y * self.slope, y)
        return y if self.shortcut is None else y + self.shortcut


NOTHING = Epilogue()


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
