"""Read a picture's QR codes that no reader can read: ``python -m tinysrgan.rescue photo.jpg codes.png``.

From Python the module itself is the function:

    import tinysrgan
    result = tinysrgan.rescue(photo)
    result.texts

What is done to a picture stands in ``inference/rescuing/search.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from tinysrgan.core import cli
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.image_modes import eight_bits, lay_on_white
from tinysrgan.data.images import file_format
from tinysrgan.inference.image_files import printed_name, read, write
from tinysrgan.inference.jobs import OVERWRITE_HELP, Jobs, parse
from tinysrgan.inference.rescuing.findings import Result
from tinysrgan.inference.rescuing.search import search
from tinysrgan.inference.upscaler import Upscaler, load
from tinysrgan.metrics import qr_reader

SECONDS = 60.0


def rescue(
    image: np.ndarray | Image.Image,
    upscaler: Upscaler | None = None,
    seconds: float = SECONDS,
    progress: Callable[[int], object] = lambda count: None,
) -> Result:
    """Find and read the QR codes of a picture, also those that no reader reads as they are.

    image: a Pillow image of any mode, or an array, uint8 (H, W) or RGB (H, W, 3). upscaler: a generator that
    ``tinysrgan.load`` gives; None: the one that ships, loaded when it is first needed. seconds: when to stop looking;
    a step that has begun is ended. ``progress`` is called with the hundredths of the work that were done since its last
    call.

    The result has ``codes``, each with ``text``, ``corners`` in pixels of the image, ``how`` it was found and a clear
    ``picture`` of it; their ``texts`` and a ``picture`` of all; what is ``disputed``; and whether it is ``complete``.
    A text counts only where the reader's error correction accepts it.

    Raises UserError (a ValueError) for another kind of image, and where the package zxing-cpp is missing.
    """
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise UserError(f"A picture is an array of uint8, (H, W) or (H, W, 3), not {image.dtype} {image.shape}.")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UserError(f"A picture is a NumPy array or a Pillow image, not {type(image).__name__}.")
    grey = lay_on_white(eight_bits(image)).convert("L")
    return search(grey, (lambda: upscaler) if upscaler else _shipped, seconds, progress)


@cache
def _shipped() -> Upscaler:
    return load()


class _Callable(ModuleType):
    """This module, which is also the function ``rescue``: ``tinysrgan.rescue`` can only name one of the two."""

    __call__ = staticmethod(rescue)


sys.modules[__name__].__class__ = _Callable


# ---------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 if every picture gave a code, 1 if some gave none, 2 for a mistake of the user's, 130 stopped."""
    return cli.command(
        lambda: run(parse(parser(), arguments)),
        stopped="stopped. What was written so far is whole.",
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.rescue",
        description="Read the QR codes of a picture, also those that no reader reads as they are, and print their "
        "texts. OUT gets a clear picture of the codes. A text counts only if the reader's error correction accepts it.",
        epilog="Examples: python -m tinysrgan.rescue photo.jpg; python -m tinysrgan.rescue photo.jpg codes.png; "
        "python -m tinysrgan.rescue photos codes --json found.json. Exit code: 0 every picture gave a code, 1 some "
        "gave none (each is named), 2 nothing done, 130 stopped by Ctrl-C. Needs zxing-cpp.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="picture, folder of them, or - for standard input")
    add("output", type=Path, metavar="OUT", nargs="?", help="picture, or folder where IN is one, or - for a PNG")
    add("--overwrite", action="store_true", help=OVERWRITE_HELP)
    add("--weights", type=Path, metavar="FILE", help="generator.h5 of a training run (default: qr_x4_camera.h5)")
    add("--seconds", type=cli.real(0), default=SECONDS, metavar="S", help="stop a picture's search then (%(default)g)")
    add("--json", type=Path, metavar="FILE", help="write what was found for programs; - is standard output")
    add("--device", **cli.DEVICE)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks for. Raises UserError or OSError where it can't be done at all."""
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    if cli.STREAM == args.output == args.json:
        raise UserError("OUT and --json can't both go to standard output: give one of them a file.")
    jobs = Jobs(args.input, args.output, args.weights, example="codes.png", overwrite=args.overwrite)
    if args.json and args.json != cli.STREAM:
        cli.check_target(args.json, jobs.inputs, example="found.json")
        if args.json.resolve() in {target.resolve() for _, target in jobs.jobs if target}:
            raise UserError(f"--json and OUT both go to {args.json}: give two names.")
    upscaler = load(args.weights, args.device)

    def rescue_one(source: Path, target: Path | None) -> dict[str, Any]:
        texts = sys.stderr if cli.STREAM in (args.output, args.json) else sys.stdout  # where this rank speaks just now
        return rescue_file(upscaler, source, target, args.seconds, lambda line: jobs.tell(line, texts))

    results = jobs.run(rescue_one)
    report = [
        {"file": str(source), "error": found, "codes": []} if isinstance(found, str) else found
        for (source, _), found in zip(jobs.jobs, results, strict=True)
    ]
    empty = sum(not found["codes"] for found in report)
    if args.json and ranks().rank == 0:
        content = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        if args.json == cli.STREAM:
            with cli.taken_by(sys.stdout):
                print(content, end="")
        else:
            cli.write(args.json, content.encode(errors="backslashreplace"))  # as JSON writes what is no UTF-8 in a name
    if jobs.folder:
        cli.say(f"{len(jobs) - empty} of {len(jobs)} pictures gave a code.")
    if all("error" in found for found in report):
        return 2
    return 1 if empty or jobs.untold else 0


def rescue_file(
    upscaler: Upscaler, source: Path, target: Path | None, seconds: float, tell: Callable[[str], object]
) -> dict[str, Any]:
    """Rescue one file's codes: tell them, write their picture where there is any, return what ``--json`` tells."""
    begin = time.monotonic()
    image, _ = read(source)
    with cli.progress(100, "%") as done:
        result = rescue(image, upscaler, seconds, done)
    shown = printed_name(source)
    for code in result.codes:
        tell(f"{shown}: {cli.printable(code.text)} ({code.how})")
    for several in result.disputed:
        cli.say(f"{shown}: tries disagree about a code, so none counts: {', '.join(map(cli.printable, several))}.")
    if not result.complete:
        cli.say(f"{shown}: the search was stopped after {seconds:g} seconds; --seconds gives it more.")
    if not result.codes:
        kept = f" {target} is as it was, from before." if target and target != cli.STREAM and target.exists() else ""
        cli.say(f"{shown}: no code could be read.{kept}")
    elif target is not None:
        assert result.picture is not None
        write(result.picture, target, "PNG" if target == cli.STREAM else file_format(target), {})
    return {
        "file": str(source),
        "codes": [{"text": c.text, "corners": c.corners.round(1).tolist(), "how": c.how} for c in result.codes],
        "disputed": [list(several) for several in result.disputed],
        "complete": result.complete,
        "seconds": round(time.monotonic() - begin, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
