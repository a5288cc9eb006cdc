"""How good is the generator on images it has never seen? PSNR, SSIM and, above all: does the code scan?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from tinysrgan.core import device
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.images import DataError, enlarge, read_image, to_uint8, to_unit
from tinysrgan.layers import Layer
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import strip
from tinysrgan.metrics.psnr_ssim import psnr, ssim


@dataclass
class Scores:
    """What one way of upscaling reached: a number for each image, and a reading for each code."""

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    scans: qr_reader.ScanTally = field(default_factory=qr_reader.ScanTally)

    def add(self, image: np.ndarray, hr: np.ndarray, text: str | None, version: int | None) -> None:
        """Compare an upscaled image with the real one, both uint8 (H, W, 3), whose QR code says ``text``."""
        self.psnr.append(psnr(image, hr))
        self.ssim.append(ssim(image, hr))
        self.scans.add(text, version, qr_reader.read_code(image) if text is not None else None)

    def row(self) -> dict[str, float]:
        """Means over the images: PSNR in dB, SSIM up to 1, and the share of codes that scan in % (NaN: no codes)."""
        return {"psnr": float(np.mean(self.psnr)), "ssim": float(np.mean(self.ssim)), "scan %": self.scans.rate()}


def code_of(path: Path) -> tuple[str | None, int | None]:
    """The text of an image file's QR code (None: no code), and its version, if its name or the reader tells.

    Raises DataError where the image can't be read, ImportError without zxing-cpp.
    """
    image = np.asarray(read_image(path))
    return qr_reader.read_code(image), qr_reader.version_of(path) or qr_reader.qr_version(image)


def upscale(generator: Layer, images: Sequence[np.ndarray], module: ModuleType, batch: int = 8) -> list[np.ndarray]:
    """Upscale uint8 images (H, W, 3) of one size with the generator in eval mode; leaves it in train mode.

    Grey stays grey, as with ``api.Upscaler``.
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


class Validation:
    """A fixed set of held-out images, with what bicubic upscaling makes of them."""

    def __init__(self, pairs: ImagePairs, limit: int):
        """Take the first ``limit`` readable images of ``pairs``; the others go to ``pairs.skipped``."""
        self.pairs = pairs
        self.lr: list[np.ndarray] = []
        self.hr: list[np.ndarray] = []
        # The text of each image's QR code, read off the full-size original (None: no code), and its version.
        self.codes: list[tuple[str | None, int | None]] = []
        readable = qr_reader.available()
        for i, path in enumerate(pairs.paths):
            if len(self.hr) == limit:
                break
            try:
                lr, hr = pairs.pair(i, None)
                code = code_of(path) if readable else (None, None)
            except DataError as error:
                pairs.skipped[path] = str(error)
                continue
            self.codes.append(code)
            self.lr.append(lr)
            self.hr.append(hr)
        if not self.hr:
            reason = next(iter(pairs.skipped.values())).removesuffix(".")
            raise DataError(f"None of the held-out images can be read, for example {reason}.")
        self.bicubic = [enlarge(lr, pairs.scale) for lr in self.lr]

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Compare upscaled uint8 images with the real ones."""
        scores = Scores()
        for image, hr, (text, version) in zip(images, self.hr, self.codes, strict=True):
            scores.add(image, hr, text, version)
        return scores

    def picture(self, sr: Sequence[np.ndarray], rows: int = 4) -> Image.Image:
        """The article's figure: LR, bicubic, SR and HR of a few images, if possible with a code of every version.

        Green frames scan, red ones don't.
        """
        versions = [version or 0 for _, version in self.codes]
        firsts = sorted({version: i for i, version in reversed(list(enumerate(versions)))}.items())
        chosen = [i for _, i in firsts][:rows]
        chosen += [i for i in range(len(versions)) if i not in chosen][: rows - len(chosen)]
        cells = [[images[i] for images in (self.lr, self.bicubic, sr, self.hr)] for i in chosen]
        texts = [self.codes[i][0] for i in chosen]
        frames = [
            [qr_reader.read_code(image) == text if text is not None else None for image in row]
            for row, text in zip(cells, texts, strict=True)
        ]
        return strip(cells, ["LR", "bicubic", "SR", "HR"], frames)


def groups(tally: qr_reader.ScanTally) -> dict[str, list[int] | None]:
    """The versions of QR codes that are counted together, by name: each by itself, v1 to v3, and all (None)."""
    named: dict[str, list[int] | None] = {f"v{version}": [version] for version in tally.versions}
    if {1, 2, 3} < set(tally.versions):
        named["v1-v3"] = [1, 2, 3]
    return named | {"all": None} if tally.count() else {}


def table(scores: dict[str, Scores]) -> str:
    """A table for people: a row for each way of upscaling; scan rates by version of the QR code, in %."""
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


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of a table as text: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )
