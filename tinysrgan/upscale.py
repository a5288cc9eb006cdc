"""Upscale images from the command line: ``python -m tinysrgan.upscale blurry.png clear.png``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

from tinysrgan.core import cli
from tinysrgan.core.errors import UserError
from tinysrgan.data.image_modes import lay_on_white
from tinysrgan.inference.image_files import printed_name, read, result_format, write
from tinysrgan.inference.jobs import OVERWRITE_HELP, Jobs, parse
from tinysrgan.inference.upscaler import Upscaler, load
from tinysrgan.metrics import qr_reader
from tinysrgan.ops import exact

# The kinds of warnings, as the summary calls them.
LOST, OTHER = "scanned before, not after", "unlike the input"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 done, 1 files of a folder failed or --scan saw a code lost, 2 a mistake, 130 after Ctrl-C.

    A lost code counts only with --scan: else the exit code would depend on whether a reader is installed.
    """
    return cli.command(
        lambda: run(parse(parser(), arguments)),
        stopped="stopped. What was written so far is whole.",
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.upscale",
        description="Upscale an image, or all in and below a folder. IN is never changed; OUT is written "
        "whole or not at all, in its ending's format, with 8 bits a channel. The shipped weights "
        "are for QR codes; photographs need others.",
        epilog="Examples: python -m tinysrgan.upscale blurry.png clear.png --scan; python -m tinysrgan.upscale "
        "codes larger; cat a.png | python -m tinysrgan.upscale - - > b.png. Exit code: 0 done, 1 some files "
        "failed or, with --scan, lost a code, 2 nothing done, 130 stopped.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="image file, folder, or - for standard input")
    add("output", type=Path, metavar="OUT", help="the same; - writes PNG to standard output")
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help=f"generator.h5 of a training run (default: the shipped one), or {cli.KERAS_HELP}",
    )
    add("--value-range", metavar="IN:OUT", help=cli.VALUE_RANGE_HELP)
    add("--orientations", type=int, choices=(1, 8), help=cli.ORIENTATIONS_HELP)
    add("--exact", action="store_true", help=cli.EXACT_HELP)
    add("--device", **cli.DEVICE)
    add("--overwrite", action="store_true", help=OVERWRITE_HELP)
    add("--scan", action="store_true", help="print the QR codes' texts before and after")
    return parser


def run(args: argparse.Namespace) -> int:
    """Upscale as the arguments say. Raises UserError or OSError if nothing can be done."""
    if args.scan and not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    jobs = Jobs(args.input, args.output, args.weights, example="clear.png", overwrite=args.overwrite)
    upscaler = load(args.weights, args.device, args.value_range, args.orientations)

    def upscale_one(source: Path, target: Path | None) -> list[str]:
        assert target
        return upscale_file(upscaler, source, target, jobs.tell if args.scan else None, named=jobs.folder)

    with exact(args.exact):
        results = jobs.run(upscale_one)
    failed = sum(isinstance(found, str) for found in results)
    warned = Counter(kind for kinds in results if not isinstance(kinds, str) for kind in kinds)
    if jobs.folder:
        told = f" Warnings: {', '.join(f'{count} {what}' for what, count in warned.items())}." if warned else ""
        share = f"{len(jobs) - failed} of {len(jobs)} files are upscaled"
        place = f"; they are in {args.output}" if failed < len(jobs) else ""
        cli.say(f"{share}, {upscaler.where}{place}.{told}")
    if failed == len(jobs):
        return 2
    return 1 if failed or jobs.untold or (args.scan and warned[LOST]) else 0


def upscale_file(
    upscaler: Upscaler, source: Path, target: Path, tell: Callable[[str, TextIO], object] | None, named: bool
) -> list[str]:
    """Read, upscale and write one image; return the kinds of warnings said about it: LOST, OTHER.

    ``tell`` gets a line on its QR codes, which begins with its name if ``named``, and the stream to print it to. Raises
    UserError or OSError; ``target`` is then as it was.
    """
    image, about = read(source)
    size = (upscaler.scale * image.width, upscaler.scale * image.height)
    name = result_format(source, target, size, image.mode)
    try:
        with cli.progress(image.width * image.height, "pixel", scaled=True) as done:
            result, fidelity = upscaler.upscale(image, done)
        write(result, target, name, about)
        readable = qr_reader.available()
        before = codes(image) if readable else []
        # Uneven light or a table around a code goes, and the result is unlike the image: but if it scans, it is right.
        after = codes(result) if readable and (tell or before or not fidelity.suits) else []
    except MemoryError:
        raise UserError(f"{source} needs more memory than there is, for {size[0]}x{size[1]} pixels.") from None
    shown = printed_name(source)
    if tell:
        texts = [", ".join(map(cli.printable, found)) or "nothing" for found in (before, after)]
        line = f"{f'{shown}: ' * named}before: {texts[0]}; after: {texts[1]}"
        tell(line, sys.stderr if target == cli.STREAM else sys.stdout)
    warnings = []
    if lost := Counter(before) - Counter(after):
        cli.say(f"{shown}: scanned before, not after: {', '.join(map(cli.printable, lost))}. Read the input instead.")
        warnings.append(LOST)
    if not fidelity.suits and not after:
        cli.say(
            f"{shown}: the result is unlike the input: shrunk back, it is another picture. Give --weights "
            "trained on such images; those shipped are for QR codes."
        )
        warnings.append(OTHER)
    return warnings


def codes(image: Image.Image) -> list[str]:
    """The text of every QR code in an image of mode L, LA, RGB or RGBA, laid on white."""
    return qr_reader.read_codes(np.asarray(lay_on_white(image).convert("L")))


if __name__ == "__main__":
    sys.exit(main())
