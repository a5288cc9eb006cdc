"""From the evidence of a symbol's modules to its text: the symbol is redrawn cleanly and read.

Function patterns are known, so they are drawn regardless of the evidence. The reader corrects the remaining errors or
refuses the symbol.
"""

from __future__ import annotations

import numpy as np

from tinysrgan.inference.rescuing.grid import Grid, centres
from tinysrgan.inference.rescuing.plane import sampled, through
from tinysrgan.inference.rescuing.symbol import format_places, format_words, function_patterns

QUIET = 4
DRAWN = 4  # pixels per module


def evidence(signed: np.ndarray, grid: Grid, spread: float = 0.2) -> np.ndarray:
    """The evidence of each module, float (n, n) from -1 (light) to 1: the mean of five samples of a signed picture."""
    places = centres(grid.version)
    offsets = spread * np.array([(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    seen = sampled(signed, through(grid.matrix, places[None] + offsets[:, None]))
    return seen.mean(axis=0).reshape(grid.modules, grid.modules)


def completed(seen: np.ndarray, version: int) -> np.ndarray:
    """The symbol, bool (n, n), from evidence (n, n), with function patterns and the likeliest format information."""
    places = format_places(version)
    bits = seen[places[..., 0], places[..., 1]].sum(axis=0)
    word = format_words()[(format_words() @ bits).argmax()]
    symbol = seen > 0
    symbol[places[..., 0], places[..., 1]] = word > 0
    known = function_patterns(version)
    return np.where(known != 0, known > 0, symbol)


def drawn(symbol: np.ndarray) -> np.ndarray:
    """Draw a symbol, bool (n, n), with its quiet zone as uint8 pixels."""
    return np.kron(np.where(np.pad(symbol, QUIET), 0, 255).astype(np.uint8), np.ones((DRAWN, DRAWN), np.uint8))
