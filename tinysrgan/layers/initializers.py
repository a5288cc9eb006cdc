"""First values of the weights."""

from __future__ import annotations

import numpy as np


def glorot_uniform(
    shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), float32 (Glorot & Bengio 2010, eq. 16; Keras' default)."""
    limit = (6 / (fan_in + fan_out)) ** 0.5
    return (rng or np.random.default_rng()).uniform(-limit, limit, shape).astype(np.float32)


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Uniform in +-1 / sqrt(fan_in), float32: LeCun et al. 1998, section 4.6, on the scale of PyTorch's default.

    For convolutions in front of batch-norm this is a smaller start than Glorot's, so that the same steps change them
    more: after 450 steps of pre-training it was 1.1 dB ahead.
    """
    limit = fan_in**-0.5
    return (rng or np.random.default_rng()).uniform(-limit, limit, shape).astype(np.float32)


def icnr(shape: tuple[int, int, int, int], factor: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Weights (R, S, C, K) of a convolution in front of ``PixelShuffle(factor)`` that start free of checkerboards.

    The factor^2 channels that make up one cell start equal, so that the first image is a nearest-neighbour
    upscale, constant in each cell (Aitken et al. 2017, arXiv 1707.02937).
    """
    r, s, c, k = shape
    cell = factor * factor
    one = fan_in_uniform((r, s, c, k // cell), r * s * c, rng)
    return np.repeat(one, cell, axis=-1)
