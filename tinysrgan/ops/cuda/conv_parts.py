"""The last step of a convolution whose depth was split among thread blocks: launches ``kernels/conv_add_parts.cu``."""

from __future__ import annotations

from math import ceil

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import kernel

THREADS = 256


def add_parts(
    parts: Array,
    result: Array,
    bias: Array | None = None,
    slope: Array | None = None,
    shortcut: Array | None = None,
) -> None:
    """result = prelu(sum of parts + bias) + shortcut, for parts: (count, *result.shape). All contiguous float32."""
    sizes = np.int32(len(parts)), np.int64(result.size), np.int32(result.shape[-1])
    launch = kernel(array_module(result), "conv_add_parts.cu", "add_parts")
    launch((ceil(result.size / THREADS),), (THREADS,), (parts, bias, slope, shortcut, result, *sizes))
