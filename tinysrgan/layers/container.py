"""Layers made of layers: a chain, and a chain with a skip connection."""

from __future__ import annotations

from typing import Any

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.activation import LeakyReLU, PReLU, ReLU
from tinysrgan.layers.base import Layer
from tinysrgan.layers.conv import Conv2D
from tinysrgan.layers.norm import BatchNorm

# Layers that compute the activation after them, too, if they are given it.
FUSED: dict[type, Any] = {BatchNorm: (LeakyReLU, PReLU), Conv2D: (LeakyReLU, ReLU)}


class Sequential(Layer):
    """A chain of layers, numbered or named: ``Sequential(Dense(2, 2), ReLU())``, ``Sequential(dense=..., relu=...)``.

    y = f_n(... f_2(f_1(x))). The gradient passes through the layers in reverse order (chain rule). None is no layer.
    """

    def __init__(self, *layers: Layer, **named_layers: Layer | None):
        named = {str(i): layer for i, layer in enumerate(layers)} | named_layers
        self.chain = {name: layer for name, layer in named.items() if layer is not None}
        self.label("")

    def children(self) -> dict[str, Layer]:
        return self.chain

    def __getitem__(self, name: str) -> Layer:
        return self.chain[name]

    def forward(self, x: Array) -> Array:
        for layer, *activation in self.steps(x):
            x = layer.forward(x, *activation)
        return x

    def backward(self, dy: Array) -> Array:
        for layer, *activation in reversed(self.steps(dy)):
            dy = layer.backward(dy, *activation)
        return dy

    def steps(self, x: Array) -> list[tuple[Any, ...]]:
        """The layers, each alone or with the activation after it where one call computes both faster (on a GPU)."""
        steps: list[tuple[Any, ...]] = []
        for layer in self.chain.values():
            if steps and isinstance(layer, FUSED.get(type(steps[-1][-1]), ())) and ops.fuses(x):
                steps[-1] += (layer,)
            else:
                steps.append((layer,))
        return steps


class Residual(Sequential):
    """A chain with a skip connection: y = x + f(x), so dx = dy + (df/dx) dy.

    Source: He et al. 2015, arXiv 1512.03385, eq. 1.
    """

    def forward(self, x: Array) -> Array:
        *steps, (last, *activation) = self.steps(x)
        y = x
        for layer, *others in steps:
            y = layer.forward(y, *others)
        if isinstance(last, BatchNorm) and not activation and x.shape == y.shape and ops.fuses(x):
            return last.forward(y, shortcut=x)
        y = last.forward(y, *activation)
        self.check_shape(x, x.shape == y.shape, f"the shape that its layers return, {y.shape}")
        return x + y

    def backward(self, dy: Array) -> Array:
        (first, *activation), *steps = self.steps(dy)
        dx = dy
        for layer, *others in reversed(steps):
            dx = layer.backward(dx, *others)
        if isinstance(first, Conv2D):
            return first.backward(dx, *activation, shortcut=dy)
        return dy + first.backward(dx, *activation)
