"""Pairs of a small and a large version of the same image, in batches, from a folder of image files.

A batch depends on nothing but the seed and the step's number, so that a resumed run sees exactly what an uninterrupted
one would. Files are decoded when they are needed; only a few are kept, so a folder may be far larger than memory.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from tinysrgan.core.cli import printable
from tinysrgan.core.errors import UserError
from tinysrgan.data.augment import Augment, Source
from tinysrgan.data.images import ENDINGS, DataError, advice, area_average, decode, to_unit
from tinysrgan.data.sources import sources

Item = TypeVar("Item")
Name = TypeVar("Name", str, Path)


def find_images(folder: Path, limit: int | None = None, tell: Callable[[str], object] | None = None) -> list[Path]:
    """All files in the folder and those below it whose name ends as an image's does, or ``limit`` of them at random.

    Sorted by path; always the same. Nothing is opened yet. Links to folders are followed, each folder once; hidden
    files and folders are left out. ``tell`` gets a sentence that counts the files of other kinds, if there are any.
    Raises DataError where there are no images, or a folder can't be listed.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "doesn't exist"
        raise DataError(f"{folder} {what}: give a folder of images, for example data/qr.")
    names, seen, others = [], set(), Counter[str]()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        first_visit = (real := os.path.realpath(place)) not in seen
        seen.add(real)
        folders[:] = sorted(name for name in folders if first_visit and name[0] != ".")
        for name in files if first_visit else ():
            if (ending := os.path.splitext(name)[1].lower()) in ENDINGS and name[0] != ".":
                names.append(os.path.join(place, name))
            elif name[0] != ".":
                others[ending] += 1
    left_out = f"Left out in {folder}: {_kinds(others)}." if others else ""
    if not names:
        nothing = f"{folder} holds no images ({', '.join(sorted(ENDINGS))}): put some there, or try data/qr."
        raise DataError(" ".join(filter(None, [nothing, left_out])))
    if tell is not None and left_out:
        tell(left_out)
    return some(sorted(map(Path, names)), limit)


def some(paths: list[Path], limit: int | None) -> list[Path]:
    """``limit`` of the paths at random, but always the same and in their order; all for None."""
    if limit is None or limit >= len(paths):
        return paths
    chosen = np.random.default_rng(12).permutation(len(paths))[:limit]
    return [paths[i] for i in sorted(chosen)]


def _kinds(endings: Counter[str]) -> str:
    """Files of each kind in words, the most first, and what to do about some of them."""
    ordered = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{count} {printable(ending) or 'without an ending'}" for ending, count in ordered[:8]]
    if rest := sum(count for _, count in ordered[8:]):
        counts.append(f"{rest} of other kinds")
    return "; ".join(filter(None, [", ".join(counts), advice(endings)]))


def _cannot_list(error: OSError) -> None:
    raise DataError(f"{error.filename} can't be listed: {error.strerror}.") from error


def split(
    paths: list[Name], validation: float = 0.33, seed: int = 12, labels: Sequence[Hashable] | None = None
) -> tuple[list[Name], list[Name]]:
    """Divide the images at random, but always alike, into those to train on and those held out for validation.

    It happens before any augmentation: variants of one image on both sides would make the validation worthless. So
    images with the same label stay on one side, unless all have the same; by default variants by their names have
    (``sources``). More variants than are still to be held out are trained on. Raises DataError for fewer than 2 images.
    """
    if len(paths) < 2:
        raise DataError(
            "There must be at least 2 images, one to train on and one to hold out for validation: add some, or give a "
            "larger --limit."
        )
    order = np.random.default_rng(seed).permutation(len(paths))
    room = min(max(1, round(validation * len(paths))), len(paths) - 1)
    source = sources([Path(path).as_posix() for path in paths]) if labels is None else labels
    if len(set(source)) == 1:
        source = range(len(paths))
    sizes = Counter(source)
    room = max(room, min(sizes.values()))
    held_out: dict[Hashable, bool] = {}
    for i in order:
        if source[i] not in held_out:
            held_out[source[i]] = sizes[source[i]] <= room
            room -= sizes[source[i]] * held_out[source[i]]
    return [paths[i] for i in order if not held_out[source[i]]], [paths[i] for i in order if held_out[source[i]]]


