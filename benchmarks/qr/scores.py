"""The scores of a method of upscaling on a track, as a table and for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.qr.readers import Reader
from benchmarks.qr.samples import Sample, data_modules
from tinysrgan.metrics.psnr_ssim import psnr, ssim
from tinysrgan.metrics.qr_reader import ScanTally, interval
from tinysrgan.metrics.scores import aligned, groups


@dataclass
class Scores:
    """Scan results for each reader, and values for each image. compared: images show the same frame as HR."""

    readers: Mapping[str, Reader]
    compared: bool = True
    tallies: dict[str, ScanTally] = field(init=False)
    module_errors: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = {name: ScanTally() for name in self.readers}

    def add(self, image: np.ndarray, sample: Sample) -> None:
        """Score an upscaled sample, uint8 of HR's size; an image of LR's size is only read."""
        for name, read in self.readers.items():
            self.tallies[name].add(sample.text, sample.version, read(image))
        if self.compared and image.shape == sample.hr.shape:
            if sample.centres is not None:
                self.module_errors.append(module_errors(image, sample))
            self.psnr.append(psnr(image, sample.hr))
            self.ssim.append(ssim(image, sample.hr))

    def report(self) -> dict[str, Any]:
        """Return the results for JSON: rates and module errors in %, intervals, mean PSNR in dB; None if undefined.

        PSNR is undefined if an image equals the original.
        """
        means = {"module errors": self.module_errors, "psnr": self.psnr, "ssim": self.ssim}
        defined = {name: float(np.mean(values)) if values else np.inf for name, values in means.items()}
        return {
            "scans": {
                reader: {name: _rate(tally, versions) for name, versions in groups(tally).items()}
                for reader, tally in self.tallies.items()
            },
            "misreads": {reader: tally.misreads() for reader, tally in self.tallies.items()},
        } | {name: value if np.isfinite(value) else None for name, value in defined.items()}


def _rate(tally: ScanTally, versions: list[int] | None) -> dict[str, float]:
    scanned, count = tally.scanned(versions), tally.count(versions)
    low, high = interval(scanned, count)
    return {"scanned": scanned, "of": count, "rate": tally.rate(versions), "low": low, "high": high}


def module_errors(image: np.ndarray, sample: Sample) -> float:
    """The share, in %, of a code's data modules that have the wrong colour in an image of HR's size.

    The image is sampled at the known centres of the modules, so no reader has to find them.
    """
    assert sample.centres is not None
    rows, columns = sample.centres
    dark = _bilinear(image, rows, columns) <= otsu(image)
    return 100 * float((dark != sample.modules)[data_modules(sample.version)].mean())


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    top, left = rows.astype(int), columns.astype(int)
    down, right = rows - top, columns - left
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def otsu(image: np.ndarray) -> int:
    """The grey level that separates dark from light with the largest variance between the classes (Otsu 1979)."""
    counts = np.bincount(image.ravel(), minlength=256)
    dark, mean = counts.cumsum() / image.size, (counts * np.arange(256)).cumsum() / image.size
    between = (mean[-1] * dark - mean) ** 2 / np.maximum(dark * (1 - dark), 1e-9)
    return int(between.argmax())


def table(results: Mapping[str, dict[str, Any]]) -> str:
    """Format a row for each method of upscaling, from ``Scores.report``: rates in %, zxing's with 95 % intervals."""
    first = next(iter(results.values()))
    others = list(first["scans"])[1:]
    rows = [["", *next(iter(first["scans"].values())), *others, "misread", "MER", "PSNR", "SSIM"]]
    for name, scores in results.items():
        primary, *_ = scores["scans"].values()
        rates = [f"{cell['rate']:.0f} ({cell['low']:.0f}-{cell['high']:.0f})" for cell in primary.values()]
        checks = [f"{scores['scans'][reader]['all']['rate']:.0f}" for reader in others]
        misreads = "/".join(str(count) for count in scores["misreads"].values())
        quality = [(scores["module errors"], "{:.1f}"), (scores["psnr"], "{:.2f}"), (scores["ssim"], "{:.3f}")]
        rows.append([name, *rates, *checks, misreads, *("" if n is None else text.format(n) for n, text in quality)])
    return aligned(rows)
