"""How good upscaled images are: PSNR, SSIM and, above all, whether their QR codes scan.

``Validation`` scores the generator on held-out images during training, ``Evaluation`` is the command ``evaluate``.
Images are judged as training sees them: resized to squares and reduced by area averaging (``dataset.ImagePairs``).
Papers keep the shape and reduce by bicubic interpolation, so these scores can't be compared with theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from tinysrgan.core import device
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import DataError, enlarge, read_image, to_uint8, to_unit
from tinysrgan.layers import Layer
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import Comparison
from tinysrgan.metrics.psnr_ssim import crop_border, luma, psnr, ssim

Upscale = Callable[[np.ndarray], np.ndarray]  # uint8 (H, W, 3) to (scale H, scale W, 3)

BASELINES = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}


def baselines(scale: int) -> dict[str, Upscale]:
    """Pillow's interpolations by name."""
    return {name: partial(enlarge, scale=scale, resampling=filter) for name, filter in BASELINES.items()}


# ---------------------------------------------------------------- images to judge by


@dataclass(frozen=True)
class Sample:
    """An image pair, uint8 (h, w, 3) and (scale h, scale w, 3), and the QR code that it shows."""

    lr: np.ndarray
    hr: np.ndarray
    text: str | None = None  # None: no code
    version: int | None = None
    enlarged: bool = False  # whether the file is smaller than HR


def samples(pairs: ImagePairs, what: str, done: Callable[[int], object] = lambda count: None) -> Iterator[Sample]:
    """Read the images of ``pairs`` one at a time; unreadable ones go to ``pairs.skipped``. ``done`` counts all of them.

    The code's text is read from the full-size original; without zxing-cpp no image counts as a code. Raises DataError,
    which calls the images ``what``, if none can be read.
    """
    reads, found = qr_reader.available(), False
    for i, path in enumerate(pairs.paths):
        try:
            lr, hr = pairs.pair(i)
            text, version = code_of(path) if reads else (None, None)
            enlarged = min(pairs.sources.get(path).image.size) < pairs.hr_size
        except DataError as error:
            pairs.skipped[path] = str(error)
        else:
            found = True
            yield Sample(lr, hr, text, version, enlarged)
        done(1)
    if not found:
        reason = next(iter(pairs.skipped.values())).removesuffix(".")
        raise DataError(f"None of the {what} can be used, for example: {reason}.")


def code_of(path: Path) -> tuple[str | None, int | None]:
    """The text of an image file's QR code (None: no code), and its version from the file's name or the reader.

    Raises DataError if the image can't be read, ImportError without zxing-cpp.
    """
    image = np.asarray(read_image(path))
    return qr_reader.read_code(image), qr_reader.version_of(path) or qr_reader.qr_version(image)


# ---------------------------------------------------------------- scores


@dataclass
class Scores:
    """The scores of one way of upscaling: a value for each image, and a reading for each code.

    With ``border``, PSNR and SSIM are also taken of luminance (Y) without a border of so many pixels, as in papers.
    """

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    scans: qr_reader.ScanTally = field(default_factory=qr_reader.ScanTally)
    border: int | None = None
    psnr_y: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)

    def add(self, image: np.ndarray, sample: Sample) -> None:
        """Compare an upscaled image, uint8 (H, W, 3), with HR, and read its code."""
        self.psnr.append(psnr(image, sample.hr))
        self.ssim.append(ssim(image, sample.hr))
        self.scans.add(sample.text, sample.version, qr_reader.read_code(image) if sample.text is not None else None)
        if self.border is not None:
            y, y_hr = (crop_border(luma(pixels), self.border) for pixels in (image, sample.hr))
            self.psnr_y.append(psnr(y, y_hr))
            self.ssim_y.append(ssim(y, y_hr))

    def means(self) -> dict[str, float]:
        """Means over the images: PSNR in dB (infinite if an image is exact), SSIM up to 1; of Y only with a border."""
        lists = {"psnr": self.psnr, "ssim": self.ssim, "psnr_y": self.psnr_y, "ssim_y": self.ssim_y}
        return {name: float(np.mean(values)) for name, values in lists.items() if values}

    def row(self) -> dict[str, float]:
        """The means, and the share of codes that scan in % (NaN: no codes)."""
        return self.means() | {"scan %": self.scans.rate()}


def groups(tally: qr_reader.ScanTally) -> dict[str, list[int] | None]:
    """The versions that are counted together, by name: each alone, v1 to v3, and all (None). Empty without codes."""
    named: dict[str, list[int] | None] = {f"v{version}": [version] for version in tally.versions}
    if {1, 2, 3} < set(tally.versions):
        named["v1-v3"] = [1, 2, 3]
    return named | {"all": None} if tally.count() else {}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The rows of a table as text: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


