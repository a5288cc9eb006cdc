"""Measures how many codes of real photographs each method reads: ``python -m benchmarks.qr.photographs FOLDER``.

The folder holds pictures and a ``photos.json``, a list with an entry for each picture: ``file``; ``codes``, each with
its ``text`` and ``version``; ``size``, a number that groups the table's columns (how much the photograph was shrunk). A
picture counts as read if at least one of its texts is read, and as misread if any other text is read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tinysrgan
from tinysrgan.core.cli import command, progress, say, whole
from tinysrgan.core.cli import write as write_file
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import decode
from tinysrgan.inference.rescuing.classical import variants
from tinysrgan.metrics import qr_reader

Read = Callable[[Image.Image], list[str]]  # from a grey picture to texts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qr.photographs", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("folder", type=Path, help="pictures and photos.json, which says what they show")
    add("--weights", type=Path, metavar="FILE", help="another generator than qr_x4_camera.h5")
    add("--versions", type=whole(1, 40), default=40, metavar="N", help="only codes up to this version")
    add("--every", type=whole(1), default=1, metavar="N", help="only every Nth photograph (1)")
    add("--only", nargs="+", metavar="WAY", help="only these ways of reading, by the first word of their names")
    add("--seconds", type=float, default=60, metavar="S", help="limit of rescue for a picture (60)")
    add("--out", type=Path, metavar="FILE", help="write every single reading, as JSON")
    return command(lambda: run(parser.parse_args(arguments)))


def run(args: argparse.Namespace) -> int:
    """Measure, print and write the results for the command-line arguments. Raises UserError or OSError."""
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    pictures = entries(args.folder, args.versions, args.every)
    ways = {name: way for name, way in all_ways(args).items() if not args.only or name.split()[0] in args.only}
    readings: list[dict[str, Any]] = []
    with progress(len(pictures), "picture") as done:
        for entry in pictures:
            picture = decode(args.folder / entry["file"]).convert("L")
            truths = {code["text"] for code in entry["codes"]}
            for name, read in ways.items():
                begin = time.perf_counter()
                texts = read(picture)
                readings.append(
                    {
                        "file": entry["file"],
                        "size": entry.get("size"),
                        "way": name,
                        "read": bool(truths & set(texts)),
                        "misread": sorted(set(texts) - truths),
                        "seconds": time.perf_counter() - begin,
                    }
                )
            done(1)
    print(table(readings))
    for reading in readings:
        if reading["misread"]:
            say(f"{reading['way']}: {reading['file']} gave {', '.join(reading['misread'])}")
    if args.out:
        write_file(args.out, json.dumps(readings, indent=1).encode())
    return 0


def entries(folder: Path, versions: int, every: int) -> list[dict[str, Any]]:
    """Return the entries of photos.json for the pictures to read. Raises UserError if it is invalid."""
    path = folder / "photos.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        kept = [e for e in listed if e["codes"] and all(code["version"] <= versions for code in e["codes"])]
        photographs = list(dict.fromkeys(e.get("photo", e["file"]) for e in kept))[::every]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} doesn't say what the pictures show ({error!r}).") from None
    if not photographs:
        raise UserError(f"{path} names no picture with codes up to version {versions}.")
    return [e for e in kept if e.get("photo", e["file"]) in photographs]


def all_ways(args: argparse.Namespace) -> dict[str, Read]:
    """The methods of reading by name; WeChat's reader only if OpenCV has it."""
    upscaler = tinysrgan.load(args.weights)
    ways: dict[str, Read] = {
        "lanczos (x1, x2, x4)": lanczos,
        "classical (20 variants)": classical,
        "upscale": lambda picture: qr_reader.read_codes(np.asarray(upscaler(picture))),
        "rescue": lambda picture: tinysrgan.rescue(picture, upscaler, args.seconds).texts,
    }
    try:
        ways["wechat (x1, x2, x4)"] = wechat()
    except ImportError as error:
        say(f"WeChat's reader doesn't read along ({error}): pip install opencv-contrib-python-headless")
    return ways


def lanczos(picture: Image.Image) -> list[str]:
    """Read the picture itself, then enlarged two and four times."""
    return first(enlarged(picture, times) for times in (1, 2, 4))


def classical(picture: Image.Image) -> list[str]:
    """Read 20 enlarged and sharpened variants; returns the texts of the first that scans."""
    return first(np.asarray(large) for large, _, _ in variants(picture))


def wechat() -> Read:
    """OpenCV's WeChat reader with its own detector and super-resolution. Raises ImportError without it."""
    import cv2

    if not hasattr(cv2, "wechat_qrcode"):
        raise ImportError("this OpenCV is built without it")
    reader = cv2.wechat_qrcode.WeChatQRCode()

    def read(picture: Image.Image) -> list[str]:
        for times in (1, 2, 4):
            texts, _ = reader.detectAndDecode(enlarged(picture, times))
            if any(texts):
                return [text for text in texts if text]
        return []

    return read


def enlarged(picture: Image.Image, times: int) -> np.ndarray:
    size = (times * picture.width, times * picture.height)
    return np.asarray(picture if times == 1 else picture.resize(size, Image.Resampling.LANCZOS))


def first(images: Any) -> list[str]:
    """Return the texts in the first image with a readable code."""
    return next((texts for image in images if (texts := qr_reader.read_codes(image))), [])


def table(readings: list[dict[str, Any]]) -> str:
    """Format rates in % by size, misread pictures and seconds as a Markdown table with a row for each method."""
    sizes = sorted({r["size"] for r in readings if r["size"] is not None}, reverse=True)
    lines = [
        "| % read | " + " | ".join(f"size {size:g}" for size in sizes) + " | all | misread | s median / p90 / max |",
        "| --- |" + " ---: |" * (len(sizes) + 3),
    ]
    for name in dict.fromkeys(r["way"] for r in readings):
        mine = [r for r in readings if r["way"] == name]
        rates = [[r["read"] for r in mine if r["size"] == size] for size in sizes] + [[r["read"] for r in mine]]
        shown = [f"{100 * np.mean(rate):.0f}" for rate in rates]
        seconds = np.percentile([r["seconds"] for r in mine], (50, 90, 100))
        times = " / ".join(f"{second:.2f}" for second in seconds)
        wrong = sum(bool(r["misread"]) for r in mine)
        lines.append(f"| {name} | {' | '.join(shown)} | {wrong} | {times} |")
    return f"{len({r['file'] for r in readings})} pictures\n\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
