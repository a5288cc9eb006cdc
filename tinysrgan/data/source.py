"""Decoded images, and a cache of them that is bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from tinysrgan.data.images import decode

TOLERANCE = 32  # grey levels; JPEG makes a plain background vary by up to this


class Source:
    """A decoded image ("L" or "RGB") with its background colour and the box of its content, found when needed."""

    def __init__(self, image: Image.Image):
        self.image = image

    @cached_property
    def background(self) -> tuple[int, ...]:
        """The colour of the outermost pixels, or white if they differ, as in a QR code without a border."""
        pixels = np.asarray(self.image)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).reshape(-1, pixels[0, 0].size)
        colour = np.median(edge, axis=0)
        plain = np.mean(np.abs(edge - colour).max(axis=1) <= TOLERANCE) >= 0.9
        return tuple(int(value) for value in colour) if plain else (255,) * len(colour)

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, upper, right, lower of everything that isn't background; the whole image if it is all background."""
        plain = Image.new(self.image.mode, self.image.size, self.background)
        difference = ImageChops.difference(self.image, plain).point(lambda value: 255 * (value > TOLERANCE))
        return difference.getbbox() or (0, 0, *self.image.size)


class SourceCache:
    """A thread-safe LRU cache of decoded images, bounded in bytes.

    An image whose sides are at least twice ``side`` is shrunk by a whole factor before it is kept.
    """

    def __init__(self, limit: int, side: int):
        self.limit, self.side = limit, side
        self.kept: OrderedDict[Path, Source] = OrderedDict()
        self.bytes = 0
        self.lock = threading.Lock()

    def get(self, path: Path) -> Source:
        """The image of a file. Raises DataError if it can't be read."""
        with self.lock:
            if path in self.kept:
                self.kept.move_to_end(path)
                return self.kept[path]
        image = decode(path)
        times = max(1, min(image.size) // self.side)
        size = (image.width // times, image.height // times)
        source = Source(image.resize(size, Image.Resampling.HAMMING))  # BOX, but smooth for fractional factors
        with self.lock:
            if path not in self.kept:
                self.kept[path] = source
                self.bytes += _bytes(source)
            while self.bytes > self.limit:
                self.bytes -= _bytes(self.kept.popitem(last=False)[1])
        return source


def _bytes(source: Source) -> int:
    bytes_per_pixel = 1 if source.image.mode == "L" else 4  # Pillow pads RGB to four bytes
    return source.image.width * source.image.height * bytes_per_pixel
