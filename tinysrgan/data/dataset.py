"""Batches of image pairs: a small and a large version (LR, HR) of each image of a folder.

A batch depends only on the seed and the step, so a resumed run gets the same batches as an uninterrupted one. Files are
decoded when they are needed and only a few are cached, so a folder may be far larger than memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tinysrgan.data.augment import Augment
from tinysrgan.data.images import DataError, area_average, to_unit
from tinysrgan.data.source import SourceCache


class BatchSource(ABC):
    """Where training gets its batches. ``skipped`` gives the reasons why files can't be used."""

    skipped: dict[Path, str]

    @abstractmethod
    def __len__(self) -> int:
        """The number of pairs in an epoch."""

    @abstractmethod
    def pair_at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR at a position in the sequence of all epochs, always the same: uint8 (h, w, 3).

        Raises DataError if no image can be used.
        """

    def batch(self, step: int, size: int, part: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of a step, counted from 0: float32 (size, h, w, 3) in [-1, 1]; or only a ``part`` of the images.

        Raises DataError if no image can be used.
        """
        pairs = [self.pair_at(position) for position in range(step * size, (step + 1) * size)[part]]
        lr, hr = zip(*pairs, strict=True)
        return to_unit(np.stack(lr)), to_unit(np.stack(hr))


class JudgedPairs(Protocol):
    """Images to judge a generator by: ``ImagePairs``, or ``photographs.WholePhotographs``."""

    paths: list[Path]
    scale: int
    skipped: dict[Path, str]
    papers: bool  # whether they are judged as in papers: luminance alone, without the border
    sizes: str  # of LR and HR, in words

    def __len__(self) -> int: ...

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of one image, uint8 (h, w, 3) and (scale h, scale w, 3). Raises DataError."""

    def enlarged(self, index: int) -> bool:
        """Whether the image is smaller than HR."""


class Visits(BatchSource):
    """The images at ``paths`` in random order, a new one every epoch; ``skipped`` gives the reason for unusable files.

    ``draw`` of a subclass makes what a visit yields. Raises DataError if the sizes don't fit or there are no paths.
    """

    def __init__(self, paths: list[Path], hr_size: int, scale: int, seed: int):
        if scale < 1 or hr_size % scale or hr_size < 4 * scale:
            raise DataError(
                f"The side of the large images, {hr_size}, must be a multiple of the scale, {scale}, and at least four "
                "times as much."
            )
        if not paths:
            raise DataError("There are no images to make pairs of.")
        self.paths, self.seed = paths, seed
        self.hr_size, self.scale, self.lr_size = hr_size, scale, hr_size // scale
        self.skipped: dict[Path, str] = {}
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    def __len__(self) -> int:
        return len(self.paths)

    def draw(self, index: int, position: int) -> Any:
        """What a visit of image ``index`` yields; ``position`` seeds it. Raises DataError if the file can't be used."""
        raise NotImplementedError

    def visit(self, position: int) -> Any:
        """What the image at a position in the sequence of all epochs yields, or the next usable one.

        Raises DataError if no image can be used.
        """
        epoch, start = divmod(position, len(self))
        order = self._order(epoch)
        for i in range(len(self)):
            index = int(order[(start + i) % len(self)])
            path = self.paths[index]
            if path in self.skipped:
                continue
            try:
                return self.draw(index, position)
            except DataError as error:
                self.skipped[path] = str(error)
        raise DataError(f"None of the {len(self)} images to train on can be used, for example: {self.skipped[path]}.")

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self))


class ImagePairs(Visits):
    """LR and HR versions of the images at ``paths``, varied by ``augment`` if given; a ``BatchSource``.

    HR is the image resized to hr_size x hr_size by Pillow's bilinear filter, which averages when it shrinks. LR is the
    same image reduced to hr_size / scale by area averaging. The cache holds up to ``cache_bytes`` of decoded images.
    """

    papers = False

    def __init__(
        self,
        paths: list[Path],
        hr_size: int = 128,
        scale: int = 4,
        augment: Augment | None = None,
        seed: int = 0,
        cache_bytes: int = 64_000_000,
    ):
        super().__init__(paths, hr_size, scale, seed)
        self.sizes = f"{self.lr_size}x{self.lr_size} to {hr_size}x{hr_size}"
        self.side = 3 * hr_size  # of the image that HR and LR are both reduced from
        self.augment = augment
        self.sources = SourceCache(cache_bytes, self.side)

    def pair(self, index: int, draw: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of one image, uint8 (lr_size, lr_size, 3) and (hr_size, hr_size, 3).

        ``draw`` seeds the augmentation; None leaves the image as it is. Raises DataError if the file can't be read.
        """
        source = self.sources.get(self.paths[index])
        hr_size = (self.hr_size, self.hr_size)
        if self.augment is None or draw is None:
            image = source.image
            lr = area_average(image, self.lr_size)
        else:
            rng = np.random.default_rng([self.seed, 1, draw])
            image = self.augment.vary(source, self.side, self.lr_size, rng)
            lr = self.augment.degrade(image, self.lr_size, rng)
        return rgb(lr), rgb(np.asarray(image.resize(hr_size, Image.Resampling.BILINEAR)))

    def enlarged(self, index: int) -> bool:
        return min(self.sources.get(self.paths[index]).image.size) < self.hr_size

    def pair_at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        return self.visit(position)

    def draw(self, index: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pair(index, position)


def rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) as (H, W, 3)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
