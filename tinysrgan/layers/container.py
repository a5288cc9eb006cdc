"""Layers made of layers: a chain, and a chain with a skip connection."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinysrgan import ops
from tinysrgan.core.device import Array
from tinysrgan.layers.activation import LeakyReLU, PReLU, ReLU
from tinysrgan.layers.base import Layer
from tinysrgan.layers.conv import Conv2D
from tinysrgan.layers.norm import BatchNorm


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
        for layer in self.fused_layers(x):
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.fused_layers(dy)):
            dy = layer.backward(dy)
        return dy

    def fused_layers(self, x: Array) -> list[Any]:
        """The layers. Where it is faster (on a GPU), a layer and the activation after it are one ``Fused``."""
        layers: list[Any] = []
        for layer in self.chain.values():
            if layers and isinstance(layer, FUSED.get(type(layers[-1]), ())) and ops.fuses(x):
                layers[-1] = Fused(layers[-1], layer)
            else:
                layers.append(layer)
        return layers


class Residual(Sequential):
    """A chain with a skip connection: y = x + f(x), so dx = dy + (df/dx) dy.

    Source: He et al. 2015, arXiv 1512.03385, eq. 1.
    """

    def forward(self, x: Array) -> Array:
        *layers, last = self.fused_layers(x)
        y = x
        for layer in layers:
            y = layer.forward(y)
        if isinstance(last, BatchNorm) and x.shape == y.shape and ops.fuses(x):
            return last.forward(y, shortcut=x)  # x + y, in the same pass over memory
        y = last.forward(y)
        self.check_shape(x, x.shape == y.shape, f"the shape that its layers return, {y.shape}")
        return x + y

    def backward(self, dy: Array) -> Array:
        first, *layers = self.fused_layers(dy)
        dx = dy
        for layer in reversed(layers):
            dx = layer.backward(dx)
        if isinstance(first, Conv2D):
            return first.backward(dx, shortcut=dy)  # dy + dx, in the same pass over memory
        return dy + first.backward(dx)


# Layers that also compute the activation after them if they are given it.
FUSED: dict[type, Any] = {BatchNorm: (LeakyReLU, PReLU), Conv2D: (LeakyReLU, ReLU)}


class Fused(NamedTuple):
    """A layer and the activation after it, computed in the same pass over memory. Used as one layer."""

    layer: Any
    activation: Layer

    def forward(self, x: Array) -> Array:
        return self.layer.forward(x, self.activation)

    def backward(self, dy: Array) -> Array:
        return self.layer.backward(dy, self.activation)
