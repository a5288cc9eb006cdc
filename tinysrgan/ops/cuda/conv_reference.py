"""Convolutions in float32 or float64, one thread for each element of the result: ``kernels/conv_reference.cu``."""

from __future__ import annotations

from math import ceil

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda.compile import kernel
from tinysrgan.ops.cuda.geometry import Geometry
from tinysrgan.ops.cuda.launch import REAL


def run(
    operation: str, g: Geometry, operands: tuple[Array, Array], extras: tuple[Array | None, ...], result: Array
) -> None:
    """Compute ``operation`` into ``result``; ``extras`` are the arguments of its epilogue. Contiguous, of one type."""
    launch = kernel(array_module(result), "conv_reference.cu", operation, REAL=REAL[result.dtype])
    launch((ceil(result.size / 256),), (256,), (*operands, *extras, result, g.record()))
