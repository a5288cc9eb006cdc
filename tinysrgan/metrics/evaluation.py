"""The judgement of generators: PSNR, SSIM and scan rates, beside what simple interpolation reaches.

Images are judged as training sees them: resized to squares and shrunk by area averaging (``data.ImagePairs``). Papers
keep their shape and shrink by bicubic interpolation, so the scores here can't be compared with theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import DataError
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import strip
from tinysrgan.metrics.psnr_ssim import crop_border, luma, psnr, ssim
from tinysrgan.metrics.scores import Scores, aligned, code_of, groups

BASELINES = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
ROWS = 4  # of the picture


@dataclass
class PaperScores(Scores):
    """Scores also of luminance alone, without a border as wide as the scale."""

    scale: int = 4
    psnr_y: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)

    def add(self, image: np.ndarray, hr: np.ndarray, text: str | None, version: int | None) -> None:
        super().add(image, hr, text, version)
        y, y_hr = (crop_border(luma(pixels), self.scale) for pixels in (image, hr))
        self.psnr_y.append(psnr(y, y_hr))
        self.ssim_y.append(ssim(y, y_hr))

    def means(self) -> dict[str, float]:
        """Over the images; PSNR in dB (infinite where one came out exactly), SSIM up to 1."""
        lists = {"psnr": self.psnr, "ssim": self.ssim, "psnr_y": self.psnr_y, "ssim_y": self.ssim_y}
        return {name: float(np.mean(values)) for name, values in lists.items()}


@dataclass
class Row:
    """A row of the picture: an image in all its versions, and the text of its QR code (None: no code)."""

    images: dict[str, np.ndarray]
    text: str | None
    rank: tuple[bool, int]


class Evaluation:
    """What ways of upscaling make of images, judged one image at a time: only numbers and a few images are kept.

    ``methods``, by name, take a uint8 image (H, W, 3) to one ``scale`` times as wide and high. The text and version
    of an image's QR code are read off its full-size original; without zxing-cpp no image counts as a code.
    """

    def __init__(self, methods: Mapping[str, Callable[[np.ndarray], np.ndarray]], scale: int):
        self.methods, self.scale = methods, scale
        self.scores = {name: PaperScores(scale=scale) for name in methods}
        self.rows: list[Row] = []
        self.enlarged = 0  # images smaller than the square that they are judged as
        self.reads = qr_reader.available()

    def run(self, pairs: ImagePairs, done: Callable[[int], object]) -> None:
        """Judge all images of ``pairs``; those that can't be read go to ``pairs.skipped``. ``done`` counts them.

        Raises DataError where none can be read.
        """
        for i, path in enumerate(pairs.paths):
            try:
                lr, hr = pairs.pair(i)
                text, version = code_of(path) if self.reads else (None, None)
                self.enlarged += min(pairs.sources.get(path).image.size) < pairs.hr_size
            except DataError as error:
                pairs.skipped[path] = str(error)
            else:
                self.add(lr, hr, text, version)
            done(1)
        if not self.count:
            reason = next(iter(pairs.skipped.values()))
            raise DataError(f"None of the {len(pairs)} images can be used, for example: {reason}.")

    def add(self, lr: np.ndarray, hr: np.ndarray, text: str | None, version: int | None) -> None:
        """Judge one image: uint8 (h, w, 3) and (scale h, scale w, 3)."""
        first_of_version = text is not None and version not in self.tally.versions
        rank = (False, version or 0) if first_of_version else (True, self.count)
        results = {name: upscale(lr) for name, upscale in self.methods.items()}
        for name, image in results.items():
            self.scores[name].add(image, hr, text, version)
        self.rows.append(Row({"LR": lr, **results, "original": hr}, text, rank))
        self.rows = sorted(self.rows, key=lambda row: row.rank)[:ROWS]

    @property
    def tally(self) -> qr_reader.ScanTally:
        """Any of the tallies: which codes there are is the same in all."""
        return next(iter(self.scores.values())).scans

    @property
    def count(self) -> int:
        """How many images were judged."""
        return len(next(iter(self.scores.values())).psnr)

    def picture(self) -> Image.Image:
        """The article's figure: LR, SR and the original of a few images, if possible with a code of every version.

        Green frames scan, red ones don't.
        """
        titles = ["LR", *(name for name in self.methods if name not in BASELINES), "original"]
        cells = [[row.images[title] for title in titles] for row in self.rows]
        frames = [
            [qr_reader.read_code(image) == row.text if row.text is not None else None for image in images]
            for row, images in zip(self.rows, cells, strict=True)
        ]
        return strip(cells, titles, frames)

    def table(self) -> str:
        """A table for people: a column for each way of upscaling, and scan rates where there are codes."""
        formats = {
            "PSNR, dB": ("psnr", ".2f"),
            "SSIM": ("ssim", ".4f"),
            "PSNR of Y, dB": ("psnr_y", ".2f"),
            "SSIM of Y": ("ssim_y", ".4f"),
        }
        means = [scores.means() for scores in self.scores.values()]
        notes = [
            f"Y: luminance without a border of {self.scale} pixels.",
            "Not as in papers: images become squares, and are shrunk by area averaging.",
        ]
        if self.enlarged:
            notes += [
                f"Smaller than their square, and enlarged to it: {self.enlarged} of {self.count} images. They",
                "lack detail, which favours interpolation: give a smaller --hr-size.",
            ]
        rows = [["", *self.scores]]
        rows += [[label, *(format(mean[name], spec) for mean in means)] for label, (name, spec) in formats.items()]
        if counted := groups(self.tally):
            rows.append(["codes that scan, %", *[""] * len(self.scores)])
            for name, versions in counted.items():
                rates = [scan_rate(scores.scans, versions) for scores in self.scores.values()]
                cells = [f"{rate['percent']:.0f} ({rate['low']:.0f}-{rate['high']:.0f})" for rate in rates]
                rows.append([f"  {name} (of {self.tally.count(versions)})", *cells])
            rows.append(["misread codes", *(str(scores.scans.misreads()) for scores in self.scores.values())])
            notes.append("In brackets: the 95 % interval of the rate.")
            if self.tally.no_code:
                notes.append(f"Originals without a code that can be read, left out there: {self.tally.no_code}.")
        return "\n".join([aligned(rows), *notes])

    def report(self) -> dict[str, Any]:
        """The same for programs: what JSON can say, None where a PSNR is infinite."""
        counted = groups(self.tally)
        methods = {
            name: {key: mean if math.isfinite(mean) else None for key, mean in scores.means().items()}
            | {"scans": {group: scan_rate(scores.scans, versions) for group, versions in counted.items()}}
            for name, scores in self.scores.items()
        }
        return {
            "images": self.count,
            "images_without_code": self.tally.no_code,
            "images_enlarged": self.enlarged,
            "methods": methods,
        }


def scan_rate(tally: qr_reader.ScanTally, versions: Sequence[int] | None) -> dict[str, float]:
    """How many codes of these versions scan: counts, the rate in % and its 95 % interval, and misreads."""
    codes, scanned = tally.count(versions), tally.scanned(versions)
    low, high = qr_reader.interval(scanned, codes)
    return {
        "codes": codes,
        "scanned": scanned,
        "percent": tally.rate(versions),
        "low": low,
        "high": high,
        "misread": tally.misreads(versions),
    }


def interpolation(resampling: Image.Resampling, scale: int) -> Callable[[np.ndarray], np.ndarray]:
    """Pillow's interpolation as a way of upscaling."""

    def upscale(lr: np.ndarray) -> np.ndarray:
        size = (scale * lr.shape[1], scale * lr.shape[0])
        return np.asarray(Image.fromarray(lr).resize(size, resampling))

    return upscale
