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


def add_gradients(g: Geometry, x: Array, dy: Array, w_grad: Array, b_grad: Array | None) -> None:
    """w_grad: (R, S, C, K) += dw; b_grad: (K,) += the sums of dy. Contiguous, of one type."""
    threads = w_grad.size + (0 if b_grad is None else g.K)
    launch = kernel(array_module(x), "conv_reference.cu", "conv_grad_weight", REAL=REAL[x.dtype])
    launch((ceil(threads / 256),), (256,), (x, dy, w_grad, b_grad, g.record()))
