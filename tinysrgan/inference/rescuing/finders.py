"""Detects finder patterns with matched filters of several sizes and angles.

At one pixel per module, finder patterns lack the sharp edges that a reader needs, but the pattern as a whole is still
recognisable. The picture is therefore correlated with blurred finder patterns, independent of brightness and contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from tinysrgan.inference.rescuing.contrast import box_mean

PITCHES = (1.4, 1.65, 1.95, 2.3, 2.8, 3.4, 4.2)  # pixels per module; the last is three times the first
ANGLES = (0, 22.5, 45, 67.5)  # degrees; the pattern repeats after a quarter turn
RADIUS = 4.4  # radius, in modules, of the filters: the pattern and its surroundings
BLUR = 0.45  # standard deviation, in pixels, of the blur in the filters
FLAT = 8  # grey levels; smaller standard deviations are treated as noise
LEAST = 0.36  # minimum correlation of a finder
BETWEEN = 22.5  # degrees: halfway between upright and diagonal
NEAR = 5  # pixels
FINE = 5  # samples per pixel and axis when a filter is drawn


@dataclass(frozen=True)
class Finder:
    """A candidate for a finder pattern: its centre in pixels, pixels per module, and correlation."""

    x: float
    y: float
    pitch: float
    likeness: float

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.x, self.y])

    def moved(self, scale: float, shift: Sequence[float] = (0, 0)) -> Finder:
        """The same place after the picture was moved by ``shift``, (x, y), then scaled by ``scale``."""
        x, y = (self.x + shift[0]) * scale, (self.y + shift[1]) * scale
        return replace(self, x=float(x), y=float(y), pitch=self.pitch * scale)


def finders(picture: np.ndarray, most: int = 12) -> tuple[list[Finder], list[Finder]]:
    """The most likely finder patterns in a grey picture (H, W), at most ``most``: dark on light, then light on dark.

    The picture should be enlarged: at less than 1.5 pixels per module, a shift by half a pixel hides a pattern.
    """
    x, reach = _bordered(picture, PITCHES, ANGLES)
    shape = _shape(x)
    spectrum, squares = np.fft.rfft2(x, shape), np.fft.rfft2(x * x, shape)

    def likeness(pitch: float) -> tuple[np.ndarray, np.ndarray]:
        patterns, disc, count, half = _spectra(pitch, ANGLES, shape)
        cut = _inner(picture, reach - half)
        mean = np.fft.irfft2(spectrum * disc, shape)[cut] / count
        energy = np.fft.irfft2(squares * disc, shape)[cut] - count * mean * mean
        scale = 1 / np.sqrt(np.maximum(energy, count * FLAT**2))
        every = [np.fft.irfft2(spectrum * pattern, shape)[cut] for pattern in patterns]
        return scale * np.maximum.reduce(every), scale * np.minimum.reduce(every)

    return _both(likeness, PITCHES, most)


def marks(picture: np.ndarray, most: int, pitches: tuple[float, ...]) -> tuple[list[Finder], list[Finder]]:
    """A rough version of ``finders`` in a third of the time: one angle, and one measure of contrast for all sizes.

    The angle is halfway between upright and diagonal. The contrast is measured over squares of 2 NEAR + 1 pixels.
    """
    x, reach = _bordered(picture, pitches, (BETWEEN,))
    shape = _shape(x)
    spectrum = np.fft.rfft2(x, shape)
    inner = x[_inner(picture, reach)]
    mean = box_mean(inner, NEAR)
    scale = 1 / np.sqrt(np.maximum(box_mean(inner * inner, NEAR) - mean * mean, FLAT**2)).astype(np.float32)

    def likeness(pitch: float) -> tuple[np.ndarray, np.ndarray]:
        [pattern], _, count, half = _spectra(pitch, (BETWEEN,), shape)
        found = np.fft.irfft2(spectrum * pattern, shape)[_inner(picture, reach - half)] * (scale / np.sqrt(count))
        return found, found

    return _both(likeness, pitches, most)


def _both(
    likeness: Callable[[float], tuple[np.ndarray, np.ndarray]], pitches: tuple[float, ...], most: int
) -> tuple[list[Finder], list[Finder]]:
    """The highest maxima, then the lowest minima, over all pitches. ``likeness`` maps a pitch to two maps (H, W)."""
    high, low = likeness(pitches[0])
    best, worst = high.copy(), -low
    size, other = np.zeros((2, *best.shape), np.int8)
    for number, pitch in enumerate(pitches[1:], 1):
        high, low = likeness(pitch)
        for top, which, new in ((best, size, high), (worst, other, -low)):
            which[new > top] = number
            np.maximum(top, new, out=top)
    return _peaks(best, size, pitches, most), _peaks(worst, other, pitches, most)


def _bordered(picture: np.ndarray, pitches: tuple[float, ...], angles: tuple[float, ...]) -> tuple[np.ndarray, int]:
    """Pad a picture, float32, by repeating its border so that every filter fits; return it and the padding."""
    reach = len(filters(pitches[-1], angles)[1]) // 2
    return np.pad(picture.astype(np.float32) - np.float32(picture.mean()), reach, mode="edge"), reach


def _shape(x: np.ndarray) -> tuple[int, int]:
    return _fast(x.shape[0]), _fast(x.shape[1])


def _inner(picture: np.ndarray, start: int) -> tuple[slice, slice]:
    height, width = picture.shape
    return slice(start, start + height), slice(start, start + width)


def _peaks(likeness: np.ndarray, size: np.ndarray, pitches: tuple[float, ...], most: int) -> list[Finder]:
    """The highest maxima, at most one per place, located to a fraction of a pixel."""
    found: list[Finder] = []
    rest = likeness.copy()
    while len(found) < most:
        y, x = (int(i) for i in np.unravel_index(rest.argmax(), rest.shape))
        if rest[y, x] < LEAST:
            break
        pitch = pitches[size[y, x]]
        right, down = _vertex(likeness[y], x), _vertex(likeness[:, x], y)
        found.append(Finder(x + right + 0.5, y + down + 0.5, pitch, float(likeness[y, x])))
        reach = max(round(2.5 * pitch), 2)
        rest[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = -1
    return found


def _vertex(values: np.ndarray, at: int) -> float:
    """The offset from ``at`` of the vertex of the parabola through that value and its neighbours."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(values[at + k]) for k in (-1, 0, 1))
    bend = before - 2 * here + after
    return min(max(0.5 * (before - after) / bend, -0.5), 0.5) if bend < 0 else 0.0


