"""Upscale images from the command line: ``python -m tinysrgan.upscale blurry.png clear.png``."""

from __future__ import annotations

import argparse
import io
import os
import stat
import struct
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tinysrgan.core.cli import (
    EXACT_HELP,
    KERAS_HELP,
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
from tinysrgan.core.cli import write as save
from tinysrgan.core.errors import UserError
from tinysrgan.core.quiet import quiet_decoders
from tinysrgan.data.images import LARGEST, advice, file_format
from tinysrgan.data.listing import find_images
from tinysrgan.formats.image_metadata import carried, save_options
from tinysrgan.inference.upscaler import Upscaler, eight_bits, lay_on_white, load
from tinysrgan.metrics import qr_reader
from tinysrgan.ops import exact
from tinysrgan.ops.device import DEVICES

LARGEST_FILE = 1_000_000_000  # bytes from standard input, which might never end

# Kinds of file that Pillow opens by starting another program, or only if somebody adds a reader.
NOT_READ = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}

# What is written, with the longest side that the format takes and the options that keep it from blurring the result.
WRITTEN: dict[str, tuple[int, dict[str, object]]] = {
    "PNG": (2**31 - 1, {"compress_level": 4}),  # Pillow's 6 takes three times as long, for nothing here
    "TIFF": (2**31 - 1, {}),
    "BMP": (2**31 - 1, {}),
    "PPM": (2**31 - 1, {}),
    "JPEG2000": (2**31 - 1, {}),
    "GIF": (65535, {}),
    "JPEG": (65500, {"quality": 95}),
    "WEBP": (16383, {"lossless": True}),
    "AVIF": (32768, {"quality": 95, "subsampling": "4:4:4"}),
    "HEIF": (16384, {"quality": 95, "chroma": 444}),
}
OPAQUE = {"JPEG", "PPM", "BMP"}  # formats that drop or refuse transparency

# What a summary calls the results that a warning is about.
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
        description="Upscale an image, or all images of a folder and those below it. IN is never changed; OUT is "
        "written whole or not at all, in the format that its name ends in, with 8 bits a channel. The shipped weights "
        "are for QR codes; photographs need others. A warning tells of unlike results and lost codes.",
        epilog="Examples: python -m tinysrgan.upscale blurry.png clear.png --scan; python -m tinysrgan.upscale "
        "codes larger; cat a.png | python -m tinysrgan.upscale - - > b.png. Exit code: 0 done, 1 some files of a "
        "folder failed or, with --scan, lost a code (each is named), 2 nothing done, 130 stopped by Ctrl-C.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="image file, folder, or - for standard input")
    add("output", type=Path, metavar="OUT", help="the same kind of thing; - writes PNG to standard output")
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help=f"generator.h5 of a training run (default: the shipped one), or {KERAS_HELP}",
    )
    add("--value-range", metavar="IN:OUT", help=VALUE_RANGE_HELP)
    add("--exact", action="store_true", help=EXACT_HELP)
    add("--device", choices=DEVICES, default="auto", help="where to compute (default: a GPU if one works)")
    add("--scan", action="store_true", help="print the text of the QR codes found before and after")
    return parser


def run(words: argparse.Namespace) -> int:
    """Do what the command line asks for. Raises UserError or OSError where it can't be done at all."""
    if words.scan and not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    folder = words.input != STREAM and words.input.is_dir()
    jobs = folder_jobs(words.input, words.output) if folder else [(words.input, words.output)]
    inputs = identities([*(source for source, _ in jobs), words.weights])
    if not folder:
        check_file(words.input, words.output, inputs)
    upscaler = load(words.weights, words.device, words.value_range)

    failed, warned = 0, Counter[str]()
    with exact(words.exact), progress(len(jobs), "file", hidden=not folder) as done:
        for source, target in jobs:
            try:
                if folder:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    check_target(target, inputs)
                warned.update(upscale_file(upscaler, source, target, words.scan, f"{source}: " if folder else ""))
            except (UserError, OSError) as error:
                if not folder:
                    raise
                say(sentence(error))
                failed += 1
            done(1)
    if folder:
        told = f" Warnings: {', '.join(f'{count} {what}' for what, count in warned.items())}." if warned else ""
        share = f"{len(jobs) - failed} of {len(jobs)} files are upscaled"
        say(f"{share}, {upscaler.where}; they are in {words.output}.{told}")
    return 1 if failed or (words.scan and warned[LOST]) else 0


# ---------------------------------------------------------------- what goes where


def check_file(source: Path, target: Path, inputs: Collection[tuple[int, int]]) -> None:
    """Raise UserError for all that is known to be wrong with one input and output before either is opened."""
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


def check_input(source: Path) -> None:
    """Raise UserError where there is no file; to open a pipe by its name might wait for ever."""
    if not source.is_file():
        raise UserError(f"{source} is not a file; - reads a pipe." if source.exists() else f"There is no {source}.")


