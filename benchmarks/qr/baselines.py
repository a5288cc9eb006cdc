"""Upscaling without learning: uint8 (H, W) to uint8 (4H, 4W).

Bicubic and Lanczos are as in OpenCV (a = -0.75; four lobes, eight taps). Their results scan more often than those of
Pillow's softer filters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.qr.samples import SCALE, gaussian
from tinysrgan.data.images import quantize


def nearest(lr: np.ndarray) -> np.ndarray:
    """Nearest upsampling: every pixel becomes a square."""
    return lr.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def bicubic(lr: np.ndarray) -> np.ndarray:
    """Bicubic interpolation by cubic convolution (Keys 1981)."""
    return _interpolate(lr, _cubic, 2)


def lanczos(lr: np.ndarray) -> np.ndarray:
    """Lanczos interpolation with a windowed sinc of four lobes."""
    return _interpolate(lr, lambda x: np.sinc(x) * np.sinc(x / 4), 4)


def lanczos_unsharp(lr: np.ndarray) -> np.ndarray:
    """Lanczos, then an unsharp mask of 150 % with a radius of 1.5 pixels."""
    large = lanczos(lr).astype(float)
    rows, columns = (gaussian(side, 1.5) for side in large.shape)
    return quantize(large + 1.5 * (large - rows @ large @ columns.T))


BASELINES = {"nearest": nearest, "bicubic": bicubic, "Lanczos": lanczos, "Lanczos + unsharp": lanczos_unsharp}


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    x = np.abs(x)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)


def _interpolate(lr: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> np.ndarray:
    rows, columns = (_taps(side, kernel, reach) for side in lr.shape)
    return quantize(rows @ lr @ columns.T)


def _taps(side: int, kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> np.ndarray:
    """The weights of all input pixels for each output pixel, (SCALE * side, side); edges are repeated."""
    place = (np.arange(SCALE * side) + 0.5) / SCALE - 0.5
    taps = np.floor(place).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    weights = kernel(place[:, None] - taps)
    matrix = np.zeros((SCALE * side, side))
    np.add.at(matrix, (np.arange(len(place))[:, None], taps.clip(0, side - 1)), weights)
    return matrix / matrix.sum(axis=1, keepdims=True)
