"""Save a picture's QR code that no reader can read, if that can be done:

    python examples/rescue.py picture.jpg rescued.png

Where enlarging alone doesn't help, the generator does. It knows codes of about one pixel a module, upright to within 40
degrees, dark on white. So the picture is offered to it in several ways: what the reader locates but can't read,
straightened; then the whole picture in several sizes and quarter turns. The first that scans afterwards is saved.
Needs zxing-cpp (pip install "tinysrgan[train]").

Exit code: 0 rescued, or nothing to rescue, since it scans as it is; 1 not rescued, and nothing is saved; 2 a mistake.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import tinysrgan
from tinysrgan.core.cli import check_target, command, command_line, identities, printable, progress, write
from tinysrgan.core.errors import UserError
from tinysrgan.data.images import decode, file_format
from tinysrgan.data.qr_codes import QUIET, VERSIONS
from tinysrgan.inference.upscaler import Upscaler
from tinysrgan.metrics import qr_reader
from tinysrgan.metrics.figures import encode

SIDE = 32  # pixels of a straightened code, as in training
FACTOR = 4
SIZES = (1, 0.8, 0.65, 0.5, 1.25)
QUARTERS = (0, 90, 180, 270)
LARGEST = 1_000_000  # pixels of a picture that are offered whole


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rescue.py", description="Save a QR code that no reader can read.")
    parser.add_argument("picture", type=Path, help="a photo, screenshot or crop with a QR code in it")
    parser.add_argument("rescued", type=Path, help="where to save what could be read")
    parser.add_argument("--weights", type=Path, help="another generator than the one that ships")
    words = parser.parse_args(command_line(arguments))
    check_target(words.rescued, identities([words.picture, words.weights]))
    file_format(words.rescued)
    picture = decode(words.picture).convert("L")
    if not qr_reader.available():
        raise UserError(qr_reader.MISSING)
    if texts := qr_reader.read_codes(np.asarray(picture)):
        print(f"{words.picture} scans as it is: {'; '.join(map(printable, texts))}")
        return 0
    found = rescue(picture, tinysrgan.load(words.weights))
    if found is None:
        print(f"{words.picture}: no code could be rescued.", file=sys.stderr)
        return 1
    clear, text, how = found
    write(words.rescued, encode(clear, words.rescued))
    print(f"{words.rescued} ({how}): {printable(text)}")
    return 0


def rescue(picture: Image.Image, upscaler: Upscaler) -> tuple[Image.Image, str, str] | None:
    """The upscaled picture that scans, the code's text, and in words what was upscaled; None where none does."""
    large = enlarged(picture)
    if texts := qr_reader.read_codes(np.asarray(large)):
        return large, texts[0], "enlarged by Lanczos, without the generator"
    tries = [*located(large), *whole(picture)]
    with progress(len(tries), "tries") as count:
        for how, candidate in tries:
            clear = upscaler(candidate)
            if texts := qr_reader.read_codes(np.asarray(clear)):
                return clear, texts[0], how
            count(1)
    return None


def enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((FACTOR * picture.width, FACTOR * picture.height), Image.Resampling.LANCZOS)


def located(large: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """What the reader takes for a code in the enlarged picture but can't read, straightened, as if of each version."""
    import zxingcpp

    for code in zxingcpp.read_barcodes(np.asarray(large), formats=zxingcpp.BarcodeFormat.QRCode, return_errors=True):
        place = code.position
        corners = np.array(
            [(p.x, p.y) for p in (place.top_left, place.bottom_left, place.bottom_right, place.top_right)]
        )
        for version in VERSIONS:
            across = 17 + 4 * version
            quad = corners + (corners - corners.mean(axis=0)) * 2 * QUIET / across
            straight = large.transform(
                (FACTOR * SIDE, FACTOR * SIDE), Image.Transform.QUAD, quad.ravel().tolist(), Image.Resampling.BICUBIC
            )
            yield f"located and straightened as version {version}", prepared(straight.reduce(FACTOR))


def whole(picture: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The picture as it is; then prepared, in all sizes and quarter turns, the likely ones first."""
    if picture.width * picture.height <= LARGEST:
        yield "the picture as it is", picture
    for quarter, size in itertools.product(QUARTERS, SIZES):
        width, height = round(size * picture.width), round(size * picture.height)
        if width >= 16 and height >= 16 and width * height <= LARGEST:
            resized = picture if size == 1 else picture.resize((width, height), Image.Resampling.BOX)
            yield (
                f"the whole picture, size {size:g}, turned by {quarter} degrees",
                prepared(resized.rotate(quarter, expand=True)),
            )


def prepared(picture: Image.Image) -> Image.Image:
    """From black to white, with a quiet zone, as the generator knows codes."""
    return ImageOps.expand(ImageOps.autocontrast(picture, cutoff=1), QUIET, fill=255)


if __name__ == "__main__":
    sys.exit(command(main))