def folder_jobs(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    """The images in a folder and where their results go: by the same names below ``out``, which is made.

    Raises UserError where there are none, or ``out`` won't do.
    """
    if out == STREAM:
        raise UserError("A folder can't go to standard output: give a folder as OUT.")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file and IN a folder: give a folder as OUT.")
    if out.exists() and out.samefile(folder):
        raise UserError(f"{out} is IN itself, and inputs are never overwritten: give another folder as OUT.")
    left_out: list[str] = []
    sources = find_images(folder, tell=left_out.append)
    if (results := out.resolve()).is_relative_to(folder.resolve()):  # what an earlier run left there is no input
        sources = [path for path in sources if not path.resolve().is_relative_to(results)]
    if not sources:
        raise UserError(f"{folder} holds no images but those in {out}.")
    out.mkdir(parents=True, exist_ok=True)
    for line in left_out:
        say(line)
    return [(path, out / path.relative_to(folder)) for path in sources]


# ---------------------------------------------------------------- one file


def upscale_file(upscaler: Upscaler, source: Path, target: Path, scan_too: bool, prefix: str) -> list[str]:
    """Read, upscale and write one image; with ``scan_too`` print a line on its QR codes, which starts with ``prefix``.

    Warns of a result that is unlike the image and, where there is a reader, of codes that scan before and not after;
    returns LOST and OTHER for these. Raises UserError or OSError; ``target`` is then as it was.
    """
    image, about = read(source)
    size = (upscaler.scale * image.width, upscaler.scale * image.height)
    name = "PNG" if target == STREAM else file_format(target)
    if max(size) > WRITTEN[name][0]:
        raise UserError(f"{target} would have {size[0]}x{size[1]} pixels, too many for {name}: let it end in .png.")
    if "A" in image.mode and name in OPAQUE:
        raise UserError(f"{source} has transparent parts, which {name} can't keep: let OUT end in .png.")
    try:
        with progress(image.width * image.height, "pixel", scaled=True) as done:
            result, fidelity = upscaler.upscale(image, done)
        write(result, target, name, about)
        readable = qr_reader.available()
        before = codes(image) if readable else []
        # Uneven light or a table around a code goes, and the result is unlike the image: but if it scans, it is right.
        after = codes(result) if readable and (scan_too or before or not fidelity.suits) else []
        if scan_too:
            texts = [", ".join(map(printable, found)) or "nothing" for found in (before, after)]
            with taken_by(sys.stdout):
                print(
                    f"{prefix}before: {texts[0]}; after: {texts[1]}",
                    file=sys.stderr if target == STREAM else sys.stdout,
                )
    except MemoryError:
        raise UserError(f"{source} needs more memory than there is, for {size[0]}x{size[1]} pixels.") from None
    warnings = []
    if lost := Counter(before) - Counter(after):
        say(f"{spoken(source)}: scanned before, not after: {', '.join(map(printable, lost))}. Read the input instead.")
        warnings.append(LOST)
    if not fidelity.suits and not after:
        say(
            f"{spoken(source)}: the result is unlike the input: shrunk back, it is another picture. Give --weights "
            "trained on such images; those shipped are for QR codes."
        )
        warnings.append(OTHER)
    return warnings


def spoken(source: Path) -> str:
    return "standard input" if source == STREAM else str(source)


def read(source: Path) -> tuple[Image.Image, dict[str, Any]]:
    """An image in mode L, LA, RGB or RGBA, and what ``image_metadata.carried`` finds with it. Raises UserError.

    There is a notice where the file holds more than that.
    """
    name = spoken(source)
    Image.init()
    formats = [kind for kind in Image.ID if kind not in NOT_READ]
    if source != STREAM:
        check_input(source)
    try:
        with quiet_decoders(), Image.open(stdin() if source == STREAM else source, formats=formats) as file:
            if file.width * file.height > LARGEST:
                raise UserError(f"{file.width}x{file.height} pixels are too many, the limit is {LARGEST:,}.")
            frames = getattr(file, "n_frames", 1)
            deep = ";16" in str(file.tile) or file.mode.startswith("I")
            turned = file.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            image = eight_bits(file)
            about = carried(file, turned)
    except UnidentifiedImageError:
        unknown = f"{name} is not an image, or of a kind that Pillow can't read"
        raise UserError(f"{'; '.join(filter(None, [unknown, advice([source.suffix.lower()])]))}.") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{name} can't be read as an image: {reason.rstrip('.')}.") from error
    if frames > 1:
        say(f"{name} holds {frames} images, as animations do: only the first is upscaled.")
    if deep:
        say(f"{name} has 16 bits a channel: the result has 8.")
    if about.get("exif", b"") is None:
        say(f"{name} has damaged EXIF: it is left out.")
        del about["exif"]
    return image, about


def stdin() -> BinaryIO:
    content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise UserError(f"there is no end to it after {LARGEST_FILE:,} bytes.")
    return io.BytesIO(content)


def write(image: Image.Image, target: Path, name: str, about: dict[str, Any]) -> None:
    """Write an image in the format ``name``, whole or not at all, with what ``read`` found beside it. Raises UserError.

    There is a notice of what the format can't keep.
    """
    if name == "GIF" and image.mode != "L":
        say(f"{target}: GIF keeps no more than 256 colours, and no half-transparent ones; PNG keeps all.")
    content = io.BytesIO()
    try:
        options, lost = save_options(about, name, image.mode)
        image.save(content, name, **WRITTEN[name][1], **options)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{target} can't be written as {name}: {error}.") from error
    if lost:
        say(f"{target} doesn't have the input's {', '.join(lost)}.")
    if target == STREAM:
        with taken_by(sys.stdout):
            sys.stdout.buffer.write(content.getbuffer())
        return
    save(target, content.getbuffer())


def codes(image: Image.Image) -> list[str]:
    """The text of every QR code in an image of mode L, LA, RGB or RGBA, on white paper."""
    return qr_reader.read_codes(np.asarray(lay_on_white(image).convert("L")))


if __name__ == "__main__":
    sys.exit(main())
