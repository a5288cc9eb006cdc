"""Scan rates for single effects of a photograph: ``python -m benchmarks.qr.sweeps``.

All rows have the same codes, with versions 1 to 4 in turn, at 1.1 LR pixels per module, straight, black on white and
sharp, except for the row's own effect. Their texts are reserved: no generator was trained on them. The command writes a
table, a chart and JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.qr.samples import STILL, photographed
from tinysrgan.core.atomic_write import write_whole
from tinysrgan.core.cli import command, command_line, progress, say, whole
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import enlarge
from tinysrgan.inference.upscaler import SHIPPED, load
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.qr_reader import read_code
from tinysrgan.metrics.scores import aligned
from tinysrgan.ops.parallel import single_threaded_blas

SEED = 13


def always(value: float) -> tuple[float, float]:
    """A range of one value."""
    return (value, value)


def levels(black: float, white: float) -> dict[str, Any]:
    return {"black": always(black), "contrast": white - black, "white": white, "clean_share": 0.0}


def ink(modules: float) -> dict[str, Any]:
    return {"ink": always(modules), "ink_share": 1.0}


def tilt(degrees: float) -> dict[str, Any]:
    return {"tilt": always(degrees), "tilt_share": 1.0}


# Changes of STILL by name.
SWEEPS: dict[str, dict[str, Any]] = {
    "none": {},
    "grey 60 to 190": levels(60, 190),
    "grey 90 to 150": levels(90, 150),
    "black 50": levels(50, 255),
    "black 90": levels(90, 255),
    "white 160": levels(0, 160),
    "light falls off by half": {"falloff": always(0.5), "falloff_share": 1.0},
    "JPEG 75": {"jpeg": always(75), "jpeg_share": 1.0},
    "JPEG 40": {"jpeg": always(40), "jpeg_share": 1.0},
    "ink +0.1": ink(0.1),
    "ink +0.2": ink(0.2),
    "ink -0.1": ink(-0.1),
    "ink -0.2": ink(-0.2),
    "tilt 15": tilt(15),
    "tilt 30": tilt(30),
    "tilt 45": tilt(45),
    "curved by 0.3 modules": {"bend": always(0.3), "bend_share": 1.0},  # from 0.8, readers fail on the original too
    "curved by 0.6 modules": {"bend": always(0.6), "bend_share": 1.0},
    "pitch 0.7": {"pitch": always(0.7)},
    "pitch 0.8": {"pitch": always(0.8)},
    "pitch 0.9": {"pitch": always(0.9)},
    "pitch 1.0": {"pitch": always(1.0)},
    "pitch 1.7": {"pitch": always(1.7)},
    "pitch 2.5": {"pitch": always(2.5)},
    "pitch 6": {"pitch": always(6)},
    "noise 8": {"noise": always(8)},
    "noise 16": {"noise": always(16)},
    "blur 0.5": {"blur": always(0.5), "blur_share": 1.0},
    "turned by 20": {"rotation": always(20)},
    "shrunk by software": {"resampled_share": 1.0},
    "inverted": {"inverted_share": 1.0},
    "no quiet zone": {"around_share": 1.0, "no_quiet_share": 1.0},
    "photo: tilt 15, turned 7, blur 0.25, grey 50 to 200, grey around": tilt(15)
    | levels(50, 200)
    | {"rotation": always(7), "blur": always(0.25), "blur_share": 1.0, "around_share": 1.0},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qr.sweeps", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--count", type=whole(1), default=32, metavar="N", help="codes per row (32)")
    add("--weights", type=Path, nargs="+", metavar="FILE", help="generators to measure (default: the one that ships)")
    add("--out", type=Path, default=Path("runs/benchmark-sweeps"), metavar="DIR", help="for results (%(default)s)")
    return command(lambda: run(parser.parse_args(command_line(arguments))))


def run(args: argparse.Namespace) -> int:
    """Measure, print and write the results for the command-line arguments. Raises UserError or OSError."""
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    ways: dict[str, Callable[[np.ndarray], str | None]] = {
        "as it is": read_code,
        "Lanczos + unsharp": lambda lr: read_code(sharpened(lr)),
    }
    if wechat := wechat_reader():
        ways["WeChat"] = wechat
    for path in args.weights or [None]:
        ways[str(path or SHIPPED)] = reading(load(path))
    rates: dict[str, dict[str, float]] = {}
    misreads = dict.fromkeys(ways, 0)
    with progress(len(SWEEPS) * args.count, "code") as done, single_threaded_blas():
        for name, change in SWEEPS.items():
            camera = replace(STILL, **change)
            hits = dict.fromkeys(ways, 0)
            for i in range(args.count):
                code = photographed(camera, 1 + i % 4, i, np.random.default_rng([SEED, i]))
                for way, read in ways.items():
                    text = read(code.lr)
                    hits[way] += text == code.text
                    misreads[way] += text not in (code.text, None)
                done(1)
            rates[name] = {way: 100 * count / args.count for way, count in hits.items()}
    rows = [["read, %", *ways], *([name, *(f"{rate:.0f}" for rate in row.values())] for name, row in rates.items())]
    rows.append(["misread", *(str(count) for count in misreads.values())])
    text = f"{args.count} codes per row, versions 1 to 4\n{aligned(rows)}\n"
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "sweeps.txt", text.encode())
    write_whole(
        args.out / "sweeps.json", (json.dumps({"rates": rates, "misreads": misreads}, indent=2) + "\n").encode()
    )
    draw(rates, args.out / "sweeps.png")
    return 0


def reading(upscale: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], str | None]:
    return lambda lr: read_code(upscale(lr))


def sharpened(lr: np.ndarray) -> np.ndarray:
    """Enlarge four times by Lanczos, then apply an unsharp mask of 200 %, radius 2 pixels; uint8 (4H, 4W)."""
    large = Image.fromarray(enlarge(lr, 4, Image.Resampling.LANCZOS))
    return np.asarray(large.filter(ImageFilter.UnsharpMask(radius=2, percent=200, threshold=0)))


def wechat_reader() -> Callable[[np.ndarray], str | None] | None:
    """Make a reader with OpenCV's WeChat detector, without model files; None without opencv-contrib."""
    try:
        import cv2

        detector = cv2.wechat_qrcode.WeChatQRCode()
    except (ImportError, AttributeError):
        return None

    def read(lr: np.ndarray) -> str | None:
        texts, _ = detector.detectAndDecode(np.repeat(sharpened(lr)[..., None], 3, axis=2))
        return texts[0] if texts else None

    return read


def draw(rates: dict[str, dict[str, float]], path: Path) -> None:
    """Draw a row of dots for each effect and a colour for each method; without matplotlib, print a notice."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say("no chart: it needs matplotlib (`pip install matplotlib`).")
        return

    figure = Figure(figsize=(8, 0.28 * len(rates) + 1), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rates))[::-1]
    for k, way in enumerate(next(iter(rates.values()))):
        values = [row[way] for row in rates.values()]
        axes.plot(values, places + 0.12 * (k - 1), "o", markersize=5, label=Path(way).stem)
    axes.set_yticks(places, [name if len(name) < 40 else name.split(":")[0] for name in rates])
    axes.set(xlabel="codes read, %", xlim=(-3, 103))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
