"""Read and write image files with their metadata. ``-`` stands for standard input and output."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from tinysrgan.core.cli import STREAM, printable, say, taken_by
from tinysrgan.core.cli import write as write_file
from tinysrgan.core.errors import UserError
from tinysrgan.core.quiet import quiet_decoders
from tinysrgan.data.image_modes import eight_bits
from tinysrgan.data.images import LARGEST, advice, file_format
from tinysrgan.formats.image_metadata import carried, save_options

LARGEST_FILE = 1_000_000_000  # bytes from standard input, which may be endless

# Formats for which Pillow starts another program, or needs a reader that someone registers.
NOT_READ = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}

# Formats for output: the longest side of each, and the options that avoid blurring.
WRITTEN: dict[str, tuple[int, dict[str, object]]] = {
    "PNG": (2**31 - 1, {"compress_level": 4}),  # 6, the default, takes three times as long for the same size
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


def printed_name(source: Path) -> str:
    """The name of an input in messages, on one line."""
    return "standard input" if source == STREAM else printable(str(source))


def check_input(source: Path) -> None:
    """Raise UserError if there is no regular file; opening a named pipe could block for ever."""
    if not source.is_file():
        raise UserError(f"{source} is not a file; - reads a pipe." if source.exists() else f"There is no {source}.")


def read(source: Path) -> tuple[Image.Image, dict[str, Any]]:
    """Read an image in mode L, LA, RGB or RGBA, and its metadata as from ``image_metadata.carried``.

    Prints what is dropped: further frames, 16 bits, damaged EXIF. Raises UserError.
    """
    name = printed_name(source)
    Image.init()
    formats = [kind for kind in Image.ID if kind not in NOT_READ]
    if source != STREAM:
        check_input(source)
    try:
        with quiet_decoders(), Image.open(_standard_input() if source == STREAM else source, formats=formats) as file:
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
    except Exception as error:  # Pillow's decoders raise almost any error for a damaged file
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


def _standard_input() -> BinaryIO:
    content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise UserError(f"there is no end to it after {LARGEST_FILE:,} bytes.")
    return io.BytesIO(content)


def result_format(source: Path, target: Path, size: tuple[int, int], mode: str) -> str:
    """Pillow's name of the format of ``target``. Raises UserError if it can't hold ``source`` enlarged to ``size``."""
    name = "PNG" if target == STREAM else file_format(target)
    if max(size) > WRITTEN[name][0]:
        raise UserError(f"{target} would have {size[0]}x{size[1]} pixels, too many for {name}: let it end in .png.")
    if "A" in mode and name in OPAQUE:
        raise UserError(f"{source} has transparent parts, which {name} can't keep: let OUT end in .png.")
    return name


def write(image: Image.Image, target: Path, name: str, about: dict[str, Any]) -> None:
    """Write an image in the format ``name`` atomically, with the metadata that ``read`` returned.

    Prints which metadata and colours the format cannot store. Raises UserError.
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
    write_file(target, content.getbuffer())
