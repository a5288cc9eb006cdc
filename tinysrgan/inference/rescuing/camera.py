"""A model of how a camera images a symbol.

A pixel is a weighted sum of the modules around it, times a gain, plus an offset. Offset and gain vary slowly over the
picture:

    pixel_i = offset_i + gain_i sum_j A_ij m_j + noise,    m_j = 1 for a dark module, -1 for a light one

The weights A follow from the grid's position and from three steps: a Gaussian blurs the symbol (defocus), a pixel takes
the mean over its square, and each pixel is then mixed with its neighbours (``response``: sharpening, motion, and what a
Gaussian can't describe). The light modules around the symbol belong to m.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from math import erf, sqrt

import numpy as np

from tinysrgan.inference.rescuing.grid import Grid
from tinysrgan.inference.rescuing.plane import through

FINE = 8  # samples per pixel and axis at which the symbol is looked up
SIDE = 3  # width, in pixels, of a response
BLURS = (0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)  # pixels, the standard deviation of the Gaussian
REACH = 24  # samples on each side of a pixel that its kernel covers
RIDGE = 100.0  # weight of the assumption that a response does nothing
MARGIN = 1.2  # modules around the symbol that the pixels may cover


@dataclass(frozen=True)
class View:
    """The pixels of a picture that show a symbol, and the camera that took them.

    pixels: float (P,). at: int (P,), their indices in the window. window: (left, top, width, height). blur: the
    Gaussian's standard deviation, in pixels. response: float (SIDE, SIDE), weights of a pixel and its neighbours.
    """

    grid: Grid
    blur: float
    window: tuple[int, int, int, int]
    at: np.ndarray
    pixels: np.ndarray
    response: np.ndarray = field(default_factory=lambda: _no_response())

    @property
    def light(self) -> np.ndarray:
        """The basis in which offset and gain are linear, float (P, 3): 1 and the two coordinates."""
        _, _, width, height = self.window
        y, x = np.divmod(self.at, width)
        return np.stack([np.ones(len(x)), x / width - 0.5, y / height - 0.5], axis=1)


def view(picture: np.ndarray, grid: Grid, blur: float = 0.3) -> View:
    """The pixels of a grey picture (H, W) that show a symbol and at most MARGIN modules around it."""
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
    """A: float32 (P, M), M = (n + 2)^2: the weight of each module, ring included, in each pixel."""
    kernel, (_, _, width, height) = np.trim_zeros(_kernel(seen.blur)), _widened(seen.window)
    modules, count = _looked_up(seen.grid, _widened(seen.window), (len(kernel) - FINE) // 2), size(seen.grid)
    parts = np.lib.stride_tricks.sliding_window_view(modules, (len(kernel), len(kernel)))[::FINE, ::FINE]
    weights = np.tile(np.outer(kernel, kernel).ravel(), width)
    squares = np.empty((height, width, count), np.float32)  # the pixels before the response
    for row, part in zip(squares, parts, strict=True):
        keys = part.reshape(width, -1) + count * np.arange(width)[:, None]
        row[:] = np.bincount(keys.ravel(), weights, count * width).reshape(width, count)
    a = np.zeros((len(seen.at), count), np.float32)
    for (i, j), weight in np.ndenumerate(seen.response.astype(np.float32)):
        inside = squares[i : height - SIDE + 1 + i, j : width - SIDE + 1 + j]
        a += weight * inside.reshape(-1, count)[seen.at]
    return a


def rendered(seen: View, modules: np.ndarray) -> np.ndarray:
    """A m for the pixels of a view, (P,); modules: float ((n + 2)^2,)."""
    kernel = _kernel(seen.blur)
    return np.tensordot(_neighbours(seen, _fine(seen, modules), kernel, kernel), seen.response, 2)


def _fine(seen: View, modules: np.ndarray) -> np.ndarray:
    """The value of the module at each sample of the window and of REACH samples around it."""
    return modules[_looked_up(seen.grid, _widened(seen.window), REACH)]


def _neighbours(seen: View, fine: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The pixels before the response, each with its neighbours, (P, SIDE, SIDE), by kernels down and across."""
    image = _spread(down, fine.shape[0]) @ fine @ _spread(across, fine.shape[1]).T
    return np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE)).reshape(-1, SIDE, SIDE)[seen.at]


