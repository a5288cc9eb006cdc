"""Answers to the exercises of README.md, one for each lesson; tests/examples/test_answers.py checks them.

ANSWERS=mine.py python -m pytest tests/examples/test_answers.py    # checks yours instead, those that are there
"""

from __future__ import annotations

import numpy as np

from tinysrgan.core.device import Array
from tinysrgan.layers import Conv2D, Layer, Parameter
from tinysrgan.losses import sigmoid


class Swish(Layer):
    """Lesson 1. y = x sigmoid(x); dy/dx = s + x s (1 - s), with s = sigmoid(x)."""

    def forward(self, x: Array) -> Array:
        s = sigmoid(x)
        self.save_for_backward(x, s)
        return x * s

    def backward(self, dy: Array) -> Array:
        x, s = self.saved()
        return dy * (s + x * s * (1 - s))


class Softmax(Layer):
    """Lesson 2. y = exp(x) / sum of exp(x) over the last axis; dx = y (dy - sum(dy y)). With dy = 1 that is zero."""

    def forward(self, x: Array) -> Array:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        y = e / e.sum(axis=-1, keepdims=True)
        self.save_for_backward(y)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved()
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


class LayerNorm(Layer):
    """Lesson 3. Batch-norm's formulas over the channels of each pixel, so that the batch does not matter."""

    epsilon = 1e-3

    def forward(self, x: Array) -> Array:
        std = (x.var(axis=-1, keepdims=True) + self.epsilon) ** 0.5
        y = (x - x.mean(axis=-1, keepdims=True)) / std
        self.save_for_backward(y, std)
        return y

    def backward(self, dy: Array) -> Array:
        y, std = self.saved()
        return (dy - dy.mean(axis=-1, keepdims=True) - y * (dy * y).mean(axis=-1, keepdims=True)) / std


def conv2d_by_shifts(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Lesson 4. A convolution with stride 1 and an odd filter as R S matrix products: one for each tap, shifted."""
    r, s = w.shape[:2]
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (r // 2, r // 2), (s // 2, s // 2), (0, 0)))
    return sum(padded[:, i : i + height, j : j + width] @ w[i, j] for i in range(r) for j in range(s))


class Momentum:
    """Lesson 5. v = momentum v + gradient; value -= learning_rate v; the gradient is then zero."""

    def __init__(self, parameters: dict[str, Parameter], learning_rate: float = 1e-2, momentum: float = 0.9):
        self.parameters, self.learning_rate, self.momentum = parameters, learning_rate, momentum
        self.v = {name: np.zeros_like(p.value) for name, p in parameters.items()}

    def step(self) -> None:
        for name, p in self.parameters.items():
            self.v[name] = self.momentum * self.v[name] + p.grad
            p.value -= self.learning_rate * self.v[name]
            p.grad[...] = 0


def hinge(logits: Array, label: float) -> tuple[Array, Array]:
    """Lesson 6. The mean of max(0, 1 - sign l), sign +1 for real (label 1) and -1 for fake (label 0); its gradient."""
    sign = 2 * label - 1
    margin = 1 - sign * logits
    return np.maximum(margin, 0).mean(), np.where(margin > 0, -sign, 0.0) / logits.size


def saturating(logits: Array) -> tuple[Array, Array]:
    """Lesson 7. mean(log(1 - p)) = -mean(log(1 + exp(l))), finite for every l; the gradient is -p / size."""
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-abs(logits)))
    return -softplus.mean(), -sigmoid(logits) / logits.size


def charbonnier(y: Array, target: Array, epsilon: float = 1e-3) -> tuple[Array, Array]:
    """Lesson 8. mean(sqrt((y - target)^2 + epsilon^2)): nearly the absolute error, but smooth at zero."""
    difference = y - target
    root = (difference * difference + epsilon**2) ** 0.5
    return root.mean(), difference / root / y.size


class PixelUnshuffle(Layer):
    """Lesson 9. The inverse of PixelShuffle(2): (N, 2 H, 2 W, C) -> (N, H, W, 4 C). Its backward is the shuffle."""

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        self.save_for_backward()
        return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, 4 * c)

    def backward(self, dy: Array) -> Array:
        self.saved()
        n, h, w, c = dy.shape
        return dy.reshape(n, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c // 4)


class AveragePool(Layer):
    """Lesson 10. The mean of every 2x2 cell, for even sides; each of the four gets a quarter of the gradient."""

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        self.save_for_backward()
        return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))

    def backward(self, dy: Array) -> Array:
        self.saved()
        return np.repeat(np.repeat(dy / 4, 2, axis=1), 2, axis=2)


def absorb_rescale(conv: Conv2D, factor: float, offset: float) -> None:
    """Lesson 11. Change ``conv`` so that it returns factor conv(x) + offset."""
    conv.w.value = conv.w.value * factor
    conv.b.value = conv.b.value * factor + offset


def smallest_tile(multiply_adds_a_byte: float) -> int:
    """Lesson 12. The side t of the smallest square tile, a multiple of 8, whose loads serve that many multiply-adds.

    For each step along the depth a tile loads 2 t numbers of 4 bytes and does t^2 multiply-adds: t / 8 for each byte.
    """
    return 8 * int(np.ceil(multiply_adds_a_byte))


def whole_variance(counts: list[int], means: list[float], variances: list[float]) -> float:
    """Lesson 13. The variance of all slices together, from the number, mean and variance of each (Chan et al. 1979)."""
    n, m, v = (np.array(values, np.float64) for values in (counts, means, variances))
    mean = (n * m).sum() / n.sum()
    return float((n * (v + (m - mean) ** 2)).sum() / n.sum())