class BatchSource(Protocol):
    """What training takes its batches from: ``ImagePairs`` of a folder's images, or ``fresh_codes.SyntheticCodes``."""

    skipped: dict[Path, str]

    def __len__(self) -> int:
        """How many pairs make an epoch."""

    def batch(self, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of step number ``step``: float32 (size, ., ., 3) in [-1, 1], always the same for a step."""


class ImagePairs:
    """Small and large versions (LR, HR) of the images at ``paths``, varied by ``augment`` if given.

    HR is the image resized to hr_size x hr_size (Pillow's bilinear, which averages when it shrinks), LR the same image
    resized to the ``scale``-th part of that by area averaging. Files that can't be used are left out and named once in
    ``skipped``, with the reason. Up to ``cache_bytes`` of decoded images are kept.
    """

    def __init__(
        self,
        paths: list[Path],
        hr_size: int = 128,
        scale: int = 4,
        augment: Augment | None = None,
        seed: int = 0,
        cache_bytes: int = 64_000_000,
    ):
        if scale < 1 or hr_size % scale or hr_size < 4 * scale:
            raise DataError(
                f"The side of the large images, {hr_size}, must be a multiple of the scale, {scale}, and at least four "
                "times as much."
            )
        if not paths:
            raise DataError("There are no images to make pairs of.")
        self.paths = paths
        self.hr_size, self.scale, self.lr_size = hr_size, scale, hr_size // scale
        self.side = 3 * hr_size  # of what HR and LR are shrunk from
        self.augment, self.seed = augment, seed
        self.skipped: dict[Path, str] = {}
        self.sources = _Sources(cache_bytes, self.side)
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, draw: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of one image, uint8 (lr_size, lr_size, 3) and (hr_size, hr_size, 3).

        ``draw`` is the seed of its variation; None leaves the image as it is. Raises DataError.
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
        return _rgb(lr), _rgb(np.asarray(image.resize(hr_size, Image.Resampling.BILINEAR)))

    def batch(self, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR of step number ``step``: float32 (size, ., ., 3) in [-1, 1], always the same for a step.

        Steps go through the images in a new random order every epoch. Raises DataError where none can be used.
        """
        pairs = [self._readable(position) for position in range(step * size, (step + 1) * size)]
        lr, hr = zip(*pairs, strict=True)
        return to_unit(np.stack(lr)), to_unit(np.stack(hr))

    def _readable(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """The pair at a position of the endless stream of epochs, or the next one that can be used."""
        epoch, start = divmod(position, len(self))
        order = self._order(epoch)
        for i in range(len(self)):
            index = int(order[(start + i) % len(self)])
            path = self.paths[index]
            if path in self.skipped:
                continue
            try:
                return self.pair(index, position)
            except DataError as error:
                self.skipped[path] = str(error)
        raise DataError(f"None of the {len(self)} images to train on can be used, for example: {self.skipped[path]}.")

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self))


class _Sources:
    """Decoded images by path; the least recently used ones go where they would take more than ``limit`` bytes.

    An image much larger than ``side`` is shrunk first. For use by several threads.
    """

    def __init__(self, limit: int, side: int):
        self.limit, self.side = limit, side
        self.kept: OrderedDict[Path, Source] = OrderedDict()
        self.bytes = 0
        self.lock = threading.Lock()

    def get(self, path: Path) -> Source:
        with self.lock:
            if path in self.kept:
                self.kept.move_to_end(path)
                return self.kept[path]
        image = decode(path)
        times = max(1, min(image.size) // self.side)
        size = (image.width // times, image.height // times)
        source = Source(image.resize(size, Image.Resampling.HAMMING))  # BOX, but smooth where the sizes don't divide
        with self.lock:
            if path not in self.kept:
                self.kept[path] = source
                self.bytes += _bytes(source)
            while self.bytes > self.limit:
                self.bytes -= _bytes(self.kept.popitem(last=False)[1])
        return source


def _bytes(source: Source) -> int:
    bytes_a_pixel = 1 if source.image.mode == "L" else 4  # Pillow pads RGB
    return source.image.width * source.image.height * bytes_a_pixel


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) as (H, W, 3)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def save_augmented(pairs: ImagePairs, folder: Path, variants: int = 10) -> list[Path]:
    """Write ``variants`` variants of each image to a folder, as the article does, and return their paths.

    They are varied by ``pairs.augment`` and named as their image, with two numbers before it: ``00012-03-7209-v4.png``.
    Give it only images to train on (``split`` comes first). Files that can't be used are left out and named in
    ``pairs.skipped``. Raises DataError if the folder isn't empty, ValueError if ``pairs`` doesn't augment, and OSError.
    """
    if pairs.augment is None:
        raise ValueError("There is nothing to vary the images by: give Pairs an Augment.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder} isn't empty: give a new folder for the augmented images.")
    saved = []
    for index, path in enumerate(pairs.paths):
        try:
            source = pairs.sources.get(path)
        except DataError as error:
            pairs.skipped[path] = str(error)
            continue
        for variant in range(variants):
            rng = np.random.default_rng([pairs.seed, 2, index, variant])
            image = pairs.augment.vary(source, pairs.side, pairs.lr_size, rng)
            saved.append(folder / f"{index:05d}-{variant:02d}-{path.stem}.png")
            image.save(saved[-1])
    return saved


def prefetch(make: Callable[[int], Item], steps: Iterable[int], workers: int = 1, ahead: int = 4) -> Iterator[Item]:
    """Yield make(step) for every step, in order; threads make up to ``ahead`` of them in advance.

    An exception in ``make`` is raised here, in its turn. When the iteration ends, however it ends, so do the threads.
    """
    pool = ThreadPoolExecutor(workers, "prefetch")
    waiting: deque[Future[Item]] = deque()
    try:
        for step in steps:
            try:
                waiting.append(pool.submit(make, step))
            except RuntimeError as error:  # Python can't start the thread
                raise UserError("There is too little memory for another thread, or no more are allowed.") from error
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
