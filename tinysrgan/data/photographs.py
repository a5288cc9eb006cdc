"""Photographs at their own resolution, as in super-resolution papers: LR is HR reduced by Pillow's bicubic filter.

Training takes random crops, mirrored and turned by quarters (``Crops``). Whole photographs, or their middles, judge the
result (``WholePhotographs``). Pillow's bicubic filter smooths before it samples, as MATLAB's ``imresize`` does: with
it, bicubic enlargement has the papers' PSNR to 0.01 dB.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from tinysrgan.data.dataset import Visits
from tinysrgan.data.images import DataError, image_size, read_image
from tinysrgan.data.listing import find_images
from tinysrgan.data.variants import without_marks

LANES = 16  # photographs whose crops alternate, so that a batch of 16 shows 16 of them
MOST_CROPS = 32  # of a photograph each time that it is decoded
LEAST = 5  # pixels on a side of LR: what is left of HR without its border is then as wide as SSIM's window
KEPT = 2_000_000  # pixels of a photograph's crops


class Crops(Visits):
    """Batches of random crops of the photographs at ``paths``; a ``dataset.BatchSource``.

    HR is hr_size x hr_size pixels of a photograph, in one of the eight orientations; LR is hr_size / scale wide.
    Decoding takes longer than a training step, so a photograph gives many crops before the next one takes its lane.
    The lanes change in turn. Photographs smaller than a crop are left out, as unreadable files are. Raises DataError if
    the sizes don't fit or there are no paths.
    """

    def __init__(self, paths: list[Path], hr_size: int = 96, scale: int = 4, seed: int = 0):
        super().__init__(paths, hr_size, scale, seed)
        self.crops = min(MOST_CROPS, max(1, KEPT // hr_size**2))
        self._visit = lru_cache(maxsize=LANES)(self.visit)

    def pair_at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        turn, lane = divmod(position, LANES)
        visit, i = divmod(turn + lane * self.crops // LANES, self.crops)
        hr = self._visit(visit * LANES + lane)[i]
        return np.asarray(reduced(Image.fromarray(hr), self.scale)), hr

    def draw(self, index: int, position: int) -> np.ndarray:
        """The crops of one visit: uint8 (crops, hr_size, hr_size, 3). ``position`` seeds them. Raises DataError."""
        path, side = self.paths[index], self.hr_size
        pixels = np.asarray(read_image(path))
        height, width, _ = pixels.shape
        if min(height, width) < side:
            raise DataError(f"{path}: {width}x{height} pixels are less than a crop of {side}x{side} (--hr-size)")
        rng = np.random.default_rng([self.seed, 4, position])
        corners = rng.integers(0, (height - side + 1, width - side + 1), (self.crops, 2))
        crops = [pixels[top : top + side, left : left + side] for top, left in corners]
        turns = rng.integers(0, 8, self.crops)
        return np.stack([oriented(crop, turn) for crop, turn in zip(crops, turns, strict=True)])


class WholePhotographs:
    """LR and HR of the photographs at ``paths``, in the papers' protocol.

    HR is the photograph, cropped to a multiple of the scale; or its middle, if it is more than ``most`` pixels wide or
    high. ``ready`` maps paths to files of LR versions that exist (``ready_versions``).
    """

    papers = True

    def __init__(
        self, paths: list[Path], scale: int, most: int | None = None, ready: Mapping[Path, Path] | None = None
    ):
        self.paths, self.scale, self.most = paths, scale, most
        self.ready = ready or {}
        self.skipped: dict[Path, str] = {}
        self.sizes = f"at their own size, x{scale}"

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of one photograph, uint8 (h, w, 3) and (scale h, scale w, 3). Raises DataError."""
        path = self.paths[index]
        image = read_image(path)
        if path in self.ready:
            lr = read_image(self.ready[path])
        else:
            image = middle(image, self.most or max(image.size))
            lr = reduced(image, self.scale)
        width, height = (side // self.scale for side in image.size)
        if min(width, height) < LEAST:
            raise DataError(
                f"{path}: {image.width}x{image.height} pixels are too few, {LEAST * self.scale} is the least"
            )
        lr = lr.crop((0, 0, width, height))
        return np.asarray(lr), np.asarray(image.crop((0, 0, self.scale * width, self.scale * height)))

    def enlarged(self, index: int) -> bool:
        return False


def oriented(pixels: np.ndarray, number: int) -> np.ndarray:
    """One of the eight orientations of a square image: turned by quarters, and for 4 to 7 mirrored before."""
    return np.rot90(pixels if number < 4 else pixels[:, ::-1], number)


def middle(image: Image.Image, most: int) -> Image.Image:
    """The middle of an image, at most ``most`` pixels wide and high."""
    width, height = (min(side, most) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def reduced(image: Image.Image, scale: int) -> Image.Image:
    """Crop an image to a multiple of ``scale``, as papers do, and reduce it by Pillow's bicubic filter."""
    width, height = image.width // scale, image.height // scale
    return image.crop((0, 0, scale * width, scale * height)).resize((width, height), Image.Resampling.BICUBIC)


def ready_versions(paths: list[Path], folder: Path, scale: int) -> dict[Path, Path]:
    """For each photograph the file in ``folder`` that shows it, by its name, ``scale`` times smaller.

    Names may differ by marks, as in HR/baby.png and X4/babyx4.png, or in img_001_SRF_4_HR.png and img_001_SRF_4_LR.png,
    which may lie in one folder. Sizes that ``scale`` doesn't divide may be rounded up or down. Raises DataError for a
    photograph without such a file.
    """
    small: dict[str, list[Path]] = {}
    for file in find_images(folder):
        small.setdefault(without_marks(file.stem), []).append(file)
    sizes = {path: image_size(path) for path in {*paths, *(file for files in small.values() for file in files)}}
    largest: dict[str, int] = {}
    for path in paths:
        label = without_marks(path.stem)
        largest[label] = max(largest.get(label, 0), max(sizes[path]))
    found = {}
    for path in paths:
        label = without_marks(path.stem)
        files = sorted(small.get(label, []), key=lambda file: file.stem.casefold() != path.stem.casefold())
        if path in files and max(sizes[path]) < largest[label]:
            continue  # a small version itself
        fitting = [
            file
            for file in files
            if all(-1 < large / scale - side < 1 for large, side in zip(sizes[path], sizes[file], strict=True))
        ]
        if not fitting:
            width, height = (side // scale for side in sizes[path])
            raise DataError(
                f"{folder} holds no {width}x{height} version of {path}, by a name such as {path.stem}x{scale}."
            )
        found[path] = fitting[0]
    return found