def _widened(window: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The window of the pixels before the response."""
    left, top, width, height = window
    return left - SIDE // 2, top - SIDE // 2, width + SIDE - 1, height + SIDE - 1


def _no_response() -> np.ndarray:
    """The response that leaves every pixel as it is."""
    response = np.zeros((SIDE, SIDE))
    response[SIDE // 2, SIDE // 2] = 1
    return response


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
    """A pixel's square blurred by a Gaussian, along one axis: the weights of FINE + 2 REACH samples."""
    centre = (np.arange(FINE + 2 * REACH) - (FINE + 2 * REACH - 1) / 2) / FINE
    scale = sqrt(2) * max(blur, 1e-6)
    weights = np.array([erf((c + 0.5) / scale) - erf((c - 0.5) / scale) for c in centre])
    weights[abs(centre) > 0.5 + 2.5 * blur] = 0
    return weights / weights.sum()


def _slope(kernel: np.ndarray) -> np.ndarray:
    """The kernel of the derivative, in units per pixel."""
    return (np.roll(kernel, -1) - np.roll(kernel, 1)) * -FINE / 2


def _spread(kernel: np.ndarray, points: int) -> np.ndarray:
    """A matrix (pixels, points): row i is the kernel shifted by i FINE points."""
    pixels = (points - 2 * REACH) // FINE
    matrix = np.zeros((pixels, points))
    for i in range(pixels):
        matrix[i, i * FINE : i * FINE + len(kernel)] = kernel
    return matrix


def shading(pixels: np.ndarray, x: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The offset and gain, (P,) each, linear over the picture, that minimise the error of pixels = offset + gain x."""
    basis = np.concatenate([light, light * x[:, None]], axis=1)
    answer = np.linalg.lstsq(basis, pixels, rcond=None)[0]
    offset, gain = light @ answer[:3], light @ answer[3:]
    # Dark modules are darker than light ones everywhere, by at least two grey levels.
    return offset, np.minimum(gain, min(-2.0, 0.3 * float(gain.mean())))


def focused(seen: View, modules: np.ndarray) -> View:
    """The view with the blur and the response by which modules, ((n + 2)^2,), explain the pixels best.

    The response is the same in opposite directions, since the grid determines the position.
    """
    now = rendered(seen, modules)
    offset, gain = shading(seen.pixels, now, seen.light)
    y = (seen.pixels - offset) / gain
    ridge = RIDGE * max(float(np.mean((y - now) ** 2)), 1e-3)
    half, fine = SIDE**2 // 2, _fine(seen, modules)
    best, least = seen, np.inf
    for blur in BLURS:
        near = _neighbours(seen, fine, _kernel(blur), _kernel(blur)).reshape(-1, SIDE**2)
        sides, middle = (near + near[:, ::-1])[:, :half], near[:, half]
        columns = np.column_stack([sides - 2 * middle[:, None], middle])  # of the response's shape; the contrast
        goal = y - middle
        answer = np.linalg.solve(columns.T @ columns + ridge * np.eye(half + 1), columns.T @ goal)
        rest = goal - columns @ answer
        error = float(rest @ rest + ridge * answer @ answer)
        if error < least:
            response = np.concatenate([answer[:half], [1 - 2 * answer[:half].sum()], answer[:half][::-1]])
            best, least = replace(seen, blur=blur, response=response.reshape(SIDE, SIDE)), error
    return best


def aligned(seen: View, modules: np.ndarray, iterations: int = 2) -> Grid:
    """Move the grid to where modules, ((n + 2)^2,), explain the pixels best: Gauss-Newton steps over the corners."""
    kernel = _kernel(seen.blur)
    left, top, width, _ = seen.window
    y, x = np.divmod(seen.at, width)
    centres = np.stack([x + left + 0.5, y + top + 0.5], axis=-1)
    for _ in range(iterations):
        grid, fine = seen.grid, _fine(seen, modules)
        now, down, across = (
            np.tensordot(_neighbours(seen, fine, *kernels), seen.response, 2)
            for kernels in ((kernel, kernel), (_slope(kernel), kernel), (kernel, _slope(kernel)))
        )
        offset, gain = shading(seen.pixels, now, seen.light)
        rest = (seen.pixels - offset) / gain - now
        # A corner that moves shifts the symbol's points. A pixel changes by that shift times the picture's slope.
        step = 0.05 * grid.pitch
        moves = step * np.eye(8).reshape(8, 4, 2)
        points = through(np.linalg.inv(grid.matrix), centres)
        there, back = (through(replace(grid, corners=grid.corners + way * moves).matrix, points) for way in (1, -1))
        shift = (there - back) / (2 * step)
        slopes = -(shift[..., 0] * across + shift[..., 1] * down)
        normal = slopes @ slopes.T
        found = np.linalg.solve(normal + 1e-3 * np.trace(normal) / 8 * np.eye(8), slopes @ rest).reshape(4, 2)
        corners = grid.corners + np.clip(found, -0.7 * grid.pitch, 0.7 * grid.pitch)
        seen = replace(seen, grid=replace(grid, corners=corners))
    return seen.grid
