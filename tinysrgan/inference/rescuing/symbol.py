"""The known parts of a QR symbol: its size, function patterns and words of format information.

Modules are numbered by row and column from the top left; a symbol is n x n modules, n = 17 + 4 version. 1 is dark, -1
light, 0 depends on the text. Source: ISO/IEC 18004.
"""

from __future__ import annotations

from functools import cache

import numpy as np

FINDER = 7  # width of a finder pattern, in modules
VERSIONS = range(1, 11)  # in higher versions, a code this small has more modules than pixels


def side(version: int) -> int:
    """The number of modules along the side of a symbol."""
    return 17 + 4 * version


@cache
def function_patterns(version: int) -> np.ndarray:
    """int8 (n, n): finders with separators, timing and alignment patterns, the dark module, version information."""
    n = side(version)
    known = np.zeros((n, n), np.int8)
    known[6, :] = known[:, 6] = 1 - 2 * (np.arange(n) % 2)
    for row, column in ((0, 0), (0, n - FINDER), (n - FINDER, 0)):
        rows, columns = np.ogrid[-1:8, -1:8]
        ring = np.maximum(abs(rows - 3), abs(columns - 3))
        inside = (slice(max(row - 1, 0), row + 8), slice(max(column - 1, 0), column + 8))
        cut = (slice(0 if row else 1, 9 if row == 0 else 8), slice(0 if column else 1, 9 if column == 0 else 8))
        known[inside] = np.where((ring == 2) | (ring == 4), -1, 1)[cut]
    for row, column in alignment_centres(version):
        ring = np.maximum(*map(np.abs, np.ogrid[-2:3, -2:3]))
        known[row - 2 : row + 3, column - 2 : column + 3] = np.where(ring == 1, -1, 1)
    known[n - 8, 8] = 1
    if version >= 7:
        bits = np.array([1 if _bch(version, 12, 0x1F25) >> i & 1 else -1 for i in range(18)], np.int8).reshape(6, 3)
        known[:6, n - 11 : n - 8], known[n - 11 : n - 8, :6] = bits, bits.T
    known.flags.writeable = False
    return known


def alignment_centres(version: int) -> list[tuple[int, int]]:
    """The row and column of the centre of every alignment pattern."""
    if version == 1:
        return []
    count, last = version // 7 + 2, side(version) - 7
    step = 2 * -(-(last - 6) // (2 * (count - 1)))  # 18, 20, 22 and so on; only the first step differs
    places = [6, *(last - step * i for i in reversed(range(count - 1)))]
    corners = {(6, 6), (6, last), (last, 6)}
    return [(row, column) for row in places for column in places if (row, column) not in corners]


@cache
def format_places(version: int) -> np.ndarray:
    """int (2, 15, 2): row and column of the bits of the format information, bit 0 first, in each of its two copies."""
    n = side(version)
    around = [(i, 8) for i in (*range(6), 7, 8)] + [(8, i) for i in (7, *range(5, -1, -1))]
    apart = [(8, n - 1 - i) for i in range(8)] + [(i, 8) for i in range(n - 7, n)]
    return np.array([around, apart])


@cache
def format_words() -> np.ndarray:
    """int8 (32, 15): every word of format information, bit 0 first."""
    words = [_bch(data, 10, 0x537) ^ 0x5412 for data in range(32)]
    return np.array([[1 if word >> i & 1 else -1 for i in range(15)] for word in words], np.int8)


def _bch(data: int, degree: int, generator: int) -> int:
    """The data followed by the remainder of data x^degree divided by the generator, over GF(2)."""
    rest = data << degree
    for bit in reversed(range(degree, rest.bit_length())):
        if rest >> bit & 1:
            rest ^= generator << bit - degree
    return data << degree | rest
