"""A model of how a camera images a symbol, and the symbol that explains a picture best.

A pixel is the weighted sum of the modules that it covers, times a gain, plus an offset. The weights follow from the
point spread function; gain and offset vary slowly over the picture:

    pixel_i = offset_i + gain_i sum_j A_ij m_j + noise,    m_j = 1 for a dark module, -1 for a light one

The grid's position determines A. ``explained`` finds the m with the least noise. If there are fewer pixels than
modules, m is not unique, and the generator's evidence decides. Function patterns are known and stay fixed, and so do
the light modules around the symbol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import erf, isqrt, sqrt

import numpy as np

from tinysrgan.inference.rescuing.grid import Grid
from tinysrgan.inference.rescuing.plane import through
from tinysrgan.inference.rescuing.symbol import function_patterns

FINE = 4  # samples per pixel and axis at which the symbol is looked up
MARGIN = 1.2  # modules around the symbol that the pixels may cover
COLOURS = 4  # modules at this distance share no pixel, so they are updated together


@dataclass(frozen=True)
class View:
    """The pixels of a picture that show a symbol, and the point spread function.

    pixels: float (P,). at: int (P,), their indices in the window. window: (left, top, width, height).
    """

    grid: Grid
    blur: float
    window: tuple[int, int, int, int]
    at: np.ndarray
    pixels: np.ndarray

    @property
    def light(self) -> np.ndarray:
        """The basis in which offset and gain are linear, float (P, 3): 1 and the two coordinates."""
        _, _, width, height = self.window
        y, x = np.divmod(self.at, width)
        return np.stack([np.ones(len(x)), x / width - 0.5, y / height - 0.5], axis=1)


def view(picture: np.ndarray, grid: Grid, blur: float) -> View:
    """The pixels of a grey picture (H, W) that show a symbol and at most MARGIN modules around it.

    blur: the standard deviation, in pixels, of the Gaussian in the point spread function. The pixel's square is the
    other part.
    """
    height, width = picture.shape
    reach = MARGIN * 1.6 * grid.pitch + 1
    left, top = np.maximum(np.floor(grid.corners.min(axis=0) - reach), 0).astype(int)
    right, bottom = np.ceil(grid.corners.max(axis=0) + reach).astype(int)
    window = (int(left), int(top), int(min(right, width) - left), int(min(bottom, height) - top))
    n = grid.modules
    places = _places(grid.matrix, window, 0)
    seen = ((places > -MARGIN) & (places < n + MARGIN)).all(axis=-1)
    inside = seen.reshape(window[3], FINE, window[2], FINE).all(axis=(1, 3))
    at = np.flatnonzero(inside)
    pixels = picture[top : top + window[3], left : left + window[2]].ravel()[at].astype(np.float64)
    return View(grid, blur, window, at, pixels)


def size(grid: Grid) -> int:
    """M: the number of modules in a symbol and in the ring around it."""
    return (grid.modules + 2) ** 2


def footprints(seen: View) -> np.ndarray:
    """A: float32 (P, M), M = (n + 2)^2: the share of each module, ring included, in each pixel."""
    kernel = _kernel(seen.blur)
    reach = len(kernel) // 2 - FINE // 2
    modules = _looked_up(seen.grid, seen.window, reach)
    windows = np.lib.stride_tricks.sliding_window_view(modules, (len(kernel), len(kernel)))[::FINE, ::FINE]
    windows = windows.reshape(-1, len(kernel) ** 2)[seen.at]
    count = size(seen.grid)
    keys = windows + count * np.arange(len(windows))[:, None]
    weights = np.broadcast_to(np.outer(kernel, kernel).ravel(), windows.shape)
    summed = np.bincount(keys.ravel(), weights.ravel(), count * len(windows))
    return summed.reshape(-1, count).astype(np.float32)


def rendered(seen: View, grid: Grid, modules: np.ndarray) -> np.ndarray:
    """A m for the pixels of a view, (P,), computed with the grid ``grid``; modules: float ((n + 2)^2,)."""
    kernel = _kernel(seen.blur)
    reach = len(kernel) // 2 - FINE // 2
    fine = modules[_looked_up(grid, seen.window, reach)]
    down, across = (_spread(kernel, size, fine.shape[axis]) for axis, size in enumerate(seen.window[:1:-1]))
    return (down @ fine @ across.T).ravel()[seen.at]


def _looked_up(grid: Grid, window: tuple[int, int, int, int], reach: int) -> np.ndarray:
    """The index of the module, ring included, at every sample: int (height FINE + 2 reach, width FINE + 2 reach)."""
    n = grid.modules
    column, row = np.moveaxis(np.clip(np.floor(_places(grid.matrix, window, reach)) + 1, 0, n + 1).astype(int), -1, 0)
    return row * (n + 2) + column


def _places(matrix: np.ndarray, window: tuple[int, int, int, int], reach: int) -> np.ndarray:
    """The coordinates, in modules, of a window's samples and of ``reach`` samples around it: (height, width, 2)."""
    left, top, width, height = window
    x = left + (np.arange(width * FINE + 2 * reach) - reach + 0.5) / FINE
    y = top + (np.arange(height * FINE + 2 * reach) - reach + 0.5) / FINE
    points = np.stack(np.meshgrid(x, y), axis=-1)
    return through(np.linalg.inv(matrix), points.reshape(-1, 2)).reshape(points.shape)


