"""Pixel shuffle and nearest upsampling by f on the GPU, float32 or float64: launches ``kernels/resample.cu``."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import address
from tinysrgan.ops.cuda.launch import run, walk_images


def shuffle(x: Array, factor: int) -> Array:
    """y: (N, f H, f W, K) from x: (N, H, W, K f f), in the order of ``layers.PixelShuffle``."""
    n, h, w, c = x.shape
    k = c // factor**2
    return _run("shuffle", factor, (n, h, w, k), x, (n, h * factor, w * factor, k))


def shuffle_grad(dy: Array, factor: int) -> Array:
    """dx: (N, H, W, K f f) from dy: (N, f H, f W, K)."""
    n, h, w, k = _small(dy, factor)
    return _run("shuffle_grad", factor, (n, h, w, k), dy, (n, h, w, k * factor**2))


def repeat(x: Array, factor: int) -> Array:
    """y: (N, f H, f W, K) from x: (N, H, W, K): each pixel repeated f times along both axes."""
    n, h, w, k = x.shape
    return _run("repeat", factor, (n, h, w, k), x, (n, h * factor, w * factor, k))


def repeat_grad(dy: Array, factor: int) -> Array:
    """dx: (N, H, W, K), the sums over the f x f cells of dy: (N, f H, f W, K)."""
    small = _small(dy, factor)
    return _run("repeat_grad", factor, small, dy, small)


Shape = tuple[int, int, int, int]


def _small(dy: Array, factor: int) -> Shape:
    n, height, width, k = dy.shape
    return n, height // factor, width // factor, k


def _run(name: str, factor: int, small: Shape, source: Array, shape: Shape) -> Array:
    """Launch a kernel; returns its result of this shape. ``small``: N, H, W, K."""
    n, h, w, k = small
    source = array_module(source).ascontiguousarray(source)
    result = array_module(source).empty(shape, source.dtype)
    # A cell of f f elements is loaded 16 bytes at a time if all cells start at multiples of 16 bytes.
    cells = factor % 2 == 0 and address(source) % 16 == address(result) % 16 == 0
    defines = {"FACTOR": factor, "ALIGN": 16 if cells else source.itemsize}
    run("resample.cu", name, walk_images((n, h, w), k), source, result, np.int32(w), np.int32(k), **defines)
    return result
