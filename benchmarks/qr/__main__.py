"""The command ``python -m benchmarks.qr``: every way of upscaling on every track, as a table, JSON and pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.qr.baselines import BASELINES
from benchmarks.qr.readers import readers
from benchmarks.qr.samples import SCALE, SEED, TRACKS, Sample, samples, versions
from benchmarks.qr.scores import Scores, table
from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.cli import progress, say, sentence
from tinysrgan.core.errors import UserError
from tinysrgan.inference.upscaler import SHIPPED, load
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import save_picture, strip
from tinysrgan.ops.device import DEVICES
from tinysrgan.ops.parallel import single_threaded_blas

Upscale = Callable[[np.ndarray], np.ndarray]
READERS = ("zxing-cpp", "opencv-python-headless", "zbar-py", "pyzbar")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when done, 2 for a mistake of the user's, 130 after Ctrl-C."""
    try:
        run(parser().parse_args(arguments))
    except (UserError, ImportError, OSError) as error:
        say(sentence(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.qr",
        description="Do small QR codes scan once they are upscaled from 32x32 to 128x128? Always the same codes, none "
        "of which is ever trained on (their texts end in 7): 100 of each version, 1 to 4, in each of five tracks. "
        "article: a four-digit number. mixed: any text, any error correction. hard: mixed, but moved, blurred, "
        "darkened and noisy. rot: mixed, but turned. camera: mixed, but photographed, and versions 5 and 6 besides. "
        "A code counts as scanned if zxing-cpp reads exactly its text.",
        epilog="Columns: scan rates in % with their 95 % intervals (Wilson) by version; other readings as a "
        "cross-check; misread: wrong texts, by reader; MER: the share of data modules, in %, that are wrong at the "
        "places where they are known to be; PSNR, in dB, and SSIM to the original. OpenCV and zbar read along where "
        "opencv-python-headless and zbar-py (or pyzbar) are installed.",
    )
    add = parser.add_argument
    add("--weights", type=Path, nargs="+", metavar="FILE", help="generators to measure (default: the one that ships)")
    add("--tracks", nargs="+", choices=TRACKS, default=TRACKS, help="only these")
    add("--quick", action="store_true", help="10 codes of each version instead of 100")
    add("--out", type=Path, default=Path("runs/benchmark-qr"), metavar="DIR", help="for results (%(default)s)")
    add("--device", choices=DEVICES, default="auto", help="where the generators compute (default: a GPU if one works)")
    return parser


def run(words: argparse.Namespace) -> None:
    """Do what the command line asks for. Raises UserError, ImportError or OSError."""
    if not qr_reader.available():
        raise ImportError(qr_reader.MISSING)
    generators = load_all(words.weights, words.device)
    reading, absent = readers()
    for line in absent:
        say(line)
    words.out.mkdir(parents=True, exist_ok=True)
    count = 10 if words.quick else 100

    results: dict[str, dict[str, Any]] = {}
    text = []
    with progress(sum(len(versions(track)) for track in words.tracks) * count, "code") as done, single_threaded_blas():
        for track in words.tracks:
            codes = samples(track, count)
            ways: dict[str, Callable[[Sample], np.ndarray]] = {"LR as it is": lambda code: code.lr}
            ways |= {name: on_lr(upscale) for name, upscale in (BASELINES | generators).items()}
            ways["original"] = lambda code: code.hr
            scores = {name: Scores(reading) for name in ways}
            for code in codes:
                for name, way in ways.items():
                    scores[name].add(way(code), code)
                done(1)
            results[track] = {name: score.numbers() for name, score in scores.items()}
            text.append(f"{track}: scanned, %, of {count} codes of each version\n{table(results[track])}\n")
            print(text[-1], flush=True)
            save_picture(picture(codes, generators), words.out / f"{track}.png")
    report = {"seed": SEED, "codes of each version": count, "readers": installed(), "tracks": results}
    write_whole(words.out / "results.txt", "\n".join(text).encode())
    write_whole(words.out / "results.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    print(f"These tables, the numbers and a picture of each track are in {words.out}.")


def load_all(weights: list[Path] | None, device: str) -> dict[str, Upscale]:
    """The generators by the names of their files. Raises UserError where one can't be used."""
    generators: dict[str, Upscale] = {}
    paths: list[Path | None] = [*weights] if weights else [None]
    for path in paths:
        upscaler = load(path, device)
        if upscaler.scale != SCALE:
            raise UserError(f"{path} upscales x{upscaler.scale}; the benchmark is about x{SCALE}.")
        generators[str(path or SHIPPED)] = upscaler
    return generators


def on_lr(upscale: Upscale) -> Callable[[Sample], np.ndarray]:
    return lambda code: upscale(code.lr)


def picture(codes: list[Sample], generators: dict[str, Upscale]) -> Image.Image:
    """LR, bicubic, SR and HR of the first code of each version; green frames scan, red ones don't."""
    firsts = [next(code for code in codes if code.version == version) for version in sorted({c.version for c in codes})]
    ways = [BASELINES["bicubic"], *generators.values()]
    rows = [[code.lr, *(upscale(code.lr) for upscale in ways), code.hr] for code in firsts]
    frames = [
        [qr_reader.read_code(image) == code.text for image in row] for row, code in zip(rows, firsts, strict=True)
    ]
    names = [f"SR {i + 1}" for i in range(len(generators))] if len(generators) > 1 else ["SR"]
    return strip(rows, ["LR", "bicubic", *names, "HR"], frames)


def installed() -> dict[str, str]:
    """The installed readers and their versions."""
    found = {}
    for package in READERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
