"""How good upscaled images are: PSNR, SSIM and, above all, whether their QR codes scan.

``Validation`` scores the generator on held-out images during training. Codes are judged as training sees them: resized
to squares and reduced by area averaging (``dataset.ImagePairs``); those scores can't be compared with papers'.
Photographs are judged as in papers (``photographs.WholePhotographs``): of luminance, without a border.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from types import ModuleType

import numpy as np
from PIL import Image

from tinysrgan.core import device
from tinysrgan.data.dataset import JudgedPairs
from tinysrgan.data.images import DataError, enlarge, read_image, to_uint8, to_unit
from tinysrgan.layers import Layer
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import Comparison
from tinysrgan.metrics.psnr_ssim import crop_border, luma, psnr, ssim

# ---------------------------------------------------------------- images to judge by


@dataclass(frozen=True)
class Sample:
    """An image pair, uint8 (h, w, 3) and (scale h, scale w, 3), and the QR code that it shows."""

    lr: np.ndarray
    hr: np.ndarray
    text: str | None = None  # None: no code
    version: int | None = None
    enlarged: bool = False  # whether the file is smaller than HR


def samples(pairs: JudgedPairs, what: str) -> Iterator[Sample]:
    """Read the images of ``pairs`` one at a time; unreadable ones go to ``pairs.skipped``.

    Raises DataError, which calls the images ``what``, if none can be read.
    """
    found = False
    for i, path in enumerate(pairs.paths):
        try:
            sample = read_sample(pairs, i)
        except DataError as error:
            pairs.skipped[path] = str(error)
        else:
            found = True
            yield sample
    if not found:
        raise none_usable(pairs, what)


def read_sample(pairs: JudgedPairs, index: int) -> Sample:
    """Read one image. Raises DataError.

    The code's text is read from the original at its full size; without zxing-cpp no image counts as a code.
    """
    lr, hr = pairs.pair(index)
    text = version = None
    if qr_reader.available():
        path = pairs.paths[index]
        original = hr if pairs.papers else np.asarray(read_image(path))
        text = qr_reader.read_code(original)
        version = qr_reader.version_of(path) or qr_reader.qr_version(original)
    return Sample(lr, hr, text, version, pairs.enlarged(index))


def none_usable(pairs: JudgedPairs, what: str) -> DataError:
    reason = next(iter(pairs.skipped.values())).removesuffix(".")
    return DataError(f"None of the {what} can be used, for example: {reason}.")


# ---------------------------------------------------------------- scores


@dataclass
class Scores:
    """The scores of one way of upscaling: a value for each image, and a reading for each code.

    With ``border``, PSNR and SSIM are also taken of luminance (Y) without a border of so many pixels, as in papers;
    without ``rgb``, of luminance alone.
    """

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    scans: qr_reader.ScanTally = field(default_factory=qr_reader.ScanTally)
    border: int | None = None
    rgb: bool = True
    psnr_y: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)

    def add(self, image: np.ndarray, sample: Sample) -> None:
        """Compare an upscaled image, uint8 (H, W, 3), with HR, and read its code."""
        if self.rgb:
            self.psnr.append(psnr(image, sample.hr))
            self.ssim.append(ssim(image, sample.hr))
        self.scans.add(sample.text, sample.version, qr_reader.read_code(image) if sample.text is not None else None)
        if self.border is not None:
            y, y_hr = (crop_border(luma(pixels), self.border) for pixels in (image, sample.hr))
            self.psnr_y.append(psnr(y, y_hr))
            self.ssim_y.append(ssim(y, y_hr))

    def extend(self, other: Scores) -> None:
        """Append the scores of further images."""
        for name in ("psnr", "ssim", "psnr_y", "ssim_y"):
            getattr(self, name).extend(getattr(other, name))
        self.scans.readings += other.scans.readings
        self.scans.no_code += other.scans.no_code

    def means(self) -> dict[str, float]:
        """Means over the images: PSNR in dB (infinite if an image is exact), SSIM up to 1; of Y only with a border."""
        lists = {"psnr": self.psnr, "ssim": self.ssim, "psnr_y": self.psnr_y, "ssim_y": self.ssim_y}
        return {name: float(np.mean(values)) for name, values in lists.items() if values}

    def row(self) -> dict[str, float]:
        """Mean PSNR and SSIM, of Y if of nothing else, and the share of codes that scan in % (NaN: no codes)."""
        means = {name.removesuffix("_y"): value for name, value in reversed(self.means().items())}
        return means | {"scan %": self.scans.rate()}


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

    def __init__(self, pairs: JudgedPairs, limit: int):
        self.pairs = pairs
        self.samples = list(islice(samples(pairs, "held-out images"), limit))
        self.lr = [sample.lr for sample in self.samples]
        self.hr = [sample.hr for sample in self.samples]
        self.bicubic = [enlarge(lr, pairs.scale) for lr in self.lr]

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Compare upscaled uint8 images with HR."""
        scores = Scores(border=self.pairs.scale, rgb=False) if self.pairs.papers else Scores()
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
    """Upscale uint8 images (H, W, 3) with the generator in eval mode, and return it to train mode.

    Grey images stay grey, as with ``inference.upscaler.Upscaler``.
    """
    generator.eval()
    results: list[np.ndarray] = []
    for _, same in groupby(images, np.shape):
        alike = list(same)
        for i in range(0, len(alike), batch):
            pixels = np.stack(alike[i : i + batch])
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
    of = "" if next(iter(scores.values())).rgb else " of Y"
    rows = [["", f"PSNR{of}, dB", f"SSIM{of}", *counted, "misread"]]
    for name, score in scores.items():
        rates = [f"{score.scans.rate(versions):.0f}" for versions in counted.values()]
        means = score.row()
        quality = [f"{means['psnr']:.2f}", f"{means['ssim']:.4f}"]
        rows.append([name, *quality, *rates, str(score.scans.misreads())])
    rows.append(["codes", "", "", *(str(tally.count(versions)) for versions in counted.values()), ""])
    if counted:
        rows[0][3] = f"scans, %: {rows[0][3]}"
    else:  # no codes among the images
        rows = [row[:3] for row in rows[:-1]]
    return aligned(rows)
