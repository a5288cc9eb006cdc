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
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from tinysrgan.core.cli import (
    STREAM,
    check_target,
    command,
    command_line,
    identities,
    printable,
    progress,
    real,
    say,
    sentence,
    taken_by,
)
from tinysrgan.core.cli import write as write_file
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.images import file_format
from tinysrgan.data.listing import find_images
from tinysrgan.inference.image_files import check_input, read, write
from tinysrgan.inference.image_modes import eight_bits, lay_on_white
from tinysrgan.inference.rescuing.findings import Result
from tinysrgan.inference.rescuing.search import search
from tinysrgan.inference.upscaler import Upscaler, load
from tinysrgan.metrics import qr_reader
from tinysrgan.ops.device import DEVICES
from tinysrgan.upscale import folder_jobs

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
    return command(
        lambda: run(parser().parse_args(command_line(arguments))), stopped="stopped. What was written so far is whole."
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
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="generator.h5 of a training run (default: qr_x4_camera.h5)",
    )
    add("--seconds", type=real(0), default=SECONDS, metavar="S", help="stop a picture's search then (%(default)g)")
    add("--json", type=Path, metavar="FILE", help="write what was found for programs; - is standard output")
    add("--device", choices=DEVICES, default="auto", help="where to compute (default: a GPU if one works)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks for. Raises UserError or OSError where it can't be done at all."""
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    if STREAM == args.output == args.json:
        raise UserError("OUT and --json can't both go to standard output: give one of them a file.")
    folder = args.input != STREAM and args.input.is_dir()
    jobs: list[tuple[Path, Path | None]]
    if not folder:
        jobs = [(args.input, args.output)]
    elif args.output is None:
        jobs = [(path, None) for path in find_images(args.input, tell=say)]
    else:
        jobs = list(folder_jobs(args.input, args.output))
    inputs = identities([*(source for source, _ in jobs), args.weights])
    if not folder:
        check(args.input, args.output, inputs)
    if args.json and args.json != STREAM:
        check_target(args.json, inputs, example="found.json")
    upscaler = load(args.weights, args.device)

    def rescue_one(job: tuple[Path, Path | None]) -> dict[str, Any]:
        source, target = job
        texts = sys.stderr if STREAM in (args.output, args.json) else sys.stdout
        try:
            if folder and target:
                target.parent.mkdir(parents=True, exist_ok=True)
                check_target(target, inputs)
            return rescue_file(upscaler, source, target, args.seconds, texts)
        except (UserError, OSError) as error:
            if not folder:
                raise
            say(sentence(error))
            return {"file": str(source), "error": sentence(error), "codes": []}
        finally:
            done(ranks().size)

    with progress(len(jobs), "file", hidden=not folder) as done:
        report = list(ranks().map(rescue_one, jobs))
    empty = sum(not found["codes"] for found in report)
    if args.json and ranks().rank == 0:
        content = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        if args.json == STREAM:
            with taken_by(sys.stdout):
                print(content, end="")
        else:
            write_file(args.json, content.encode())
    if folder:
        say(f"{len(jobs) - empty} of {len(jobs)} pictures gave a code.")
    return 1 if empty else 0


def check(source: Path, target: Path | None, inputs: Collection[tuple[int, int]]) -> None:
    """Raise UserError for what is known to be wrong with an input and an output before either is opened."""
    if source != STREAM:
        check_input(source)
    elif sys.stdin is None:
        raise UserError("IN is -, but standard input is closed.")
    if target == STREAM and sys.stdout is not None and sys.stdout.isatty():
        raise UserError("OUT is -, but standard output is a terminal: send it to a file or a pipe.")
    if target is not None and target != STREAM:
        check_target(target, inputs, example="codes.png")
        file_format(target)


def rescue_file(upscaler: Upscaler, source: Path, target: Path | None, seconds: float, texts: Any) -> dict[str, Any]:
    """Rescue one file's codes: print them, write their picture where there is any, return what ``--json`` tells."""
    begin = time.monotonic()
    image, _ = read(source)
    with progress(100, "%") as done:
        result = rescue(image, upscaler, seconds, done)
    with taken_by(texts):
        for code in result.codes:
            print(f"{source}: {printable(code.text)} ({code.how})", file=texts)
    for several in result.disputed:
        say(f"{source}: tries disagree about a code, so none counts: {', '.join(map(printable, several))}.")
    if not result.complete:
        say(f"{source}: the search was stopped after {seconds:g} seconds; --seconds gives it more.")
    if not result.codes:
        say(f"{source}: no code could be read.")
    elif target is not None:
        assert result.picture is not None
        write(result.picture, target, "PNG" if target == STREAM else file_format(target), {})
    return {
        "file": str(source),
        "codes": [{"text": c.text, "corners": c.corners.round(1).tolist(), "how": c.how} for c in result.codes],
        "disputed": [list(several) for several in result.disputed],
        "complete": result.complete,
        "seconds": round(time.monotonic() - begin, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
