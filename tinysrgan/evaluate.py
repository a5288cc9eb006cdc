"""Judge generators on a folder of images: ``python -m tinysrgan.evaluate data/qr --weights runs/1/generator.h5``."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import struct
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from tinysrgan import scan
from tinysrgan.api import SHIPPED, load
from tinysrgan.checkpoint import CheckpointError, read_state
from tinysrgan.data import Pairs, find_images, split
from tinysrgan.device import DEVICES
from tinysrgan.errors import UserError
from tinysrgan.files import write_whole
from tinysrgan.images import DataError
from tinysrgan.metrics import WINDOW, crop_border, luma, psnr, ssim
from tinysrgan.options import whole
from tinysrgan.picture import encode, strip
from tinysrgan.upscale import STREAM, identity, progress, say, sentence
from tinysrgan.validation import Scores, aligned, code_of, groups
from tinysrgan.vgg_weights import WEIGHTS

BASELINES = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
LARGEST_SIDE = 2048  # pixels of the large images; comparing two of them takes about a gigabyte
ROWS = 4  # of the picture

# ---------------------------------------------------------------- the judgement


@dataclass
class PaperScores(Scores):
    """Scores as the papers also give them: of luminance alone, without a border as wide as the scale."""

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
        self.reads = scan.available()

    def run(self, pairs: Pairs, done: Callable[[int], object]) -> None:
        """Judge all images of ``pairs``; those that can't be read go to ``pairs.skipped``. ``done`` counts them.

        Raises DataError where none can be read.
        """
        for i, path in enumerate(pairs.paths):
            try:
                lr, hr = pairs.pair(i)
                text, version = code_of(path) if self.reads else (None, None)
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
    def tally(self) -> scan.ScanTally:
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
            [scan.read_code(image) == row.text if row.text is not None else None for image in images]
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
        notes = [f"Y: luminance without a border of {self.scale} pixels, as in papers."]
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
        return {"images": self.count, "images_without_code": self.tally.no_code, "methods": methods}


def scan_rate(tally: scan.ScanTally, versions: Sequence[int] | None) -> dict[str, float]:
    """How many codes of these versions scan: counts, the rate in % and its 95 % interval, and misreads."""
    codes, scanned = tally.count(versions), tally.scanned(versions)
    low, high = scan.interval(scanned, codes)
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


# ---------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 when done, 2 for a mistake of the user's, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what the terminal can't show
            stream.reconfigure(errors="backslashreplace")
    try:
        return run(parser().parse_args(arguments))
    except KeyboardInterrupt:
        say("stopped; nothing was written.")
        return 130
    except MemoryError:
        say("There is too little memory for this; try a smaller --hr-size.")
        return 2
    except (UserError, OSError) as error:
        say(sentence(error))
        return 2


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.evaluate",
        description="Judge a generator on a folder of images. Each is made small, upscaled again, and compared with "
        "what it was: PSNR and SSIM, of RGB and (as in papers) of luminance Y without a border as wide as the scale; "
        "and whether its QR code still scans, with exactly the right text. Beside it: nearest, bicubic and Lanczos.",
        epilog="Example: python -m tinysrgan.evaluate data/qr --held-out --weights runs/1/generator.h5 --picture "
        "figure.png. Exit code: 0 done (files that can't be read are named and left out), 2 a mistake, 130 stopped "
        "by Ctrl-C.",
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of images, for example data/qr")
    add(
        "--weights",
        type=Path,
        action="append",
        metavar="FILE",
        help="generator.h5 of a training run (default: the one that is shipped); again for another beside it",
    )
    add("--held-out", action="store_true", help="only the third that training on DATA holds out")
    add("--limit", type=whole(1), metavar="N", help="use only so many of the images, as training does")
    add("--hr-size", type=whole(1), metavar="N", help="side of the large images, in pixels (default: as in training)")
    add("--json", type=Path, metavar="FILE", help="write the numbers for programs; - is standard output")
    add("--picture", type=Path, metavar="FILE", help="write the figure LR | SR | original; green frames scan")
    add("--device", choices=DEVICES, default="auto", help="where to compute (default: a GPU if one works)")
    return parser


def run(words: argparse.Namespace) -> int:
    """Do what the command line asks for. Raises UserError or OSError."""
    weights = words.weights or [WEIGHTS / SHIPPED]
    check_outputs(words, [*find_images(words.data), *weights])
    paths = find_images(words.data, words.limit)
    if words.held_out:
        paths = split(paths)[1]
    upscalers = [load(path, words.device) for path in words.weights or [None]]
    scale = upscalers[0].scale
    if any(upscaler.scale != scale for upscaler in upscalers):
        scales = ", ".join(f"{path} x{upscaler.scale}" for path, upscaler in zip(weights, upscalers, strict=True))
        raise UserError(f"Only generators of one scale can be compared: {scales}.")
    pairs = Pairs(paths, large_side(words.hr_size, weights[0], scale), scale)
    if not scan.available():
        say(f"{scan.MISSING} Until then nobody looks whether the results scan.")

    names = ["SR"] if len(weights) == 1 else [f"SR {i + 1}" for i in range(len(weights))]
    baselines = {name: interpolation(resampling, scale) for name, resampling in BASELINES.items()}
    evaluation = Evaluation({**baselines, **dict(zip(names, upscalers, strict=True))}, scale)
    with progress(len(pairs), "image") as done, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numbers that overflow end in one sentence, a UserError
        evaluation.run(pairs, done)
    for reason in pairs.skipped.values():
        say(f"skipped {reason}")

    files = dict(zip(names, map(str, weights), strict=True))
    report = {
        "data": str(words.data),
        "held_out": words.held_out,
        "skipped": {str(path): reason for path, reason in pairs.skipped.items()},
        "lr_size": pairs.lr_size,
        "hr_size": pairs.hr_size,
        "weights": files,
        "device": upscalers[0].where,
        "qr_reader": evaluation.reads,
        **evaluation.report(),
    }
    which = f"{evaluation.count} images of {words.data}" + ", held out by training" * words.held_out
    sizes = f"{pairs.lr_size}x{pairs.lr_size} to {pairs.hr_size}x{pairs.hr_size}"
    heading = [f"{which}, {sizes}, {upscalers[0].where}", *(f"{name}: {file}" for name, file in files.items())]
    deliver(words, "\n".join([*heading, evaluation.table()]), report, evaluation.picture)
    return 0


def deliver(words: argparse.Namespace, table: str, report: dict[str, Any], picture: Callable[[], Image.Image]) -> None:
    """Bring the results to where the command line wants them. Raises UserError."""
    text = json.dumps(report, indent=2, allow_nan=False)
    with ExitStack() as outputs:  # the last first, and each of them even if another one fails
        outputs.callback(show, table, sys.stderr if words.json == STREAM else sys.stdout)
        if words.json == STREAM:
            outputs.callback(show, text, sys.stdout)
        elif words.json:
            outputs.callback(write, words.json, f"{text}\n".encode())
        if words.picture:
            outputs.callback(write, words.picture, file_content(picture(), words.picture))


def large_side(asked: int | None, weights: Path, scale: int) -> int:
    """The side of the large images: as asked for, or else as the generator's file says, or else 128.

    Raises UserError where it won't do.
    """
    side: Any = asked
    if asked is None:
        try:
            state = read_state(weights)
        except CheckpointError:  # not written by tinysrgan
            state = {}
        options = state.get("options", state)  # a whole run's checkpoint has it among them
        side = options.get("hr_size", 128) if isinstance(options, dict) else 128
    least = -(-max(4 * scale, len(WINDOW) + 2 * scale) // scale) * scale
    if type(side) is not int or side % scale or not least <= side <= LARGEST_SIDE:
        source = "" if asked else f" as {weights} says"
        raise UserError(
            f"--hr-size must be a multiple of the generator's scale, {scale}, from {least} to {LARGEST_SIDE}, "
            f"not {side!r:.40}{source}."
        )
    return side


def check_outputs(words: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Raise UserError now for what is known to be wrong with the outputs, not after the work is done."""
    files = [path for path in (words.json, words.picture) if path and path != STREAM]
    taken = {identity(path) for path in inputs if path.exists()}
    for path in files:
        if path.is_dir():
            raise UserError(f"{path} is a folder: give a file name.")
        if path.resolve().is_relative_to(words.data.resolve()):
            raise UserError(f"{path} lies in {words.data}, which stays as it is: put it elsewhere.")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file.")
        if path.exists() and identity(path) in taken:
            raise UserError(f"{path} is an input too, and inputs are never overwritten: give another name.")
        if not path.parent.is_dir():
            raise UserError(f"There is no folder {path.parent} to write {path.name} to.")
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"{path.parent} doesn't allow to write {path.name} there: Permission denied.")
    if len({path.resolve() for path in files}) < len(files):
        raise UserError(f"--json and --picture both go to {words.picture}: give two names.")
    if words.picture:
        file_content(Image.new("RGB", (16, 16)), words.picture)


def file_content(picture: Image.Image, path: Path) -> bytes:
    """The picture in the format that its name ends in. Raises UserError where that can't be."""
    try:
        return encode(picture, path)
    except UserError:
        raise
    except (OSError, ValueError, struct.error) as error:  # Pillow's, for a format that is too narrow
        raise UserError(f"{path} can't be written in that format ({error}): let it end in .png.") from error


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises UserError where that fails."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}. What was there before is intact.") from error


def show(text: str, stream: TextIO) -> None:
    """Print to standard output or error. Raises UserError where nobody takes it."""
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would try again on its way out
        raise UserError(f"{stream.name.strip('<>')} can't be written: {error.strerror}.") from error


if __name__ == "__main__":
    sys.exit(main())
