"""The similarity of two images: PSNR, SSIM, and the protocol of super-resolution papers.

Images are (H, W) or (H, W, C), uint8 or float, with values from 0 to ``peak``. Papers compare only luminance, without a
border as wide as the scale:

    psnr(luma(crop_border(a, 4)), luma(crop_border(b, 4)))
"""

from __future__ import annotations

import numpy as np

WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
WINDOW /= WINDOW.sum()
ROWS = 256  # of SSIM at a time, which bounds its memory


def psnr(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mean((a - b)^2)), in dB; infinite for identical images.

    Raises ValueError if the shapes differ.
    """
    a, b = _pair(a, b)
    error = np.mean((a - b) ** 2)
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    """Structural similarity in -1..1, 1 for identical images; the mean over pixels and channels.

    Wang, Bovik, Sheikh & Simoncelli 2004: means, variances and the covariance under an 11x11 Gaussian window of
    sigma 1.5, K1 = 0.01, K2 = 0.03, at the pixels whose whole window is in the image (all but a border of 5 pixels).
    Raises ValueError if the shapes differ or a side is shorter than the window.
    """
    a, b = _pair(a, b)
    if min(a.shape[:2]) < len(WINDOW):
        raise ValueError(f"SSIM takes images of at least 11x11 pixels, not {a.shape[1]}x{a.shape[0]}.")
    if a.ndim == 3:
        return float(np.mean([ssim(a[:, :, c], b[:, :, c], peak) for c in range(a.shape[2])]))
    around = len(WINDOW) - 1
    rows = range(0, len(a) - around, ROWS)
    sums = [_similarities(a[top : top + ROWS + around], b[top : top + ROWS + around], peak).sum() for top in rows]
    return float(sum(sums) / ((a.shape[0] - around) * (a.shape[1] - around)))


def _similarities(a: np.ndarray, b: np.ndarray, peak: float) -> np.ndarray:
    """SSIM at each pixel but a border of 5: (H, W) to (H - 10, W - 10)."""
    mean_a, mean_b, square, product = _blur(np.stack([a, b, a * a + b * b, a * b]))
    means, c1, c2 = mean_a * mean_b, (0.01 * peak) ** 2, (0.03 * peak) ** 2
    square_of_means = mean_a**2 + mean_b**2
    variances, covariance = square - square_of_means, product - means
    return (2 * means + c1) * (2 * covariance + c2) / ((square_of_means + c1) * (variances + c2))


def luma(rgb: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601 in studio range: (H, W, 3) in 0..255 to (H, W) in 16..235, as MATLAB's ``rgb2ycbcr``.

    Float64, not rounded. Raises ValueError if there are not three channels.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"luma takes an RGB image (H, W, 3), not {rgb.shape}.")
    return 16 + rgb @ np.array([65.481, 128.553, 24.966]) / 255


def crop_border(image: np.ndarray, border: int) -> np.ndarray:
    """The image without ``border`` pixels on each side. Raises ValueError if nothing would be left."""
    height, width = image.shape[:2]
    if border < 0 or min(height, width) <= 2 * border:
        raise ValueError(f"A border of {border} pixels can't be cut from an image of {width}x{height}.")
    return image[border : height - border, border : width - border]


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images in float64, checked to have the same shape."""
    if a.shape != b.shape:
        raise ValueError(f"Only images of one shape can be compared, not {a.shape} and {b.shape}.")
    if a.ndim not in (2, 3) or not a.size:
        raise ValueError(f"An image is (H, W) or (H, W, C) and not empty; this one is {a.shape}.")
    return a.astype(np.float64), b.astype(np.float64)


def _blur(maps: np.ndarray) -> np.ndarray:
    """(M, H, W) to (M, H - 10, W - 10): the separable Gaussian window, as two passes of 11 taps."""
    down = np.lib.stride_tricks.sliding_window_view(maps, len(WINDOW), axis=1) @ WINDOW
    return np.lib.stride_tricks.sliding_window_view(down, len(WINDOW), axis=2) @ WINDOW
