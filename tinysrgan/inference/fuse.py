"""An equivalent net for inference: fewer and cheaper layers, the same output to rounding.

    fast = fuse(generator)
    fast.forward(x)  # what generator.eval().forward(x) returns, to rounding

* Batch-norm is folded into the convolution before it (``absorb_norm``).
* An enlargement is folded into the convolution after it, which then works at half the resolution and computes all four
  pixels of a 2x2 cell at once (``before_shuffle``, ``before_nearest``). The last 9x9 convolution becomes a 5x5.
* PReLU moves before the enlargement, which only moves or repeats values.
* Bias, PReLU and shortcut are fused into the convolution (``ops.conv.epilogue``).

The channels of a cell have the order (i, j, c): channel (2 i + j) C + c is row i and column j of the cell, so that a
pixel's C values are copied as one run. ``PixelShuffle`` has (c, i, j).
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

import numpy as np

from tinysrgan.core.device import Array, array_module
from tinysrgan.layers import BatchNorm, Conv2D, Layer, PixelShuffle, PReLU, Residual, Sequential, Upsample
from tinysrgan.layers.base import Buffer
from tinysrgan.models import Generator
from tinysrgan.ops.conv.frozen_filter import FrozenFilter
from tinysrgan.ops.elementwise import by_rows


class FusedConv(Layer):
    """y = prelu(x * w + b) + shortcut, with "same" padding and stride 1; forward only.

    x: (N, H, W, C), w: (R, S, C, K), b and slope: (K,), shortcut and y: (N, H, W, K).
    """

    def __init__(self, w: Array, b: Array, slope: Array | None = None):
        self.w, self.b = Buffer(w), Buffer(b)
        self.slope = None if slope is None else Buffer(slope)
        self._filter = FrozenFilter(w)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_filter"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._filter = FrozenFilter(self.w.value)

    def forward(self, x: Array, shortcut: Array | None = None) -> Array:
        if self._filter.w is not self.w.value:  # after a change of device or dtype
            self._filter = FrozenFilter(self.w.value)
        slope = None if self.slope is None else self.slope.value
        return self._filter.convolve(x, self.b.value, slope, shortcut)


class FusedResidual(Sequential):
    """A chain whose last layer, a ``FusedConv``, adds the shortcut; forward only."""

    def forward(self, x: Array) -> Array:
        *inner, last = self.chain.values()
        y = x
        for layer in inner:
            y = layer.forward(y)
        return last.forward(y, x)  # type: ignore[call-arg]


class DepthToSpace(Layer):
    """Turns cells into pixels: (N, H, W, 4 C) -> (N, 2 H, 2 W, C), with channels (i, j, c); forward only."""

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        cells = x.reshape(n, h, w, 2, 2, c // 4)
        y = by_rows(lambda cells: cells.transpose(0, 1, 3, 2, 4, 5), (n, h, 2, w, 2, c // 4), cells)
        return y.reshape(n, 2 * h, 2 * w, c // 4)


class FusedGenerator(Sequential):
    """The net that ``fuse`` returns: (N, H, W, 3) -> (N, scale H, scale W, 3); forward only."""

    def __init__(self, scale: int, **layers: Layer):
        super().__init__(**layers)
        self.scale = scale


def fuse(generator: Generator) -> FusedGenerator:
    """Fuse the layers of a generator in eval mode; the result has arrays of its own.

    Layers keep their names, except that ``tail`` becomes part of ``upscale``. Those that have nothing to fuse (rescale,
    output) are copied.
    """
    layers: dict[str, Layer] = {}
    for name, layer in generator.chain.items():
        if name in ("head", "body"):
            layers[name] = Sequential(*fuse_layers([layer]))
        elif name == "upscale":
            layers[name] = Sequential(*fuse_upscale(fuse_layers([layer, generator["tail"]])))
        elif name != "tail":
            layers[name] = copy(layer).eval()
    return FusedGenerator(generator.scale, **layers)


def fuse_layers(layers: Iterable[Layer]) -> list[Layer]:
    """Fuse each convolution with the batch-norm and PReLU after it, and each residual block with its shortcut.

    PReLU moves before the enlargement that it followed; ``DepthToSpace`` replaces ``PixelShuffle``.
    """
    result: list[Layer] = []
    conv: FusedConv
    for layer in layers:
        match layer:
            case Residual():
                result.append(FusedResidual(*fuse_layers(layer.children().values())))
            case Sequential():
                result += fuse_layers(layer.children().values())
            case Conv2D():
                conv = FusedConv(layer.w.value.copy(), layer.b.value.copy())
                result.append(conv)
            case BatchNorm():
                conv.w.value, conv.b.value = absorb_norm(conv.w.value, conv.b.value, layer)
            case PReLU():
                slope = layer.slope.value
                conv.slope = Buffer(np.tile(slope, len(conv.b.value) // len(slope)))
            case PixelShuffle():
                conv.w.value, conv.b.value = cells_first(conv.w.value), cells_first(conv.b.value)
                result.append(DepthToSpace())
            case Upsample():
                result.append(layer)
    return result


def fuse_upscale(layers: list[Any]) -> list[Layer]:
    """Move enlargements after the convolutions that follow them, where that saves time.

    layers: fused convolutions with enlargements between them. All nearest enlargements move, but only the last shuffle:
    a convolution between two shuffles is cheaper at the larger size.
    """
    result = layers[:1]
    for enlargement, conv in zip(layers[1::2], layers[2::2], strict=True):
        if isinstance(enlargement, Upsample):
            result += [before_nearest(conv), DepthToSpace()]
        elif conv is layers[-1]:
            result += [before_shuffle(conv), DepthToSpace()]
        else:
            result += [enlargement, conv]
    return result


def absorb_norm(w: Array, b: Array, norm: BatchNorm) -> tuple[Array, Array]:
    """Weights and bias of the convolution that includes batch-norm. For each output channel:

    (x * w + b - mean) s + beta = x * (w s) + (b - mean) s + beta,  s = gamma / sqrt(variance + epsilon)
    """
    s = norm.gamma.value / (norm.running_variance.value + norm.epsilon) ** 0.5
    return w * s, (b - norm.running_mean.value) * s + norm.beta.value


def cells_first(values: Array) -> Array:
    """Reorder the channels (..., 4 C) of a cell from (c, i, j) to (i, j, c)."""
    cells = values.reshape(*values.shape[:-1], -1, 4)
    return cells.swapaxes(-1, -2).reshape(values.shape)


def before_shuffle(conv: FusedConv) -> FusedConv:
    """The convolution conv' on cells with conv(DepthToSpace(x)) = DepthToSpace(conv'(x)).

    For pixel row 2 p + i, tap r of R reads row 2 p + i + r - R // 2 = 2 (p + t) + a: row a of the cell t cells further
    down, where t and a are quotient and remainder of (i + r - R // 2) / 2. The same holds for columns, so

        w'[t, u, (a, b, c), (i, j, k)] = w[r, s, c, k]

    and zero elsewhere. The padding is zero at both resolutions.
    """
    w, b, slope = conv.w.value, conv.b.value, conv.slope
    size, _, channels, outputs = w.shape
    far = (size // 2 + 1) // 2
    cells = array_module(w).zeros((2 * far + 1, 2 * far + 1, 2, 2, channels, 2, 2, outputs), w.dtype)
    for i, j, r, s in np.ndindex(2, 2, size, size):
        (t, row), (u, column) = divmod(i + r - size // 2, 2), divmod(j + s - size // 2, 2)
        cells[far + t, far + u, row, column, :, i, j] = w[r, s]
    folded = cells.reshape(*cells.shape[:2], 4 * channels, 4 * outputs)
    return FusedConv(folded, np.tile(b, 4), None if slope is None else np.tile(slope.value, 4))


def before_nearest(conv: FusedConv) -> FusedConv:
    """The convolution conv' with conv(Upsample(x)) = DepthToSpace(conv'(x)).

    Upsample is DepthToSpace of a cell of four equal pixels, so the weights of ``before_shuffle`` are summed over a, b.
    """
    conv = before_shuffle(conv)
    w = conv.w.value
    conv.w.value = w.reshape(*w.shape[:2], 4, -1, w.shape[3]).sum(axis=2)
    return conv
