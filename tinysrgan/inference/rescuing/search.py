"""The search for a picture's codes, from fast steps to slow ones.

1. The reader sees the picture itself, then enlarged and sharpened in a few ways.
2. Finder patterns are located, and grids of symbols that fit them. On each grid, the reader sees what the generator
   returns, then samples of the symbols that explain the pixels (``sampling.py``).
3. If nothing was read, a small picture is upscaled as a whole, as it is and with its contrast stretched.

No text is invented: the reader's own error correction must accept it. If two attempts read different texts at the same
place, neither counts. If the reader's error correction is used up, a second attempt must read the same text; samples
resemble each other, so they can't confirm one another, and such a text of a sample is ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinysrgan.inference.rescuing.attempt import attempts
from tinysrgan.inference.rescuing.classical import VARIANTS, variants
from tinysrgan.inference.rescuing.contrast import stretched
from tinysrgan.inference.rescuing.finders import finders
from tinysrgan.inference.rescuing.findings import Findings, Rescued, Result
from tinysrgan.inference.rescuing.grid import Grid
from tinysrgan.inference.rescuing.locate import located
from tinysrgan.inference.rescuing.redraw import completed, drawn
from tinysrgan.inference.rescuing.windows import Window, windows
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.metrics import qr_reader
from tinysrgan.ops.parallel import parallel_map, single_threaded_blas

SMALL = 300_000  # largest picture, in pixels, that is sharpened and upscaled as a whole
LARGEST = 4_000_000  # largest sharpened picture, in pixels, because the reader is slow
CHEAP = 9  # number of sharpened variants; the later steps read what the others would
ENLARGED = 2  # factor of enlargement for the finders' filters
LIKELY = 0.45  # minimum score of a grid if other codes were read
POSSIBLE = 0.33  # minimum score of any grid
TRIED = 12  # maximum number of grids
SAME = 0.5  # modules; two grids whose corners differ by less are the same
HOPELESS = 4  # number of grids without a code after which the search gives up
TOGETHER = 4  # windows between two checks of the time


class Candidate(NamedTuple):
    """A candidate for a code: a grid in a window's pixels, float (H, W). ``inverted``: the pixels are inverted."""

    grid: Grid
    window: Window
    inverted: bool

    @property
    def pixels(self) -> np.ndarray:
        return 255 - self.window.pixels if self.inverted else self.window.pixels

    @property
    def corners(self) -> np.ndarray:
        """The corners of the grid in the picture."""
        return self.window.outside(self.grid).corners

    def repeats(self, other: Candidate) -> bool:
        """Whether the other candidate is the same grid to within a module, perhaps found at another size."""
        near = self.grid.pitch * self.window.reduced * SAME
        alike = self.inverted == other.inverted and self.grid.version == other.grid.version
        return alike and bool(abs(self.corners - other.corners).max() < near)


def search(
    picture: Image.Image, upscaler: Callable[[], Upscaler], seconds: float, progress: Callable[[int], object]
) -> Result:
    """Search a grey picture for codes for about ``seconds`` seconds. ``upscaler`` is called when it is first needed.

    ``progress`` is called with the hundredths of the work done since its last call.
    """
    end = time.monotonic() + seconds
    found, done = Findings(), 0
    with single_threaded_blas():
        for part in _steps(picture, upscaler, found):
            progress(max(int(100 * part) - done, 0))
            done = max(done, int(100 * part))
            if time.monotonic() > end:
                return found.result(complete=False)
    progress(100 - done)
    return found.result(complete=True)


def _steps(picture: Image.Image, upscaler: Callable[[], Upscaler], found: Findings) -> Iterator[float]:
    """The steps of a search, which add to ``found``. After each step, yields the share of the work that is done."""
    found.show(picture, 1, "as it is")
    yield 0.02
    small = picture.width * picture.height <= SMALL
    if small and not found:
        for large, times, sharpened in variants(picture, VARIANTS[:CHEAP], LARGEST):
            ways = "enlarged and sharpened" if sharpened else "enlarged"
            found.show(large, times, f"{ways}, without the generator")
            yield 0.1
    waiting: list[Candidate] = []
    tried: list[Candidate] = []
    parts, part = windows(picture), 0.1
    while some := list(islice(parts, TOGETHER)):
        for candidates in parallel_map(_candidates, [window for window in some if window]):
            waiting += candidates
        part += (0.9 - part) / 10
        yield part
        for _ in _tries(waiting, LIKELY, TRIED, tried, upscaler, found):
            yield part
    if not found:
        for _ in _tries(waiting, POSSIBLE, HOPELESS, tried, upscaler, found):
            yield part
    if small and not found:
        clear = Image.fromarray(np.rint(255 * stretched(np.asarray(picture))).astype(np.uint8))
        for whole, part in ((picture, 0.95), (clear, 1)):
            if not found:
                large, _ = upscaler().upscale(whole)
                found.show(large, upscaler().scale, "the whole picture upscaled by the generator")
                yield part


def _candidates(parts: Sequence[Window]) -> list[Candidate]:
    """The candidates for codes in windows, dark on light and light on dark."""
    found = []
    for window in parts:
        image = Image.fromarray(window.pixels)
        size = (ENLARGED * image.width, ENLARGED * image.height)
        large = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
        grids: list[Grid] = []
        for inverted, marks in enumerate(finders(large)):
            if not grids or grids[0].score < LIKELY:
                grids = located(255 - large if inverted else large, marks)
                found += [Candidate(grid.moved(1 / ENLARGED), window, bool(inverted)) for grid in grids]
    return found


def _tries(
    candidates: list[Candidate],
    least: float,
    most: int,
    tried: list[Candidate],
    upscaler: Callable[[], Upscaler],
    found: Findings,
) -> Iterator[None]:
    """Try the untried candidates of at least the score ``least``, best first, until ``tried`` has ``most`` elements."""
    for candidate in sorted(candidates, key=lambda candidate: -candidate.grid.score):
        if candidate.grid.score < least or len(tried) >= most:
            return
        if not found.covers(candidate.corners) and not any(map(candidate.repeats, tried)):
            tried.append(candidate)
            yield from _tried(candidate, upscaler, found)


def _tried(candidate: Candidate, upscaler: Callable[[], Upscaler], found: Findings) -> Iterator[None]:
    """Try to read a candidate until its place is settled; yields between the attempts."""
    for modules, fitted, how, repeated in attempts(candidate.pixels, candidate.grid, upscaler()):
        picture = drawn(completed(modules, fitted.version))
        for code in qr_reader.located_codes(picture)[:1]:
            if repeated and not code.unused:
                continue
            corners = candidate.window.outside(fitted).corners
            found.add(Rescued(code.text, corners, how, Image.fromarray(picture), code.unused != 0))
            if found.covers(corners):
                return
        yield
