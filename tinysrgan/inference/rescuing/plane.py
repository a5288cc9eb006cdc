"""Homographies between a symbol's modules and a picture's pixels, and sampling through them.

Points are (x, y), in pixels or modules. Pixel (0, 0) covers 0 to 1 on both axes: its centre is at (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3x3 matrices, with 1 as the last element, that map four points to four others: (..., 4, 2) to (..., 3, 3).

    Raises LinAlgError if three of the points lie on a line.
    """
    source, target = np.broadcast_arrays(np.asarray(source, float), np.asarray(target, float))
    x, y = source[..., 0], source[..., 1]
    zero, one = np.zeros_like(x), np.ones_like(x)
    u, v = target[..., 0], target[..., 1]
    for_u = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    for_v = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    equations = np.concatenate([for_u, for_v], axis=-2)
    answer = np.linalg.solve(equations, np.concatenate([u, v], axis=-1)[..., None])[..., 0]
    return np.concatenate([answer, np.ones_like(answer[..., :1])], axis=-1).reshape(*answer.shape[:-1], 3, 3)


def through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., N, 2) mapped by homographies (..., 3, 3)."""
    x, y = points[..., 0], points[..., 1]
    # Row by row, which is faster than a product of many small matrices.
    rows = np.moveaxis(matrix, (-2, -1), (0, 1))[..., None]
    u, v, w = (a * x + b * y + c for a, b, c in rows)
    return np.stack([u / w, v / w], axis=-1)


def square(side: float) -> np.ndarray:
    """The corners of a square with one corner at (0, 0): top left, top right, bottom right, bottom left."""
    return np.array([(0, 0), (side, 0), (side, side), (0, side)], float)


def sampled(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Bilinear samples of a picture (H, W) at points (..., 2); outside, the border pixels are repeated."""
    height, width = picture.shape
    x = np.clip(points[..., 0] - 0.5, 0, width - 1)
    y = np.clip(points[..., 1] - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(np.intp), max(width - 2, 0)), np.minimum(y.astype(np.intp), max(height - 2, 0))
    right, below = (x - left).astype(np.float32), (y - top).astype(np.float32)
    flat = picture.ravel()
    at = top * width + left
    step_x, step_y = min(1, width - 1), width * min(1, height - 1)
    above = flat[at] + right * (flat[at + step_x] - flat[at])
    at = at + step_y
    beneath = flat[at] + right * (flat[at + step_x] - flat[at])
    return above + below * (beneath - above)
