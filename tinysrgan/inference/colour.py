"""Colour for a generator trained on grey images: luma goes through the net, chroma is enlarged bicubically.

This is the usual way to upscale colour with a one-channel net: the eye sees detail in luma.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

# What Cb and Cr add to red, green and blue in JPEG's YCbCr (ITU-R BT.601, full range), which Pillow uses.
TO_RGB = np.array([[0, -0.344136, 1.772], [1.402, -0.714136, 0]], np.float32)


class Chroma:
    """The colour of an image, without its luma."""

    def __init__(self, image: Image.Image):
        """image: of mode RGB."""
        self.luma, *self.bands = image.convert("YCbCr").split()

    def add_to(self, luma: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        """Add chroma to the enlarged luma (H, W, 1) of a part of the image; returns (H, W, 3), not clipped to [-1, 1].

        luma: in [-1, 1]. box: left, upper, right, lower of that part in pixels of the image.
        """
        size = (luma.shape[1], luma.shape[0])
        bands = [np.asarray(band.resize(size, Image.Resampling.BICUBIC, box)) for band in self.bands]
        chroma = (np.stack(bands, axis=2).astype(np.float32) - 128) / np.float32(127.5)
        return np.clip(luma, -1, 1) + chroma @ TO_RGB
