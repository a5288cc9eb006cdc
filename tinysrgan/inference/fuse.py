"""An equivalent net for inference: a trained generator with fewer and cheaper layers, and the same numbers.

    fast = fold(generator)
    fast.forward(x)  # what generator.eval().forward(x) gives, to rounding

What is folded into what:

* batch-norm into the convolution before it (``absorb_norm``);
* an enlargement into the convolution after it, which then works at half the resolution and makes all four pixels of a
  2x2 cell at once (``over_shuffle``, ``over_nearest``). So the last 9x9 convolution becomes a 5x5;
* PReLU goes before an enlargement, which only moves or repeats numbers;
* bias, PReLU and shortcut into the convolutions, which do them on the way (``ops.epilogue``).

The channels of a cell are (i, j, c) here: channel (2 i + j) C + c belongs in row i and column j of the cell, so that
pixels move as runs of C numbers. ``PixelShuffle`` has them as (c, i, j).
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
from tinysrgan.ops import by_rows
from tinysrgan.ops.conv.frozen_filter import FrozenFilter


class FusedConv(Layer):
    """y = prelu(x * w + b) + shortcut, with "same" padding; only forward.

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
        if self._filter.w is not self.w.value:  # moved to another device, or converted
            self._filter = FrozenFilter(self.w.value)
        slope = None if self.slope is None else self.slope.value
        return self._filter.convolve(x, self.b.value, slope, shortcut)


class FusedResidual(Sequential):
    """A chain whose last layer, a ``FusedConv``, adds the shortcut; only forward."""

    def forward(self, x: Array) -> Array:
        *inner, last = self.chain.values()
        y = x
        for layer in inner:
            y = layer.forward(y)
        return last.forward(y, x)  # type: ignore[call-arg]


class DepthToSpace(Layer):
    """Cells to pixels: (N, H, W, 4 C) -> (N, 2 H, 2 W, C), with the channels as (i, j, c); only forward."""

    def forward(self, x: Array) -> Array:
        n, h, w, c = x.shape
        cells = x.reshape(n, h, w, 2, 2, c // 4)
        y = by_rows(lambda cells: cells.transpose(0, 1, 3, 2, 4, 5), (n, h, 2, w, 2, c // 4), cells)
        return y.reshape(n, 2 * h, 2 * w, c // 4)


class Folded(Sequential):
    """What ``fold`` makes of a generator: (N, H, W, 3) -> (N, scale H, scale W, 3); only forward."""

    def __init__(self, scale: int, **layers: Layer):
        super().__init__(**layers)
        self.scale = scale


def fold(generator: Generator) -> Folded:
    """The net that gives what ``generator`` does in eval mode, with arrays of its own.

    Its layers have the generator's names, but that the tail is a part of ``upscale``; those around ``head``, ``body``,
    ``upscale`` and ``tail`` are the generator's own.
    """
    layers: dict[str, Layer] = {}
    for name, layer in generator.chain.items():
        if name in ("head", "body"):
            layers[name] = Sequential(*fuse([layer]))
        elif name == "upscale":
            layers[name] = Sequential(*fold_upscale(fuse([layer, generator["tail"]])))
        elif name != "tail":
            layers[name] = copy(layer).eval()
    return Folded(generator.scale, **layers)


def fuse(layers: Iterable[Layer]) -> list[Layer]:
    """Every convolution with the batch-norm and PReLU that follow it, every residual block with its shortcut.

    PReLU then comes before the enlargement that it followed, and ``DepthToSpace`` takes the place of pixel shuffles.
    """
    result: list[Layer] = []
    conv: FusedConv
    for layer in layers:
        match layer:
            case Residual():
                result.append(FusedResidual(*fuse(layer.children().values())))
            case Sequential():
                result += fuse(layer.children().values())
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


def fold_upscale(layers: list[Any]) -> list[Layer]:
    """Fused convolutions with enlargements between them, so that as little as possible is done at the larger sizes.

    Nearest enlargements all move behind the convolution that follows them. Of shuffles only the last one does: between
    two of them a convolution is cheaper at the larger size.
    """
    result = layers[:1]
    for enlargement, conv in zip(layers[1::2], layers[2::2], strict=True):
        if isinstance(enlargement, Upsample):
            result += [over_nearest(conv), DepthToSpace()]
        elif conv is layers[-1]:
            result += [over_shuffle(conv), DepthToSpace()]
        else:
            result += [enlargement, conv]
    return result


def absorb_norm(w: Array, b: Array, norm: BatchNorm) -> tuple[Array, Array]:
    """Weights and bias of the convolution that does batch-norm as well.

        (x * w + b - mean) s + beta = x * (w s) + (b - mean) s + beta,  s = gamma / sqrt(variance + epsilon)

    for every output channel. The zeros of the padding are in x and so stay what they are.
    """
    s = norm.gamma.value / (norm.running_variance.value + norm.epsilon) ** 0.5
    return w * s, (b - norm.running_mean.value) * s + norm.beta.value


def cells_first(values: Array) -> Array:
    """(..., 4 C) with the channels of a cell as (c, i, j), in the order (i, j, c)."""
    cells = values.reshape(*values.shape[:-1], -1, 4)
    return cells.swapaxes(-1, -2).reshape(values.shape)


def over_shuffle(conv: FusedConv) -> FusedConv:
    """The convolution that gives, as cells, what ``conv`` makes of the pixels: conv(Spread(x)) = Spread(conv'(x)).

    For pixel row 2 p + i, tap r of R takes the row 2 p + i + r - R // 2 = 2 (p + t) + a: row a of the cell that is t
    cells further down, where t and a are (i + r - R // 2) / 2 rounded down and the remainder. Columns are alike, so

        w'[t, u, (a, b, c), (i, j, k)] = w[r, s, c, k]

    and zero where no tap looks. Beyond the border of the image are zeros at both resolutions.
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


def over_nearest(conv: FusedConv) -> FusedConv:
    """The convolution that gives, as cells, what ``conv`` makes of enlarged x: conv(Upsample(x)) = Spread(conv'(x)).

    To repeat a pixel is to spread a cell with four times the same: the taps of ``over_shuffle`` are summed over a, b.
    """
    conv = over_shuffle(conv)
    w = conv.w.value
    conv.w.value = w.reshape(*w.shape[:2], 4, -1, w.shape[3]).sum(axis=2)
    return conv
