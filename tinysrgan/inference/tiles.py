"""Upscale an image of any size in bounded memory: in tiles, with the result of the whole image.

A pixel of the result depends on the input only as far as the net's filters reach. So a tile is computed with a margin
of that width around it, and what comes of the margin is dropped. At the image's border a tile ends where the image
does: the zeros that "same" convolutions see there are those that the whole image would give them.

The generator's two halves need tiles of different sizes. Its residual blocks see far (37 pixels for 16 blocks), but
at low resolution; its upscale blocks see 3 pixels and take 16 to 64 times the memory. So large tiles go through the
first half, and their features, in small tiles, through the second.
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
from tinysrgan.inference.fuse import DepthToSpace, Folded, FusedConv, FusedResidual
from tinysrgan.layers import Layer, Sequential
from tinysrgan.ops.parallel import single_threaded_blas

MEMORY = 200_000_000  # bytes that a tile's arrays may take together
ARRAYS = 4  # as large as the largest, alive at once: input and output of a layer, and two shortcuts around it


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of an image, both without the last."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, margin: int, limits: Box) -> Box:
        """This box with a margin around it, as far as that lies within ``limits``."""
        return Box(
            max(self.top - margin, limits.top),
            min(self.bottom + margin, limits.bottom),
            max(self.left - margin, limits.left),
            min(self.right + margin, limits.right),
        )

    def shrunk(self, margin: int, limits: Box) -> Box:
        """This box without a margin, except where it ends as ``limits`` does."""
        return Box(
            self.top + margin * (self.top > limits.top),
            self.bottom - margin * (self.bottom < limits.bottom),
            self.left + margin * (self.left > limits.left),
            self.right - margin * (self.right < limits.right),
        )

    def cut(self, side: int) -> Iterator[Box]:
        """Boxes of like size, at most ``side`` on a side, that together make up this one."""
        for top, bottom in _cut(self.top, self.bottom, side):
            for left, right in _cut(self.left, self.right, side):
                yield Box(top, bottom, left, right)

    def times(self, factor: int) -> Box:
        """The same part of an image that is ``factor`` times as large."""
        return Box(*(factor * edge for edge in self))

    def of(self, x: Array, origin: Box) -> Array:
        """What lies in this box of x: (..., H, W, C), the pixels of the box ``origin``."""
        rows = slice(self.top - origin.top, self.bottom - origin.top)
        columns = slice(self.left - origin.left, self.right - origin.left)
        return x[..., rows, columns, :]


def _cut(start: int, stop: int, side: int) -> list[tuple[int, int]]:
    pieces = -(-(stop - start) // side)
    edges = [start + (stop - start) * i // pieces for i in range(pieces + 1)]
    return list(pairwise(edges))


class Piece(NamedTuple):
    """Pixels x: (1, H, W, C) of the part ``box`` of an image that is as large as ``image``."""

    x: Array
    box: Box
    image: Box

    def through(self, layer: Layer) -> Piece:
        """What the layer makes of this piece, as far as it is what it would make of the whole image."""
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
        """What a ``FusedConv`` makes, without the border within the image, where it looked for pixels beyond ours."""
        box = self.box.shrunk(reach([conv]), self.image)
        return Piece(box.of(conv.forward(self.x, shortcut), self.box), box, self.image)


class Half:
    """Layers that follow each other, and how wide a tile of theirs is: without the margin that they need around it."""

    def __init__(self, layers: Sequence[Layer], memory: int):
        self.layers = layers
        self.margin = reach(layers)
        # A net too large for the memory gets tiles that are at least no smaller than their margins.
        side = isqrt(memory // (4 * ARRAYS * largest(layers)))
        self.side = max(side - 2 * self.margin, self.margin, 1)

    def forward(self, piece: Piece) -> Piece:
        with single_threaded_blas():  # once, not for every layer
            return reduce(Piece.through, self.layers, piece)


def upscale_in_tiles(
    net: Folded, pixels: np.ndarray, module: ModuleType = np, memory: int = MEMORY
) -> Iterator[tuple[Box, np.ndarray]]:
    """Upscale pixels: uint8 (H, W, 3), tile by tile.

    Yields boxes that together make up the image and, for each, what ``net.forward`` of the whole image gives there,
    to rounding: float32 (scale h, scale w, 3). The net lies where ``module`` (numpy or cupy) keeps its arrays.
    ``memory``, in bytes, is about what the nets' activations may take at a time.
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
    """How many pixels of the input, to each side, a pixel of the result depends on.

    Walks back from the result: a filter of odd size R adds R // 2 pixels at its own resolution, and what is needed of
    an enlarged image lies in half as many pixels, rounded up, of the image before.
    """
    pixels = 0
    for layer in reversed(_inside(layers)):
        if isinstance(layer, FusedConv):
            pixels += layer.w.value.shape[0] // 2
        elif isinstance(layer, DepthToSpace):
            pixels = -(-pixels // 2)
    return pixels


def largest(layers: Sequence[Layer]) -> int:
    """The most numbers that any layer makes of one pixel of the input."""
    most, area = 0, 1
    for layer in _inside(layers):
        if isinstance(layer, FusedConv):
            most = max(most, layer.w.value.shape[3] * area)
        elif isinstance(layer, DepthToSpace):
            area *= 4
    return most


def _inside(layers: Sequence[Layer]) -> list[Layer]:
    return [inner for layer in layers for inner in layer.layers()]