# ---------------------------------------------------------------- during training


class Validation:
    """The first ``limit`` readable images of ``pairs``, kept in memory, with their bicubic versions."""

    def __init__(self, pairs: ImagePairs, limit: int):
        self.samples = list(islice(samples(pairs, "held-out images"), limit))
        self.lr = [sample.lr for sample in self.samples]
        self.hr = [sample.hr for sample in self.samples]
        self.bicubic = [enlarge(lr, pairs.scale) for lr in self.lr]

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Compare upscaled uint8 images with HR."""
        scores = Scores()
        for image, sample in zip(images, self.samples, strict=True):
            scores.add(image, sample)
        return scores

    def picture(self, sr: Sequence[np.ndarray], rows: int = 4) -> Image.Image:
        """The article's figure: LR, bicubic, SR and HR of a few images."""
        figure = Comparison(rows)
        for sample, bicubic, image in zip(self.samples, self.bicubic, sr, strict=True):
            images = {"LR": sample.lr, "bicubic": bicubic, "SR": image, "HR": sample.hr}
            figure.offer(images, sample.text, sample.version)
        return figure.draw()


def upscale(generator: Layer, images: Sequence[np.ndarray], module: ModuleType, batch: int = 8) -> list[np.ndarray]:
    """Upscale uint8 images (H, W, 3) of one size with the generator in eval mode, and return it to train mode.

    Grey images stay grey, as with ``inference.upscaler.Upscaler``.
    """
    generator.eval()
    results: list[np.ndarray] = []
    for i in range(0, len(images), batch):
        pixels = np.stack(images[i : i + batch])
        sr = device.to_device(generator.forward(device.to_device(to_unit(pixels), module)), np)
        grey = (pixels == pixels[..., :1]).all(axis=(1, 2, 3))
        sr[grey] = sr[grey].mean(axis=3, keepdims=True)
        results += list(to_uint8(sr))
    generator.train()
    return results


def table(scores: dict[str, Scores]) -> str:
    """Training's table: a row for each way of upscaling; scan rates by version of the QR code, in %."""
    tally = next(iter(scores.values())).scans
    counted = groups(tally)
    rows = [["", "PSNR, dB", "SSIM", *counted, "misread"]]
    for name, score in scores.items():
        rates = [f"{score.scans.rate(versions):.0f}" for versions in counted.values()]
        quality = [f"{np.mean(score.psnr):.2f}", f"{np.mean(score.ssim):.4f}"]
        rows.append([name, *quality, *rates, str(score.scans.misreads())])
    rows.append(["codes", "", "", *(str(tally.count(versions)) for versions in counted.values()), ""])
    if counted:
        rows[0][3] = f"scans, %: {rows[0][3]}"
    else:  # no codes among the images
        rows = [row[:3] for row in rows[:-1]]
    return aligned(rows)


# ---------------------------------------------------------------- the command evaluate


class Evaluation:
    """Scores of several ways of upscaling (``methods``, by name). Images are judged one at a time; few are kept."""

    def __init__(self, methods: Mapping[str, Upscale], scale: int):
        self.methods, self.scale = methods, scale
        self.scores = {name: Scores(border=scale) for name in methods}
        self.figure = Comparison()
        self.enlarged = 0  # files smaller than the square that they are judged as

    def run(self, pairs: ImagePairs, done: Callable[[int], object]) -> None:
        """Judge all images of ``pairs``; see ``samples``."""
        for sample in samples(pairs, f"{len(pairs)} images", done):
            self.add(sample)

    def add(self, sample: Sample) -> None:
        """Judge one image."""
        results = {name: method(sample.lr) for name, method in self.methods.items()}
        for name, image in results.items():
            self.scores[name].add(image, sample)
        self.enlarged += sample.enlarged
        shown = {name: image for name, image in results.items() if name not in BASELINES}
        self.figure.offer({"LR": sample.lr, **shown, "original": sample.hr}, sample.text, sample.version)

    @property
    def tally(self) -> qr_reader.ScanTally:
        """The tally of the first method; all have the same codes."""
        return next(iter(self.scores.values())).scans

    @property
    def count(self) -> int:
        """The number of images judged."""
        return len(next(iter(self.scores.values())).psnr)

    def table(self) -> str:
        """A column for each method, and scan rates if there are codes."""
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
        """The results for JSON; an infinite PSNR is None."""
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
