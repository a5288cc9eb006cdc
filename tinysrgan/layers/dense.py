"""The fully connected layer."""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.layers.base import Layer, Parameter
from tinysrgan.layers.initializers import glorot_uniform
from tinysrgan.ops import add_product, matmul


class Dense(Layer):
    """y = x w + b, with x: (N, C), w: (C, K), b: (K,), y: (N, K).

    dx = dy w^T, dw = x^T dy, db = sum of dy over N. Glorot-uniform weights, as Keras' ``Dense``.
    """

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator | None = None):
        self.w = Parameter(glorot_uniform((inputs, outputs), inputs, outputs, rng))
        self.b = Parameter(np.zeros(outputs, np.float32))

    def forward(self, x: Array) -> Array:
        inputs = len(self.w.value)
        self.check_shape(x, x.ndim == 2 and x.shape[1] == inputs, f"(N, {inputs})")
        self.save_for_backward(x)
        return matmul(x, self.w.value) + self.b.value

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        if not self.frozen:
            add_product(self.w.grad, x.T, dy)
            self.b.grad += dy.sum(axis=0)
        return matmul(dy, self.w.value.T)
