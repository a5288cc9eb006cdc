"""Checks that an upscaled image, shrunk back, equals its input.

A suitable generator only adds detail finer than a pixel, so the mean of each cell of scale x scale pixels of the result
equals the input pixel. Generators for codes also restore contrast and sharpness, so the input is also compared with

    gain * shrunk + blur_gain * box3x3(shrunk) + offset

The three factors minimise the squared error; the sum of the gains must lie between 0 and 1.1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAST_PSNR = 25.0  # dB
LEAST_SNR = 15.0  # dB
ROUNDING = 1e-5  # mean squared error in [-1, 1], about that of rounding to 8 bits


class Fidelity(NamedTuple):
    """Similarity of a result, shrunk back, to its input, in dB: ``psnr`` directly, ``snr`` after the best fit.

    psnr: 10 log10(peak^2 / error). snr: 10 log10(variance of the input / error), which is independent of contrast.
    """

    psnr: float
    snr: float

    @property
    def suits(self) -> bool:
        """Whether the generator suits the image: one of the two values reaches its threshold."""
        return self.psnr >= LEAST_PSNR or self.snr >= LEAST_SNR


class Comparison:
    """Accumulates sums over the tiles of an image, so that no tile is stored."""

    def __init__(self, scale: int):
        self.scale = scale
        self.products = np.zeros((4, 4))  # sums over pixels of all pairwise products of 1, shrunk, blurred, input

    def add(self, small: np.ndarray, large: np.ndarray) -> None:
        """Add a tile of the input, small: (H, W, C), and of the result, large: (scale H, scale W, C), in [-1, 1].

        The blur stays within the tile.
        """
        height, width, channels = small.shape
        cells = np.clip(large, -1, 1).reshape(height, self.scale, width, self.scale, channels)
        shrunk = cells.mean(axis=1).mean(axis=2)
        padded = np.pad(shrunk, ((1, 1), (1, 1), (0, 0)), mode="edge")
        down = padded[:-2] + padded[1:-1] + padded[2:]
        blurred = (down[:, :-2] + down[:, 1:-1] + down[:, 2:]) / 9
        rows = np.stack([np.ones_like(shrunk), shrunk, blurred, small]).reshape(4, -1).astype(np.float64)
        self.products += rows @ rows.T

    def fidelity(self) -> Fidelity:
        """The fidelity of all tiles added so far."""
        means = self.products / self.products[0, 0]
        covariance = (means - np.outer(means[0], means[0]))[1:, 1:]
        variance, with_input = covariance[2, 2], covariance[:2, 2]
        error = means[1, 1] - 2 * means[1, 3] + means[3, 3]
        gains = np.linalg.lstsq(covariance[:2, :2], with_input, rcond=1e-9)[0]
        left = variance - gains @ with_input if 0 <= gains.sum() <= 1.1 else error
        return Fidelity(
            float(10 * np.log10(4 / max(error, ROUNDING))),  # the peak is 2
            float(10 * np.log10((max(variance, 0) + ROUNDING) / (max(left, 0) + ROUNDING))),
        )
