"""The command ``evaluate``: several ways of upscaling, judged side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from tinysrgan.core.ranks import ranks
from tinysrgan.data.dataset import JudgedPairs
from tinysrgan.data.images import DataError, enlarge
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import Comparison
from tinysrgan.metrics.scores import Sample, Scores, aligned, groups, none_usable, read_sample

Upscale = Callable[[np.ndarray], np.ndarray]  # uint8 (H, W, 3) to (scale H, scale W, 3)

Judged = tuple[dict[str, Scores], dict[str, np.ndarray], Sample]  # scores by method, images to show by title

SHOWN = 256  # pixels: the middle of a larger photograph is shown

BASELINES = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}


def baselines(scale: int) -> dict[str, Upscale]:
    """Pillow's interpolations by name."""
    return {name: partial(enlarge, scale=scale, resampling=filter) for name, filter in BASELINES.items()}


class Evaluation:
    """Scores of several ways of upscaling (``methods``, by name). Images are judged one at a time; few are kept.

    ``papers``: in the papers' protocol, which scores luminance alone.
    """

    def __init__(self, methods: Mapping[str, Upscale], scale: int, papers: bool = False):
        self.methods, self.scale, self.papers = methods, scale, papers
        self.scores = {name: Scores(border=scale, rgb=not papers) for name in methods}
        self.figure = Comparison()
        self.enlarged = 0  # files smaller than the square that they are judged as

    def run(self, pairs: JudgedPairs, done: Callable[[int], object]) -> None:
        """Judge all images of ``pairs``, which the ranks share; unreadable ones go to ``pairs.skipped``.

        ``done`` counts them all. Raises DataError if none can be read.
        """

        def judge(index: int) -> Judged | str:
            try:
                return self.judge(read_sample(pairs, index))
            except DataError as error:
                return str(error)
            finally:
                done(ranks().size)

        for path, judged in zip(pairs.paths, ranks().map(judge, range(len(pairs)), block=8), strict=True):
            if isinstance(judged, str):
                pairs.skipped[path] = judged
            else:
                self.record(judged)
        if not self.count:
            raise none_usable(pairs, f"{len(pairs)} images")

    def judge(self, sample: Sample) -> Judged:
        """Upscale and score one image."""
        results = {name: method(sample.lr) for name, method in self.methods.items()}
        scores = {name: Scores(border=self.scale, rgb=not self.papers) for name in self.methods}
        for name, image in results.items():
            scores[name].add(image, sample)
        shown = {name: image for name, image in results.items() if name not in BASELINES}
        images = {"LR": sample.lr, **shown, "original": sample.hr}
        if self.papers and sample.text is None:
            side = SHOWN // self.scale
            top, left = (max(0, length - side) // 2 for length in sample.lr.shape[:2])
            for name, image in images.items():
                times = len(image) // len(sample.lr)
                images[name] = image[times * top : times * (top + side), times * left : times * (left + side)]
        return scores, images, sample

    def record(self, judged: Judged) -> None:
        """Append one image's scores, and offer it to the figure."""
        scores, images, sample = judged
        for name, score in scores.items():
            self.scores[name].extend(score)
        self.enlarged += sample.enlarged
        self.figure.offer(images, sample.text, sample.version)

    @property
    def tally(self) -> qr_reader.ScanTally:
        """The tally of the first method; all have the same codes."""
        return next(iter(self.scores.values())).scans

    @property
    def count(self) -> int:
        """The number of images judged."""
        return len(next(iter(self.scores.values())).psnr_y)

    def table(self) -> str:
        """A column for each method, and scan rates if there are codes."""
        formats = {
            "PSNR, dB": ("psnr", ".2f"),
            "SSIM": ("ssim", ".4f"),
            "PSNR of Y, dB": ("psnr_y", ".2f"),
            "SSIM of Y": ("ssim_y", ".4f"),
        }
        means = [scores.means() for scores in self.scores.values()]
        how = "As in papers: images keep their size; LR by bicubic interpolation, or as given."
        if not self.papers:
            how = "Not as in papers: images become squares, and are shrunk by area averaging."
        notes = [f"Y: luminance without a border of {self.scale} pixels.", how]
        if self.enlarged:
            notes += [
                f"Smaller than their square, and enlarged to it: {self.enlarged} of {self.count} images. They",
                "lack detail, which favours interpolation: give sharp originals, or a smaller",
                "--hr-size.",
            ]
        rows = [["", *self.scores]]
        rows += [
            [label, *(format(mean[name], spec) for mean in means)]
            for label, (name, spec) in formats.items()
            if name in means[0]
        ]
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
