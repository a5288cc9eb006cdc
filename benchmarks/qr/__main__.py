"""The command ``python -m benchmarks.qr``: each method of upscaling on each track, as a table, JSON and pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import tinysrgan
from benchmarks.qr.baselines import BASELINES
from benchmarks.qr.readers import readers
from benchmarks.qr.samples import SCALE, SEED, TRACKS, samples, versions
from benchmarks.qr.scores import Scores, table
from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.cli import DEVICE, command, command_line, progress, say
from tinysrgan.core.errors import UserError
from tinysrgan.inference.upscaler import SHIPPED, Upscaler, load
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import Comparison, save_picture
from tinysrgan.ops.parallel import single_threaded_blas

Upscale = Callable[[np.ndarray], np.ndarray]
READERS = ("zxing-cpp", "opencv-python-headless", "zbar-py", "pyzbar")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when done, 2 for a user error, 130 after Ctrl-C."""
    return command(
        lambda: run(parser().parse_args(command_line(arguments))),
        stopped="stopped; results.txt and results.json were not written.",
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.qr",
        description="Do small QR codes scan once they are upscaled from 32x32 to 128x128? The codes are always the "
        "same, and none is ever trained on (their texts end in 7): 100 of each version, 1 to 4, in each of five "
        "tracks. article: a four-digit number. mixed: any text, any error correction. hard: mixed, but moved, blurred, "
        "darkened and noisy. rot: mixed, but turned. camera: mixed, but photographed, and also versions 5 and 6. "
        "A code counts as scanned if zxing-cpp reads exactly its text.",
        epilog="Columns: scan rates in % with their 95 % intervals (Wilson) by version; other readings as a "
        "cross-check; misread: wrong texts, by reader; MER: the share of data modules, in %, that have the wrong "
        "colour at their known places; PSNR, in dB, and SSIM to the original. OpenCV and zbar are used where "
        "opencv-python-headless and zbar-py (or pyzbar) are installed.",
    )
    add = parser.add_argument
    add("--weights", type=Path, nargs="+", metavar="FILE", help="generators to measure (default: the one that ships)")
    add("--tracks", nargs="+", choices=TRACKS, default=TRACKS, help="only these")
    add("--rescue", action="store_true", help="also read with tinysrgan.rescue, which takes much longer")
    add("--quick", action="store_true", help="10 codes of each version instead of 100")
    add("--out", type=Path, default=Path("runs/benchmark-qr"), metavar="DIR", help="for results (%(default)s)")
    add("--device", **DEVICE)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, print and write the results for the command-line arguments. Raises UserError or OSError."""
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    generators = load_all(args.weights, args.device)
    reading, absent = readers()
    for line in absent:
        say(line)
    args.out.mkdir(parents=True, exist_ok=True)
    count = 10 if args.quick else 100
    upscalers = BASELINES | generators
    redrawn = {f"rescue with {name}": rescued(upscaler) for name, upscaler in generators.items() if args.rescue}
    shown = {"bicubic": "bicubic"} | dict(zip(generators, titles(len(generators)), strict=True))

    results: dict[str, dict[str, Any]] = {}
    tables = []
    with progress(sum(len(versions(track)) for track in args.tracks) * count, "code") as done, single_threaded_blas():
        for track in args.tracks:
            scores = {name: Scores(reading) for name in ("LR as it is", *upscalers)}
            scores |= {name: Scores(reading, compared=False) for name in redrawn} | {"original": Scores(reading)}
            figure = Comparison(rows=len(versions(track)))
            for code in samples(track, count):
                upscaled = {name: upscale(code.lr) for name, upscale in (upscalers | redrawn).items()}
                for name, image in {"LR as it is": code.lr, **upscaled, "original": code.hr}.items():
                    scores[name].add(image, code)
                images = {title: upscaled[name] for name, title in shown.items()}
                figure.offer({"LR": code.lr, **images, "HR": code.hr}, code.text, code.version)
                done(1)
            results[track] = {name: score.report() for name, score in scores.items()}
            tables.append(f"{track}: scanned, %, of {count} codes of each version\n{table(results[track])}\n")
            print(tables[-1], flush=True)
            save_picture(figure.draw(), args.out / f"{track}.png")
    report = {"seed": SEED, "codes of each version": count, "readers": installed(), "tracks": results}
    write_whole(args.out / "results.txt", "\n".join(tables).encode())
    write_whole(args.out / "results.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    print(f"The tables, as text and as JSON, and a picture of each track are in {args.out}.")
    return 0


def load_all(weights: list[Path] | None, device: str) -> dict[str, Upscaler]:
    """The generators by file name. Raises UserError if one can't be used."""
    generators: dict[str, Upscaler] = {}
    paths: list[Path | None] = [*weights] if weights else [None]
    for path in paths:
        upscaler = load(path, device)
        if upscaler.scale != SCALE:
            raise UserError(f"{path} upscales x{upscaler.scale}; the benchmark is about x{SCALE}.")
        generators[str(path or SHIPPED)] = upscaler
    return generators


def rescued(upscaler: Upscaler) -> Upscale:
    """``tinysrgan.rescue`` as a method of upscaling: its picture of the code, or else the image as it is."""

    def read(lr: np.ndarray) -> np.ndarray:
        picture = tinysrgan.rescue(lr, upscaler).picture
        return lr if picture is None else np.asarray(picture)

    return read


def titles(count: int) -> list[str]:
    """The titles of the generators' columns in the pictures."""
    return ["SR"] if count == 1 else [f"SR {i + 1}" for i in range(count)]


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