def _fast(size: int) -> int:
    """The next larger size for a fast Fourier transform: even, without prime factors above 5."""
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and size % 2 == 0:
            return size
        size += 1


@lru_cache(32)
def _spectra(
    pitch: float, angles: tuple[float, ...], shape: tuple[int, int]
) -> tuple[list[np.ndarray], np.ndarray, float, int]:
    """The conjugate spectra of ``filters`` for tiles of a shape, the number of pixels in the disc, and its radius."""
    patterns, disc = filters(pitch, angles)
    spectra = [np.fft.rfft2(pattern, shape).conj() for pattern in (*patterns, disc)]
    return spectra[:-1], spectra[-1], float(disc.sum()), len(disc) // 2


@cache
def filters(pitch: float, angles: tuple[float, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Finder patterns at these angles as matched filters of norm 1 and mean 0, and the disc that they cover."""
    reach = int(np.ceil(RADIUS * pitch))
    side = 2 * reach + 1
    place = (np.arange(FINE * (side + 4)) + 0.5) / FINE - reach - 2.5
    x, y = place[None, :] / pitch, place[:, None] / pitch
    step = np.arange(side) - reach
    disc = (np.hypot(step[:, None], step) <= RADIUS * pitch).astype(np.float32)
    blur = np.exp(-0.5 * (np.arange(-2, 3) / BLUR) ** 2)
    blur /= blur.sum()
    patterns = []
    for angle in angles:
        u, v = (np.cos(np.radians(angle)) * a + np.sin(np.radians(angle)) * b for a, b in ((x, y), (y, -x)))
        ring = np.maximum(abs(u), abs(v))
        light = np.where((ring < 1.5) | ((ring > 2.5) & (ring < 3.5)), 0.0, 1.0)
        seen = light.reshape(side + 4, FINE, side + 4, FINE).mean(axis=(1, 3))
        for axis in (0, 1):
            seen = np.apply_along_axis(np.convolve, axis, seen, blur, "valid")
        pattern = disc * (seen - (disc * seen).sum() / disc.sum())
        patterns.append((pattern / np.linalg.norm(pattern)).astype(np.float32))
    return patterns, disc