@cache
def _kernel(blur: float) -> np.ndarray:
    """The point spread function along one axis: a pixel's square blurred by a Gaussian, FINE samples per pixel."""
    reach = int(np.ceil(2.5 * blur * FINE))
    centre = (np.arange(FINE + 2 * reach) - (FINE + 2 * reach - 1) / 2) / FINE
    scale = sqrt(2) * max(blur, 1e-6)
    weights = np.array([erf((c + 0.5) / scale) - erf((c - 0.5) / scale) for c in centre])
    return weights / weights.sum()


def _spread(kernel: np.ndarray, pixels: int, points: int) -> np.ndarray:
    """A matrix (pixels, points): row i is the kernel shifted by i FINE points."""
    matrix = np.zeros((pixels, points))
    for i in range(pixels):
        matrix[i, i * FINE : i * FINE + len(kernel)] = kernel
    return matrix


@dataclass
class Explanation:
    """The explanation of a view: modules, float ((n + 2)^2,) from -1 to 1 including the ring, and the remaining noise.

    noise: relative to half the contrast between dark and light.
    """

    modules: np.ndarray
    noise: float

    @property
    def symbol(self) -> np.ndarray:
        """The modules without the ring: (n, n)."""
        side = isqrt(len(self.modules))
        return self.modules.reshape(side, side)[1:-1, 1:-1]


def explained(seen: View, prior: np.ndarray, sweeps: int = 12, least: float = 0.03) -> Explanation:
    """Find the modules that explain a view, by mean-field annealing.

    prior: float (n, n), half the log odds of dark over light, from another source.
    """
    grid = seen.grid
    a = footprints(seen)
    known = np.pad(function_patterns(grid.version), 1, constant_values=-1).ravel()
    wide = np.pad(prior, 1).ravel()
    m = np.where(known != 0, known, np.tanh(wide)).astype(np.float32)
    row, column = np.divmod(np.arange(len(m)), grid.modules + 2)
    colour = np.where(known == 0, row % COLOURS * COLOURS + column % COLOURS, -1)
    groups = [np.flatnonzero(colour == c) for c in range(COLOURS**2)]
    columns = [np.ascontiguousarray(a[:, group].T) for group in groups]
    weight = [(part * part).sum(axis=1) for part in columns]
    light = seen.light
    x = a @ m
    for sweep in range(sweeps):
        offset, gain = shading(seen.pixels, x, light)
        y = ((seen.pixels - offset) / gain).astype(np.float32)
        rest = y - x
        variance = max(float(np.mean(rest * rest)), least**2)
        heat = 3.0 if sweep < sweeps // 2 else 1.0
        for group, part, own in zip(groups, columns, weight, strict=True):
            pull = (part @ rest + own * m[group]) / variance + wide[group]
            new = np.tanh(pull / heat).astype(np.float32)
            rest -= (new - m[group]) @ part
            m[group] = new
        x = y - rest
    return Explanation(m, sqrt(variance))


def shading(pixels: np.ndarray, x: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The offset and gain, (P,) each, linear over the picture, that minimise the error of pixels = offset + gain x."""
    basis = np.concatenate([light, light * x[:, None]], axis=1)
    answer = np.linalg.lstsq(basis, pixels, rcond=None)[0]
    offset, gain = light @ answer[:3], light @ answer[3:]
    # Dark modules are darker than light ones everywhere, by at least two grey levels.
    return offset, np.minimum(gain, min(-2.0, 0.3 * float(gain.mean())))


def aligned(seen: View, modules: np.ndarray, iterations: int = 2) -> Grid:
    """Move the grid to where modules, ((n + 2)^2,), explain the pixels best: Gauss-Newton steps over the corners."""
    grid, light = seen.grid, seen.light
    step = 0.3 * grid.pitch  # large enough that many samples move to another module
    for _ in range(iterations):
        now = rendered(seen, grid, modules)
        offset, gain = shading(seen.pixels, now, light)
        rest = (seen.pixels - offset) / gain - now
        slopes = np.empty((8, len(now)))
        for slope, move in zip(slopes, step * np.eye(8).reshape(8, 4, 2), strict=True):
            there, back = (replace(grid, corners=grid.corners + way * move) for way in (1, -1))
            slope[:] = (rendered(seen, there, modules) - rendered(seen, back, modules)) / (2 * step)
        normal = slopes @ slopes.T
        moves = np.linalg.solve(normal + 1e-3 * np.trace(normal) / 8 * np.eye(8), slopes @ rest).reshape(4, 2)
        grid = replace(grid, corners=grid.corners + np.clip(moves, -0.7 * grid.pitch, 0.7 * grid.pitch))
    return grid
