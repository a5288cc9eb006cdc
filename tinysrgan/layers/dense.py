"""The fully connected layer."""

from __future__ import annotations

import numpy as np

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.base import Layer, Parameter
from tinysrgan.layers.initializers import glorot_uniform


class Dense(Layer):
    """y = x w + b, with x: (N, C), w: (C, K), b: (K,), y: (N, K).

    dx = dy w^T, dw = x^T dy, db = sum of dy over N. Weights start Glorot-uniform, as in Keras' ``Dense``.
    """

    def __init__(self, in_features: int, out_features: int, rng: np.random.Generator | None = None):
        self.w = Parameter(glorot_uniform((in_features, out_features), rng))
        self.b = Parameter(np.zeros(out_features, np.float32))

    def forward(self, x: Array) -> Array:
        features = len(self.w.value)
        self.check_shape(x, x.ndim == 2 and x.shape[1] == features, f"(N, {features})")
        self.save_for_backward(x)
        return ops.dense(x, self.w.value, self.b.value)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved()
        if not self.frozen:
            ops.add_dense_grads(x, dy, self.w.grad, self.b.grad)
        return ops.matmul(dy, self.w.value.T)
