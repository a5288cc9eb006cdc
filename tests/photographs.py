"""Simulated photographs of QR codes, for the tests of ``rescue``."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from tinysrgan.data.qr_codes import modules
from tinysrgan.inference.rescuing.plane import homography, square, through

FINE = 6  # samples per pixel


def corners(
    count: int, pitch: float, turn: float = 0, tilt: float = 0, centre: tuple[float, float] = (40, 40)
) -> np.ndarray:
    """Return the four corners, turned by ``turn`` degrees. Perspective shortens the top side by ``tilt`` modules."""
    middle = (square(count) - count / 2) * pitch
    middle[:2] *= 1 - tilt / count
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return middle @ np.array([(c, s), (-s, c)]) + centre


def photograph(
    text: str, version: int, places: np.ndarray, size: tuple[int, int] = (80, 80), grey: tuple[int, int] = (60, 190)
) -> Image.Image:
    """Draw the code with its corners at ``places``, dark and light as in ``grey``, slightly blurred and noisy."""
    symbol = np.pad(modules(text, version, "M"), 4)
    width, height = size
    x, y = np.meshgrid((np.arange(width * FINE) + 0.5) / FINE, (np.arange(height * FINE) + 0.5) / FINE)
    back = np.linalg.inv(homography(square(len(symbol) - 8), places))
    seen = np.floor(through(back, np.stack([x, y], axis=-1).reshape(-1, 2))).astype(int) + 4
    inside = ((seen >= 0) & (seen < len(symbol))).all(axis=1)
    column, row = np.clip(seen, 0, len(symbol) - 1).T
    dark, light = grey
    fine = np.where(inside, np.where(symbol[row, column] == 1, dark, light), 0.8 * light + 0.2 * dark)
    image = Image.fromarray(fine.reshape(height * FINE, width * FINE).astype(np.uint8))
    small = np.asarray(image.filter(ImageFilter.GaussianBlur(0.3 * FINE)).reduce(FINE), float)
    noise = np.random.default_rng(0).normal(0, 2, small.shape)
    return Image.fromarray(np.clip(np.rint(small + noise), 0, 255).astype(np.uint8))
