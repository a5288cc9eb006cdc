"""Layers made of layers: a chain, and a chain with a skip connection."""

from __future__ import annotations

from tinysrgan.core.device import Array
from tinysrgan.layers.base import Layer


class Sequential(Layer):
    """A chain of layers, numbered or named: ``Sequential(Dense(2, 2), ReLU())``, ``Sequential(dense=..., relu=...)``.

    y = f_n(... f_2(f_1(x))). By the chain rule the gradient passes through the layers in reverse order.
    """

    def __init__(self, *layers: Layer, **named_layers: Layer):
        self.chain = {str(i): layer for i, layer in enumerate(layers)} | named_layers
        self.label("")

    def children(self) -> dict[str, Layer]:
        return self.chain

    def __getitem__(self, name: str) -> Layer:
        return self.chain[name]

    def forward(self, x: Array) -> Array:
        for layer in self.chain.values():
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.chain.values()):
            dy = layer.backward(dy)
        return dy


class Residual(Sequential):
    """A chain with a skip connection: y = x + f(x), so dx = dy + (df/dx) dy.

    Source: He et al. 2015, arXiv 1512.03385, eq. 1.
    """

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        self.check_shape(x, x.shape == y.shape, f"the shape that its layers return, {y.shape}")
        return x + y

    def backward(self, dy: Array) -> Array:
        return dy + super().backward(dy)
