"""Upscale images from the command line: ``python -m tinysrgan.upscale blurry.png clear.png``."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from tinysrgan.core.cli import (
    EXACT_HELP,
    KERAS_HELP,
    ORIENTATIONS_HELP,
    STREAM,
    VALUE_RANGE_HELP,
    check_target,
    command,
    command_line,
    identities,
    printable,
    progress,
    say,
    sentence,
    taken_by,
)
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.images import file_format
from tinysrgan.data.listing import find_images
from tinysrgan.inference.image_files import check_input, printed_name, read, result_format, write
from tinysrgan.inference.image_modes import lay_on_white
from tinysrgan.inference.upscaler import Upscaler, load
from tinysrgan.metrics import qr_reader
from tinysrgan.ops import exact
from tinysrgan.ops.device import DEVICES

# The kinds of warnings, as the summary calls them.
LOST, OTHER = "scanned before, not after", "unlike the input"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 done, 1 files of a folder failed or --scan saw a code lost, 2 a mistake, 130 after Ctrl-C.

    A lost code counts only with --scan: else the exit code would depend on whether a reader is installed.
    """
    return command(
        lambda: run(parser().parse_args(command_line(arguments))), stopped="stopped. What was written so far is whole."
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.upscale",
        description="Upscale an image, or all images in and below a folder. IN is never changed; OUT is "
        "written whole or not at all, in the format that its name ends in, with 8 bits a channel. The shipped weights "
        "are for QR codes; photographs need others.",
        epilog="Examples: python -m tinysrgan.upscale blurry.png clear.png --scan; python -m tinysrgan.upscale "
        "codes larger; cat a.png | python -m tinysrgan.upscale - - > b.png. Exit code: 0 done, 1 some files of a "
        "folder failed or, with --scan, lost a code, 2 nothing done, 130 stopped.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="image file, folder, or - for standard input")
    add("output", type=Path, metavar="OUT", help="the same; - writes PNG to standard output")
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help=f"generator.h5 of a training run (default: the shipped one), or {KERAS_HELP}",
    )
    add("--value-range", metavar="IN:OUT", help=VALUE_RANGE_HELP)
    add("--orientations", type=int, choices=(1, 8), help=ORIENTATIONS_HELP)
    add("--exact", action="store_true", help=EXACT_HELP)
    add("--device", choices=DEVICES, default="auto", help="where to compute (default: a GPU if one works)")
    add("--scan", action="store_true", help="print the QR codes' texts before and after")
    return parser


def run(args: argparse.Namespace) -> int:
    """Upscale as the arguments say. Raises UserError or OSError if nothing can be done."""
    if args.scan and not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    folder = args.input != STREAM and args.input.is_dir()
    jobs = folder_jobs(args.input, args.output) if folder else [(args.input, args.output)]
    inputs = identities([*(source for source, _ in jobs), args.weights])
    if not folder:
        check_file(args.input, args.output, inputs)
    upscaler = load(args.weights, args.device, args.value_range, args.orientations)

    def upscale_one(job: tuple[Path, Path]) -> list[str] | None:
        """The kinds of warnings about a file; None if it failed."""
        source, target = job
        try:
            if folder:
                target.parent.mkdir(parents=True, exist_ok=True)
                check_target(target, inputs)
            return upscale_file(upscaler, source, target, args.scan, f"{source}: " if folder else "")
        except (UserError, OSError) as error:
            if not folder:
                raise
            say(sentence(error))
            return None
        finally:
            done(ranks().size)

    with exact(args.exact), progress(len(jobs), "file", hidden=not folder) as done:
        results = list(ranks().map(upscale_one, jobs))
    failed = results.count(None)
    warned = Counter(kind for kinds in results if kinds for kind in kinds)
    if folder:
        told = f" Warnings: {', '.join(f'{count} {what}' for what, count in warned.items())}." if warned else ""
        share = f"{len(jobs) - failed} of {len(jobs)} files are upscaled"
        say(f"{share}, {upscaler.where}; they are in {args.output}.{told}")
    return 1 if failed or (args.scan and warned[LOST]) else 0


# ---------------------------------------------------------------- what goes where


def check_file(source: Path, target: Path, inputs: Collection[tuple[int, int]]) -> None:
    """Raise UserError if the input or the output can't be used, before either is opened."""
    if source != STREAM:
        check_input(source)
    elif sys.stdin is None:
        raise UserError("IN is -, but standard input is closed.")
    if target == STREAM:
        if sys.stdout is None:
            raise UserError("OUT is -, but standard output is closed.")
        if sys.stdout.isatty():
            raise UserError("OUT is -, but standard output is a terminal: send it to a file or a pipe.")
        output = os.fstat(1)
        if stat.S_ISREG(output.st_mode) and (output.st_dev, output.st_ino) in inputs:
            raise UserError("OUT is -, but standard output goes to an input, and inputs are never overwritten.")
        return
    check_target(target, inputs, example="clear.png")
    file_format(target)


def folder_jobs(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    """The images of a folder and the paths of their results: the same names below ``out``, which is created.

    Raises UserError if there are no images, or if ``out`` can't be used.
    """
    if out == STREAM:
        raise UserError("A folder can't go to standard output: give a folder as OUT.")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file and IN a folder: give a folder as OUT.")
    if out.exists() and out.samefile(folder):
        raise UserError(f"{out} is IN itself, and inputs are never overwritten: give another folder as OUT.")
    left_out: list[str] = []
    sources = find_images(folder, tell=left_out.append)
    if (results := out.resolve()).is_relative_to(folder.resolve()):  # earlier results are no inputs
        sources = [path for path in sources if not path.resolve().is_relative_to(results)]
    if not sources:
        raise UserError(f"{folder} holds no images but those in {out}.")
    out.mkdir(parents=True, exist_ok=True)
    for line in left_out:
        say(line)
    return [(path, out / path.relative_to(folder)) for path in sources]


# ---------------------------------------------------------------- one file


def upscale_file(upscaler: Upscaler, source: Path, target: Path, scan_too: bool, prefix: str) -> list[str]:
    """Read, upscale and write one image; return the kinds of warnings said about it: LOST, OTHER.

    With ``scan_too``, print a line on its QR codes that starts with ``prefix``. Raises UserError or OSError; ``target``
    is then as it was.
    """
    image, about = read(source)
    size = (upscaler.scale * image.width, upscaler.scale * image.height)
    name = result_format(source, target, size, image.mode)
    try:
        with progress(image.width * image.height, "pixel", scaled=True) as done:
            result, fidelity = upscaler.upscale(image, done)
        write(result, target, name, about)
        readable = qr_reader.available()
        before = codes(image) if readable else []
        # Uneven light or a table around a code goes, and the result is unlike the image: but if it scans, it is right.
        after = codes(result) if readable and (scan_too or before or not fidelity.suits) else []
    except MemoryError:
        raise UserError(f"{source} needs more memory than there is, for {size[0]}x{size[1]} pixels.") from None
    if scan_too:
        texts = [", ".join(map(printable, found)) or "nothing" for found in (before, after)]
        with taken_by(sys.stdout):
            line = f"{prefix}before: {texts[0]}; after: {texts[1]}"
            print(line, file=sys.stderr if target == STREAM else sys.stdout)
    warnings = []
    shown = printed_name(source)
    if lost := Counter(before) - Counter(after):
        say(f"{shown}: scanned before, not after: {', '.join(map(printable, lost))}. Read the input instead.")
        warnings.append(LOST)
    if not fidelity.suits and not after:
        say(
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
