"""Contrast normalisation, so that photographs resemble the generator's training images."""

from __future__ import annotations

import numpy as np


def stretched(picture: np.ndarray, cut: float = 2) -> np.ndarray:
    """Stretch a grey picture (H, W) to 0..1, float32; ``cut`` per cent of the pixels are clipped at either end."""
    low, high = np.percentile(picture, (cut, 100 - cut))
    return np.clip((picture.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1)), 0, 1)


def normalised(picture: np.ndarray, radius: int, floor: float = 0.3) -> np.ndarray:
    """Give a grey picture (H, W), 0 to 255, the same mean and contrast everywhere: float32, 0 to 1.

    Each pixel is compared with the mean and the standard deviation of the square of 2 radius + 1 pixels around it.
    A standard deviation counts as at least ``floor`` of the largest in the picture, so flat areas stay flat.
    """
    x = picture.astype(np.float32)
    mean = box_mean(x, radius)
    deviation = np.sqrt(np.maximum(box_mean(x * x, radius) - mean * mean, 0))
    deviation = np.maximum(deviation, max(floor * float(deviation.max()), 1))
    return np.clip(0.5 + (x - mean) / (2.4 * deviation), 0, 1)


def box_mean(x: np.ndarray, radius: int) -> np.ndarray:
    """The mean over the square of 2 radius + 1 pixels around each pixel of x (H, W), clipped to the picture."""
    for axis in (0, 1):
        size = x.shape[axis]
        total = np.concatenate([np.zeros_like(x.take([0], axis)), x.cumsum(axis, dtype=np.float64)], axis)
        last = np.minimum(np.arange(size) + radius + 1, size)
        first = np.maximum(np.arange(size) - radius, 0)
        count = (last - first).reshape((-1, 1) if axis == 0 else (1, -1))
        x = (total.take(last, axis) - total.take(first, axis)) / count
    return x
