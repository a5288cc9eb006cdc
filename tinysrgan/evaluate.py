"""Judge generators on a folder of images: ``python -m tinysrgan.evaluate data/qr --weights runs/1/generator.h5``."""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from tinysrgan.core import cli
from tinysrgan.core.errors import UserError
from tinysrgan.core.paths import WEIGHTS
from tinysrgan.core.ranks import ranks
from tinysrgan.data.dataset import ImagePairs, JudgedPairs
from tinysrgan.data.division import Division, name_below, split
from tinysrgan.data.listing import find_images, some
from tinysrgan.data.photographs import WholePhotographs, ready_versions
from tinysrgan.formats.checkpoint import CheckpointError, read_state
from tinysrgan.inference.upscaler import SHIPPED, load
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.evaluation import Evaluation, baselines
from tinysrgan.metrics.figures import encode
from tinysrgan.metrics.folder_kind import folder_kind
from tinysrgan.metrics.psnr_ssim import WINDOW
from tinysrgan.ops import exact

PROTOCOLS = ("paper", "squares")
LARGEST_SIDE = 2048  # pixels of the large images; comparing two of them takes about a gigabyte


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 when done, 2 for a user error, 130 after Ctrl-C."""
    return cli.command(
        lambda: run(parser().parse_args(cli.command_line(arguments))),
        no_memory="There is too little memory for this; try a smaller --hr-size.",
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.evaluate",
        description="Judge a generator on a folder of images, beside nearest, bicubic and Lanczos. Protocol paper, for "
        "photographs: at their own size, shrunk by bicubic interpolation; PSNR and SSIM of luminance Y without a "
        "border as wide as the scale. Protocol squares, for codes: resized to a square, shrunk by area averaging; "
        "scores of RGB and of Y. Both: whether a QR code still scans.",
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
        help="generator.h5 of a training run, or Keras' (default: the shipped one); again for another beside it",
    )
    add("--value-range", metavar="IN:OUT", help=cli.VALUE_RANGE_HELP)
    add("--held-out", action="store_true", help="only images that the generator's training held out")
    add(
        "--max-images",
        "--limit",
        dest="limit",
        type=cli.whole(1),
        metavar="N",
        help="use only so many of the images, as training does",
    )
    add("--protocol", choices=PROTOCOLS, help="default: paper where the images are photographs")
    add("--lr", type=Path, metavar="DIR", help="ready LR images, such as babyx4.png for baby.png")
    add(
        "--hr-size",
        type=cli.whole(1),
        metavar="N",
        help="side of the squares, in pixels; smaller images are enlarged (default: as in training)",
    )
    add("--json", type=Path, metavar="FILE", help="write the numbers for programs; - is standard output")
    add("--picture", type=Path, metavar="FILE", help="write the figure LR | SR | original; green frames scan")
    add("--orientations", type=int, choices=(1, 8), help=cli.ORIENTATIONS_HELP)
    add("--exact", action="store_true", help=cli.EXACT_HELP)
    add("--device", **cli.DEVICE)
    return parser


def run(args: argparse.Namespace) -> int:
    """Judge, print and write what the command line asks for. Raises UserError or OSError."""
    weights = args.weights or [WEIGHTS / SHIPPED]
    paths = find_images(args.data, tell=cli.say)
    check_outputs(args, [*paths, *weights])
    paths = held_out(paths, args, weights) if args.held_out else some(paths, args.limit)
    upscalers = [load(path, args.device, args.value_range, args.orientations) for path in args.weights or [None]]
    scale = upscalers[0].scale
    if any(upscaler.scale != scale for upscaler in upscalers):
        scales = ", ".join(f"{path} x{upscaler.scale}" for path, upscaler in zip(weights, upscalers, strict=True))
        raise UserError(f"Only generators of one scale can be compared: {scales}.")
    pairs = judged_pairs(args, paths, weights[0], scale)
    if not qr_reader.available():
        cli.say(f"{qr_reader.MISSING} Until then scan rates are not measured.")
    names = ["SR"] if len(weights) == 1 else [f"SR {i + 1}" for i in range(len(weights))]
    evaluation = Evaluation({**baselines(scale), **dict(zip(names, upscalers, strict=True))}, scale, pairs.papers)
    with exact(args.exact), cli.progress(len(pairs), "image") as done:
        evaluation.run(pairs, done)
    for reason in pairs.skipped.values():
        cli.say(f"skipped {reason}")

    files = dict(zip(names, map(str, weights), strict=True))
    report = {
        "data": str(args.data),
        "held_out": args.held_out,
        "skipped": {str(path): reason for path, reason in pairs.skipped.items()},
        "protocol": PROTOCOLS[not pairs.papers],
        "lr_size": getattr(pairs, "lr_size", None),
        "hr_size": getattr(pairs, "hr_size", None),
        "weights": files,
        "device": upscalers[0].where,
        "qr_reader": qr_reader.available(),
        **evaluation.report(),
    }
    which = f"{evaluation.count} images of {args.data}{', held out' * args.held_out}"
    heading = [f"{which}, {pairs.sizes}, {upscalers[0].where}", *(f"{name}: {file}" for name, file in files.items())]
    if ranks().rank == 0:
        deliver(args, "\n".join([*heading, evaluation.table()]), report, evaluation.figure.draw)
    return 0


def judged_pairs(args: argparse.Namespace, paths: list[Path], weights: Path, scale: int) -> JudgedPairs:
    """The images in the protocol that is asked for, or in the one that suits them. Raises UserError."""
    if (args.lr or args.protocol == "paper") and (args.hr_size or args.protocol == "squares"):
        raise UserError("--lr and --protocol paper judge images at their own size: leave out --hr-size and squares.")
    asked = args.protocol or ("paper" if args.lr else "squares" if args.hr_size else None)
    if asked is None and folder_kind(paths, large_side(None, weights, scale)) == "photographs":
        asked = "paper"
    if asked == "paper":
        ready = ready_versions(paths, args.lr, scale) if args.lr else None
        return WholePhotographs([*ready] if ready else paths, scale, ready=ready)
    return ImagePairs(paths, large_side(args.hr_size, weights, scale), scale)


def held_out(paths: list[Path], args: argparse.Namespace, weights: Sequence[Path]) -> list[Path]:
    """The images that the training of all generators held out, ``--limit`` of them.

    A file without lists (an old one, or one from elsewhere) gets the division that an old run on ``--limit`` images of
    this folder had. Raises UserError if no image is left.
    """
    known: dict[Path, set[str]] = {}
    for path in weights:
        with suppress(CheckpointError):  # not written by tinysrgan; or unreadable, which is reported when it is loaded
            if division := Division.read(path):
                known[path] = {*division.held_out}
    if unknown := [path for path in weights if path not in known]:
        start = some(paths, args.limit)
        paths = split(start, labels=range(len(start)))[1]
        cli.say(
            f"{', '.join(map(str, unknown))} doesn't list what its training held out: judged is what a run on "
            f"{args.data} would have held out before there were such lists."
        )
    for path, names in known.items():
        found = {name: image for image in paths if (name := name_below(args.data, image)) in names}
        if len(found) < len(names) and not unknown:
            cli.say(
                f"{len(names) - len(found)} of the {len(names)} images that {path} held out are not in {args.data}."
            )
        paths = [*found.values()]
        if not paths:
            raise UserError(
                f"None of the images that {path} held out is left to judge in {args.data}: give the folder that it "
                "was trained on, or leave out --held-out."
            )
    return paths if unknown else some(paths, args.limit)


def deliver(args: argparse.Namespace, table: str, report: dict[str, Any], picture: Callable[[], Image.Image]) -> None:
    """Print and write the results as the command line asks. Raises UserError."""
    text = json.dumps(report, indent=2, allow_nan=False)
    with ExitStack() as outputs:  # run in reverse order, each even if another one fails
        outputs.callback(show, table, sys.stderr if args.json == cli.STREAM else sys.stdout)
        if args.json == cli.STREAM:
            outputs.callback(show, text, sys.stdout)
        elif args.json:
            outputs.callback(cli.write, args.json, f"{text}\n".encode())
        if args.picture:
            outputs.callback(cli.write, args.picture, file_content(picture(), args.picture))


def large_side(asked: int | None, weights: Path, scale: int) -> int:
    """The side of the large images: ``asked``, else that in the generator's file, else 128. Raises UserError."""
    side: Any = asked
    if asked is None:
        try:
            state = read_state(weights)
        except CheckpointError:  # not written by tinysrgan
            state = {}
        options = state.get("options", state)  # a checkpoint of a run has its options inside
        side = options.get("hr_size", 128) if isinstance(options, dict) else 128
    least = -(-max(4 * scale, len(WINDOW) + 2 * scale) // scale) * scale
    if type(side) is not int or side % scale or not least <= side <= LARGEST_SIDE:
        source = "" if asked else f" as {weights} says"
        raise UserError(
            f"--hr-size must be a multiple of the generator's scale, {scale}, from {least} to {LARGEST_SIDE}, "
            f"not {side!r:.40}{source}."
        )
    return side


def check_outputs(args: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Raise UserError before the work starts if the outputs can't be written."""
    files = [path for path in (args.json, args.picture) if path and path != cli.STREAM]
    taken = cli.identities(inputs)
    for path in files:
        cli.check_target(path, taken)
        if folder := next((f for f in (args.data, args.lr) if f and path.resolve().is_relative_to(f.resolve())), None):
            raise UserError(f"{path} lies in {folder}, which stays as it is: put it elsewhere.")
    if len({path.resolve() for path in files}) < len(files):
        raise UserError(f"--json and --picture both go to {args.picture}: give two names.")
    if args.picture:
        file_content(Image.new("RGB", (16, 16)), args.picture)


def file_content(picture: Image.Image, path: Path) -> bytes:
    """The picture in the format of the path's ending. Raises UserError if that fails."""
    try:
        return encode(picture, path)
    except UserError:
        raise
    except (OSError, ValueError, struct.error) as error:  # Pillow's, if the format can't hold the picture
        raise UserError(f"{path} can't be written in that format ({error}): let it end in .png.") from error


def show(text: str, stream: TextIO) -> None:
    """Print to a standard stream. Raises UserError if it is closed."""
    with cli.taken_by(stream, "standard error" if stream is sys.stderr else "standard output"):
        print(text, file=stream)


if __name__ == "__main__":
    sys.exit(main())
