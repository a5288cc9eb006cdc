"""Upscale an image of any size in bounded memory: tile by tile, with the same result as for the whole image.

A pixel of the result depends on the input only within the net's receptive field. So each tile is computed with a
margin of that width, and the margin's results are dropped. At the image's border there is no margin: "same" padding
there is the padding of the whole image.

The generator's two halves need tiles of different sizes. Its residual blocks have a large receptive field (37 pixels
to each side for 16 blocks) at low resolution; its upscale blocks have a small one (3 pixels) and take 16 to 64 times
the memory. So large tiles go through the first half, and their feature maps, in small tiles, through the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from math import isqrt
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinysrgan.core.device import Array, to_device
from tinysrgan.data.images import to_unit
from tinysrgan.inference.fuse import DepthToSpace, FusedConv, FusedGenerator, FusedResidual
from tinysrgan.layers import Layer, Sequential
from tinysrgan.ops.parallel import single_threaded_blas

MEMORY = 200_000_000  # bytes for all arrays of a tile
ARRAYS = 4  # arrays in memory at once, none larger than the largest: a layer's input and output, and two shortcuts


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` - 1 and columns ``left`` to ``right`` - 1 of an image."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, margin: int, limits: Box) -> Box:
        """This box enlarged by a margin on each side, clipped to ``limits``."""
        return Box(
            max(self.top - margin, limits.top),
            min(self.bottom + margin, limits.bottom),
            max(self.left - margin, limits.left),
            min(self.right + margin, limits.right),
        )

    def shrunk(self, margin: int, limits: Box) -> Box:
        """This box reduced by a margin on each side, except at the edges that it shares with ``limits``."""
        return Box(
            self.top + margin * (self.top > limits.top),
            self.bottom - margin * (self.bottom < limits.bottom),
            self.left + margin * (self.left > limits.left),
            self.right - margin * (self.right < limits.right),
        )

    def cut(self, side: int) -> Iterator[Box]:
        """Split into boxes of similar size, at most ``side`` wide and high."""
        for top, bottom in _cut(self.top, self.bottom, side):
            for left, right in _cut(self.left, self.right, side):
                yield Box(top, bottom, left, right)

    def times(self, factor: int) -> Box:
        """The same part of the image after enlarging it by ``factor``."""
        return Box(*(factor * edge for edge in self))

    def of(self, x: Array, origin: Box) -> Array:
        """The elements of this box in x: (..., H, W, C), where x covers the box ``origin``."""
        rows = slice(self.top - origin.top, self.bottom - origin.top)
        columns = slice(self.left - origin.left, self.right - origin.left)
        return x[..., rows, columns, :]


def _cut(start: int, stop: int, side: int) -> list[tuple[int, int]]:
    pieces = -(-(stop - start) // side)
    edges = [start + (stop - start) * i // pieces for i in range(pieces + 1)]
    return list(pairwise(edges))


class Piece(NamedTuple):
    """A part of a feature map.

    x: (1, H, W, C). box: its position in the whole feature map. image: the box of the whole feature map.
    """

    x: Array
    box: Box
    image: Box

    def through(self, layer: Layer) -> Piece:
        """Apply the layer; keep only outputs that do not depend on pixels outside the piece."""
        match layer:
            case FusedResidual():
                *inner, last = layer.chain.values()
                piece = reduce(Piece.through, inner, self)
                return piece.convolved(last, piece.box.of(self.x, self.box))
            case Sequential():
                return reduce(Piece.through, layer.chain.values(), self)
            case FusedConv():
                return self.convolved(layer)
            case DepthToSpace():
                return Piece(layer.forward(self.x), self.box.times(2), self.image.times(2))
        return self._replace(x=layer.forward(self.x))

    def convolved(self, conv: Any, shortcut: Array | None = None) -> Piece:
        """Apply a ``FusedConv``; inside the image, drop the outputs that depend on pixels outside the piece."""
        box = self.box.shrunk(reach([conv]), self.image)
        return Piece(box.of(conv.forward(self.x, shortcut), self.box), box, self.image)


class Half:
    """Consecutive layers, and the side of their tiles, excluding the margin."""

    def __init__(self, layers: Sequence[Layer], memory: int):
        self.layers = layers
        self.margin = reach(layers)
        # If the net is too large for the memory, tiles are as wide as the margin.
        side = isqrt(memory // (4 * ARRAYS * largest(layers)))
        self.side = max(side - 2 * self.margin, self.margin, 1)

    def forward(self, piece: Piece) -> Piece:
        with single_threaded_blas():  # once, not for every layer
            return reduce(Piece.through, self.layers, piece)


def upscale_in_tiles(
    net: FusedGenerator, pixels: np.ndarray, module: ModuleType = np, memory: int = MEMORY
) -> Iterator[tuple[Box, np.ndarray]]:
    """Upscale pixels: uint8 (H, W, 3), tile by tile.

    Yields boxes that cover the image and, for each, that part of ``net.forward`` of the whole image: float32 (scale
    h, scale w, 3), equal up to rounding. The net's arrays are those of ``module`` (numpy or cupy). ``memory``: the
    approximate limit for the net's activations, in bytes.
    """
    layers = net.chain
    cut = list(layers).index("upscale")
    body, upscale = (Half(half, memory) for half in (list(layers.values())[:cut], list(layers.values())[cut:]))
    image = Box(0, pixels.shape[0], 0, pixels.shape[1])
    for tile in image.cut(body.side):
        known = tile.grown(upscale.margin, image)
        seen = known.grown(body.margin, image)
        x = to_device(to_unit(seen.of(pixels, image))[None], module)
        features = body.forward(Piece(x, seen, image))
        for part in tile.cut(upscale.side):
            seen = part.grown(upscale.margin, image)
            result = upscale.forward(Piece(seen.of(features.x, features.box), seen, image))
            y = part.times(net.scale).of(result.x, result.box)
            yield part, to_device(y[0], np)


def reach(layers: Sequence[Layer]) -> int:
    """The radius of the receptive field: the number of input pixels, to each side, that an output pixel depends on.

    Computed from the last layer back: a kernel of odd size R adds R // 2 pixels at its resolution, and an
    enlargement halves the pixels, rounded up.
    """
    pixels = 0
    for layer in reversed(_inside(layers)):
        if isinstance(layer, FusedConv):
            pixels += layer.w.value.shape[0] // 2
        elif isinstance(layer, DepthToSpace):
            pixels = -(-pixels // 2)
    return pixels


def largest(layers: Sequence[Layer]) -> int:
    """The largest number of elements that a layer outputs per pixel of the input."""
    most, area = 0, 1
    for layer in _inside(layers):
        if isinstance(layer, FusedConv):
            most = max(most, layer.w.value.shape[3] * area)
        elif isinstance(layer, DepthToSpace):
            area *= 4
    return most


def _inside(layers: Sequence[Layer]) -> list[Layer]:
    return [inner for layer in layers for inner in layer.layers()]
