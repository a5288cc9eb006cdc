"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): an alternative to Adam for weight matrices."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.base import Parameter
from tinysrgan.optimizers.adam import Adam

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: small singular values grow as fast as possible
STEPS = 5
COLOURS = 3  # a convolution from or to so few channels has no useful matrix


class Muon(Adam):
    """Steps in which all directions of a weight matrix count alike.

        m = momentum m + g;  value -= learning_rate 0.2 sqrt(max(rows, columns)) orthogonal(g + momentum m)

    A gradient's few large singular values hide its many small ones, and Adam scales each element by itself. Here all
    singular values above about 1e-3 of the largest become about 1. A convolution's weights (R, S, C, K) are a matrix of
    R S C rows and K columns. Adam updates the biases, batch-norm, the slopes, and the convolutions from and to colours.
    The factor 0.2 sqrt(...) makes the steps as large as Adam's (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that both
    share one learning rate. ``matrices`` are the weights that Muon updates, ``parameters`` all others.
    """

    def __init__(self, parameters: dict[str, Parameter], learning_rate: float = 1e-3, momentum: float = 0.95):
        self.matrices = {name: p for name, p in parameters.items() if is_matrix(p.value)}
        super().__init__({name: p for name, p in parameters.items() if name not in self.matrices}, learning_rate)
        self.momentum = momentum
        self._matrix_kernel = ops.MuonKernel(NEWTON_SCHULZ, STEPS)
        self.m |= {name: np.zeros_like(p.value) for name, p in self.matrices.items()}

    def step(self) -> None:
        """Move every parameter against its gradient, then set the gradients to zero for the next sum."""
        groups = [(p.value, p.grad, self.m[name]) for name, p in self.matrices.items()]
        ops.in_place(update, groups, self._matrix_kernel, self.matrix_settings, whole=True)
        super().step()

    def matrix_settings(self) -> dict[str, float]:
        """The settings of a matrix' ``update``."""
        return {"momentum": self.momentum, "rate": self.learning_rate * 0.2}


def update(value: Array, gradient: Array, m: Array, momentum: float, rate: float) -> None:
    """One step for one parameter, written into its arrays; the gradient is then zero."""
    m *= momentum
    m += gradient
    direction = orthogonal((gradient + momentum * m).reshape(-1, value.shape[-1]))
    value -= rate * max(direction.shape) ** 0.5 * direction.reshape(value.shape)
    gradient[...] = 0


def is_matrix(value: Array) -> bool:
    """Whether these are the weights of a convolution between feature maps: (R, S, C, K) with C, K above 3."""
    return value.ndim == 4 and min(value.shape[2:]) > COLOURS


def orthogonal(matrix: Array, steps: int = STEPS) -> Array:
    """About U V^T of the matrix' U S V^T: (rows, columns), with all singular values near 1 (0.7 to 1.2).

    Newton and Schulz' iteration X <- a X + (b A + c A^2) X with A = X X^T: a polynomial of every singular value that
    needs matrix products alone. Singular values below about 1e-3 of the matrix' norm stay smaller after five steps.
    """
    a, b, c = NEWTON_SCHULZ
    tall = len(matrix) > matrix.shape[1]
    x = matrix.T if tall else matrix  # A is then the smaller of X X^T and X^T X
    x = x / ((x * x).sum() ** 0.5 + 1e-12)
    for _ in range(steps):
        gram = ops.matmul(x, x.T)
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return x.T if tall else x
