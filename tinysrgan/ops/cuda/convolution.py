"""The convolution and its gradients on the GPU, in float32 and float64: chooses the kernel.

The kernels form a ladder; each rung gives the results of the one below: ``conv_reference`` (one thread for each
element; any sizes and types), ``conv_tiled`` (float32), ``conv_tf32`` (tensor cores: float32 factors rounded to TF32).
``conv_thin`` brings convolutions with few outputs to the tensor cores.
A matrix product is a convolution with a 1x1 filter, so dense layers come here too.

Arguments are CuPy arrays; results are new CuPy arrays of the first argument's type. No function waits for the GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.ops.cuda import conv_reference, conv_tf32, conv_thin, conv_tiled
from tinysrgan.ops.cuda.geometry import Geometry, geometry, matrix_geometry

# With fewer multiplications than this, a tile would be nearly empty, and one thread for each element finishes as soon.
TINY = 2**10


def rung(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: int,
    dtype: np.dtype,
    exact: bool = False,
    forward: bool = False,
) -> str:
    """The module for the convolution of x: (N, H, W, C) with w: (R, S, C, K) and its gradients, or only ``forward``.

    "conv_reference", "conv_tiled" or, unless ``exact`` forbids TF32, "conv_tf32" or "conv_thin".
    """
    if not _worth_tiles(geometry(x_shape, w_shape, stride), dtype):
        return "conv_reference"
    if not exact and conv_tf32.takes(w_shape, forward):
        return "conv_tf32"
    return "conv_thin" if not exact and conv_thin.takes(w_shape, stride) else "conv_tiled"


def _worth_tiles(g: Geometry, dtype: np.dtype) -> bool:
    return dtype == np.float32 and g.N * g.P * g.Q * g.R * g.S * g.C * g.K >= TINY


def conv2d(
    x: Array,
    w: Array,
    stride: int = 1,
    bias: Array | None = None,
    slope: Array | None = None,
    shortcut: Array | None = None,
    *,
    exact: bool = False,
) -> Array:
    """y: (N, P, Q, K) = prelu(conv(x, w) + bias) + shortcut, with "same" padding.

    x: (N, H, W, C); w: (R, S, C, K); bias and slope: (K,); shortcut: (N, P, Q, K). The last three are optional.
    """
    module = rung(x.shape, w.shape, stride, x.dtype, exact, forward=True)
    if module == "conv_tf32":
        return conv_tf32.conv2d(x, w, stride, bias, slope, shortcut)
    if module == "conv_thin":
        return conv_thin.conv2d(x, w, bias, slope, shortcut)
    g = geometry(x.shape, w.shape, stride)
    y = array_module(x).empty((g.N, g.P, g.Q, g.K), x.dtype)
    return _run("conv_forward", g, (x, w), (bias, slope, shortcut), y)


def conv2d_grad_input(
    dy: Array,
    w: Array,
    x_shape: tuple[int, ...],
    stride: int = 1,
    shortcut: Array | None = None,
    *,
    exact: bool = False,
) -> Array:
    """dx + shortcut: (N, H, W, C), from dy: (N, P, Q, K) and w: (R, S, C, K). The shortcut is optional."""
    module = rung(x_shape, w.shape, stride, dy.dtype, exact)
    if module == "conv_tf32":
        return conv_tf32.conv2d_grad_input(dy, w, x_shape, stride, shortcut)
    if module == "conv_thin":
        return conv_thin.conv2d_grad_input(dy, w, x_shape, shortcut)
    dx = array_module(dy).empty(x_shape, dy.dtype)
    return _run("conv_grad_input", geometry(x_shape, w.shape, stride), (dy, w), (shortcut,), dx)


def conv2d_grad_weight(x: Array, dy: Array, w_shape: tuple[int, ...], stride: int = 1, *, exact: bool = False) -> Array:
    """dw: (R, S, C, K) from x: (N, H, W, C) and dy: (N, P, Q, K)."""
    xp = array_module(x)
    dw = xp.zeros(w_shape, x.dtype)
    add_conv2d_grads(x, dy, dw, xp.zeros(w_shape[-1], x.dtype), stride, exact)
    return dw


def add_conv2d_grads(x: Array, dy: Array, w_grad: Array, b_grad: Array, stride: int, exact: bool) -> None:
    """w_grad: (R, S, C, K) += dw; b_grad: (K,) += the sums of dy over all axes but the last. Both contiguous."""
    module = rung(x.shape, w_grad.shape, stride, w_grad.dtype, exact)
    if module == "conv_tf32":
        conv_tf32.add_gradients(x, dy, w_grad, b_grad, stride)
    elif module == "conv_thin":
        conv_thin.add_gradients(x, dy, w_grad, b_grad)
    else:
        _add_gradients(geometry(x.shape, w_grad.shape, stride), x, dy, w_grad, b_grad)


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """a b + bias, for a: (M, K), b: (K, N), bias: (N,); b may be a transposed view, which is read in place."""
    m, n = len(a), b.shape[1]
    result = array_module(a).empty((m, n), a.dtype)
    if bias is not None or b.flags.c_contiguous:
        return _run("conv_forward", matrix_geometry(m, *b.shape), (a, b), (bias, None, None), result)
    return _run("conv_grad_input", matrix_geometry(m, n, len(b)), (a, b.T), (None,), result)


def add_matrix_grads(x: Array, dy: Array, w_grad: Array, b_grad: Array) -> None:
    """w_grad += x^T dy and b_grad += the sums of dy, for x: (N, C), dy: (N, K), w_grad: (C, K), b_grad: (K,)."""
    _add_gradients(matrix_geometry(len(x), *w_grad.shape), x, dy, w_grad, b_grad)


def _run(operation: str, g: Geometry, operands: tuple[Array, Array], extras: tuple[Any, ...], result: Array) -> Array:
    """Compute without tensor cores; ``extras`` are the arguments of the kernel's epilogue.

    Only the sizes of the arrays matter, not their shapes: the kernels take them from ``g``.
    """
    left, right = (_ready(array, result) for array in operands)
    extras = tuple(None if array is None else _ready(array, result) for array in extras)
    module = conv_tiled if _worth_tiles(g, result.dtype) else conv_reference
    module.run(operation, g, (left, right), extras, result)
    return result


def _add_gradients(g: Geometry, x: Array, dy: Array, w_grad: Array, b_grad: Array) -> None:
    module = conv_tiled if _worth_tiles(g, w_grad.dtype) else conv_reference
    module.add_gradients(g, _ready(x, w_grad), _ready(dy, w_grad), w_grad, b_grad)


def _ready(array: Array, like: Array) -> Array:
    return array_module(like).ascontiguousarray(array, like.dtype)
