"""Image files and pixels: whatever Pillow opens becomes RGB; pixels go to [-1, 1] for the nets and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tinysrgan.core.errors import UserError
from tinysrgan.core.quiet import quiet_decoders

# Pillow's name of each format that is read and written, and the endings of its files. Named one by one, since Pillow
# also opens files that are no pictures, and starts other programs for some of them. An MPO is a JPEG with more behind.
_ENDINGS = {
    "PNG": ".png .apng",
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "BMP": ".bmp",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heif .hif",
}
_ADVICE = {
    "AVIF": "AVIF needs Pillow 11.3 or newer: run `pip install --upgrade pillow`, or convert them to PNG",
    "HEIF": "HEIC is read after `pip install pillow-heif`, or convert them to JPEG or PNG",
}
_absent = {"HEIF"}
with suppress(ImportError):
    import_module("pillow_heif").register_heif_opener()
    _absent.remove("HEIF")
if find_spec("PIL._avif") is None:
    _absent.add("AVIF")

FORMATS = tuple(name for name in _ENDINGS if name not in _absent)
ENDINGS = {ending: name for name in FORMATS for ending in _ENDINGS[name].split()}  # and the formats that they stand for

LARGEST = 64_000_000  # pixels; a file can claim to be far larger than memory
SMALLEST = 16  # pixels on the shorter side; there is nothing to learn from less

# Of a damaged file Pillow also warns, before it is refused or read after all; DataError says enough.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DataError(UserError):
    """An image, or a folder of them, can't be used."""


def advice(endings: Iterable[str]) -> str:
    """What to do about files with these endings, where a package is missing that reads them; empty if none is."""
    found = set(endings)
    return "; ".join(_ADVICE[name] for name in sorted(_absent) if found & set(_ENDINGS[name].split()))


def file_format(target: Path) -> str:
    """Pillow's name of the format that the name of a file ends in. Raises UserError where none is written so."""
    if (ending := target.suffix.lower()) not in ENDINGS:
        raise UserError(f"{target} doesn't end in a format that can be written: {', '.join(sorted(ENDINGS))}.")
    return ENDINGS[ending]


def read_image(path: Path) -> Image.Image:
    """Read an image file as RGB. Raises DataError, which names the file and the reason.

    Transparent pixels are laid on white, 16 bits become 8, EXIF's rotation is done, of an animation the first frame
    is taken.
    """
    return decode(path).convert("RGB")


def decode(path: Path) -> Image.Image:
    """As ``read_image``, but a grey image stays grey (mode "L"): a quarter of the memory, and of the work on it."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise DataError(f"{path}: is not a file")
        with quiet_decoders(), Image.open(str(path), formats=FORMATS) as file:
            width, height = file.size
            if width * height > LARGEST:
                raise DataError(f"{path}: {width}x{height} pixels are too many, the limit is {LARGEST:,}")
            if min(width, height) < SMALLEST:
                raise DataError(f"{path}: {width}x{height} pixels are too few, {SMALLEST} on a side is the least")
            return _eight_bits(ImageOps.exif_transpose(file), path)
    except DataError:
        raise
    except UnidentifiedImageError:
        known = f"{path}: is not an image, or of a kind that isn't read ({', '.join(FORMATS)} are)"
        raise DataError("; ".join(filter(None, [known, advice([path.suffix.lower()])]))) from None
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{path}: can't be read as an image ({reason})") from error


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise DataError(f"{path}: its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip instead of scaling
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise DataError(f"{path}: its pixels have more than 16 bits; save it with 8 or 16")
        return Image.fromarray((pixels / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    red, green, blue = image.split()
    return red if red == green == blue else image


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels, 0..255, as float32 in [-1, 1], the range inside the nets."""
    return pixels.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as uint8, 0..255: rounded, and clipped where a net went beyond."""
    return np.clip(np.rint(pixels * 127.5 + 127.5), 0, 255).astype(np.uint8)


def area_average(image: Image.Image, size: int) -> np.ndarray:
    """Shrink an "L" or "RGB" image to uint8 (size, size) or (size, size, 3): means of the areas that become a pixel.

    Exact, with the parts of pixels that belong to an area, as OpenCV's INTER_AREA. Pillow's BOX counts a pixel either
    wholly or not at all, which in a QR code puts grey levels off by up to 20.
    """
    rows = _means(np.asarray(image), size)
    return np.rint(_means(rows.swapaxes(0, 1), size).swapaxes(0, 1)).astype(np.uint8)


def _means(pixels: np.ndarray, size: int) -> np.ndarray:
    """Means over ``size`` equal stretches of the first axis."""
    edges = np.linspace(0, len(pixels), size + 1)[:-1]
    first = edges.astype(int)
    sums = np.add.reduceat(pixels, first, axis=0, dtype=np.float32)
    sums[:-1][first[:-1] == first[1:]] = 0  # where reduceat gives the pixel itself: a stretch ends where it began
    part = (pixels[first[1:]].T * (edges - first)[1:]).T  # of a pixel at an edge, what belongs to the stretch before
    sums[:-1] += part
    sums[1:] -= part
    return sums * (size / len(pixels))


def bicubic(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge uint8 (H, W, 3) by Pillow's bicubic interpolation: the baseline beside every result."""
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
